//===- SeededCodes.h - Weights in blocks that a seed makes ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The compiler and the runtime make the same blocks of a seed: all codes are as
// likely as one another, and scales, the same in all blocks, make the values
// vary as much as they would without blocks.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_SEEDEDCODES_H
#define KVRM_RUNTIME_SUPPORT_SEEDEDCODES_H

#include "kvrm/runtime/abi/block_format.h"
#include "kvrm/runtime/support/SeededValues.h"

namespace kvrm {

/// Of formats without sub-scales.
struct SeededCodes {
  uint16_t scale = 0, minimum = 0; ///< halves

  SeededCodes(const SeededValues &values, const kvrmblocks::BlockShape &shape)
      : stream(values.stream), bits(shape.codeBits), isFloat(shape.isFloat) {
    // Half-widths of what codes stand for; of floats, sqrt(3) times the
    // deviation.
    constexpr float ofFloats = 176;
    float width =
        isFloat ? ofFloats : 0.5f * static_cast<float>(1 << shape.codeBits);
    scale = roundToF16(values.width / width);
    if (shape.hasMinima)
      minimum = roundToF16(values.center - values.width);
  }

  /// The code of element i, counted row after row.
  uint8_t code(int64_t i) const {
    auto code =
        static_cast<uint8_t>(SeededValues::bitsAt(stream, i) >> (64 - bits));
    // Not the one of each sign that is not a number.
    return isFloat && (code & 0x7f) == 0x7f ? code ^ 1 : code;
  }

private:
  uint64_t stream;
  int64_t bits;
  bool isFloat;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_SEEDEDCODES_H
