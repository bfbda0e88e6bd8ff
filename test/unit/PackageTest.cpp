//===- PackageTest.cpp - Tests of the package writer ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Package/Package.h"

#include "kvrm/Frontend/Quantization.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/xxhash.h"

#include "gtest/gtest.h"

#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <map>
#include <sys/resource.h>

using namespace kvrm;
namespace fs = llvm::sys::fs;

namespace {
/// Element (r, c) is r * 1000 + c.
class GridSource final : public WeightSource {
public:
  GridSource(int64_t rowCount, int64_t colCount, float scale = 1.0f)
      : rowCount(rowCount), colCount(colCount), scale(scale) {}
  int64_t rows() const override { return rowCount; }
  int64_t cols() const override { return colCount; }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < colCount; ++c)
        *out++ = static_cast<float>(r * 1000 + c) * scale;
  }

private:
  int64_t rowCount;
  int64_t colCount;
  float scale;
};

class TemporaryFolder {
public:
  TemporaryFolder() {
    EXPECT_FALSE(fs::createUniqueDirectory("kvrm-test", path));
  }
  ~TemporaryFolder() { (void)fs::remove_directories(path); }
  std::string at(llvm::StringRef name) const {
    llvm::SmallString<128> file(path);
    llvm::sys::path::append(file, name);
    return std::string(file);
  }
  /// Names in the folder.
  std::vector<std::string> list() const {
    std::vector<std::string> names;
    std::error_code code;
    for (fs::directory_iterator it(path, code), end; it != end && !code;
         it.increment(code))
      names.push_back(llvm::sys::path::filename(it->path()).str());
    return names;
  }

private:
  llvm::SmallString<128> path;
};

std::string readFile(const std::string &path) {
  auto buffer = llvm::MemoryBuffer::getFile(path);
  return buffer ? (*buffer)->getBuffer().str() : "<missing>";
}

DecoderModel gridModel() {
  DecoderModel model;
  model.set("a", std::make_shared<GridSource>(5, 3));
  model.set("b", std::make_shared<GridSource>(37, 70));
  model.set("rope_cos", std::make_shared<GridSource>(8, 2));
  return model;
}

std::vector<WeightLayout> gridLayouts() {
  // A hole before the last, more than alignment asks for.
  return {
      {"a", 5, 3, WeightType::F32, /*rowPanel=*/0, /*offset=*/0},
      {"b", 37, 70, WeightType::F16, /*rowPanel=*/16, /*offset=*/64},
      {"rope_cos", 4, 2, WeightType::BF16, /*rowPanel=*/0, /*offset=*/6912},
  };
}

//===----------------------------------------------------------------------===//
// Conversion
//===----------------------------------------------------------------------===//

/// Converts by the vector path and by the scalar one.
std::pair<uint16_t, uint16_t> toF16(float value) {
  float in[8];
  uint16_t out[8];
  std::fill_n(in, 8, value);
  convertToF16(in, out, 8);
  uint16_t scalar = 0;
  convertToF16(&value, &scalar, 1);
  return {out[5], scalar};
}

TEST(Convert, EveryHalfAndTheMiddlesBetween) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    auto half = static_cast<uint16_t>(bits);
    float value = halfToFloat(half);
    // The next half; past the last finite one, 2^16.
    float next = bits == 0x7bff ? 65536.0f
                                : halfToFloat(static_cast<uint16_t>(bits + 1));
    float middle = value + (next - value) / 2;
    auto even = static_cast<uint16_t>(bits & 1 ? bits + 1 : bits);
    struct Case {
      float in;
      uint16_t out;
    };
    const Case cases[] = {
        {value, half},
        {middle, even},
        {std::nextafter(middle, 0.0f), half},
        {std::nextafter(middle, 1e9f), static_cast<uint16_t>(bits + 1)},
    };
    for (const Case &c : cases) {
      auto [vector, scalar] = toF16(c.in);
      ASSERT_EQ(vector, c.out) << c.in;
      ASSERT_EQ(scalar, c.out) << c.in;
      auto [negVector, negScalar] = toF16(-c.in);
      ASSERT_EQ(negVector, c.out | 0x8000) << c.in;
      ASSERT_EQ(negScalar, c.out | 0x8000) << c.in;
    }
  }
  for (float value : {65536.0f, 1e30f, std::numeric_limits<float>::infinity()})
    EXPECT_EQ(toF16(value), (std::pair<uint16_t, uint16_t>(0x7c00, 0x7c00)));
  EXPECT_EQ(toF16(1e-30f), (std::pair<uint16_t, uint16_t>(0, 0)));
  auto [vector, scalar] = toF16(std::bit_cast<float>(0x7fa12345u));
  EXPECT_EQ(vector, scalar);
  EXPECT_TRUE(std::isnan(halfToFloat(vector)));
}

TEST(Convert, BF16) {
  auto convert = [](uint32_t bits) {
    float value = std::bit_cast<float>(bits);
    uint16_t out = 0;
    convertToBF16(&value, &out, 1);
    return out;
  };
  EXPECT_EQ(convert(0x3f800000), 0x3f80);
  EXPECT_EQ(convert(0x3f808000), 0x3f80); // tie, to even
  EXPECT_EQ(convert(0x3f818000), 0x3f82); // tie, to even
  EXPECT_EQ(convert(0x3f808001), 0x3f81);
  EXPECT_EQ(convert(0xbf807fff), 0xbf80);
  EXPECT_EQ(convert(0x7f7fffff), 0x7f80); // overflow
  EXPECT_EQ(convert(0xff800000), 0xff80);
  EXPECT_EQ(convert(0x7f800001), 0x7fc0); // stays a NaN
  EXPECT_EQ(convert(0x00000001), 0x0000);
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

TEST(Weights, Sizes) {
  std::vector<WeightLayout> layouts = gridLayouts();
  EXPECT_EQ(layouts[0].bytes(), 60);
  EXPECT_EQ(layouts[1].paddedRows(), 48);
  EXPECT_EQ(layouts[1].bytes(), 48 * 70 * 2);
}

TEST(Weights, Panels) {
  GridSource source(37, 70, 0.25f);
  for (int64_t panel : {0, 1, 2, 8, 16, 32, 64}) {
    WeightLayout layout = {"b", 37, 70, WeightType::F32, panel};
    std::vector<float> out(static_cast<size_t>(layout.paddedRows() * 70), -1);
    ASSERT_TRUE(packWeight(source, layout, out.data()));
    int64_t n = std::max<int64_t>(panel, 1);
    for (int64_t r = 0; r < layout.paddedRows(); ++r)
      for (int64_t c = 0; c < 70; ++c) {
        float expected = r < 37 ? static_cast<float>(r * 1000 + c) * 0.25f : 0;
        auto index = static_cast<size_t>(((r / n) * 70 + c) * n + r % n);
        ASSERT_EQ(out[index], expected) << panel << " " << r << " " << c;
      }
  }
}

TEST(Weights, FileIsSafetensors) {
  TemporaryFolder folder;
  DecoderModel model = gridModel();
  std::vector<WeightLayout> layouts = gridLayouts();
  std::string first;
  for (unsigned threads : {1u, 2u, 5u}) {
    std::string path = folder.at("weights.safetensors");
    llvm::Error error = writeWeights(path, model, layouts, threads);
    ASSERT_FALSE(bool(error)) << llvm::toString(std::move(error));
    std::string bytes = readFile(path);
    if (first.empty())
      first = bytes;
    EXPECT_EQ(bytes, first);
  }
  uint64_t headerBytes = llvm::support::endian::read64le(first.data());
  ASSERT_LT(headerBytes, first.size());
  EXPECT_EQ((headerBytes + 8) % 64, 0u);
  llvm::StringRef data = llvm::StringRef(first).drop_front(8 + headerBytes);
  auto header = llvm::json::parse(first.substr(8, headerBytes));
  ASSERT_TRUE(bool(header)) << llvm::toString(header.takeError());

  // Sorted by offset the tensors cover the data section without gaps, as the
  // format demands, and every size is that of shape and type.
  std::map<int64_t, int64_t> ranges;
  const std::map<std::string, int64_t> sizes = {
      {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"U8", 1}};
  for (const auto &[name, value] : *header->getAsObject()) {
    if (name == "__metadata__")
      continue;
    const llvm::json::Object &tensor = *value.getAsObject();
    const llvm::json::Array &range = *tensor.getArray("data_offsets");
    int64_t begin = *range[0].getAsInteger();
    int64_t end = *range[1].getAsInteger();
    int64_t bytes = sizes.at(tensor.getString("dtype")->str());
    for (const llvm::json::Value &dim : *tensor.getArray("shape"))
      bytes *= *dim.getAsInteger();
    EXPECT_EQ(bytes, end - begin) << name.str();
    ranges[begin] = end;
    for (const WeightLayout &layout : layouts)
      EXPECT_TRUE(name != layout.name || layout.offset == begin);
  }
  int64_t end = 0;
  for (auto [from, to] : ranges) {
    EXPECT_EQ(from, end);
    end = to;
  }
  EXPECT_EQ(end, static_cast<int64_t>(data.size()));

  for (const WeightLayout &layout : layouts) {
    std::string packed(static_cast<size_t>(layout.bytes()), '\0');
    ASSERT_TRUE(packWeight(*model.lookup(layout.name), layout, packed.data()));
    EXPECT_EQ(data.substr(static_cast<size_t>(layout.offset), packed.size()),
              packed);
  }
}

/// A rank has the same piece of each part, of rows or of columns.
TEST(Weights, Slices) {
  GridSource whole(12, 8);
  WeightSlices slices{/*isOfColumns=*/false, {8, 4}, /*ranks=*/2};
  auto valuesOf = [&](int64_t rank, int64_t begin, int64_t end) {
    std::unique_ptr<const WeightSource> source =
        sliceWeight(whole, slices, rank);
    std::vector<float> values(
        static_cast<size_t>((end - begin) * source->cols()));
    source->readRows(begin, end, values.data());
    return values;
  };
  std::vector<float> rows = valuesOf(1, 3, 6);
  ASSERT_EQ(rows.size(), 24u);
  EXPECT_EQ(rows[0], 7000.0f);
  EXPECT_EQ(rows[8], 10000.0f);
  EXPECT_EQ(rows[23], 11007.0f);
  EXPECT_EQ(valuesOf(0, 4, 5)[1], 8001.0f);
  slices = {/*isOfColumns=*/true, {4, 4}, /*ranks=*/2};
  EXPECT_EQ(valuesOf(1, 2, 3),
            (std::vector<float>{2002.0f, 2003.0f, 2006.0f, 2007.0f}));
  EXPECT_EQ(sliceWeight(whole, slices, 0)->rows(), 12);

  DecoderModel model = gridModel();
  std::vector<WeightLayout> layouts = {
      {"b",
       37,
       35,
       WeightType::F16,
       /*rowPanel=*/0,
       /*offset=*/0,
       /*blocks=*/std::nullopt,
       {/*isOfColumns=*/true, {70}, /*ranks=*/2}}};
  EXPECT_FALSE(bool(checkLayouts(model, layouts)));
  layouts[0].slices.parts = {68};
  EXPECT_EQ(llvm::toString(checkLayouts(model, layouts)),
            "weight 'b': its parts are 68 columns, not all 70");
}

TEST(Weights, Refusals) {
  DecoderModel model = gridModel();
  auto errorOf = [&](auto change) {
    std::vector<WeightLayout> layouts = gridLayouts();
    change(layouts);
    llvm::Error error = checkLayouts(model, layouts);
    return error ? llvm::toString(std::move(error)) : "";
  };
  EXPECT_EQ(errorOf([](auto &) {}), "");
  EXPECT_EQ(errorOf([](auto &l) { l[0].name = "z"; }),
            "weight 'z': the model has none");
  EXPECT_EQ(errorOf([](auto &l) { l[0].name = "__pad.0"; }),
            "weight '__pad.0': the name is empty or reserved");
  EXPECT_EQ(errorOf([](auto &l) { l[1].name = "a"; }),
            "weight 'a': laid out twice");
  EXPECT_EQ(errorOf([](auto &l) { l[0].rows = 4; }),
            "weight 'a': laid out as [4][3], but the model has [5][3]");
  EXPECT_EQ(errorOf([](auto &l) { l[2].rows = 9; }),
            "weight 'rope_cos': laid out as [9][2], but the model has [8][2]");
  EXPECT_EQ(errorOf([](auto &l) { l[1].offset = 96; }),
            "weight 'b': offset 96 is not a multiple of 64");
  EXPECT_EQ(errorOf([](auto &l) { l[0].offset = -64; }),
            "weight 'a': offset -64 is before 0, the end of the weight before "
            "it");
  EXPECT_EQ(errorOf([](auto &l) { l[2].offset = 6720; }),
            "weight 'rope_cos': offset 6720 is before 6784, the end of the "
            "weight before it");
  EXPECT_EQ(errorOf([](auto &l) { l[0].rowPanel = -1; }),
            "weight 'a': row panel -1 is not in [0, 4096]");
}

TEST(Weights, ValueTooLargeForItsType) {
  TemporaryFolder folder;
  DecoderModel model;
  model.set("a", std::make_shared<GridSource>(100, 10));
  std::vector<WeightLayout> layouts = {
      {"a", 100, 10, WeightType::F16, /*rowPanel=*/8, /*offset=*/0}};
  std::string path = folder.at("w");
  EXPECT_EQ(llvm::toString(writeWeights(path, model, layouts)),
            "weight 'a': a value is not finite in F16");
}

//===----------------------------------------------------------------------===//
// Package
//===----------------------------------------------------------------------===//

PackageManifest sampleManifest() {
  PackageManifest manifest;
  manifest.producer = "kvrmc test";
  manifest.target = {
      "host", "x86_64-unknown-linux-gnu", "znver5", {"avx2"}, ""};
  manifest.model.name = "tiny";
  manifest.model.layers = 3;
  manifest.cache = {8, 2048, 16, 128, "f16"};
  PackageManifest::Entry entry;
  entry.name = "decode_step";
  entry.symbol = "kvrm_decode_step";
  entry.rows = 8;
  entry.arenaBytes = 4096;
  manifest.entries.push_back(entry);
  return manifest;
}

std::string writePackage(const std::string &path, llvm::StringRef code) {
  llvm::Expected<PackageWriter> writer = PackageWriter::create(path);
  if (!writer)
    return llvm::toString(writer.takeError());
  if (llvm::Error error = writer->addFile("code.so", code))
    return llvm::toString(std::move(error));
  if (llvm::Error error = writer->addWeights(gridModel(), gridLayouts()))
    return llvm::toString(std::move(error));
  if (llvm::Error error = writer->commit(sampleManifest()))
    return llvm::toString(std::move(error));
  return "";
}

TEST(Package, ManifestAndChecksums) {
  TemporaryFolder folder;
  std::string path = folder.at("p.kvrm");
  ASSERT_EQ(writePackage(path, "code"), "");
  auto parsed = llvm::json::parse(readFile(path + "/manifest.json"));
  ASSERT_TRUE(bool(parsed)) << llvm::toString(parsed.takeError());
  const llvm::json::Object &manifest = *parsed->getAsObject();
  EXPECT_EQ(*manifest.getString("format"), "kvrm-package");
  EXPECT_EQ(*manifest.getInteger("abi_version"), 12);
  EXPECT_EQ(*manifest.getObject("model")->getInteger("layers"), 3);
  EXPECT_EQ(*manifest.getObject("cache")->getInteger("page_tokens"), 16);
  EXPECT_EQ(*(*manifest.getArray("entries"))[0].getAsObject()->getInteger(
                "arena_bytes"),
            4096);
  const llvm::json::Array &files = *manifest.getArray("files");
  ASSERT_EQ(files.size(), 2u);
  for (const llvm::json::Value &value : files) {
    const llvm::json::Object &file = *value.getAsObject();
    std::string bytes = readFile(path + "/" + file.getString("name")->str());
    EXPECT_EQ(*file.getInteger("bytes"), static_cast<int64_t>(bytes.size()));
    uint64_t hash = 0;
    llvm::StringRef digits = *file.getString("xxh3");
    EXPECT_EQ(digits.size(), 16u);
    EXPECT_FALSE(digits.getAsInteger(16, hash));
    EXPECT_EQ(hash, llvm::xxh3_64bits(bytes));
  }
  // XXH3 of the empty input, from its specification.
  EXPECT_EQ(llvm::xxh3_64bits(llvm::StringRef()), 0x2d06800538d394c2u);
}

TEST(Package, ReplacesAPackage) {
  TemporaryFolder folder;
  std::string path = folder.at("p.kvrm");
  ASSERT_EQ(writePackage(path, "old"), "");
  ASSERT_EQ(writePackage(path + "/", "new"), "");
  EXPECT_EQ(readFile(path + "/code.so"), "new");
  EXPECT_EQ(folder.list(), std::vector<std::string>{"p.kvrm"});

  // Through a link: what it points to is replaced.
  std::string link = folder.at("link.kvrm");
  ASSERT_FALSE(fs::create_link(path, link));
  ASSERT_EQ(writePackage(link, "newer"), "");
  EXPECT_EQ(readFile(path + "/code.so"), "newer");
  EXPECT_TRUE(fs::is_symlink_file(link));
}

TEST(Package, RefusesWhatIsNoPackage) {
  TemporaryFolder folder;
  std::string path = folder.at("p");
  ASSERT_FALSE(fs::create_directory(path));
  ASSERT_EQ(writePackage(path, "x"), ""); // an empty folder may be replaced
  ASSERT_FALSE(fs::remove(path + "/manifest.json"));
  EXPECT_EQ(writePackage(path, "y"),
            path + ": exists and is not a kvrm package");
  EXPECT_EQ(readFile(path + "/code.so"), "x");
  EXPECT_EQ(writePackage(path + "/code.so", "y"),
            path + "/code.so: exists and is not a kvrm package");
  EXPECT_EQ(folder.list(), std::vector<std::string>{"p"});
  EXPECT_EQ(writePackage(folder.at("no/p"), "y"),
            folder.at("no/p") + ": cannot create a folder beside it: No such "
                                "file or directory");
}

TEST(Package, RefusesAPackageWithMoreOrLessInIt) {
  TemporaryFolder folder;
  std::string path = folder.at("p.kvrm");
  ASSERT_EQ(writePackage(path, "old"), "");
  auto put = [&](const std::string &name) {
    std::error_code code;
    llvm::raw_fd_ostream(path + "/" + name, code) << "mine";
    ASSERT_FALSE(code);
  };
  put("notes.txt");
  EXPECT_EQ(writePackage(path, "new"),
            path + ": is not replaced: 'notes.txt' in it is no file of the "
                   "package");
  ASSERT_FALSE(fs::remove(path + "/notes.txt"));
  ASSERT_FALSE(fs::create_directory(path + "/sub"));
  EXPECT_EQ(writePackage(path, "new"),
            path + ": is not replaced: 'sub' in it is no file of the package");
  ASSERT_FALSE(fs::remove(path + "/sub"));
  ASSERT_FALSE(fs::remove(path + "/code.so"));
  EXPECT_EQ(writePackage(path, "new"),
            path + ": is not replaced: it is not a whole package, 'code.so' is "
                   "missing");
  put("code.so");
  EXPECT_EQ(writePackage(path, "new"), "");
  EXPECT_EQ(readFile(path + "/code.so"), "new");

  // What only says the word is none.
  std::string fake = folder.at("fake");
  ASSERT_FALSE(fs::create_directory(fake));
  std::error_code code;
  llvm::raw_fd_ostream(fake + "/manifest.json", code)
      << R"({"about": "kvrm-package"})";
  EXPECT_EQ(writePackage(fake, "new"),
            fake + ": exists and is not a kvrm package");
  EXPECT_EQ(folder.list(), (std::vector<std::string>{"fake", "p.kvrm"}));
}

TEST(Package, ALinkMayPointToWhatIsNotThereYet) {
  TemporaryFolder folder;
  ASSERT_FALSE(fs::create_link("made.kvrm", folder.at("link.kvrm")));
  ASSERT_EQ(writePackage(folder.at("link.kvrm"), "new"), "");
  EXPECT_EQ(readFile(folder.at("made.kvrm") + "/code.so"), "new");
  EXPECT_TRUE(fs::is_symlink_file(folder.at("link.kvrm")));
}

// A limit on the size of files stands for a full disk.
TEST(Package, FailureLeavesTheOldPackageAlone) {
  TemporaryFolder folder;
  std::string path = folder.at("p.kvrm");
  ASSERT_EQ(writePackage(path, "old"), "");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (rlim_t limit : {1u, 1000u}) { // in code.so, in the weights
    rlimit small = before;
    small.rlim_cur = limit;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    std::string error = writePackage(path, "new");
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_NE(error.find(": cannot write: File too large"), std::string::npos)
        << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
    EXPECT_EQ(readFile(path + "/code.so"), "old");
    EXPECT_EQ(folder.list(), std::vector<std::string>{"p.kvrm"});
  }
}

TEST(Package, Tokenizer) {
  using Kind = TokenizerData::Kind;
  TokenizerData data;
  data.tokens = {"<s>", "a", "\"", "b c", "gone"};
  data.kinds = {Kind::Special, Kind::Normal, Kind::Normal, Kind::UserDefined,
                Kind::Unused};
  data.merges = {"a \""};
  data.patterns = {"\\p{N}"};
  data.bos = 0;
  std::string text;
  llvm::raw_string_ostream os(text);
  writeTokenizer(os, data);
  EXPECT_EQ(
      text,
      R"({"version":"1.0","added_tokens":[{"id":0,"content":"<s>","special":true},)"
      R"({"id":3,"content":"b c","special":false}],"normalizer":{"nfc":false,)"
      R"("space_prefix":"none"},"pre_tokenizer":{"pattern":["\\p{N}"]},)"
      R"("model":{"type":"BPE","ignore_merges":false,"byte_fallback":false,)"
      R"("vocab":{"a":1,"\"":2},"merges":["a \""]},"bos_token_id":0,"eos_token_id":-1,)"
      R"("add_bos_token":false,"chat_template":""})"
      "\n");
}
} // namespace
