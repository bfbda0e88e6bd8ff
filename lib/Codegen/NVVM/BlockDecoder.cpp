//===- BlockDecoder.cpp - What a lane reads of blocks ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BlockDecoder.h"

using namespace mlir;
using namespace mlir::kvrm;
using kvrmblocks::kStretch;

/// Bytes of four neighbours of all rows of a record.
static constexpr int64_t kQuadBytes = 4 * kMatrixPanel;
static constexpr int64_t kHalfQuads = kStretch / 2 / 4;
/// The bits of an integer as the mantissa of a float whose last place is 1: in
/// f16 1024 and more, in bf16 128 and more, in f32 2^23 and more.
static constexpr int64_t kF16Integer = 0x64, kF16First = 1024;
static constexpr int64_t kBF16Integer = 0x43, kBF16First = 128;
static constexpr int64_t kF32Integer = 0x4b000000;
static constexpr float kF32First = 0x1p23f;

/// Two bits, or one, of each of four codes, above their four low ones.
Value BlockDecoder::planeBits(Value plane, Value shift, int64_t mask) {
  Value shifted = arith::ShRUIOp::create(b, plane, shift);
  return b.shiftLeft(b.bitAnd(shifted, mask * 0x01010101), 4);
}

/// The lane's codes as they are stored, four in a word.
SmallVector<Value, 2> BlockDecoder::codeBytes(Value stretch, Loader load) {
  Value first = b.add(b.mul(stretch, shape.stretchBytes(kMatrixPanel)),
                      b.shiftLeft(row, 2));
  auto word = [&](Value at) { return load(b.getI32Type(), at); };
  Value quad = b.add(first, b.mul(quarter, kQuadBytes));
  if (shape.codeBits == 8)
    return {word(quad), word(b.add(quad, kHalfQuads * kQuadBytes))};
  Value nibbles = word(quad);
  Value low = b.bitAnd(nibbles, 0x0f0f0f0f);
  Value high = b.bitAnd(b.shiftRight(nibbles, 4), 0x0f0f0f0f);
  if (shape.codeBits == 4)
    return {low, high};
  Value planes = b.add(first, kHalfQuads * kQuadBytes);
  Value plane = word(planes);
  if (shape.codeBits == 5)
    return {b.bitOr(low, planeBits(plane, quarter, 1)),
            b.bitOr(high, planeBits(plane, b.add(quarter, kHalfQuads), 1))};
  Value shift = b.shiftLeft(quarter, 1);
  return {b.bitOr(low, planeBits(plane, shift, 3)),
          b.bitOr(high, planeBits(word(b.add(planes, kQuadBytes)), shift, 3))};
}

/// Bytes `first` and `first + 1` of a word, integers below 128, or below 1024
/// in f16, as a pair of elements.
Value BlockDecoder::pair(Value bytes, int64_t first) {
  bool isBF16 = element.isBF16();
  int64_t integer = isBF16 ? kBF16Integer : kF16Integer;
  int64_t offset = (isBF16 ? kBF16First : kF16First) + shape.offset;
  Value placed = b.bytesBelow(integer, bytes, first);
  auto type = VectorType::get({2}, element);
  Value added = arith::ConstantOp::create(
      b, DenseElementsAttr::get(
             type, b.getFloatAttr(element, static_cast<double>(offset))));
  Value sum = LLVM::BitcastOp::create(b, type, placed);
  return LLVM::BitcastOp::create(b, b.getI32Type(), b.fsub(sum, added));
}

/// The same, of integers that bf16 has no room to add 128 to.
Value BlockDecoder::widePair(Value bytes, int64_t first) {
  auto one = [&](int64_t byte) {
    Value placed = b.permuteBytes(bytes, b.i32(kF32Integer), 0x7650 | byte);
    Value value = LLVM::BitcastOp::create(b, b.getF32Type(), placed);
    return b.fsub(value, b.f32(kF32First + static_cast<float>(shape.offset)));
  };
  return b.roundPair(one(first), one(first + 1), element);
}

SmallVector<Value, 4> BlockDecoder::codes(Value stretch, Loader load) {
  SmallVector<Value, 4> pairs;
  bool isWide = element.isBF16() && shape.codeBits == 8;
  for (Value bytes : codeBytes(stretch, load)) {
    if (shape.isFloat)
      llvm::append_range(pairs, floats.widen(bytes));
    else
      for (int64_t first : {0, 2})
        pairs.push_back(isWide ? widePair(bytes, first) : pair(bytes, first));
  }
  return pairs;
}

/// The row's half of those that start at `place`, in f32.
Value BlockDecoder::halfAt(int64_t place, Loader load) {
  Value half = load(b.getF16Type(), b.add(b.shiftLeft(row, 1), place));
  return arith::ExtFOp::create(b, b.getF32Type(), half);
}

/// The row's integer of a group, of those that start at `place`, in f32.
Value BlockDecoder::ofGroup(int64_t place, Value group, Loader load) {
  Value stored =
      load(b.getI8Type(), b.add(b.add(b.mul(group, kMatrixPanel), row), place));
  return arith::SIToFPOp::create(b, b.getF32Type(), stored);
}

Value BlockDecoder::scale(Value group, Loader load) {
  Value scale = halfAt(shape.scalesAt(kMatrixPanel), load);
  if (!shape.hasSubScales)
    return scale;
  return b.fmul(scale, ofGroup(shape.subScalesAt(kMatrixPanel), group, load));
}

Value BlockDecoder::minimum(Value group, Loader load) {
  Value minimum = halfAt(shape.minimaAt(kMatrixPanel), load);
  if (!shape.hasSubScales)
    return minimum;
  Value taken =
      b.fmul(minimum, ofGroup(shape.subMinimaAt(kMatrixPanel), group, load));
  return b.fsub(b.f32(0.0f), taken);
}
