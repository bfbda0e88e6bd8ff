//===- ScaledCodes.h - Codes of i8 and their scales on a GPU ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A cache of i8: what its bytes are for matrix units, f16 or bf16, both exact,
// and the unit in which a running sum of weighted values is kept.
//
// A weight times its token's scale may be far from what f16 holds, while sums
// of products are f32. So weights are stored as parts of a unit, a power of two
// that is about the largest scale met so far, times 2^14: what comes out is at
// most 2^15, and what is 2^28 times smaller keeps all its bits. When a strip
// brings a larger scale, sums so far change their unit, as they do their
// maximum.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_SCALEDCODES_H
#define KVRM_CODEGEN_NVVM_SCALEDCODES_H

#include "DeviceBuilder.h"

namespace mlir::kvrm {

/// Of the four codes of a word: the values of bytes 0 and 1, and of bytes 2 and
/// 3, as pairs of `io`, the first of each in the low half.
std::array<Value, 2> widenIntegers(DeviceBuilder &b, Value word, Type io);

/// The unit of a warp's sums, the same in all its lanes.
class ScaleUnit {
public:
  explicit ScaleUnit(DeviceBuilder &b)
      : b(b), bits(b.variable(b.getI32Type())) {}

  /// To before any token.
  void reset() { bits.set(b.i32(kLeast)); }
  /// Takes in scales, f32, of which each lane has some; returns what sums so
  /// far are to be multiplied with. All lanes take part.
  Value raise(ArrayRef<Value> scales);
  /// What a weight is multiplied with in the place of its token's scale.
  Value partOf(Value scale) { return b.fmul(scale, power(kTop, -1)); }
  /// What sums are multiplied with in the end.
  Value factor() { return power(-kTop, 1); }

private:
  static constexpr int64_t kTop = 14, kBias = 127, kMantissa = 23;
  /// The bits of 2^-100 and of 2^100. A scale beyond, which f16 never has, is
  /// off the middle of the range and no more.
  static constexpr int64_t kLeast = (kBias - 100) << kMantissa;
  static constexpr int64_t kMost = (kBias + 100) << kMantissa;
  /// 2^exponent times the unit, or over it if `sign` is -1.
  Value power(int64_t exponent, int64_t sign);

  DeviceBuilder &b;
  Variable bits; ///< of the unit, an f32
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_SCALEDCODES_H
