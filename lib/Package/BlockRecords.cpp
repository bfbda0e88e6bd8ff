//===- BlockRecords.cpp - Weights in blocks, as packages have them --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BlockRecords.h"

#include "kvrm/Frontend/BlockCodes.h"

#include <algorithm>
#include <cstring>
#include <vector>

using namespace kvrm;

static constexpr int64_t kQuad = 4; ///< neighbours that lie together
static constexpr int64_t kHalf = kStretch / 2;

namespace {
/// Puts the blocks of rows into one record (BlockFormat.h).
class RecordWriter {
public:
  RecordWriter(const BlockShape &shape, int64_t panel)
      : shape(shape), panel(panel) {}

  void write(const BlockCodes &block, int64_t row, uint8_t *record) const {
    for (int64_t s = 0; s < shape.stretches(); ++s)
      writeStretch(block.codes + s * kStretch, row,
                   record + s * shape.stretchBytes(panel));
    writeHalf(block.scale, record + shape.scalesAt(panel) + 2 * row);
    if (shape.hasMinima)
      writeHalf(block.minimum, record + shape.minimaAt(panel) + 2 * row);
    if (!shape.hasSubScales)
      return;
    for (int64_t g = 0; g < shape.groups(); ++g) {
      int64_t place = g * panel + row;
      record[shape.subScalesAt(panel) + place] =
          static_cast<uint8_t>(block.subScales[g]);
      if (shape.hasMinima)
        record[shape.subMinimaAt(panel) + place] =
            static_cast<uint8_t>(block.subMinima[g]);
    }
  }

private:
  static void writeHalf(uint16_t half, uint8_t *out) {
    out[0] = static_cast<uint8_t>(half);
    out[1] = static_cast<uint8_t>(half >> 8);
  }

  /// `out` is zero where it is not written yet.
  void writeStretch(const uint8_t *codes, int64_t row, uint8_t *out) const {
    const int64_t quadBytes = kQuad * panel;
    out += kQuad * row;
    for (int64_t e = 0; e < kStretch; ++e) {
      int64_t quad = e / kQuad, i = e % kQuad;
      uint8_t code = codes[e];
      if (shape.codeBits == 8) {
        out[quad * quadBytes + i] = code;
        continue;
      }
      uint8_t low = code & 15, high = code >> 4;
      out[e % kHalf / kQuad * quadBytes + i] |=
          static_cast<uint8_t>(e < kHalf ? low : low << 4);
      uint8_t *planes = out + kHalf / kQuad * quadBytes + i;
      if (shape.codeBits == 5)
        planes[0] |= static_cast<uint8_t>(high << quad);
      else if (shape.codeBits == 6)
        planes[e / kHalf * quadBytes] |=
            static_cast<uint8_t>(high << 2 * (quad % (kHalf / kQuad)));
    }
  }

  BlockShape shape;
  int64_t panel;
};
} // namespace

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
  const int64_t blockBytes = infoOf(typeOf(format)).blockBytes;
  const RecordWriter writer(shape, panel);
  std::vector<uint8_t> rows(static_cast<size_t>(panel * blocks * blockBytes));
  std::memset(out, 0, static_cast<size_t>((end - begin) * layout.rowBytes()));
  bool finite = true;
  for (int64_t row = begin; row < end; row += panel) {
    int64_t present = std::min(panel, layout.rows - row);
    source.readBlocks(row, row + present, rows.data());
    for (int64_t b = 0; b < blocks; ++b, out += shape.recordBytes(panel))
      for (int64_t r = 0; r < present; ++r) {
        BlockCodes block;
        unpackBlock(format, rows.data() + (r * blocks + b) * blockBytes, block);
        finite &= isFinite(block, shape);
        writer.write(block, r, out);
      }
  }
  return finite;
}
