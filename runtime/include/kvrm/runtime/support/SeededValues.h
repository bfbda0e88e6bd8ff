//===- SeededValues.h - Numbers that a seed stands for ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The elements of a synthetic weight. The compiler makes them where it writes a
// weight's bytes, and the runtime where a package has the seed instead: both
// give the same bits on every machine.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_SEEDEDVALUES_H
#define KVRM_RUNTIME_SUPPORT_SEEDEDVALUES_H

#include "kvrm/runtime/support/SplitMix64.h"

#include <bit>
#include <cstdint>

namespace kvrm {

/// Uniform in [center - width, center + width).
struct SeededValues {
  uint64_t stream = 0; ///< which numbers
  float center = 0;
  float width = 0;

  /// The i-th output of a SplitMix64 of a stream.
  static uint64_t bitsAt(uint64_t stream, int64_t i) {
    uint64_t before = static_cast<uint64_t>(i) - 1;
    return SplitMix64::mix(stream + before * 0x9e3779b97f4a7c15);
  }

  /// Element i.
  float at(int64_t i) const {
    uint64_t bits = bitsAt(stream, i);
    // 24 bits make a float in [-1, 1) without rounding.
    auto fraction = static_cast<int32_t>(bits >> 40) - (1 << 23);
    return center + width * (static_cast<float>(fraction) * 0x1p-23f);
  }
};

/// Rounds to nearest, ties to even. Overflow gives infinity; a NaN stays one.
inline uint16_t roundToF16(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  uint32_t sign = bits >> 16 & 0x8000;
  uint32_t magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude >= 0x47800000) { // 2^16 and above, infinity, NaN
    half = magnitude > 0x7f800000 ? 0x7e00 | (magnitude >> 13 & 0x1ff) : 0x7c00;
  } else if (magnitude < 0x38800000) { // below 2^-14: subnormal
    // The unit in the last place of a float in [0.5, 1) is the half's smallest
    // subnormal, so that the addition rounds as needed.
    float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<uint32_t>(shifted) - 0x3f000000;
  } else {
    // Rebias the exponent and round to nearest, ties to even.
    uint32_t odd = magnitude >> 13 & 1;
    half = (magnitude - (112u << 23) + 0xfff + odd) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

/// As roundToF16, for bfloat16.
inline uint16_t roundToBF16(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  uint32_t quiet = bits >> 16 | 0x40;
  bool isNaN = (bits & 0x7fffffff) > 0x7f800000;
  return static_cast<uint16_t>(isNaN ? quiet : rounded);
}

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_SEEDEDVALUES_H
