//===- F8E4M3.h - Floats of one byte ----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// E4M3 of the Open Compute Project's 8-bit floating point specification: no
// infinities, up to 448. Elements of a cache (KVRM_F8E4M3) and codes of weights
// (kvrmblocks::BlockShape::isFloat).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_F8E4M3_H
#define KVRM_RUNTIME_SUPPORT_F8E4M3_H

#include <bit>
#include <cstdint>

namespace kvrm {

inline constexpr float kLargestF8E4M3 = 448;

inline float f8E4M3ToFloat(uint8_t bits) {
  constexpr uint32_t nan = 0x7f;
  if ((bits & nan) == nan)
    return std::bit_cast<float>(0x7fc00000);
  // Scaling makes numbers of subnormals as well.
  float size = std::bit_cast<float>(uint32_t(bits & 0x7f) << 20) * 0x1p120f;
  return (bits & 0x80) != 0 ? -size : size;
}

/// To nearest, ties to even; what is over the largest is cut off there, and NaN
/// stays NaN.
inline uint8_t floatToF8E4M3(float value) {
  constexpr uint32_t nan = 0x7f;
  auto bits = std::bit_cast<uint32_t>(value);
  uint32_t sign = bits >> 24 & 0x80;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000)
    return static_cast<uint8_t>(sign | nan);
  if (std::bit_cast<float>(bits) > kLargestF8E4M3)
    bits = std::bit_cast<uint32_t>(kLargestF8E4M3);
  if (bits < 0x3c800000) { // subnormal: the addition rounds
    float shifted = std::bit_cast<float>(bits) + 0x1p14f;
    return static_cast<uint8_t>(
        sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000));
  }
  bits += 0xc407ffff + (bits >> 20 & 1);
  return static_cast<uint8_t>(sign | bits >> 20);
}

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_F8E4M3_H
