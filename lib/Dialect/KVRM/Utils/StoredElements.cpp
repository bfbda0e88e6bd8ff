//===- StoredElements.cpp - Elements to f32 and back ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinTypes.h"

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// Ops on scalars, or on vectors of one length, and constants for them.
class Lanes {
public:
  Lanes(ImplicitLocOpBuilder &b, Value like)
      : b(b), vector(dyn_cast<VectorType>(like.getType())) {}

  Type of(Type element) {
    return vector ? Type(vector.clone(element)) : element;
  }
  Value all(unsigned bits, uint32_t value) {
    return all(
        b.getIntegerAttr(b.getIntegerType(bits), llvm::APInt(bits, value)));
  }
  Value all(float value) { return all(b.getF32FloatAttr(value)); }
  template <typename Op> Value apply(Value lhs, Value rhs) {
    return Op::create(b, lhs, rhs);
  }
  Value bitcast(Value value, Type element) {
    return arith::BitcastOp::create(b, of(element), value);
  }
  Value isBelow(Value lhs, Value rhs) {
    return arith::CmpIOp::create(b, arith::CmpIPredicate::slt, lhs, rhs);
  }
  Value select(Value condition, Value ifTrue, Value ifFalse) {
    return arith::SelectOp::create(b, condition, ifTrue, ifFalse);
  }

private:
  Value all(TypedAttr value) {
    if (vector)
      value = DenseElementsAttr::get(vector.clone(value.getType()),
                                     static_cast<Attribute>(value));
    return arith::ConstantOp::create(b, value);
  }

  ImplicitLocOpBuilder &b;
  VectorType vector; ///< null for scalars
};

} // namespace

static bool isF8(Type element) { return isa<Float8E4M3FNType>(element); }

Type kvrm::getStoredType(Type element) {
  return isF8(element) ? IntegerType::get(element.getContext(), 8) : element;
}

/// By way of f16, whose subnormals cost nothing to convert: those of f32 stop
/// some CPUs for a hundred cycles. The bits of e4m3, shifted to those of f16,
/// are the value over 2^8.
static Value widenF8(ImplicitLocOpBuilder &b, Value stored) {
  Lanes lanes(b, stored);
  // The extension leaves the sign in bit 8 and in bit 7, from where it would
  // come to be the exponent's first.
  Value wide =
      arith::ExtSIOp::create(b, lanes.of(b.getIntegerType(16)), stored);
  Value bits = lanes.apply<arith::ShLIOp>(wide, lanes.all(16, 7));
  bits = lanes.apply<arith::AndIOp>(bits, lanes.all(16, 0xbf80));
  // All ones but for the sign: NaN, in f16 too.
  Value size = lanes.apply<arith::AndIOp>(bits, lanes.all(16, 0x3f80));
  Value isNumber = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, size,
                                         lanes.all(16, 0x3f80));
  bits = lanes.select(isNumber, bits, lanes.all(16, 0x7e00));
  Value value = arith::ExtFOp::create(b, lanes.of(b.getF32Type()),
                                      lanes.bitcast(bits, b.getF16Type()));
  return lanes.apply<arith::MulFOp>(value, lanes.all(0x1p8f));
}

Value kvrm::widenElements(ImplicitLocOpBuilder &b, Value stored, Type element) {
  if (isF8(element))
    return widenF8(b, stored);
  Lanes lanes(b, stored);
  Type floats = lanes.of(b.getF32Type());
  if (element.isInteger(8))
    return arith::SIToFPOp::create(b, floats, stored);
  return arith::ExtFOp::create(b, floats, stored);
}

static Value narrowToF8(ImplicitLocOpBuilder &b, Value values) {
  constexpr uint32_t infinity = 0x7f800000;
  constexpr uint32_t largest = 0x43e00000;  // 448
  constexpr uint32_t smallest = 0x3c800000; // 2^-6, the last with a leading 1
  constexpr uint32_t unitsOf = 0x46800000;  // 2^14, whose last place is 2^-9
  Lanes lanes(b, values);
  Type i32 = b.getI32Type();
  Value bits = lanes.bitcast(values, i32);
  Value size = lanes.apply<arith::AndIOp>(bits, lanes.all(32, 0x7fffffff));
  Value isNaN = lanes.isBelow(lanes.all(32, infinity), size);
  size = lanes.apply<arith::MinSIOp>(size, lanes.all(32, largest));
  // The addition rounds; its last place is a subnormal's.
  Value shifted = lanes.apply<arith::AddFOp>(
      lanes.bitcast(size, b.getF32Type()), lanes.all(0x1p14f));
  Value subnormal = lanes.apply<arith::SubIOp>(lanes.bitcast(shifted, i32),
                                               lanes.all(32, unitsOf));
  // Else half a last place less one is added, and one if the last bit is odd. A
  // carry moves the exponent, whose bias goes from 127 to 7.
  Value odd = lanes.apply<arith::AndIOp>(
      lanes.apply<arith::ShRUIOp>(size, lanes.all(32, 20)), lanes.all(32, 1));
  Value rounded =
      lanes.apply<arith::AddIOp>(lanes.apply<arith::AddIOp>(size, odd),
                                 lanes.all(32, 0x7ffff - (120u << 23)));
  rounded = lanes.apply<arith::ShRUIOp>(rounded, lanes.all(32, 20));
  Value code = lanes.select(lanes.isBelow(size, lanes.all(32, smallest)),
                            subnormal, rounded);
  code = lanes.select(isNaN, lanes.all(32, 0x7f), code);
  Value sign = lanes.apply<arith::AndIOp>(
      lanes.apply<arith::ShRUIOp>(bits, lanes.all(32, 24)),
      lanes.all(32, 0x80));
  code = lanes.apply<arith::OrIOp>(code, sign);
  return arith::TruncIOp::create(b, lanes.of(b.getIntegerType(8)), code);
}

Value kvrm::narrowElements(ImplicitLocOpBuilder &b, Value values,
                           Type element) {
  if (isF8(element))
    return narrowToF8(b, values);
  assert(isa<FloatType>(element) && "codes with a scale are of a row");
  Lanes lanes(b, values);
  return arith::TruncFOp::create(b, lanes.of(element), values);
}

//===----------------------------------------------------------------------===//
// Rows of codes with a scale
//===----------------------------------------------------------------------===//

static constexpr uint32_t kInfinity = 0x7f800000;

Value kvrm::magnitudesOf(ImplicitLocOpBuilder &b, Value values) {
  Lanes lanes(b, values);
  return lanes.apply<arith::AndIOp>(lanes.bitcast(values, b.getI32Type()),
                                    lanes.all(32, 0x7fffffff));
}

Value kvrm::scaleOfRow(ImplicitLocOpBuilder &b, Value largestMagnitude) {
  constexpr uint32_t least = 0x03fe0000; // 127 * 2^-126
  constexpr uint32_t nan = 0x7fc0;
  Lanes lanes(b, largestMagnitude);
  Value scale = lanes.apply<arith::DivFOp>(
      lanes.bitcast(largestMagnitude, b.getF32Type()), lanes.all(127.0f));
  Value bits = lanes.apply<arith::ShRUIOp>(
      lanes.apply<arith::AddIOp>(lanes.bitcast(scale, b.getI32Type()),
                                 lanes.all(32, 0xffff)),
      lanes.all(32, 16));
  bits = lanes.select(lanes.isBelow(largestMagnitude, lanes.all(32, least)),
                      lanes.all(32, 0), bits);
  bits = lanes.select(lanes.isBelow(lanes.all(32, kInfinity), largestMagnitude),
                      lanes.all(32, nan), bits);
  return arith::TruncIOp::create(b, lanes.of(b.getI16Type()), bits);
}

Value kvrm::widenScales(ImplicitLocOpBuilder &b, Value scales) {
  Lanes lanes(b, scales);
  Value wide = arith::ExtUIOp::create(b, lanes.of(b.getI32Type()), scales);
  return lanes.bitcast(lanes.apply<arith::ShLIOp>(wide, lanes.all(32, 16)),
                       b.getF32Type());
}

Value kvrm::narrowScaled(ImplicitLocOpBuilder &b, Value values, Value scale) {
  Lanes lanes(b, values), single(b, scale);
  Value divisor = scale;
  if (auto type = dyn_cast<VectorType>(values.getType()))
    divisor = vector::BroadcastOp::create(b, type, scale);
  // The addition rounds: its last place is 1. Nothing is over 127, as the scale
  // was rounded up.
  Value shifted = lanes.apply<arith::AddFOp>(
      lanes.apply<arith::DivFOp>(values, divisor), lanes.all(0x1.8p23f));
  Value codes = arith::TruncIOp::create(b, lanes.of(b.getIntegerType(8)),
                                        lanes.bitcast(shifted, b.getI32Type()));
  // Quotients by 0, by infinity and by NaN are not what codes are made of.
  Value bits = single.bitcast(scale, b.getI32Type());
  Value isNumber = arith::CmpIOp::create(
      b, arith::CmpIPredicate::ult,
      single.apply<arith::SubIOp>(bits, single.all(32, 1)),
      single.all(32, kInfinity - 1));
  return lanes.select(isNumber, codes, lanes.all(8, 0));
}
