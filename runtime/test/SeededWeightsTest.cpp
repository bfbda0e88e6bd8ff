//===- SeededWeightsTest.cpp - Weights that a package has as seeds --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../package/SeededWeights.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

using namespace kvrm;
using nlohmann::json;

namespace {

/// A matrix of 5 x 3 in panels of 4 rows, one of 7 x 2, and 8 bytes of a file.
json goodSeeds() {
  return {{"bytes", 256},
          {"tensors",
           {{{"name", "panels"},
             {"element", "bf16"},
             {"rows", 5},
             {"cols", 3},
             {"row_panel", 4},
             {"offset", 64},
             {"stream", "00000000000000ff"},
             {"center", 1.0},
             {"width", 0.25}},
            {{"name", "rows"},
             {"element", "f32"},
             {"rows", 7},
             {"cols", 2},
             {"row_panel", 0},
             {"offset", 128},
             {"stream", "123456789abcdef0"},
             {"center", 0.0},
             {"width", 2.0}}}},
          {"copies", {{{"offset", 0}, {"from", 4}, {"bytes", 8}}}}};
}

std::string errorOf(const std::function<void(json &)> &change) {
  json seeds = goodSeeds();
  change(seeds);
  Expected<WeightSeeds> parsed = parseSeeds(seeds.dump(), "S", 16);
  return parsed ? "" : parsed.status().message();
}

template <typename T> T valueAt(const AlignedBuffer &buffer, int64_t offset) {
  T value;
  std::memcpy(&value, buffer.data() + offset, sizeof(value));
  return value;
}

/// SplitMix64 as its authors wrote it: output `index` of state `stream`.
double referenceValue(uint64_t stream, int64_t index, double center,
                      double width) {
  uint64_t z = stream;
  for (int64_t i = 0; i < index; ++i)
    z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  double unit = static_cast<double>(z >> 40) / std::ldexp(1.0, 23) - 1.0;
  return center + width * unit;
}

TEST(SeededWeights, AreWhatTheSeedSays) {
  Expected<WeightSeeds> seeds = parseSeeds(goodSeeds().dump(), "S", 16);
  ASSERT_TRUE(seeds) << seeds.status().message();
  std::vector<uint8_t> file(16);
  for (size_t i = 0; i < file.size(); ++i)
    file[i] = static_cast<uint8_t>(100 + i);
  Expected<AlignedBuffer> weights = growWeights(*seeds, file);
  ASSERT_TRUE(weights) << weights.status().message();
  ASSERT_EQ(weights->size(), 256);
  for (int64_t i = 0; i < 8; ++i)
    EXPECT_EQ(weights->data()[i], 104 + i);
  for (int64_t row = 0; row < 8; ++row)
    for (int64_t col = 0; col < 3; ++col) {
      int64_t at = 64 + 2 * ((row / 4 * 3 + col) * 4 + row % 4);
      auto bits = static_cast<uint32_t>(valueAt<uint16_t>(*weights, at)) << 16;
      double got = std::bit_cast<float>(bits);
      double want =
          row < 5 ? referenceValue(0xff, row * 3 + col, 1.0, 0.25) : 0.0;
      EXPECT_NEAR(got, want, std::abs(want) / 256) << row << ", " << col;
    }
  for (int64_t i = 0; i < 14; ++i)
    EXPECT_NEAR(valueAt<float>(*weights, 128 + 4 * i),
                referenceValue(0x123456789abcdef0, i, 0.0, 2.0), 1e-6);
}

/// Slices of what a rank of one would have, in rows and in panels.
TEST(SeededWeights, SlicesAreOfTheWhole) {
  json both = goodSeeds();
  for (json &tensor : both["tensors"])
    tensor.update({{"first", 100}, {"pitch", 9}});
  Expected<WeightSeeds> seeds = parseSeeds(both.dump(), "S", 16);
  ASSERT_TRUE(seeds) << seeds.status().message();
  Expected<AlignedBuffer> weights =
      growWeights(*seeds, std::vector<uint8_t>(16));
  ASSERT_TRUE(weights) << weights.status().message();
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t col = 0; col < 3; ++col) {
      int64_t at = 64 + 2 * ((row / 4 * 3 + col) * 4 + row % 4);
      auto bits = static_cast<uint32_t>(valueAt<uint16_t>(*weights, at)) << 16;
      EXPECT_NEAR(std::bit_cast<float>(bits),
                  referenceValue(0xff, 100 + row * 9 + col, 1.0, 0.25), 0.01);
    }
  for (int64_t i = 0; i < 14; ++i)
    EXPECT_NEAR(
        valueAt<float>(*weights, 128 + 4 * i),
        referenceValue(0x123456789abcdef0, 100 + i / 2 * 9 + i % 2, 0.0, 2.0),
        1e-6);
}

TEST(SeededWeights, RoundsToNearestEven) {
  EXPECT_EQ(roundToF16(1.0f), 0x3c00);
  EXPECT_EQ(roundToF16(1.0f + 0x1p-11f), 0x3c00); // a tie, to even
  EXPECT_EQ(roundToF16(1.0f + 0x1.8p-10f), 0x3c02);
  EXPECT_EQ(roundToF16(0x1p-25f), 0x0000);
  EXPECT_EQ(roundToF16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(roundToF16(65520.0f), 0x7c00);
  EXPECT_EQ(roundToBF16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(roundToBF16(1.0f + 0x1.8p-7f), 0x3f82);
}

TEST(SeededWeights, OneThingWrong) {
  struct Case {
    std::function<void(json &)> change;
    const char *error;
  };
  const Case cases[] = {
      {[](json &s) { s.erase("bytes"); }, "S: bytes: is missing"},
      {[](json &s) { s["bytes"] = 0; },
       "S: bytes: 0 is outside 1..17592186044416"},
      {[](json &s) { s["bytes"] = 128; },
       "S: tensors: one ends outside the 128 bytes"},
      {[](json &s) { s["tensors"] = json::array(); },
       "S: tensors: has 0 entries, outside 1..65536"},
      {[](json &s) { s["tensors"][0]["element"] = "f8"; },
       "S: tensors[0].element: 'f8' is not one of f32, f16, bf16"},
      {[](json &s) {
         s["tensors"][1]["rows"] = int64_t(1) << 31;
         s["tensors"][1]["cols"] = int64_t(1) << 31;
       },
       "S: tensors: one is larger than a file may be"},
      {[](json &s) { s["tensors"][1]["offset"] = 130; },
       "S: tensors: offset 130 is not a multiple of 64"},
      {[](json &s) { s["tensors"][1]["offset"] = 64; },
       "S: tensors: two overlap at 64"},
      {[](json &s) { s["tensors"][0]["stream"] = "FF"; },
       "S: tensors[0].stream: is not 16 lower-case hex digits"},
      {[](json &s) { s["tensors"][0]["width"] = 1e5; },
       "S: tensors[0].width: 100000.0 is outside -10000..10000"},
      {[](json &s) { s["tensors"][0]["center"] = "1"; },
       "S: tensors[0].center: is not a number"},
      {[](json &s) { s["tensors"][0]["pitch"] = 2; },
       "S: tensors[0].pitch: 2 is outside 3..2147483648"},
      {[](json &s) { s["tensors"][0]["first"] = -1; },
       "S: tensors[0].first: -1 is outside 0..17592186044416"},
      {[](json &s) { s["copies"][0]["from"] = 12; },
       "S: copies[0].from: 12 is outside the data of weights.safetensors"},
      {[](json &s) { s["copies"][0]["bytes"] = int64_t(1) << 40; },
       "S: copies[0].from: 4 is outside the data of weights.safetensors"},
  };
  for (const Case &one : cases)
    EXPECT_EQ(errorOf(one.change), one.error);
  EXPECT_EQ(errorOf([](json &) {}), "");
  EXPECT_EQ(parseSeeds("[", "S", 0).status().message(), "S: is not valid JSON");
}

TEST(SeededWeights, MoreThanTheMachineHas) {
  WeightSeeds seeds;
  seeds.bytes = int64_t(1) << 44;
  EXPECT_EQ(growWeights(seeds, {}).status().code(),
            StatusCode::ResourceExhausted);
}

/// A matrix of 3 x 64 in blocks of Q4_1, panels of 2 rows.
json blockSeeds() {
  return {{"bytes", 192},
          {"tensors",
           {{{"name", "blocks"},
             {"element", "f16"},
             {"blocks", "q4_1"},
             {"rows", 3},
             {"cols", 64},
             {"row_panel", 2},
             {"offset", 0},
             {"stream", "00000000000000ff"},
             {"center", 0.0},
             {"width", 0.5}}}},
          {"copies", json::array()}};
}

TEST(SeededBlocks, RecordsHaveTheCodesOfTheStream) {
  json json = blockSeeds();
  Expected<WeightSeeds> seeds = parseSeeds(json.dump(), "S", 0);
  ASSERT_TRUE(seeds) << seeds.status().message();
  // 2 panels x 2 blocks of 32 bytes of codes, 4 of scales, 4 of minima.
  EXPECT_EQ(seeds->tensors.front().bytes(), 160);
  Expected<AlignedBuffer> weights = growWeights(*seeds, {});
  ASSERT_TRUE(weights) << weights.status().message();
  for (int64_t row = 0; row < 3; ++row)
    for (int64_t column = 0; column < 64; ++column) {
      int64_t record = (row / 2 * 2 + column / 32) * 40, e = column % 32;
      auto byte = valueAt<uint8_t>(*weights, record + e % 16 / 4 * 8 +
                                                 row % 2 * 4 + e % 4);
      uint64_t bits = SeededValues::bitsAt(0xff, row * 64 + column);
      EXPECT_EQ(e < 16 ? byte & 15 : byte >> 4, bits >> 60);
      EXPECT_EQ(valueAt<uint16_t>(*weights, record + 32 + row % 2 * 2),
                roundToF16(0.0625f));
      EXPECT_EQ(valueAt<uint16_t>(*weights, record + 36 + row % 2 * 2),
                roundToF16(-0.5f));
    }
  // The row that the last panel lacks.
  for (int64_t record : {80, 120})
    for (int64_t at : {4, 12, 20, 28, 34, 38})
      EXPECT_EQ(valueAt<uint16_t>(*weights, record + at), 0);
}

TEST(SeededBlocks, AFloatIsNeverNotANumber) {
  json json = blockSeeds();
  json["bytes"] = 1 << 16;
  json["tensors"][0]["blocks"] = "fp8_g128";
  json["tensors"][0]["rows"] = 64;
  json["tensors"][0]["cols"] = 512;
  Expected<WeightSeeds> seeds = parseSeeds(json.dump(), "S", 0);
  ASSERT_TRUE(seeds) << seeds.status().message();
  Expected<AlignedBuffer> weights = growWeights(*seeds, {});
  ASSERT_TRUE(weights) << weights.status().message();
  for (int64_t record = 0; record < 32 * 4; ++record)
    for (int64_t i = 0; i < 256; ++i)
      ASSERT_NE(valueAt<uint8_t>(*weights, record * 260 + i) & 0x7f, 0x7f);
}

TEST(SeededBlocks, RefusesWhatIsNoBlocks) {
  auto errorOf = [](const char *field, const json &value) {
    json seeds = blockSeeds();
    seeds["tensors"][0][field] = value;
    Expected<WeightSeeds> parsed = parseSeeds(seeds.dump(), "S", 0);
    return parsed ? "" : parsed.status().message();
  };
  EXPECT_NE(errorOf("blocks", "q4_k").find("have sub-scales"),
            std::string::npos);
  EXPECT_NE(errorOf("blocks", "q9").find("'q9' is not one of q4_0"),
            std::string::npos);
  EXPECT_NE(errorOf("row_panel", 0).find("is 0, of a tensor in blocks"),
            std::string::npos);
  EXPECT_NE(errorOf("cols", 48).find("48 are not whole blocks of 32"),
            std::string::npos);
  EXPECT_NE(errorOf("pitch", 128).find("of a slice"), std::string::npos);
}

} // namespace
