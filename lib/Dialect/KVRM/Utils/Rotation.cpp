//===- Rotation.cpp - Rotary embedding in linalg --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/Rotation.h"

#include "kvrm/Dialect/KVRM/Utils/Generics.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::kvrm;

/// Loops: tokens, heads, halves, pairs.
static constexpr unsigned kLoops = 4;
static constexpr unsigned kHalves = 2;

/// The angle of a token's pair.
static AffineMap getAngleMap(MLIRContext *context) {
  return AffineMap::getMultiDimMapWithTargets(kLoops, {0, 3}, context);
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

static bool isLoop(Value value, unsigned dim) {
  auto index = value.getDefiningOp<linalg::IndexOp>();
  return index && index.getDim() == dim;
}

/// Whether `value` says that this is the first half.
static bool isInFirstHalf(Value value) {
  auto compare = value.getDefiningOp<arith::CmpIOp>();
  if (!compare || !isLoop(compare.getLhs(), kHalves))
    return false;
  switch (compare.getPredicate()) {
  case arith::CmpIPredicate::eq:
    return matchPattern(compare.getRhs(), m_Zero());
  case arith::CmpIPredicate::ult:
  case arith::CmpIPredicate::slt:
    return matchPattern(compare.getRhs(), m_One());
  default:
    return false;
  }
}

/// The tensor whose element of the same pair in the other half `value` is.
static Value matchPartner(Value value) {
  auto extract = value.getDefiningOp<tensor::ExtractOp>();
  if (!extract || extract.getIndices().size() != kLoops)
    return {};
  auto shape = cast<ShapedType>(extract.getTensor().getType()).getShape();
  for (unsigned dim = 0; dim < kLoops; ++dim) {
    Value index = extract.getIndices()[dim];
    // The index of a single iteration may have become a constant.
    bool isSame = isLoop(index, dim) ||
                  (shape[dim] == 1 && matchPattern(index, m_Zero()));
    if (dim != kHalves && !isSame)
      return {};
  }
  auto other = extract.getIndices()[kHalves].getDefiningOp<arith::SubIOp>();
  if (!other || !matchPattern(other.getLhs(), m_One()) ||
      !isLoop(other.getRhs(), kHalves))
    return {};
  return extract.getTensor();
}

/// The angle's sine, if `value` is that in the second half and less that in the
/// first.
static Value matchSignedSine(Value value) {
  auto select = value.getDefiningOp<arith::SelectOp>();
  if (!select || !isInFirstHalf(select.getCondition()))
    return {};
  auto negated = select.getTrueValue().getDefiningOp<arith::NegFOp>();
  return negated && negated.getOperand() == select.getFalseValue()
             ? select.getFalseValue()
             : Value();
}

/// Calls `match` with the operands of a commuting op in both orders, until it
/// returns true.
template <typename OpT>
static bool matchEitherWay(OpT op, function_ref<bool(Value, Value)> match) {
  return op &&
         (match(op.getLhs(), op.getRhs()) || match(op.getRhs(), op.getLhs()));
}

namespace {
/// The body's operands, as they are found.
struct RotationMatcher {
  linalg::GenericOp op;
  Rotation found;

  /// own * cosine
  bool matchOwn(Value value) {
    AffineMap all = AffineMap::getMultiDimIdentityMap(kLoops, op.getContext());
    return matchEitherWay(
        value.getDefiningOp<arith::MulFOp>(), [&](Value own, Value cosine) {
          found.pairs = getInputOfElement(op, own, all);
          found.cosines =
              getInputOfElement(op, cosine, getAngleMap(op.getContext()));
          return found.pairs && found.cosines;
        });
  }
  /// partner * signed sine
  bool matchOther(Value value) {
    return matchEitherWay(
        value.getDefiningOp<arith::MulFOp>(), [&](Value partner, Value sine) {
          Value angle = matchSignedSine(sine);
          found.sines =
              angle ? getInputOfElement(op, angle, getAngleMap(op.getContext()))
                    : Value();
          return found.sines && matchPartner(partner) == found.pairs;
        });
  }
  bool match(Value value) {
    return matchEitherWay(value.getDefiningOp<arith::AddFOp>(),
                          [&](Value own, Value other) {
                            return matchOwn(own) && matchOther(other);
                          });
  }
};
} // namespace

std::optional<Rotation> Rotation::match(linalg::GenericOp op) {
  if (!isElementwise(op, kLoops))
    return std::nullopt;
  RotationMatcher matcher{op, {}};
  if (!matcher.match(
          stripRounding(op.getBody()->getTerminator()->getOperand(0))))
    return std::nullopt;
  const Rotation &found = matcher.found;
  if (!isF32Tensor(found.pairs, kLoops) || !isF32Tensor(found.cosines, 2) ||
      found.cosines.getType() != found.sines.getType() ||
      cast<ShapedType>(found.pairs.getType()).getDimSize(kHalves) != 2)
    return std::nullopt;
  return found;
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

/// The element of the same pair in the other half, and its sine with its sign.
static std::pair<Value, Value> writeOther(ImplicitLocOpBuilder &b, Value pairs,
                                          Value sine) {
  SmallVector<Value> index;
  for (unsigned dim = 0; dim < kLoops; ++dim)
    index.push_back(linalg::IndexOp::create(b, dim));
  Value one = arith::ConstantIndexOp::create(b, 1);
  Value isFirst =
      arith::CmpIOp::create(b, arith::CmpIPredicate::ult, index[kHalves], one);
  index[kHalves] = arith::SubIOp::create(b, one, index[kHalves]);
  Value partner = tensor::ExtractOp::create(b, pairs, index);
  Value negated = arith::NegFOp::create(b, sine);
  return {partner, arith::SelectOp::create(b, isFirst, negated, sine)};
}

Value Rotation::write(ImplicitLocOpBuilder &b, Type element) const {
  auto shape = cast<RankedTensorType>(pairs.getType()).getShape();
  AffineMap all = b.getMultiDimIdentityMap(kLoops);
  AffineMap angle = getAngleMap(b.getContext());
  SmallVector<utils::IteratorType> iterators(kLoops,
                                             utils::IteratorType::parallel);
  Value init = tensor::EmptyOp::create(b, shape, element);
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, ValueRange{pairs, cosines, sines},
             ValueRange{init}, ArrayRef{all, angle, angle, all}, iterators,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               ImplicitLocOpBuilder inner(loc, nested);
               auto [partner, sine] = writeOther(inner, pairs, args[2]);
               Value own = arith::MulFOp::create(inner, args[0], args[1]);
               Value other = arith::MulFOp::create(inner, partner, sine);
               Value sum = arith::AddFOp::create(inner, own, other);
               if (!element.isF32())
                 sum = arith::TruncFOp::create(inner, element, sum);
               linalg::YieldOp::create(inner, sum);
             })
      .getResult(0);
}
