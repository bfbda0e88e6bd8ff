//===- BlockRecord.h - Writing the blocks of a panel ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_BLOCKRECORD_H
#define KVRM_RUNTIME_SUPPORT_BLOCKRECORD_H

#include "kvrm/runtime/abi/block_format.h"

namespace kvrm {

/// Writes the fields of a record, laid out as block_format.h says, of a panel
/// of rows. Does not own its bytes, which are zero before.
class BlockRecord {
public:
  BlockRecord(const kvrmblocks::BlockShape &shape, int64_t panel,
              uint8_t *record)
      : shape(shape), panel(panel), record(record) {}

  /// Once for each element of a row's block.
  void setCode(int64_t row, int64_t element, uint8_t code) {
    const int64_t quadBytes = kQuad * panel;
    int64_t e = element % kvrmblocks::kStretch;
    int64_t quad = e / kQuad;
    uint8_t *out = record +
                   element / kvrmblocks::kStretch * shape.stretchBytes(panel) +
                   kQuad * row + e % kQuad;
    if (shape.codeBits == 8) {
      out[quad * quadBytes] = code;
      return;
    }
    bool isUpper = e >= kHalf;
    uint8_t low = code & 15, high = code >> 4;
    out[e % kHalf / kQuad * quadBytes] |=
        static_cast<uint8_t>(isUpper ? low << 4 : low);
    uint8_t *planes = out + kHalf / kQuad * quadBytes;
    if (shape.codeBits == 5)
      planes[0] |= static_cast<uint8_t>(high << quad);
    else if (shape.codeBits == 6)
      planes[e / kHalf * quadBytes] |=
          static_cast<uint8_t>(high << 2 * (quad % (kHalf / kQuad)));
  }
  void setScale(int64_t row, uint16_t half) {
    setHalf(shape.scalesAt(panel) + 2 * row, half);
  }
  void setMinimum(int64_t row, uint16_t half) {
    setHalf(shape.minimaAt(panel) + 2 * row, half);
  }
  void setSubScale(int64_t row, int64_t group, int8_t value) {
    record[shape.subScalesAt(panel) + group * panel + row] =
        static_cast<uint8_t>(value);
  }
  void setSubMinimum(int64_t row, int64_t group, int8_t value) {
    record[shape.subMinimaAt(panel) + group * panel + row] =
        static_cast<uint8_t>(value);
  }

private:
  static constexpr int64_t kQuad = 4; ///< neighbours that lie together
  static constexpr int64_t kHalf = kvrmblocks::kStretch / 2;

  void setHalf(int64_t at, uint16_t half) {
    record[at] = static_cast<uint8_t>(half);
    record[at + 1] = static_cast<uint8_t>(half >> 8);
  }

  const kvrmblocks::BlockShape &shape;
  int64_t panel;
  uint8_t *record;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_BLOCKRECORD_H
