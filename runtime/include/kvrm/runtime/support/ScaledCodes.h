//===- ScaledCodes.h - Integers of one byte and their scale -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a cache of KVRM_INT8 holds of a token and KV head: a scale and an
// integer of -127..127 for each value. The scale is the largest magnitude over
// 127, rounded up to bf16, so that no code is over 127. A row with an infinity
// or a NaN has that for a scale, and reads as no number throughout; one whose
// largest magnitude is below 127 * 2^-126, where scales would be subnormal, is
// zeros.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_SCALEDCODES_H
#define KVRM_RUNTIME_SUPPORT_SCALEDCODES_H

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

namespace kvrm {

inline float scaleToFloat(uint16_t scale) {
  return std::bit_cast<float>(uint32_t(scale) << 16);
}

/// The scale of a row, a bf16.
inline uint16_t scaleOf(std::span<const float> row) {
  constexpr uint32_t least = std::bit_cast<uint32_t>(127 * 0x1p-126f);
  constexpr uint32_t infinity = 0x7f800000;
  uint32_t largest = 0; // magnitudes compare like their bits, NaN above all
  for (float value : row)
    largest = std::max(largest, std::bit_cast<uint32_t>(value) & 0x7fffffff);
  if (largest < least)
    return 0;
  if (largest > infinity)
    return 0x7fc0;
  float scale = std::bit_cast<float>(largest) / 127;
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(scale) + 0xffff) >> 16);
}

/// The code of a value of a row with that scale: to nearest even; 0 where the
/// scale is 0 or no number.
inline int8_t scaledCode(float value, uint16_t scale) {
  constexpr uint16_t infinity = 0x7f80;
  if (scale == 0 || scale >= infinity)
    return 0;
  // The addition rounds: its last place is 1.
  float shifted = value / scaleToFloat(scale) + 0x1.8p23f;
  return static_cast<int8_t>(std::bit_cast<uint32_t>(shifted));
}

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_SCALEDCODES_H
