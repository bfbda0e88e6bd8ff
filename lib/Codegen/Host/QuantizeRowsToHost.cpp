//===- QuantizeRowsToHost.cpp - Activations as codes ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BlockKernels.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/bit.h"

#include <algorithm>

using namespace mlir;
using namespace mlir::kvrm;
using kvrmblocks::ActivationRecord;
using kvrmblocks::kStretch;

/// Below it a stretch is zeros: 127 over less may not be finite.
static constexpr float kLeastMagnitude = 1e-30f;
static constexpr float kMostCode = 127.0f;

namespace {
/// Writes the code of one stretch, in vectors that each are half of it or a
/// whole part of a half.
class StretchQuantizer {
public:
  StretchQuantizer(ImplicitLocOpBuilder &b, QuantizeRowsOp op, int64_t lanes)
      : b(b), input(op.getInput()), output(op.getOutput()), lanes(lanes),
        floats(VectorType::get({lanes}, b.getF32Type())),
        ints(VectorType::get({lanes}, b.getI32Type())) {}

  void write(Value row, Value stretch);

private:
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  Value f32(float value) {
    return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
  }
  Value splat(float value) {
    return arith::ConstantOp::create(b, floats,
                                     DenseElementsAttr::get(floats, value));
  }
  void loadValues(Value row, Value stretch);
  Value findMagnitude();
  Value toCodes(Value vector, Value inverse);
  Value sum(ArrayRef<Value> codes);

  ImplicitLocOpBuilder &b;
  Value input, output;
  int64_t lanes;
  VectorType floats, ints;
  SmallVector<Value> values;
};
} // namespace

void StretchQuantizer::loadValues(Value row, Value stretch) {
  Value first = arith::MulIOp::create(b, stretch, index(kStretch));
  values.clear();
  for (int64_t i = 0; i < kStretch; i += lanes) {
    Value column = arith::AddIOp::create(b, first, index(i));
    values.push_back(
        vector::LoadOp::create(b, floats, input, ValueRange{row, column}));
  }
}

/// Bits of magnitudes are in the order of integers, NaNs above infinity: what
/// is not finite stays so.
Value StretchQuantizer::findMagnitude() {
  Value mask = arith::ConstantOp::create(
      b, ints, DenseElementsAttr::get(ints, int32_t(0x7fffffff)));
  Value largest;
  for (Value vector : values) {
    Value bits = vector::BitCastOp::create(b, ints, vector);
    Value magnitude = arith::AndIOp::create(b, bits, mask);
    largest = largest
                  ? arith::MaxSIOp::create(b, largest, magnitude).getResult()
                  : magnitude;
  }
  Value bits =
      vector::ReductionOp::create(b, vector::CombiningKind::MAXSI, largest);
  return arith::BitcastOp::create(b, b.getF32Type(), bits);
}

/// As i32. What is not finite becomes some code.
Value StretchQuantizer::toCodes(Value vector, Value inverse) {
  Value scaled = math::RoundEvenOp::create(
      b, arith::MulFOp::create(
             b, vector, vector::BroadcastOp::create(b, floats, inverse)));
  Value least = arith::MaxNumFOp::create(b, scaled, splat(-kMostCode));
  Value inRange = arith::MinNumFOp::create(b, least, splat(kMostCode));
  return arith::FPToSIOp::create(b, ints, inRange);
}

Value StretchQuantizer::sum(ArrayRef<Value> codes) {
  Value total = codes.front();
  for (Value vector : codes.drop_front())
    total = arith::AddIOp::create(b, total, vector);
  return vector::ReductionOp::create(b, vector::CombiningKind::ADD, total);
}

void StretchQuantizer::write(Value row, Value stretch) {
  loadValues(row, stretch);
  Value magnitude = findMagnitude();
  Value scale = arith::MulFOp::create(b, magnitude, f32(1.0f / kMostCode));
  Value isLarge = arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, magnitude,
                                        f32(kLeastMagnitude));
  Value inverse = arith::SelectOp::create(
      b, isLarge, arith::DivFOp::create(b, f32(kMostCode), magnitude),
      f32(0.0f));
  auto narrow = VectorType::get({lanes}, b.getI8Type());
  SmallVector<Value> codes;
  for (Value vector : values) {
    codes.push_back(toCodes(vector, inverse));
    Value at = index(static_cast<int64_t>(codes.size() - 1) * lanes);
    vector::StoreOp::create(b, arith::TruncIOp::create(b, narrow, codes.back()),
                            output, ValueRange{row, stretch, at});
  }
  ArrayRef<Value> all(codes);
  Value low = sum(all.take_front(codes.size() / 2));
  Value high = sum(all.drop_front(codes.size() / 2));
  auto scaled = [&](Value count) -> Value {
    Value value = arith::SIToFPOp::create(b, b.getF32Type(), count);
    return arith::MulFOp::create(b, value, scale);
  };
  Value tail[] = {scale, scaled(arith::AddIOp::create(b, low, high)),
                  scaled(low), scaled(high)};
  Value words = vector::FromElementsOp::create(
      b, VectorType::get({4}, b.getF32Type()), tail);
  auto bytes = VectorType::get({16}, b.getI8Type());
  vector::StoreOp::create(
      b, vector::BitCastOp::create(b, bytes, words), output,
      ValueRange{row, stretch, index(ActivationRecord::scaleAt)});
}

void kvrm::writeQuantizeRows(QuantizeRowsOp op, int64_t lanes) {
  ImplicitLocOpBuilder b(op.getLoc(), op);
  // Whole vectors make half a stretch.
  constexpr int64_t mostLanes = kStretch / 2;
  int64_t width = llvm::bit_floor(static_cast<uint64_t>(lanes));
  Value zero = arith::ConstantIndexOp::create(b, 0),
        one = arith::ConstantIndexOp::create(b, 1),
        stretches = arith::ConstantIndexOp::create(b, op.getStretches());
  Value rows = b.createOrFold<memref::DimOp>(op.getInput(), 0);
  auto rowLoop = scf::ForOp::create(b, zero, rows, one);
  b.setInsertionPointToStart(rowLoop.getBody());
  auto loop = scf::ForOp::create(b, zero, stretches, one);
  b.setInsertionPointToStart(loop.getBody());
  StretchQuantizer(b, op, std::min(width, mostLanes))
      .write(rowLoop.getInductionVar(), loop.getInductionVar());
}
