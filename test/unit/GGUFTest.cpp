//===- GGUFTest.cpp - Tests of the GGUF reader ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUFBuilder.h"

#include "gtest/gtest.h"

using namespace kvrm;
using namespace kvrm::test;

namespace {
using FilePtr = std::shared_ptr<const GGUFFile>;

llvm::Expected<FilePtr> parse(const std::string &bytes) {
  return GGUFFile::parse(llvm::MemoryBuffer::getMemBufferCopy(bytes, "m.gguf"));
}

/// The error that parsing ends with; empty if it succeeds.
std::string errorOf(const std::string &bytes) {
  llvm::Expected<FilePtr> file = parse(bytes);
  return file ? "" : llvm::toString(file.takeError());
}

/// A file with a pair of every type and two tensors.
GGUFBuilder sample() {
  GGUFBuilder b;
  b.add("u8", GGUFValueType::UInt8, b.raw<uint8_t>(200));
  b.add("i8", GGUFValueType::Int8, b.raw<int8_t>(-3));
  b.add("u16", GGUFValueType::UInt16, b.raw<uint16_t>(60000));
  b.add("i16", GGUFValueType::Int16, b.raw<int16_t>(-300));
  b.addInt("u32", 4000000000);
  b.add("i32", GGUFValueType::Int32, b.raw<int32_t>(-70000));
  b.add("u64", GGUFValueType::UInt64, b.raw<uint64_t>(1ull << 40));
  b.add("huge", GGUFValueType::UInt64, b.raw<uint64_t>(1ull << 63));
  b.add("i64", GGUFValueType::Int64, b.raw<int64_t>(-1));
  b.addFloat("f32", 1.5f);
  b.add("f64", GGUFValueType::Float64, b.raw(2.5));
  b.addBool("yes", true);
  b.addString("text", "héllo");
  b.addStrings("texts", {"a", "", "ccc"});
  b.addInts("ints", {1, -2, 3});
  b.addTensor("norm", {4}, [](uint64_t i) { return float(i); });
  b.addTensor("matrix", {3, 2}, [](uint64_t i) { return 10.0f + float(i); });
  return b;
}

TEST(GGUF, ReadsEveryType) {
  for (uint32_t version : {2u, 3u}) {
    GGUFBuilder b = sample();
    b.version = version;
    llvm::Expected<FilePtr> parsed = parse(b.build());
    ASSERT_TRUE(bool(parsed)) << llvm::toString(parsed.takeError());
    const GGUFFile &f = **parsed;
    EXPECT_EQ(f.version(), version);
    EXPECT_EQ(llvm::cantFail(f.getInt("u8")), 200);
    EXPECT_EQ(llvm::cantFail(f.getInt("i8")), -3);
    EXPECT_EQ(llvm::cantFail(f.getInt("u16")), 60000);
    EXPECT_EQ(llvm::cantFail(f.getInt("i16")), -300);
    EXPECT_EQ(llvm::cantFail(f.getInt("u32")), 4000000000);
    EXPECT_EQ(llvm::cantFail(f.getInt("i32")), -70000);
    EXPECT_EQ(llvm::cantFail(f.getInt("u64")), int64_t(1) << 40);
    EXPECT_EQ(llvm::cantFail(f.getInt("i64")), -1);
    EXPECT_EQ(llvm::cantFail(f.getFloat("f32")), 1.5);
    EXPECT_EQ(llvm::cantFail(f.getFloat("f64")), 2.5);
    EXPECT_EQ(llvm::cantFail(f.getFloat("i8")), -3.0);
    EXPECT_TRUE(llvm::cantFail(f.getBool("yes")));
    EXPECT_EQ(llvm::cantFail(f.getString("text")), "héllo");
    EXPECT_EQ(llvm::cantFail(f.getStrings("texts")),
              (std::vector<llvm::StringRef>{"a", "", "ccc"}));
    EXPECT_EQ(llvm::cantFail(f.getInts("ints")),
              (std::vector<int64_t>{1, -2, 3}));
    EXPECT_EQ(llvm::cantFail(f.getInt("none", 7)), 7);
    EXPECT_EQ(llvm::cantFail(f.getString("none", "x")), "x");

    ASSERT_EQ(f.tensors().size(), 2u);
    const GGUFTensor *matrix = f.tensor("matrix");
    ASSERT_NE(matrix, nullptr);
    EXPECT_EQ(matrix->rows(), 2);
    EXPECT_EQ(matrix->cols(), 3);
    float values[6];
    dequantize(matrix->type, matrix->data, 6, values);
    EXPECT_EQ(values[0], 10.0f);
    EXPECT_EQ(values[5], 15.0f);
    EXPECT_EQ(f.tensor("none"), nullptr);
  }
}

TEST(GGUF, LookupsNameTheKeyAndTheTypes) {
  llvm::Expected<FilePtr> parsed = parse(sample().build());
  ASSERT_TRUE(bool(parsed));
  const GGUFFile &f = **parsed;
  auto message = [](auto value) {
    return value ? std::string() : llvm::toString(value.takeError());
  };
  EXPECT_EQ(message(f.getInt("none")), "m.gguf: metadata 'none' is missing");
  EXPECT_EQ(message(f.getInt("text")), "m.gguf: metadata 'text': expected an "
                                       "integer below 2^63, found string");
  EXPECT_EQ(message(f.getInt("huge")), "m.gguf: metadata 'huge': expected an "
                                       "integer below 2^63, found uint64");
  EXPECT_EQ(message(f.getInt("f32", 1)), "m.gguf: metadata 'f32': expected an "
                                         "integer below 2^63, found float32");
  EXPECT_EQ(message(f.getStrings("ints")),
            "m.gguf: metadata 'ints': expected an array of strings, found "
            "array of int32");
  EXPECT_EQ(message(f.getInts("texts")),
            "m.gguf: metadata 'texts': expected an array of integers below "
            "2^63, found array of string");
  EXPECT_EQ(message(f.getBool("u8")),
            "m.gguf: metadata 'u8': expected a bool, found uint8");
}

TEST(GGUF, RefusesEveryTruncation) {
  std::string whole = sample().build();
  ASSERT_EQ(errorOf(whole), "");
  // The last tensor is 24 bytes, padded to 32: what follows is not needed.
  for (size_t size = 0; size + 8 < whole.size(); ++size) {
    std::string error = errorOf(whole.substr(0, size));
    EXPECT_TRUE(llvm::StringRef(error).starts_with("m.gguf: ")) << size;
    EXPECT_EQ(error.find('\n'), std::string::npos) << size;
  }
}

// Whatever a byte is changed to, reading ends with a value or an error; under
// AddressSanitizer this finds reads outside the file.
TEST(GGUF, SurvivesEveryChangedByte) {
  std::string whole = sample().build();
  for (size_t i = 0; i < whole.size(); ++i)
    for (int change : {0x01, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ change);
      llvm::Expected<FilePtr> file = parse(bytes);
      if (!file) {
        llvm::consumeError(file.takeError());
        continue;
      }
      for (const GGUFTensor &t : (*file)->tensors()) {
        std::vector<float> values(static_cast<size_t>(t.rows() * t.cols()));
        dequantize(t.type, t.data, t.rows() * t.cols(), values.data());
      }
      for (llvm::StringRef key : {"texts", "ints", "text"}) {
        llvm::consumeError((*file)->getStrings(key).takeError());
        llvm::consumeError((*file)->getInts(key).takeError());
        llvm::consumeError((*file)->getString(key).takeError());
      }
    }
}

TEST(GGUF, Header) {
  GGUFBuilder b = sample();
  b.magic = "GGML";
  EXPECT_EQ(errorOf(b.build()),
            "m.gguf: not a GGUF file: it starts with 0x4c4d4747, not with the "
            "magic 'GGUF'");
  b = sample();
  b.version = 1;
  EXPECT_EQ(errorOf(b.build()),
            "m.gguf: GGUF version 1 is not supported (2 and 3 are)");
  b.version = 0x03000000;
  EXPECT_EQ(errorOf(b.build()),
            "m.gguf: big-endian GGUF files are not supported");
  b = sample();
  b.pairCount = int64_t(1) << 60;
  EXPECT_NE(errorOf(b.build()).find("metadata count 1152921504606846976 cannot "
                                    "fit in the"),
            std::string::npos);
  b = sample();
  b.tensorCount = int64_t(1) << 60;
  EXPECT_NE(errorOf(b.build()).find("tensor count 1152921504606846976 cannot "
                                    "fit in the"),
            std::string::npos);
  EXPECT_EQ(errorOf(""), "m.gguf: magic: 4 bytes needed at offset 0, but the "
                         "file ends at 0");
}

TEST(GGUF, Metadata) {
  GGUFBuilder b;
  b.add("k", 13, "");
  b.add("pad", GGUFValueType::UInt64, b.raw<uint64_t>(0));
  EXPECT_EQ(errorOf(b.build()), "m.gguf: metadata 'k': unknown value type 13");

  b = {};
  b.add("k", GGUFValueType::Array, b.raw<uint32_t>(99) + b.raw<uint64_t>(0));
  EXPECT_EQ(errorOf(b.build()),
            "m.gguf: metadata 'k': unknown element type 99");

  b = {};
  b.add("k", GGUFValueType::Array, b.raw<uint32_t>(9) + b.raw<uint64_t>(0));
  EXPECT_EQ(errorOf(b.build()),
            "m.gguf: metadata 'k': arrays of arrays are not supported");

  // A length whose size in bytes overflows.
  b = {};
  b.add("k", GGUFValueType::Array,
        b.raw<uint32_t>(10) + b.raw<uint64_t>(1ull << 62));
  EXPECT_NE(errorOf(b.build()).find("metadata 'k': 18446744073709551615 bytes "
                                    "needed"),
            std::string::npos);

  b = {};
  b.add("k", GGUFValueType::String, b.raw<uint64_t>(~0ull));
  EXPECT_NE(errorOf(b.build()).find("metadata 'k': 18446744073709551615 bytes "
                                    "needed"),
            std::string::npos);

  b = {};
  b.add("k", GGUFValueType::Bool, b.raw<uint8_t>(2));
  EXPECT_EQ(errorOf(b.build()),
            "m.gguf: metadata 'k': 2 is not a bool (0 or 1)");

  b = {};
  b.addInt("k", 1);
  b.addInt("k", 2);
  EXPECT_EQ(errorOf(b.build()), "m.gguf: metadata 'k': key occurs twice");

  b = {};
  b.addInt("", 1);
  EXPECT_EQ(errorOf(b.build()),
            "m.gguf: metadata key 0: length 0 is not in [1, 65535]");
}

TEST(GGUF, Alignment) {
  for (uint32_t alignment : {0u, 4u, 24u, 1u << 21}) {
    GGUFBuilder b = sample();
    b.addInt("general.alignment", alignment);
    EXPECT_EQ(errorOf(b.build()), "m.gguf: metadata 'general.alignment': " +
                                      std::to_string(alignment) +
                                      " is not a power of two in [8, 1048576]");
  }
  GGUFBuilder b = sample();
  b.alignment = 128;
  b.addInt("general.alignment", 128);
  EXPECT_EQ(errorOf(b.build()), "");
}

TEST(GGUF, Tensors) {
  auto with = [](auto change) {
    GGUFBuilder b = sample();
    change(b.tensor("matrix"));
    return errorOf(b.build());
  };
  EXPECT_EQ(with([](TestTensor &t) { t.type = 77; }).substr(0, 58),
            "m.gguf: tensor 'matrix': tensor type 77 is not supported (");
  EXPECT_EQ(with([](TestTensor &t) { t.type = 8; }),
            "m.gguf: tensor 'matrix': row length 3 is not a multiple of 32, "
            "the block of Q8_0");
  EXPECT_EQ(with([](TestTensor &t) { t.dims = {}; }),
            "m.gguf: tensor 'matrix': 0 dimensions, not in [1, 4]");
  EXPECT_EQ(with([](TestTensor &t) { t.dims = {1, 1, 1, 1, 1}; }),
            "m.gguf: tensor 'matrix': 5 dimensions, not in [1, 4]");
  EXPECT_EQ(with([](TestTensor &t) { t.dims = {3, 0}; }),
            "m.gguf: tensor 'matrix': dimension 1 is 0");
  EXPECT_EQ(with([](TestTensor &t) { t.dims = {1ull << 32, 1ull << 32}; }),
            "m.gguf: tensor 'matrix': the number of elements exceeds 2^63 - 1");
  EXPECT_EQ(with([](TestTensor &t) { t.dims = {1ull << 62}; }),
            "m.gguf: tensor 'matrix': the size in bytes exceeds 2^64 - 1");
  EXPECT_EQ(with([](TestTensor &t) { t.offset = 64; }),
            "m.gguf: tensor 'matrix': offset 64 + 24 bytes is past the end of "
            "the data section (64 bytes)");
  EXPECT_EQ(with([](TestTensor &t) { t.offset = -32 & INT64_MAX; }),
            "m.gguf: tensor 'matrix': offset 9223372036854775776 + 24 bytes is "
            "past the end of the data section (64 bytes)");
  EXPECT_EQ(with([](TestTensor &t) { t.offset = 20; }),
            "m.gguf: tensor 'matrix': offset 20 is not a multiple of the "
            "alignment 32");
  EXPECT_EQ(with([](TestTensor &t) { t.name = "norm"; }),
            "m.gguf: tensor 'norm': name occurs twice");
  EXPECT_EQ(with([](TestTensor &t) { t.name = std::string(65, 'x'); }),
            "m.gguf: tensor 1: name length 65 is not in [1, 64]");
}

TEST(GGUF, MissingFile) {
  llvm::Expected<FilePtr> file = GGUFFile::open("/nonexistent/m.gguf");
  ASSERT_FALSE(bool(file));
  EXPECT_EQ(llvm::toString(file.takeError()),
            "/nonexistent/m.gguf: cannot open: No such file or directory");
}
} // namespace
