//===- StepRewrite.cpp - A static step in the form of phase 1 -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepRewrite.h"

#include "RowPositions.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/ReshapeOpsUtils.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::kvrm::raise;

namespace {

class StepRewriter {
public:
  StepRewriter(func::FuncOp func, const RaisableStep &step, Type element)
      : func(func), step(step), element(element),
        b(func.getLoc(), OpBuilder::atBlockBegin(&func.getBody().front())) {}

  FailureOr<bool> run();

private:
  LogicalResult addArguments();
  /// Positions of rows in the type of the old argument.
  Value asBefore(Value rowPositions);
  /// What rows share to the positions of each.
  LogicalResult spreadPositions();
  LogicalResult checkSharedResults();
  LogicalResult takeBack();
  /// The tensor that `expr` is an element of.
  Value tensorOf(const AttentionLayer &layer, const Expr *expr);
  void replaceLayer(const AttentionLayer &layer, int64_t number);
  void replaceResults();
  LogicalResult eraseTheOld();

  /// A tensor `[rows, 1, heads, columns]` of what `expr` is at each point.
  Value materialise(const AttentionLayer &layer, const Expr *expr,
                    const Expr *head, int64_t heads, Type type);
  /// `[rows, 1, heads, columns]` as the contraction's result.
  Value layOut(const AttentionLayer &layer, Value output);
  Value cast(Value tensor, Type type);
  Value convert(OpBuilder &nested, Location loc, Value scalar, Type type);
  Value index(OpBuilder &nested, Location loc, const Expr *expr,
              const llvm::SmallDenseMap<const Expr *, int64_t> &loops);
  Value elementwise(ArrayRef<int64_t> shape, Type type, Value input,
                    AffineMap map,
                    function_ref<Value(OpBuilder &, Location, Value)> body);

  func::FuncOp func;
  const RaisableStep &step;
  Type element;
  ImplicitLocOpBuilder b;
  RankedTensorType cacheType;
  Value positions, keyCache, valueCache;
  std::unique_ptr<RowPositions> rowPositions;
  /// What stands for the results of contractions that were replaced.
  llvm::DenseMap<Value, Value> outputs;
};

} // namespace

static const Expr *withoutRounding(const Expr *expr) {
  while (expr->is(ExprKind::Round))
    expr = expr->operand(0);
  return expr;
}

/// The element of a layer's queries, keys and values: the cache's if it is
/// theirs, or f32 to hold them all.
static Type activationType(const AttentionLayer &layer, Type cache) {
  auto typeOf = [](const Expr *expr) {
    return getElementTypeOrSelf(withoutRounding(expr)->tensor.getType());
  };
  Type query = typeOf(layer.query);
  if (query == cache && typeOf(layer.key) == query &&
      typeOf(layer.value) == query &&
      getElementTypeOrSelf(layer.op->getResult(0).getType()) == query)
    return query;
  return Float32Type::get(query.getContext());
}

LogicalResult StepRewriter::addArguments() {
  const AttentionLayer &first = step.layers.front();
  cacheType = RankedTensorType::get({static_cast<int64_t>(step.layers.size()),
                                     first.rows, first.kvHeads, first.capacity,
                                     getCacheRow(first.headDim, element)},
                                    element);
  auto positionsType = RankedTensorType::get({first.rows}, b.getI32Type());
  unsigned at = step.position.getArgNumber();
  // Behind the old one, which is erased later; its attributes stay.
  DictionaryAttr attributes = func.getArgAttrDict(at);
  if (failed(func.insertArgument(at + 1, positionsType, attributes,
                                 step.position.getLoc())))
    return failure();
  positions = func.getArgument(at + 1);
  for (Value *cache : {&keyCache, &valueCache}) {
    if (failed(func.insertArgument(func.getNumArguments(), cacheType, {},
                                   func.getLoc())))
      return failure();
    *cache = func.getArguments().back();
  }
  return success();
}

Value StepRewriter::elementwise(
    ArrayRef<int64_t> shape, Type type, Value input, AffineMap map,
    function_ref<Value(OpBuilder &, Location, Value)> body) {
  SmallVector<utils::IteratorType> loops(shape.size(),
                                         utils::IteratorType::parallel);
  Value init = tensor::EmptyOp::create(b, shape, type);
  SmallVector<Value> inputs;
  SmallVector<AffineMap> maps;
  if (input) {
    inputs.push_back(input);
    maps.push_back(map);
  }
  maps.push_back(b.getMultiDimIdentityMap(shape.size()));
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, inputs, ValueRange{init}, maps,
             loops,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               linalg::YieldOp::create(nested, loc,
                                       body(nested, loc, args.front()));
             })
      .getResult(0);
}

Value StepRewriter::convert(OpBuilder &nested, Location loc, Value scalar,
                            Type type) {
  unsigned from = scalar.getType().getIntOrFloatBitWidth();
  unsigned to = type.getIntOrFloatBitWidth();
  if (scalar.getType() == type)
    return scalar;
  if (to > from)
    return arith::ExtFOp::create(nested, loc, type, scalar);
  return arith::TruncFOp::create(nested, loc, type, scalar);
}

Value StepRewriter::cast(Value tensor, Type type) {
  auto from = mlir::cast<RankedTensorType>(tensor.getType());
  if (from.getElementType() == type)
    return tensor;
  return elementwise(from.getShape(), type, tensor,
                     b.getMultiDimIdentityMap(from.getRank()),
                     [&](OpBuilder &nested, Location loc, Value scalar) {
                       return convert(nested, loc, scalar, type);
                     });
}

Value StepRewriter::asBefore(Value rowPositions) {
  Type oldType = step.position.getType();
  Type scalarType = getElementTypeOrSelf(oldType);
  auto widen = [&](OpBuilder &nested, Location loc, Value scalar) -> Value {
    if (scalarType.isIndex())
      return arith::IndexCastOp::create(nested, loc, scalarType, scalar);
    if (scalarType.isInteger(64))
      return arith::ExtSIOp::create(nested, loc, scalarType, scalar);
    return scalar;
  };
  auto tensorType = dyn_cast<RankedTensorType>(oldType);
  if (!tensorType) {
    Value zero = arith::ConstantIndexOp::create(b, 0);
    Value scalar = tensor::ExtractOp::create(b, rowPositions, ValueRange{zero});
    return widen(b, b.getLoc(), scalar);
  }
  if (!scalarType.isInteger(32))
    rowPositions = elementwise(
        mlir::cast<RankedTensorType>(rowPositions.getType()).getShape(),
        scalarType, rowPositions, b.getMultiDimIdentityMap(1), widen);
  if (tensorType.getRank() == 1)
    return rowPositions;
  SmallVector<ReassociationIndices> group;
  if (tensorType.getRank() == 0)
    return tensor::CollapseShapeOp::create(b, tensorType, rowPositions, group);
  group.push_back(llvm::to_vector(llvm::seq<int64_t>(0, tensorType.getRank())));
  return tensor::ExpandShapeOp::create(b, tensorType, rowPositions, group);
}

/// The dim of an element's tensor that is indexed by the row.
static std::optional<unsigned> rowDimOf(const AttentionLayer &layer,
                                        const Expr *element) {
  auto type = mlir::cast<RankedTensorType>(element->tensor.getType());
  for (auto [dim, at] : llvm::enumerate(element->operands))
    if (at == layer.row && type.getDimSize(dim) == layer.rows)
      return dim;
  return std::nullopt;
}

Value StepRewriter::tensorOf(const AttentionLayer &layer, const Expr *expr) {
  // What an earlier layer gave comes from its op by now.
  if (Value output = outputs.lookup(expr->tensor))
    return output;
  if (!rowPositions)
    return expr->tensor;
  std::optional<unsigned> dim = rowDimOf(layer, expr);
  return dim ? rowPositions->spread(expr->tensor, *dim) : Value();
}

/// A number that is made of the position may be that of the first row; what has
/// rows must not be.
LogicalResult StepRewriter::checkSharedResults() {
  Operation *ret = func.getBody().front().getTerminator();
  for (auto [number, value] : llvm::enumerate(ret->getOperands())) {
    if (step.cacheResults.test(number) || !rowPositions->isDependent(value))
      continue;
    auto type = dyn_cast<RankedTensorType>(value.getType());
    if (getElementTypeOrSelf(value.getType()).isIntOrIndex() &&
        (!type || type.getNumElements() == 1))
      continue;
    ret->emitRemark("not raised: the rows of the step share a position, and "
                    "result ")
        << number << " depends on it other than through attention";
    return failure();
  }
  return success();
}

LogicalResult StepRewriter::spreadPositions() {
  SmallVector<Value> ofRows;
  for (int64_t row = 0; row < step.layers.front().rows; ++row) {
    Value slice = tensor::ExtractSliceOp::create(
        b, RankedTensorType::get({1}, b.getI32Type()), positions, ValueRange(),
        ValueRange(), ValueRange(), ArrayRef<int64_t>{row},
        ArrayRef<int64_t>{1}, ArrayRef<int64_t>{1});
    ofRows.push_back(asBefore(slice));
  }
  rowPositions = std::make_unique<RowPositions>(func, step, ofRows);
  for (const AttentionLayer &layer : step.layers) {
    for (const Expr *expr : {layer.query, layer.key, layer.value}) {
      if (tensorOf(layer, withoutRounding(expr)))
        continue;
      Operation *op = rowPositions->getUnknown();
      (op ? op : layer.op)
          ->emitRemark("not raised: the rows of the step share a position, and "
                       "what this makes of it is not known to have rows");
      return failure();
    }
  }
  // All else sees the first row's, which must do.
  if (failed(checkSharedResults()))
    return failure();
  Value(step.position).replaceAllUsesWith(ofRows.front());
  return success();
}

/// Takes arguments and ops back that were added in vain.
LogicalResult StepRewriter::takeBack() {
  rowPositions->undo();
  Block &body = func.getBody().front();
  while (&body.front() != &*b.getInsertionPoint())
    std::prev(b.getInsertionPoint())->erase();
  llvm::BitVector added(func.getNumArguments());
  added.set(step.position.getArgNumber() + 1);
  added.set(func.getNumArguments() - 2, func.getNumArguments());
  return func.eraseArguments(added);
}

/// An index as ops on the loops' indices.
Value StepRewriter::index(
    OpBuilder &nested, Location loc, const Expr *expr,
    const llvm::SmallDenseMap<const Expr *, int64_t> &loops) {
  auto constant = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(nested, loc, value);
  };
  if (expr->is(ExprKind::Integer))
    return constant(expr->number);
  if (auto loop = loops.find(expr); loop != loops.end())
    return linalg::IndexOp::create(nested, loc, loop->second);
  if (expr->is(ExprKind::Linear)) {
    Value sum = constant(expr->number);
    for (auto [operand, coefficient] :
         llvm::zip_equal(expr->operands, expr->coefficients)) {
      Value term =
          arith::MulIOp::create(nested, loc, index(nested, loc, operand, loops),
                                constant(coefficient));
      sum = arith::AddIOp::create(nested, loc, sum, term);
    }
    return sum;
  }
  Value operand = index(nested, loc, expr->operand(0), loops);
  if (expr->is(ExprKind::FloorDiv))
    return arith::FloorDivSIOp::create(nested, loc, operand,
                                       constant(expr->number));
  assert(expr->is(ExprKind::Mod) && "the analysis lets no other index pass");
  return arith::RemSIOp::create(nested, loc, operand, constant(expr->number));
}

/// What `head` is divided by in indices of groups and of heads in a group, if
/// one number serves all; 1 if nothing is divided.
static int64_t groupSize(const Expr *element, const Expr *head, int64_t heads) {
  int64_t size = 1;
  for (const Expr *at : element->operands) {
    if (!at->is(ExprKind::FloorDiv) && !at->is(ExprKind::Mod))
      continue;
    if (at->operand(0) != head || (size != 1 && size != at->number) ||
        heads % at->number != 0)
      return 1;
    size = at->number;
  }
  return size;
}

/// Whether loops over `shape` run over all of the dims that they index, as an
/// indexing map wants it: not over the front of a larger tensor.
static bool takesAll(Value tensor, ArrayRef<AffineExpr> index,
                     ArrayRef<int64_t> shape) {
  auto type = mlir::cast<RankedTensorType>(tensor.getType());
  return llvm::all_of(llvm::enumerate(index), [&](auto at) {
    auto loop = dyn_cast<AffineDimExpr>(at.value());
    return !loop || type.getDimSize(at.index()) == shape[loop.getPosition()];
  });
}

Value StepRewriter::materialise(const AttentionLayer &layer, const Expr *expr,
                                const Expr *head, int64_t heads, Type type) {
  expr = withoutRounding(expr);
  Value tensor = tensorOf(layer, expr);
  // Loops over rows, the one token, groups of heads, heads of a group, columns.
  int64_t group = groupSize(expr, head, heads);
  int64_t shape[] = {layer.rows, 1, heads / group, group, layer.headDim};
  SmallVector<AffineExpr> exprs;
  for (const Expr *at : expr->operands) {
    if (at->isNumber(0))
      exprs.push_back(b.getAffineConstantExpr(0));
    else if (at == layer.row)
      exprs.push_back(b.getAffineDimExpr(0));
    else if (at->is(ExprKind::FloorDiv) ? group > 1 : at == head && group == 1)
      exprs.push_back(b.getAffineDimExpr(2));
    else if (at->is(ExprKind::Mod) && group > 1)
      exprs.push_back(b.getAffineDimExpr(3));
    else if (at == layer.column)
      exprs.push_back(b.getAffineDimExpr(4));
  }
  if (exprs.size() == expr->operands.size() && takesAll(tensor, exprs, shape)) {
    Value grouped = elementwise(
        shape, type, tensor, AffineMap::get(5, 0, exprs, b.getContext()),
        [&](OpBuilder &nested, Location loc, Value scalar) {
          return convert(nested, loc, scalar, type);
        });
    ReassociationIndices merged[] = {{0}, {1}, {2, 3}, {4}};
    return tensor::CollapseShapeOp::create(b, grouped, ArrayRef(merged));
  }
  llvm::SmallDenseMap<const Expr *, int64_t> loops;
  loops[layer.row] = 0;
  loops[head] = 2;
  loops[layer.column] = 3;
  int64_t flat[] = {layer.rows, 1, heads, layer.headDim};
  return elementwise(flat, type, Value(), AffineMap(),
                     [&](OpBuilder &nested, Location loc, Value) {
                       SmallVector<Value> indices;
                       for (const Expr *at : expr->operands)
                         indices.push_back(index(nested, loc, at, loops));
                       Value scalar = tensor::ExtractOp::create(
                           nested, loc, tensor, indices);
                       return convert(nested, loc, scalar, type);
                     });
}

Value StepRewriter::layOut(const AttentionLayer &layer, Value output) {
  auto resultType =
      mlir::cast<RankedTensorType>(layer.op->getResult(0).getType());
  output = cast(output, resultType.getElementType());
  // Rows and heads in one dim, then in those of the result, in the order that
  // counts through them; then in the result's own order.
  SmallVector<int64_t> ordered;
  for (unsigned dim : layer.outputOrder)
    ordered.push_back(resultType.getDimSize(dim));
  ordered.push_back(layer.headDim);
  SmallVector<ReassociationIndices> groups = {{0, 1, 2}, {3}};
  if (layer.outputOrder.empty())
    groups = {{0, 1, 2, 3}};
  output = tensor::CollapseShapeOp::create(b, output, groups);
  if (layer.outputOrder.size() > 1) {
    auto rank = static_cast<int64_t>(ordered.size());
    groups = {llvm::to_vector(llvm::seq<int64_t>(0, rank - 1)), {rank - 1}};
    output = tensor::ExpandShapeOp::create(
        b, RankedTensorType::get(ordered, resultType.getElementType()), output,
        groups);
  }
  SmallVector<int64_t> permutation(ordered.size(),
                                   static_cast<int64_t>(ordered.size()) - 1);
  for (auto [at, dim] : llvm::enumerate(layer.outputOrder))
    permutation[dim] = static_cast<int64_t>(at);
  if (llvm::is_sorted(permutation))
    return output;
  Value init = tensor::EmptyOp::create(b, resultType.getShape(),
                                       resultType.getElementType());
  return linalg::TransposeOp::create(b, output, init, permutation)
      ->getResult(0);
}

void StepRewriter::replaceLayer(const AttentionLayer &layer, int64_t number) {
  b.setInsertionPoint(layer.op);
  b.setLoc(layer.op->getLoc());
  Type type = activationType(layer, element);
  Value query = materialise(layer, layer.query, layer.head, layer.heads, type);
  Value key = materialise(layer, layer.key, layer.kvHead, layer.kvHeads, type);
  Value value =
      materialise(layer, layer.value, layer.kvHead, layer.kvHeads, type);
  auto attention = CachedAttentionOp::create(
      b, TypeRange{query.getType(), cacheType, cacheType}, query, key, value,
      keyCache, valueCache, positions, /*counts=*/Value(), /*slots=*/Value(),
      b.getI64IntegerAttr(number),
      b.getF32FloatAttr(static_cast<float>(layer.scale)),
      /*window=*/IntegerAttr(),
      /*softcap=*/FloatAttr());
  keyCache = attention.getNewKeyCache();
  valueCache = attention.getNewValueCache();
  Value output = layOut(layer, attention.getOutput());
  outputs[layer.op->getResult(0)] = output;
  layer.op->getResult(0).replaceAllUsesWith(output);
}

void StepRewriter::replaceResults() {
  auto ret = mlir::cast<func::ReturnOp>(func.getBody().front().getTerminator());
  ret->eraseOperands(step.cacheResults);
  ret->insertOperands(ret->getNumOperands(), {keyCache, valueCache});
}

LogicalResult StepRewriter::eraseTheOld() {
  Block &body = func.getBody().front();
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(body)))
    if (op.use_empty() && isRemovable(&op))
      op.erase();
  llvm::BitVector old = step.cacheArguments;
  old.resize(func.getNumArguments());
  // The new positions stand behind the old one, and caches behind that moved.
  for (unsigned i = old.size() - 1; i > step.position.getArgNumber() + 1; --i)
    old[i] = i - 1 < step.cacheArguments.size() && step.cacheArguments[i - 1];
  old.reset(step.position.getArgNumber() + 1);
  old.set(step.position.getArgNumber());
  for (unsigned i : old.set_bits())
    if (!func.getArgument(i).use_empty())
      return func.emitError("argument ")
             << i << " of a raised step is still used";
  if (failed(func.eraseArguments(old)) ||
      failed(func.eraseResults(step.cacheResults)))
    return failure();
  for (int i = 0; i < 2; ++i)
    if (failed(func.insertResult(func.getNumResults(), cacheType, {})))
      return failure();
  return success();
}

FailureOr<bool> StepRewriter::run() {
  if (failed(addArguments()))
    return failure();
  if (!step.hasCommonPosition) {
    Value(step.position).replaceAllUsesWith(asBefore(positions));
  } else if (failed(spreadPositions())) {
    if (failed(takeBack()))
      return failure();
    return false;
  }
  for (auto [layer, number] : llvm::zip_equal(step.layers, step.layerNumbers))
    replaceLayer(layer, number);
  replaceResults();
  if (failed(eraseTheOld()))
    return failure();
  func->setAttr(KVRMDialect::getStepAttrName(), b.getUnitAttr());
  return true;
}

FailureOr<bool> mlir::kvrm::raise::rewriteStep(func::FuncOp func,
                                               const RaisableStep &step,
                                               Type element) {
  return StepRewriter(func, step, element).run();
}
