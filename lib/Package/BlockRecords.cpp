//===- BlockRecords.cpp - Weights in blocks, as packages have them --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BlockRecords.h"

#include "kvrm/Frontend/BlockCodes.h"
#include "kvrm/runtime/support/BlockRecord.h"

#include <algorithm>
#include <cstring>
#include <vector>

using namespace kvrm;

static void writeBlock(const BlockCodes &block, const BlockShape &shape,
                       int64_t row, BlockRecord record) {
  for (int64_t i = 0; i < shape.elements; ++i)
    record.setCode(row, i, block.codes[i]);
  record.setScale(row, block.scale);
  if (shape.hasMinima)
    record.setMinimum(row, block.minimum);
  for (int64_t g = 0; shape.hasSubScales && g < shape.groups(); ++g) {
    record.setSubScale(row, g, block.subScales[g]);
    if (shape.hasMinima)
      record.setSubMinimum(row, g, block.subMinima[g]);
  }
}

static bool isFinite(const BlockCodes &block, const BlockShape &shape) {
  constexpr uint16_t exponent = 0x7c00;
  return (block.scale & exponent) != exponent &&
         (!shape.hasMinima || (block.minimum & exponent) != exponent);
}

bool kvrm::packBlocks(const WeightSource &source, const WeightLayout &layout,
                      int64_t begin, int64_t end, uint8_t *out) {
  const BlockFormat format = *layout.blocks;
  const BlockShape shape = shapeOf(format);
  const int64_t panel = layout.rowPanel, blocks = layout.cols / shape.elements;
  std::vector<BlockCodes> codes(static_cast<size_t>(blocks));
  std::memset(out, 0, static_cast<size_t>((end - begin) * layout.rowBytes()));
  bool finite = true;
  for (int64_t row = begin; row < end; row += panel) {
    for (int64_t r = 0; r < std::min(panel, layout.rows - row); ++r) {
      source.readCodes(row + r, codes.data());
      for (int64_t b = 0; b < blocks; ++b) {
        finite &= isFinite(codes[b], shape);
        writeBlock(codes[b], shape, r,
                   {shape, panel, out + b * shape.recordBytes(panel)});
      }
    }
    out += blocks * shape.recordBytes(panel);
  }
  return finite;
}
