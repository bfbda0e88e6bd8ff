//===- RmsNorm.cpp - RMS normalization in linalg --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RmsNorm.h"

#include "kvrm/Dialect/KVRM/Utils/Generics.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::kvrm;
using utils::IteratorType;

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

/// The map of a 2-d loop to one of its dimensions, or to both.
static AffineMap mapTo(MLIRContext *context, ArrayRef<unsigned> dims) {
  return AffineMap::getMultiDimMapWithTargets(2, dims, context);
}

static Value getYielded(linalg::GenericOp op) {
  return op.getBody()->getTerminator()->getOperand(0);
}

/// One operand of a commuting op, given the other.
template <typename OpT> static Value otherOperand(OpT op, Value one) {
  if (op.getLhs() == one)
    return op.getRhs();
  return op.getRhs() == one ? op.getLhs() : Value();
}

/// The constant operand of a commuting op, which becomes `value`, and the
/// other.
template <typename OpT>
static std::pair<Value, std::optional<APFloat>> splitConstant(OpT op) {
  APFloat value(0.0f);
  if (matchPattern(op.getRhs(), m_ConstantFloat(&value)))
    return {op.getLhs(), value};
  if (matchPattern(op.getLhs(), m_ConstantFloat(&value)))
    return {op.getRhs(), value};
  return {Value(), std::nullopt};
}

/// The tensor the sum over whose columns of squares `op` is, from zero.
static Value matchSumOfSquares(linalg::GenericOp op) {
  MLIRContext *context = op.getContext();
  if (!op.hasPureTensorSemantics() || op.getNumDpsInits() != 1 ||
      op.getIteratorTypesArray() !=
          SmallVector{IteratorType::parallel, IteratorType::reduction} ||
      op.getMatchingIndexingMap(op.getDpsInitOperand(0)) != mapTo(context, 0))
    return {};
  auto zero = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
  if (!zero || !matchPattern(zero.getInputs().front(), m_AnyZeroFloat()))
    return {};
  auto sum = getYielded(op).getDefiningOp<arith::AddFOp>();
  Value square =
      sum ? otherOperand(sum, op.getRegionOutputArgs().front()) : Value();
  auto product = square ? square.getDefiningOp<arith::MulFOp>() : nullptr;
  if (!product)
    return {};
  AffineMap whole = mapTo(context, {0, 1});
  Value input = getInputOfElement(op, product.getLhs(), whole);
  if (!input || input != getInputOfElement(op, product.getRhs(), whole))
    return {};
  return input;
}

/// `x` if `value` is `1 / sqrt(x)`.
static Value matchInverseRoot(Value value) {
  if (auto root = value.getDefiningOp<math::RsqrtOp>())
    return root.getOperand();
  auto quotient = value.getDefiningOp<arith::DivFOp>();
  if (!quotient || !matchPattern(quotient.getLhs(), m_OneFloat()))
    return {};
  auto root = quotient.getRhs().getDefiningOp<math::SqrtOp>();
  return root ? root.getOperand() : Value();
}

/// `x` if `value` is `x / count`, perhaps as a product.
static Value matchMean(Value value, int64_t count) {
  auto f32 = static_cast<float>(count);
  APFloat constant(0.0f);
  if (auto quotient = value.getDefiningOp<arith::DivFOp>())
    return matchPattern(quotient.getRhs(), m_ConstantFloat(&constant)) &&
                   constant == APFloat(f32)
               ? quotient.getLhs()
               : Value();
  auto product = value.getDefiningOp<arith::MulFOp>();
  if (!product)
    return {};
  auto [sum, factor] = splitConstant(product);
  return factor && *factor == APFloat(1.0f / f32) ? sum : Value();
}

namespace {
/// `1 / sqrt(sums / count + epsilon)` of each row.
struct RowScale {
  Value sums;
  APFloat epsilon;
};
} // namespace

static std::optional<RowScale> matchRowScale(linalg::GenericOp op,
                                             int64_t count) {
  if (!isElementwise(op, 1) || !isF32Tensor(op.getResult(0), 1))
    return std::nullopt;
  Value square = matchInverseRoot(getYielded(op));
  auto shifted = square ? square.getDefiningOp<arith::AddFOp>() : nullptr;
  if (!shifted)
    return std::nullopt;
  auto [mean, epsilon] = splitConstant(shifted);
  if (!epsilon || !epsilon->isFinite() || epsilon->isNegative() ||
      epsilon->isZero())
    return std::nullopt;
  Value element = matchMean(mean, count);
  Value sums = element ? getInputOfElement(op, element,
                                           AffineMap::getMultiDimIdentityMap(
                                               1, op.getContext()))
                       : Value();
  if (!sums)
    return std::nullopt;
  return RowScale{sums, *epsilon};
}

/// Appends the factors of a product, whatever its order.
static void collectFactors(Value value, SmallVectorImpl<Value> &factors) {
  if (auto product = value.getDefiningOp<arith::MulFOp>()) {
    collectFactors(product.getLhs(), factors);
    collectFactors(product.getRhs(), factors);
    return;
  }
  factors.push_back(value);
}

namespace {
/// Rows times a factor of each row and one of each column.
struct ScaledRows {
  Value rows, perRow, perColumn;
};
} // namespace

static std::optional<ScaledRows> matchScaledRows(linalg::GenericOp op) {
  if (!isElementwise(op, 2))
    return std::nullopt;
  SmallVector<Value> factors;
  collectFactors(stripRounding(getYielded(op)), factors);
  if (factors.size() != 3)
    return std::nullopt;
  auto find = [&](ArrayRef<unsigned> dims) {
    Value found;
    for (Value factor : factors)
      if (Value input =
              getInputOfElement(op, factor, mapTo(op.getContext(), dims)))
        found = input;
    return found;
  };
  ScaledRows scaled{find({0, 1}), find(0), find(1)};
  if (!scaled.rows || !scaled.perRow || !scaled.perColumn)
    return std::nullopt;
  return scaled;
}

/// The op that alone uses `op` and does nothing but to round its elements.
static linalg::GenericOp findCast(linalg::GenericOp op) {
  if (!op->hasOneUse())
    return {};
  auto user = dyn_cast<linalg::GenericOp>(*op->user_begin());
  if (!user || user->getBlock() != op->getBlock() || !isElementwise(user, 2))
    return {};
  Value element = stripRounding(getYielded(user));
  AffineMap whole = mapTo(op.getContext(), {0, 1});
  bool casts = element != getYielded(user) &&
               getInputOfElement(user, element, whole) == op.getResult(0);
  return casts ? user : linalg::GenericOp();
}

std::optional<RmsNorm> RmsNorm::match(linalg::GenericOp apply) {
  std::optional<ScaledRows> scaled = matchScaledRows(apply);
  if (!scaled || !isF32Tensor(scaled->rows, 2) ||
      !isF32Tensor(scaled->perColumn, 1))
    return std::nullopt;
  auto scale = scaled->perRow.getDefiningOp<linalg::GenericOp>();
  int64_t width = cast<ShapedType>(scaled->rows.getType()).getDimSize(1);
  std::optional<RowScale> row =
      scale && scale->hasOneUse() ? matchRowScale(scale, width) : std::nullopt;
  if (!row)
    return std::nullopt;
  auto squares = row->sums.getDefiningOp<linalg::GenericOp>();
  if (!squares || !squares->hasOneUse() ||
      matchSumOfSquares(squares) != scaled->rows)
    return std::nullopt;
  linalg::GenericOp last = apply;
  if (getElementTypeOrSelf(last.getResult(0)).isF32())
    if (linalg::GenericOp cast = findCast(apply))
      last = cast;
  Type element = getElementTypeOrSelf(last.getResult(0));
  if (!element.isF32() && !element.isF16() && !element.isBF16())
    return std::nullopt;
  return RmsNorm{scaled->rows, scaled->perColumn, row->epsilon, last};
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

namespace {
/// Writes the generics of one normalization.
class RmsNormWriter {
public:
  explicit RmsNormWriter(RmsNormOp op)
      : b(op.getLoc(), op), op(op),
        type(cast<RankedTensorType>(op.getInput().getType())) {}
  Value write() { return writeRows(writeScale(writeSquares())); }

private:
  using Body = function_ref<Value(ImplicitLocOpBuilder &, ValueRange)>;

  Value constant(ImplicitLocOpBuilder &at, float value) {
    return arith::ConstantOp::create(at, at.getF32FloatAttr(value));
  }
  Value emptyRows() {
    return tensor::EmptyOp::create(b, type.getShape().take_front(),
                                   b.getF32Type());
  }
  Value writeGeneric(ValueRange inputs, Value init, ArrayRef<AffineMap> maps,
                     ArrayRef<IteratorType> iterators, Body body);
  Value writeSquares();
  Value writeScale(Value squares);
  Value writeRows(Value scale);

  ImplicitLocOpBuilder b;
  RmsNormOp op;
  RankedTensorType type;
};
} // namespace

Value RmsNormWriter::writeGeneric(ValueRange inputs, Value init,
                                  ArrayRef<AffineMap> maps,
                                  ArrayRef<IteratorType> iterators, Body body) {
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, inputs, ValueRange{init}, maps,
             iterators,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               ImplicitLocOpBuilder inner(loc, nested);
               linalg::YieldOp::create(inner, body(inner, args));
             })
      .getResult(0);
}

/// The sum of each row's squares.
Value RmsNormWriter::writeSquares() {
  Value zero = constant(b, 0.0f);
  Value init = linalg::FillOp::create(b, zero, emptyRows()).getResult(0);
  return writeGeneric(
      op.getInput(), init,
      {mapTo(b.getContext(), {0, 1}), mapTo(b.getContext(), 0)},
      {IteratorType::parallel, IteratorType::reduction},
      [](ImplicitLocOpBuilder &inner, ValueRange args) -> Value {
        Value square = arith::MulFOp::create(inner, args[0], args[0]);
        return arith::AddFOp::create(inner, args[1], square);
      });
}

Value RmsNormWriter::writeScale(Value squares) {
  AffineMap map = b.getMultiDimIdentityMap(1);
  return writeGeneric(
      squares, emptyRows(), {map, map}, IteratorType::parallel,
      [&](ImplicitLocOpBuilder &inner, ValueRange args) -> Value {
        auto width = static_cast<float>(type.getDimSize(1));
        Value inverse = constant(inner, 1.0f / width);
        Value epsilon = arith::ConstantOp::create(inner, op.getEpsilonAttr());
        Value one = constant(inner, 1.0f);
        Value mean = arith::MulFOp::create(inner, args[0], inverse);
        Value sum = arith::AddFOp::create(inner, mean, epsilon);
        Value root = math::SqrtOp::create(inner, sum);
        return arith::DivFOp::create(inner, one, root);
      });
}

Value RmsNormWriter::writeRows(Value scale) {
  AffineMap whole = mapTo(b.getContext(), {0, 1});
  return writeGeneric(
      {op.getInput(), scale, op.getGain()}, op.getOutput(),
      {whole, mapTo(b.getContext(), 0), mapTo(b.getContext(), 1), whole},
      {IteratorType::parallel, IteratorType::parallel},
      [&](ImplicitLocOpBuilder &inner, ValueRange args) -> Value {
        Value scaled = arith::MulFOp::create(inner, args[0], args[1]);
        Value result = arith::MulFOp::create(inner, scaled, args[2]);
        if (args[3].getType() == result.getType())
          return result;
        return arith::TruncFOp::create(inner, args[3].getType(), result);
      });
}

Value kvrm::writeRmsNorm(RmsNormOp op) { return RmsNormWriter(op).write(); }
