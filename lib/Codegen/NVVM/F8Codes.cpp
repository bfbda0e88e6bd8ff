//===- F8Codes.cpp - Codes of f8E4M3FN on a GPU ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "F8Codes.h"

#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

using namespace mlir;
using namespace mlir::kvrm;

/// Two codes, in the high bytes of the halves of a word; what is in the low
/// ones does not count. A code's bits, shifted behind the exponent's place of
/// `io`, are the value over a power of two, of subnormals too. The largest such
/// bits are NaN's: one more of the last carries to a bit of the exponent, which
/// makes a NaN of them there too.
Value F8Codes::widenHigh(Value codes) {
  bool isF16 = io.isF16();
  Value size = b.bitAnd(b.shiftRight(codes, isF16 ? 1 : 4),
                        isF16 ? 0x3f803f80 : 0x07f007f0);
  Value carried = b.bitAnd(b.add(size, isF16 ? 0x00800080 : 0x00100010),
                           isF16 ? 0x40004000 : 0x08000800);
  // Of bf16 four bits of the exponent are above, not one.
  Value ones = isF16 ? carried : b.mul(carried, 15);
  Value unsignedBits = b.bitOr(size, ones);
  Value bits =
      b.bitOr(unsignedBits, b.bitAnd(codes, static_cast<int32_t>(0x80008000u)));
  // 2^8 and 2^120.
  return b.multiplyPairs(bits, b.i32(isF16 ? 0x5c005c00 : 0x7b807b80), io);
}

std::array<Value, 2> F8Codes::widen(Value word) {
  if (options.isHopper() && io.isF16())
    return {b.widenCodes(b.truncate16(word)),
            b.widenCodes(b.truncate16(b.shiftRight(word, 16)))};
  // Bytes 0 and 1, then 2 and 3, each above a zero.
  return {widenHigh(b.permuteBytes(word, b.i32(0), 0x1404)),
          widenHigh(b.permuteBytes(word, b.i32(0), 0x3424))};
}

Value F8Codes::narrow(Value low, Value high) {
  if (options.isHopper())
    return b.narrowToCodes(low, high);
  auto codeOf = [&](Value value) -> Value {
    return arith::ExtUIOp::create(b, b.getI16Type(), narrow(value));
  };
  Value first = codeOf(low);
  return b.bitOr(first, b.shiftLeft(codeOf(high), 8));
}

Value F8Codes::narrow(Value value) {
  if (options.isHopper())
    return arith::TruncIOp::create(b, b.getI8Type(),
                                   b.narrowToCodes(value, b.f32(0)));
  return narrowElements(b, value, Float8E4M3FNType::get(b.getContext()));
}

Value F8Codes::narrowPair(Value word) {
  auto [low, high] = b.widenPair(word, io);
  return narrow(low, high);
}
