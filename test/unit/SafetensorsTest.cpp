//===- SafetensorsTest.cpp - Tests of the safetensors reader --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Safetensors.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include "gtest/gtest.h"

#include <bit>
#include <cstring>

using namespace kvrm;

namespace {

std::string fileOf(const std::string &header, const std::string &data) {
  uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

llvm::Expected<SafetensorsFile::Ptr> parse(const std::string &bytes) {
  return SafetensorsFile::parse(
      llvm::MemoryBuffer::getMemBufferCopy(bytes, "m.safetensors"));
}

/// The error that parsing ends with; empty if it succeeds.
std::string errorOf(const std::string &header, const std::string &data) {
  auto file = parse(fileOf(header, data));
  return file ? "" : llvm::toString(file.takeError());
}

template <typename T> std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

TEST(Safetensors, ReadsTensors) {
  std::string data = raw(1.5f) + raw(-2.0f) + raw(0.1) + raw<uint16_t>(0x3c00) +
                     raw<uint16_t>(0x3f80) + raw<int8_t>(-3);
  auto file = parse(
      fileOf(R"({"__metadata__":{"format":"pt"},)"
             R"("b":{"dtype":"F64","shape":[],"data_offsets":[8,16]},)"
             R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
             R"("h":{"dtype":"F16","shape":[1],"data_offsets":[16,18]},)"
             R"("w":{"dtype":"BF16","shape":[1],"data_offsets":[18,20]},)"
             R"("none":{"dtype":"I64","shape":[3,0],"data_offsets":[20,20]},)"
             R"("i":{"dtype":"I8","shape":[1,1,1],"data_offsets":[20,21]}}   )",
             data));
  ASSERT_TRUE(bool(file)) << llvm::toString(file.takeError());
  ASSERT_EQ((*file)->tensors().size(), 6u);
  EXPECT_EQ((*file)->tensors()[0].name, "a");
  EXPECT_EQ((*file)->tensors()[5].name, "i");
  EXPECT_EQ((*file)->tensor("c"), nullptr);

  const SafetensorsTensor &a = *(*file)->tensor("a");
  EXPECT_EQ(a.shape, (llvm::SmallVector<int64_t, 4>{2, 1}));
  EXPECT_EQ(a.elements(), 2);
  EXPECT_EQ((*file)->tensor("b")->elements(), 1);
  EXPECT_EQ((*file)->tensor("none")->elements(), 0);
  EXPECT_FALSE(isFloat((*file)->tensor("i")->type));

  auto valueOf = [&](const char *name, int64_t index) {
    const SafetensorsTensor &tensor = *(*file)->tensor(name);
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    convertToFloat(tensor.type, tensor.data, tensor.elements(), values.data());
    return values[static_cast<size_t>(index)];
  };
  EXPECT_EQ(valueOf("a", 1), -2.0f);
  EXPECT_EQ(valueOf("b", 0), 0.1f);
  EXPECT_EQ(valueOf("h", 0), 1.0f);
  EXPECT_EQ(valueOf("w", 0), 1.0f);
}

TEST(Safetensors, RefusesHeaders) {
  auto bytesError = [](const std::string &bytes) {
    auto file = parse(bytes);
    return file ? "" : llvm::toString(file.takeError());
  };
  EXPECT_EQ(bytesError("1234567"), "m.safetensors: has no safetensors header: "
                                   "8 bytes are needed, there are 7");
  EXPECT_EQ(bytesError(raw<uint64_t>(3) + "{}"),
            "m.safetensors: header length 3 is not in [0, 2]");
  EXPECT_EQ(errorOf("[]", ""), "m.safetensors: is not a JSON object");
  EXPECT_NE(errorOf("{\n", "").find("m.safetensors: is not valid JSON: "),
            std::string::npos);
  EXPECT_EQ(errorOf(std::string(1 << 20, '['), ""),
            "m.safetensors: JSON is nested deeper than 64");
  // Brackets in a name nest nothing.
  EXPECT_EQ(errorOf("{\"" + std::string(100, '[') +
                        R"(\"[":{"dtype":"U8","shape":[0],)"
                        R"("data_offsets":[0,0]}})",
                    ""),
            "");
}

TEST(Safetensors, RefusesTensors) {
  auto tensor = [](const char *type, const char *shape, const char *offsets) {
    return std::string(R"({"t":{"dtype":)") + type + R"(,"shape":)" + shape +
           R"(,"data_offsets":)" + offsets + "}}";
  };
  std::string eight(8, '\0');
  struct Case {
    const char *type, *shape, *offsets, *error;
  };
  for (const Case &c : std::initializer_list<Case>{
           {"1", "[2]", "[0,8]", "has no dtype"},
           {"\"F8_E4M3\"", "[8]", "[0,8]",
            ": dtype 'F8_E4M3' is not supported"},
           {"\"F32\"", "2", "[0,8]", ": shape is missing"},
           {"\"F32\"", "[-2]", "[0,8]", ": shape is not of sizes of 0 or more"},
           {"\"F32\"", "[1,1,1,1,1,1,1,1,2]", "[0,8]",
            ": shape has 9 sizes, more than the limit 8"},
           {"\"F32\"", "[4294967296,4294967296]", "[0,8]",
            ": shape is of more than 2^64 - 1 bytes"},
           {"\"F32\"", "[2]", "[0]", ": data_offsets are not two offsets"},
           {"\"F32\"", "[2]", "[-1,8]", ": data_offsets are not two offsets"},
           {"\"F32\"", "[2]", "[8,0]",
            ": bytes 8..0 are outside the data of 8"},
           {"\"F32\"", "[2]", "[0,9]",
            ": bytes 0..9 are outside the data of 8"},
           {"\"F32\"", "[2, 2]", "[0,8]", ": 8 bytes, but F32 [2, 2] makes 16"},
           {"\"F32\"", "[1]", "[4,8]",
            ": starts at 4 of the data, not at 0, where the one before it "
            "ends"},
       }) {
    std::string want = std::string("m.safetensors: tensor 't'") +
                       (c.error[0] == 'h' ? " " : "") + c.error;
    EXPECT_EQ(errorOf(tensor(c.type, c.shape, c.offsets), eight), want);
  }
  EXPECT_EQ(errorOf(tensor("\"F32\"", "[1]", "[0,4]"), eight),
            "m.safetensors: the last 4 of 8 bytes of data are of no tensor");
  // The second 't' hides the first.
  EXPECT_EQ(errorOf(R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                    R"("t":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                    eight),
            "m.safetensors: tensor 't': starts at 4 of the data, not at 0, "
            "where the one before it ends");
}

/// A folder that goes with the test.
class Shards : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_FALSE(
        llvm::sys::fs::createUniqueDirectory("kvrm-safetensors", folder));
  }
  void TearDown() override {
    EXPECT_FALSE(llvm::sys::fs::remove_directories(folder));
  }

  std::string write(const std::string &name, const std::string &bytes) {
    llvm::SmallString<128> path(folder);
    llvm::sys::path::append(path, name);
    std::error_code error;
    llvm::raw_fd_ostream(path, error) << bytes;
    EXPECT_FALSE(error);
    return path.str().str();
  }
  void writeByte(const std::string &name, const std::string &tensor) {
    write(name,
          fileOf("{\"" + tensor +
                     R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                 "x"));
  }
  /// What is wrong with an index, after the name of its folder.
  std::string errorOfIndex(const std::string &map) {
    auto set =
        SafetensorsSet::open(write("i.json", R"({"weight_map":)" + map + "}"));
    if (set)
      return "";
    std::string text = llvm::toString(set.takeError());
    EXPECT_EQ(text.find(folder.str().str()), 0u);
    return text.substr(folder.size() + 1);
  }

  llvm::SmallString<128> folder;
};

TEST_F(Shards, AreFound) {
  writeByte("1", "a");
  writeByte("2", "b");
  auto set = SafetensorsSet::open(
      write("i.json", R"({"weight_map":{"b":"2","a":"1"}})"));
  ASSERT_TRUE(bool(set)) << llvm::toString(set.takeError());
  EXPECT_EQ(set->files().size(), 2u);
  EXPECT_EQ(set->tensor("b").file, set->files()[1]);
  EXPECT_EQ(set->tensor("b").tensor->name, "b");
  EXPECT_EQ(set->tensor("c").file, nullptr);
}

TEST_F(Shards, AreRefused) {
  writeByte("1", "a");
  writeByte("2", "a");
  EXPECT_EQ(errorOfIndex("1"), "i.json: weight_map is not an object");
  EXPECT_EQ(errorOfIndex("{}"),
            "i.json: weight_map: 0 files are not in [1, 65535]");
  for (const char *outside : {"../1", "/etc/passwd", "..", "", "a/1"})
    EXPECT_EQ(errorOfIndex(std::string(R"({"a":")") + outside + "\"}"),
              "i.json: weight_map: tensor 'a' is in no file beside this one");
  EXPECT_EQ(errorOfIndex(R"({"a":"3"})"),
            "3: cannot open: No such file or directory");
  EXPECT_EQ(errorOfIndex(R"({"b":"1"})"),
            "i.json: weight_map: tensor 'b' is not in '1'");
  // The index names either once, but the second file has both.
  write("2", fileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                    R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                    "xy"));
  EXPECT_EQ(errorOfIndex(R"({"a":"1","b":"2"})"),
            "2: tensor 'a' is in another file, too");
}

} // namespace
