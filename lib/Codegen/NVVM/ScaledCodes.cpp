//===- ScaledCodes.cpp - Codes of i8 and their scales on a GPU ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ScaledCodes.h"

using namespace mlir;
using namespace mlir::kvrm;

/// The sign's bit turned, a byte is a code plus 128, and below the byte 0x64 an
/// f16 of 1024 more.
static Value pairOfF16(DeviceBuilder &b, Value turned, int64_t first) {
  constexpr int64_t offset = 0x64806480; // 1152, twice
  return b.subtractPairs(b.bytesBelow(0x64, turned, first), b.i32(offset),
                         b.getF16Type());
}

/// Below the byte 0x43 the seven low bits of a code are 128 more, and the
/// sign's bit alone is 128, or 256 if it is set: their difference is the code.
static Value pairOfBF16(DeviceBuilder &b, Value codes, int64_t first) {
  Value placed = b.bytesBelow(0x43, codes, first);
  return b.subtractPairs(b.bitAnd(placed, 0x437f437f),
                         b.bitAnd(placed, 0x43804380), b.getBF16Type());
}

std::array<Value, 2> kvrm::widenIntegers(DeviceBuilder &b, Value word,
                                         Type io) {
  if (io.isBF16())
    return {pairOfBF16(b, word, 0), pairOfBF16(b, word, 2)};
  Value turned = b.bitXor(word, static_cast<int32_t>(0x80808080u));
  return {pairOfF16(b, turned, 0), pairOfF16(b, turned, 2)};
}

Value ScaleUnit::power(int64_t exponent, int64_t sign) {
  // Exponents of a sum and of a difference; the mantissa of both is 0.
  Value sum =
      sign > 0 ? b.add(bits.get(), b.i32(exponent << kMantissa))
               : b.sub(b.i32((2 * kBias + exponent) << kMantissa), bits.get());
  return LLVM::BitcastOp::create(b, b.getF32Type(), sum);
}

Value ScaleUnit::raise(ArrayRef<Value> scales) {
  // Scales are not negative: they compare like their bits, and NaN is largest.
  Value largest;
  for (Value scale : scales) {
    Value word = LLVM::BitcastOp::create(b, b.getI32Type(), scale);
    largest = largest ? b.max(largest, word) : word;
  }
  Value whole = b.bitAnd(b.maxOverWarp(largest), 0x7f800000);
  Value before = bits.get();
  Value now = b.max(before, b.min(whole, b.i32(kMost)));
  bits.set(now);
  // Their quotient, 0 where it would be subnormal.
  Value quotient = b.add(b.sub(before, now), b.i32(kBias << kMantissa));
  return LLVM::BitcastOp::create(b, b.getF32Type(), b.max(quotient, b.i32(0)));
}
