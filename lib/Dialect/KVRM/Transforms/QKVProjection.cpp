//===- QKVProjection.cpp - Projections of attention in linalg -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QKVProjection.h"

#include "kvrm/Dialect/KVRM/Utils/Columns.h"
#include "kvrm/Dialect/KVRM/Utils/Generics.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace mlir::kvrm;

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

/// The op of the slice's block in which all users of `value` are.
static Operation *onlyUserOf(Value value, Block *block) {
  Operation *found = nullptr;
  for (Operation *user : value.getUsers()) {
    Operation *op = block->findAncestorOpInBlock(*user);
    if (!op || (found && op != found))
      return nullptr;
    found = op;
  }
  return found;
}

static std::optional<QKVProjection::Turned>
matchTurned(tensor::ExtractSliceOp slice) {
  Block *block = slice->getBlock();
  auto pairs = dyn_cast_or_null<tensor::ExpandShapeOp>(
      onlyUserOf(slice.getResult(), block));
  if (!pairs || pairs.getReassociationIndices() !=
                    SmallVector<ReassociationIndices>{{0}, {1, 2, 3}})
    return std::nullopt;
  auto last =
      dyn_cast_or_null<linalg::GenericOp>(onlyUserOf(pairs.getResult(), block));
  std::optional<Rotation> rotation =
      last ? Rotation::match(last) : std::nullopt;
  if (!rotation || rotation->pairs != pairs.getResult())
    return std::nullopt;
  return QKVProjection::Turned{slice, last, *rotation};
}

/// Whether `op` rounds each element of `input`, and does nothing else.
static bool isCastOf(linalg::GenericOp op, Value input) {
  if (!isElementwise(op, 2))
    return false;
  Value yielded = op.getBody()->getTerminator()->getOperand(0);
  Value element = stripRounding(yielded);
  AffineMap all = AffineMap::getMultiDimIdentityMap(2, op.getContext());
  return element != yielded && getInputOfElement(op, element, all) == input;
}

/// The slice, or the op that alone uses it if that rounds to `element`.
static Operation *matchValue(tensor::ExtractSliceOp slice, Type element) {
  if (element.isF32())
    return slice;
  auto cast = dyn_cast_or_null<linalg::GenericOp>(
      onlyUserOf(slice.getResult(), slice->getBlock()));
  if (!cast || !isCastOf(cast, slice.getResult()) ||
      getElementTypeOrSelf(cast.getResult(0)) != element)
    return nullptr;
  return cast;
}

/// Whether `value` is known where `op` is.
static bool isKnownAt(Value value, Operation *op) {
  Operation *definition = value.getDefiningOp();
  return !definition || (definition->getBlock() == op->getBlock() &&
                         definition->isBeforeInBlock(op));
}

/// What adds a row to all rows of a product, and alone uses it.
static linalg::GenericOp findBiasAddition(LinearOp product) {
  auto op = dyn_cast_or_null<linalg::GenericOp>(
      onlyUserOf(product.getResult(), product->getBlock()));
  return op && isElementwise(op, 2) && isF32Tensor(op.getResult(0), 2)
             ? op
             : linalg::GenericOp();
}

/// The row; null if that is not what `op` does.
static Value matchBias(linalg::GenericOp op, Value product) {
  MLIRContext *context = op.getContext();
  AffineMap all = AffineMap::getMultiDimIdentityMap(2, context);
  AffineMap byColumn = AffineMap::getMultiDimMapWithTargets(2, 1, context);
  auto sum = op.getBody()
                 ->getTerminator()
                 ->getOperand(0)
                 .getDefiningOp<arith::AddFOp>();
  if (!sum)
    return {};
  for (auto [element, other] :
       {std::pair(sum.getLhs(), sum.getRhs()), {sum.getRhs(), sum.getLhs()}})
    if (getInputOfElement(op, element, all) == product)
      if (Value bias = getInputOfElement(op, other, byColumn))
        return isF32Tensor(bias, 1) ? bias : Value();
  return {};
}

std::optional<QKVProjection> QKVProjection::match(LinearOp product) {
  Value sums = product.getResult(), bias;
  if (linalg::GenericOp addition = findBiasAddition(product)) {
    bias = matchBias(addition, sums);
    if (!bias || !isKnownAt(bias, product))
      return std::nullopt;
    sums = addition.getResult(0);
  }
  SmallVector<tensor::ExtractSliceOp> slices = getColumnSlices(sums);
  if (slices.size() != 3 || slices[1].getType() != slices[2].getType())
    return std::nullopt;
  std::optional<Turned> query = matchTurned(slices[0]);
  std::optional<Turned> key = matchTurned(slices[1]);
  if (!query || !key || query->rotation.cosines != key->rotation.cosines ||
      query->rotation.sines != key->rotation.sines ||
      !isKnownAt(query->rotation.cosines, product) ||
      !isKnownAt(query->rotation.sines, product))
    return std::nullopt;
  Type element = getElementTypeOrSelf(query->last.getResult(0));
  Operation *value = matchValue(slices[2], element);
  if (!value || getElementTypeOrSelf(key->last.getResult(0)) != element)
    return std::nullopt;
  return QKVProjection{*query, *key, bias, value};
}

/// Gives users of heads in halves, or of what they collapse to, `columns`.
static void replaceTurned(ImplicitLocOpBuilder &b, Value halves,
                          Value columns) {
  for (Operation *user : llvm::make_early_inc_range(halves.getUsers())) {
    auto collapse = dyn_cast<tensor::CollapseShapeOp>(user);
    if (!collapse || collapse.getType() != columns.getType())
      continue;
    collapse.getResult().replaceAllUsesWith(columns);
    collapse.erase();
  }
  if (halves.use_empty())
    return;
  SmallVector<ReassociationIndices> groups = {{0}, {1, 2, 3}};
  halves.replaceAllUsesWith(
      tensor::ExpandShapeOp::create(b, halves.getType(), columns, groups));
}

QKVProjectionOp QKVProjection::form(LinearOp product) {
  ImplicitLocOpBuilder b(product.getLoc(), product);
  Type element = getElementTypeOrSelf(query.last.getResult(0));
  SmallVector<Value> inits;
  SmallVector<Type> types;
  for (int64_t columns :
       {query.slice.getType().getDimSize(1), key.slice.getType().getDimSize(1),
        key.slice.getType().getDimSize(1)}) {
    inits.push_back(tensor::EmptyOp::create(
        b, ArrayRef{product.getRows(), columns}, element));
    types.push_back(inits.back().getType());
  }
  auto op = QKVProjectionOp::create(
      b, types, product.getInput(), product.getWeight(), product.getGain(),
      bias, query.rotation.cosines, query.rotation.sines, inits[0], inits[1],
      inits[2], product.getEpsilonAttr(), product.getFormatAttr(),
      product.getNormElementAttr());
  replaceTurned(b, query.last.getResult(0), op.getResult(0));
  replaceTurned(b, key.last.getResult(0), op.getResult(1));
  value->getResult(0).replaceAllUsesWith(op.getResult(2));
  return op;
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

static Value writeCast(ImplicitLocOpBuilder &b, Value input, Value init) {
  if (input.getType() == init.getType())
    return input;
  AffineMap all = b.getMultiDimIdentityMap(2);
  SmallVector<utils::IteratorType> iterators(2, utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, ValueRange{input}, ValueRange{init},
             ArrayRef{all, all}, iterators,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               Value rounded = arith::TruncFOp::create(
                   nested, loc, args[1].getType(), args[0]);
               linalg::YieldOp::create(nested, loc, rounded);
             })
      .getResult(0);
}

/// Adds the bias to each row.
static Value writeBias(ImplicitLocOpBuilder &b, Value product, Value bias) {
  AffineMap all = b.getMultiDimIdentityMap(2);
  AffineMap byColumn =
      AffineMap::getMultiDimMapWithTargets(2, 1, b.getContext());
  SmallVector<utils::IteratorType> iterators(2, utils::IteratorType::parallel);
  auto type = cast<RankedTensorType>(product.getType());
  Value init =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  return linalg::GenericOp::create(
             b, TypeRange{type}, ValueRange{product, bias}, ValueRange{init},
             ArrayRef{all, byColumn, all}, iterators,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               Value sum = arith::AddFOp::create(nested, loc, args[0], args[1]);
               linalg::YieldOp::create(nested, loc, sum);
             })
      .getResult(0);
}

/// The columns of query or key, turned.
static Value writeTurned(ImplicitLocOpBuilder &b, QKVProjectionOp op,
                         Value columns) {
  auto type = cast<RankedTensorType>(columns.getType());
  int64_t half = op.getHeadDim() / 2;
  SmallVector<ReassociationIndices> groups = {{0}, {1, 2, 3}};
  auto pairs = RankedTensorType::get(
      {type.getDimSize(0), type.getDimSize(1) / op.getHeadDim(), 2, half},
      type.getElementType());
  Rotation rotation{
      tensor::ExpandShapeOp::create(b, pairs, columns, groups).getResult(),
      op.getCosines(), op.getSines()};
  Value turned = rotation.write(b, getElementTypeOrSelf(op.getQuery()));
  return tensor::CollapseShapeOp::create(b, turned, groups);
}

SmallVector<Value> kvrm::writeQKVProjection(ImplicitLocOpBuilder &b,
                                            QKVProjectionOp op, Value product) {
  int64_t query = op.getQueryColumns(), key = op.getKeyColumns();
  if (op.getBias())
    product = writeBias(b, product, op.getBias());
  return {
      writeTurned(b, op, sliceColumns(b, product, 0, query)),
      writeTurned(b, op, sliceColumns(b, product, query, key)),
      writeCast(b, sliceColumns(b, product, query + key, key), op.getValue())};
}
