//===- BlockCodesTest.cpp - Tests of blocks and their records -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/BlockCodes.h"
#include "kvrm/Package/Weights.h"

#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <vector>

using namespace kvrm;

namespace {

/// Random blocks. Of scales one in eight is zero, the least subnormal, the
/// largest or negative.
class RandomBlocks final : public WeightSource {
public:
  RandomBlocks(BlockFormat format, int64_t rows, int64_t blocks, uint32_t seed)
      : format(format), rowCount(rows), blocks(blocks),
        blockBytes(infoOf(typeOf(format)).blockBytes),
        bytes(static_cast<size_t>(rows * blocks * blockBytes)) {
    std::mt19937 random(seed);
    for (uint8_t &byte : bytes)
      byte = static_cast<uint8_t>(random());
    for (int64_t i = 0; i < rows * blocks; ++i)
      for (int64_t at : scalePlaces())
        setHalf(i * blockBytes + at, randomHalf(random));
  }

  int64_t rows() const override { return rowCount; }
  int64_t cols() const override { return blocks * shapeOf(format).elements; }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    dequantize(typeOf(format), bytes.data() + begin * blocks * blockBytes,
               (end - begin) * cols(), out);
  }
  std::optional<BlockFormat> blockFormat() const override { return format; }
  void readBlocks(int64_t begin, int64_t end, uint8_t *out) const override {
    std::memcpy(out, bytes.data() + begin * blocks * blockBytes,
                static_cast<size_t>((end - begin) * blocks * blockBytes));
  }
  const uint8_t *block(int64_t index) const {
    return bytes.data() + index * blockBytes;
  }
  void setScale(int64_t index, uint16_t half) {
    setHalf(index * blockBytes + scalePlaces().front(), half);
  }

private:
  std::vector<int64_t> scalePlaces() const {
    if (format == BlockFormat::Q6_K)
      return {208};
    return shapeOf(format).hasMinima ? std::vector<int64_t>{0, 2}
                                     : std::vector<int64_t>{0};
  }
  void setHalf(int64_t at, uint16_t half) {
    std::memcpy(bytes.data() + at, &half, sizeof(half));
  }
  static uint16_t randomHalf(std::mt19937 &random) {
    constexpr uint16_t special[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff};
    if (random() % 8 == 0)
      return special[random() % std::size(special)];
    return static_cast<uint16_t>(0x1000 + random() % 0x2800);
  }

  BlockFormat format;
  int64_t rowCount, blocks, blockBytes;
  std::vector<uint8_t> bytes;
};

float valueOf(const BlockCodes &block, BlockShape shape, int64_t element) {
  auto group = element / shape.group;
  float scale = halfToFloat(block.scale);
  float code = static_cast<float>(block.codes[element]) -
               static_cast<float>(shape.offset);
  if (shape.hasSubScales)
    scale *= static_cast<float>(block.subScales[group]);
  if (!shape.hasMinima)
    return scale * code;
  float minimum = halfToFloat(block.minimum);
  if (shape.hasSubScales)
    minimum *= -static_cast<float>(block.subMinima[group]);
  return std::fma(scale, code, minimum);
}

/// Reads an element of records as block_format.h describes them, byte by byte.
class RecordReader {
public:
  RecordReader(const uint8_t *records, const WeightLayout &layout)
      : records(records), panel(layout.rowPanel), cols(layout.cols),
        shape(shapeOf(*layout.blocks)) {}

  float at(int64_t row, int64_t col) const {
    int64_t blocks = cols / shape.elements;
    const uint8_t *record =
        records + (row / panel * blocks + col / shape.elements) *
                      shape.recordBytes(panel);
    int64_t r = row % panel, element = col % shape.elements;
    BlockCodes block;
    block.codes[element] = code(record, r, element);
    std::memcpy(&block.scale, record + shape.scalesAt(panel) + 2 * r, 2);
    if (shape.hasMinima)
      std::memcpy(&block.minimum, record + shape.minimaAt(panel) + 2 * r, 2);
    int64_t group = element / shape.group;
    if (shape.hasSubScales)
      block.subScales[group] = static_cast<int8_t>(
          record[shape.subScalesAt(panel) + group * panel + r]);
    if (shape.hasSubScales && shape.hasMinima)
      block.subMinima[group] = static_cast<int8_t>(
          record[shape.subMinimaAt(panel) + group * panel + r]);
    return valueOf(block, shape, element);
  }

private:
  uint8_t code(const uint8_t *record, int64_t r, int64_t element) const {
    const uint8_t *stretch =
        record + element / kStretch * shape.stretchBytes(panel);
    int64_t e = element % kStretch, half = e / 16, j = e % 16 / 4, b = e % 4;
    auto byte = [&](int64_t vector) {
      return stretch[(vector * panel + r) * 4 + b];
    };
    if (shape.codeBits == 8)
      return byte(e / 4);
    int low = byte(j) >> 4 * half & 15;
    if (shape.codeBits == 5)
      low |= (byte(4) >> e / 4 & 1) << 4;
    if (shape.codeBits == 6)
      low |= (byte(4 + half) >> 2 * j & 3) << 4;
    return static_cast<uint8_t>(low);
  }

  const uint8_t *records;
  int64_t panel, cols;
  BlockShape shape;
};

class BlockFormatTest : public testing::TestWithParam<BlockFormat> {
protected:
  RandomBlocks randomBlocks(int64_t rows, int64_t blocks) {
    return {GetParam(), rows, blocks, std::random_device()()};
  }
};

TEST_P(BlockFormatTest, CodesAndScalesAreWhatTheValuesAreMadeOf) {
  BlockShape shape = shapeOf(GetParam());
  RandomBlocks source = randomBlocks(1, 64);
  std::vector<float> values(static_cast<size_t>(source.cols()));
  source.readRows(0, 1, values.data());
  for (int64_t b = 0; b < 64; ++b) {
    BlockCodes block;
    unpackBlock(GetParam(), source.block(b), block);
    for (int64_t e = 0; e < shape.elements; ++e)
      ASSERT_EQ(valueOf(block, shape, e), values[b * shape.elements + e])
          << "block " << b << ", element " << e;
  }
}

TEST_P(BlockFormatTest, RecordsHoldTheValues) {
  for (auto [rows, panel] : {std::pair<int64_t, int64_t>(37, 16), {16, 8}}) {
    RandomBlocks source = randomBlocks(rows, 3);
    WeightLayout layout;
    layout.rows = rows;
    layout.cols = source.cols();
    layout.rowPanel = panel;
    layout.blocks = GetParam();
    std::vector<uint8_t> records(static_cast<size_t>(layout.bytes()), 0xee);
    ASSERT_TRUE(packWeight(source, layout, records.data()));
    std::vector<float> values(static_cast<size_t>(rows * layout.cols));
    source.readRows(0, rows, values.data());
    RecordReader reader(records.data(), layout);
    for (int64_t row = 0; row < layout.paddedRows(); ++row)
      for (int64_t col = 0; col < layout.cols; ++col)
        ASSERT_EQ(reader.at(row, col),
                  row < rows ? values[row * layout.cols + col] : 0.0f)
            << "row " << row << ", column " << col;
  }
}

TEST_P(BlockFormatTest, RecordsAreAboutAsLargeAsTheFile) {
  BlockShape shape = shapeOf(GetParam());
  EXPECT_LE(static_cast<double>(shape.recordBytes(16)),
            1.03 * 16 *
                static_cast<double>(infoOf(typeOf(GetParam())).blockBytes));
  EXPECT_EQ(shape.elements, infoOf(typeOf(GetParam())).blockElements);
  EXPECT_EQ(blockFormatOf(typeOf(GetParam())), GetParam());
}

TEST_P(BlockFormatTest, RefusesScalesThatAreNotFinite) {
  for (uint16_t half : {0x7c00, 0xfc00, 0x7e00}) {
    RandomBlocks source = randomBlocks(5, 2);
    source.setScale(7, half);
    WeightLayout layout;
    layout.rows = 5;
    layout.cols = source.cols();
    layout.rowPanel = 16;
    layout.blocks = GetParam();
    std::vector<uint8_t> records(static_cast<size_t>(layout.bytes()));
    EXPECT_FALSE(packWeight(source, layout, records.data())) << half;
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockFormatTest,
                         testing::Values(BlockFormat::Q4_0, BlockFormat::Q4_1,
                                         BlockFormat::Q5_0, BlockFormat::Q5_1,
                                         BlockFormat::Q8_0, BlockFormat::Q4_K,
                                         BlockFormat::Q5_K, BlockFormat::Q6_K),
                         [](const testing::TestParamInfo<BlockFormat> &info) {
                           return std::string(infoOf(typeOf(info.param)).name);
                         });

} // namespace
