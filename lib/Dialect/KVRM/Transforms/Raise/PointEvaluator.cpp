//===- PointEvaluator.cpp - What a tensor holds at a point ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PointEvaluator.h"

#include "ConstantTable.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/TypeSwitch.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvrm::raise;

IntRange mlir::kvrm::raise::rangeOfType(Type type) {
  type = getElementTypeOrSelf(type);
  if (auto integer = dyn_cast<IntegerType>(type))
    return rangeOfWidth(integer.getWidth());
  return {};
}

PointEvaluator::PointEvaluator(ExprPool &pool, Assumption assumption)
    : pool(pool), assumption(std::move(assumption)) {}

PointEvaluator::~PointEvaluator() = default;

/// Whether it is known which elements there are, and there are any.
static bool isStatic(Value tensor) {
  auto type = dyn_cast<RankedTensorType>(tensor.getType());
  return type && type.hasStaticShape() &&
         !llvm::is_contained(type.getShape(), 0);
}

static bool isIntegral(Value value) {
  return getElementTypeOrSelf(value.getType()).isIntOrIndex();
}

/// Whether the result is elements of operands and constants as they are.
static bool movesData(linalg::LinalgOp op, unsigned result) {
  if (op.getNumReductionLoops() != 0)
    return false;
  Value yielded = op.getBlock()->getTerminator()->getOperand(result);
  // A wider type holds the same number.
  while (auto extended = yielded.getDefiningOp<arith::ExtFOp>())
    yielded = extended.getIn();
  return isa<BlockArgument>(yielded) ||
         yielded.getParentBlock() != op.getBlock() ||
         yielded.getDefiningOp<tensor::ExtractOp>();
}

static bool movesData(Value tensor) {
  Operation *op = tensor.getDefiningOp();
  if (!op)
    return false;
  if (auto linalgOp = dyn_cast<linalg::LinalgOp>(op))
    return movesData(linalgOp, cast<OpResult>(tensor).getResultNumber());
  return isa<tensor::TensorDialect, arith::ArithDialect>(op->getDialect());
}

const Expr *PointEvaluator::at(Value tensor, Index index) {
  IntRange range = rangeOfType(tensor.getType());
  if (isa<BlockArgument>(tensor) && isIntegral(tensor) &&
      (!assumption.argument || assumption.argument == tensor) &&
      assumption.range.within(range))
    range = assumption.range;
  const Expr *element = pool.element(tensor, index, isIntegral(tensor), range);
  if (const Expr *known = resolved.lookup(element))
    return known;
  const Expr *result = resolve(element);
  resolved[element] = result;
  return result;
}

const Expr *PointEvaluator::resolve(const Expr *element) {
  if (!element->isInteger && !movesData(element->tensor))
    return element;
  const Expr *defined = define(element);
  if (!defined)
    return element;
  if (element->isInteger || defined->is(ExprKind::Element) ||
      defined->is(ExprKind::Real))
    return defined;
  steps[element] = defined;
  return element;
}

const Expr *PointEvaluator::step(const Expr *element) {
  if (!element->is(ExprKind::Element))
    return element;
  if (const Expr *known = steps.lookup(element))
    return known;
  const Expr *defined = define(element);
  return steps[element] = defined ? defined : element;
}

const Expr *PointEvaluator::head(const Expr *expr) {
  while (expr->is(ExprKind::Element)) {
    const Expr *next = step(expr);
    if (next == expr)
      break;
    expr = next;
  }
  return expr;
}

const Expr *PointEvaluator::define(const Expr *element) {
  if (depth >= maxDepth || pool.size() >= maxExprs) {
    exhausted = true;
    return nullptr;
  }
  Operation *op = element->tensor.getDefiningOp();
  if (llvm::is_contained(assumption.causalMasks, element->tensor))
    return defineMask(element->tensor, element->operands);
  if (!op || !isStatic(element->tensor))
    return nullptr;
  ++depth;
  const Expr *result = defineTensorOp(op, element->operands, element->tensor);
  --depth;
  return result;
}

const Expr *PointEvaluator::defineMask(Value mask, Index index) {
  auto type = cast<RankedTensorType>(mask.getType());
  // The position of the mask's row: its first dim of as many as there are.
  SmallVector<const Expr *> point;
  if (auto positions =
          dyn_cast<RankedTensorType>(assumption.argument.getType())) {
    for (int64_t size : positions.getShape()) {
      const auto *dim = llvm::find(type.getShape().drop_back(), size);
      if (size != 1 && dim == type.getShape().drop_back().end())
        return nullptr;
      point.push_back(size == 1 ? pool.integer(0)
                                : index[dim - type.getShape().begin()]);
    }
  }
  const Expr *isSeen =
      pool.lessOrEqual(index.back(), at(assumption.argument, point));
  if (isIntegral(mask))
    return isSeen;
  return pool.select(isSeen, pool.real(0), pool.real(-INFINITY));
}

//===----------------------------------------------------------------------===//
// Ops on whole tensors
//===----------------------------------------------------------------------===//

const Expr *PointEvaluator::defineTensorOp(Operation *op, Index index,
                                           Value tensor) {
  using Result = const Expr *;
  StringRef name = op->getName().getStringRef();
  if (name.ends_with(".scatter"))
    return defineScatter(op, index);
  if (isFusedAttention(op))
    return defineAttention(op, index);
  return llvm::TypeSwitch<Operation *, Result>(op)
      .Case([&](linalg::LinalgOp linalgOp) {
        return defineLinalg(linalgOp, cast<OpResult>(tensor).getResultNumber(),
                            index);
      })
      .Case([&](linalg::SoftmaxOp softmax) {
        return defineSoftmax(softmax, index);
      })
      .Case([&](arith::ConstantOp) { return defineConstant(tensor, index); })
      .Case([&](tensor::CastOp cast) -> Result {
        return isStatic(cast.getSource()) ? at(cast.getSource(), index)
                                          : nullptr;
      })
      .Case([&](tensor::SplatOp splat) { return scalar(splat.getInput()); })
      .Case([&](tensor::FromElementsOp elements) -> Result {
        const Expr *flat = pool.integer(0);
        for (auto [at, size] :
             llvm::zip_equal(index, elements.getType().getShape()))
          flat = pool.add(at, flat, size);
        auto count = static_cast<int64_t>(elements.getElements().size());
        return flat->is(ExprKind::Integer) && flat->range.within({0, count - 1})
                   ? scalar(elements.getElements()[flat->number])
                   : nullptr;
      })
      .Case([&](tensor::ExpandShapeOp expand) {
        SmallVector<Result> source;
        for (ArrayRef<int64_t> group : expand.getReassociationIndices()) {
          const Expr *flat = pool.integer(0);
          for (int64_t dim : group)
            flat = pool.add(index[dim], flat,
                            expand.getResultType().getDimSize(dim));
          source.push_back(flat);
        }
        return at(expand.getSrc(), source);
      })
      .Case([&](tensor::CollapseShapeOp collapse) {
        ArrayRef<int64_t> shape = collapse.getSrcType().getShape();
        SmallVector<Result> source(shape.size(), pool.integer(0));
        for (auto [group, flat] :
             llvm::zip_equal(collapse.getReassociationIndices(), index)) {
          const Expr *rest = flat;
          for (int64_t dim : llvm::reverse(ArrayRef(group).drop_front())) {
            source[dim] = pool.mod(rest, shape[dim]);
            rest = pool.floorDiv(rest, shape[dim]);
          }
          source[group.front()] = rest;
        }
        return at(collapse.getSrc(), source);
      })
      .Case([&](tensor::ExtractSliceOp slice) {
        llvm::SmallBitVector dropped = slice.getDroppedDims();
        SmallVector<Result> source;
        unsigned next = 0;
        for (auto [dim, offset, stride] : llvm::enumerate(
                 slice.getMixedOffsets(), slice.getMixedStrides())) {
          const Expr *begin = offsetOf(offset);
          std::optional<int64_t> step = getConstantIntValue(stride);
          source.push_back(dropped.test(dim) || !step
                               ? begin
                               : pool.add(begin, index[next], *step));
          next += dropped.test(dim) ? 0 : 1;
          if (!step)
            return Result();
        }
        return at(slice.getSource(), source);
      })
      .Case([&](tensor::ConcatOp) { return defineConcat(op, index); })
      .Case([&](tensor::InsertSliceOp) { return defineInsertSlice(op, index); })
      .Default(Result());
}

const Expr *PointEvaluator::offsetOf(OpFoldResult offset) {
  if (std::optional<int64_t> number = getConstantIntValue(offset))
    return pool.integer(*number);
  return scalar(cast<Value>(offset));
}

const Expr *PointEvaluator::defineConcat(Operation *op, Index index) {
  auto concat = cast<tensor::ConcatOp>(op);
  uint64_t dim = concat.getDim();
  // The pieces that the index can be in, from the last to the first.
  const Expr *result = nullptr;
  int64_t end = concat.getResultType().getDimSize(dim);
  for (Value piece : llvm::reverse(concat.getInputs())) {
    if (!isStatic(piece))
      return nullptr;
    int64_t begin =
        end - cast<RankedTensorType>(piece.getType()).getDimSize(dim);
    const Expr *within = pool.lessOrEqual(index[dim], pool.integer(end - 1));
    const Expr *behind = pool.lessOrEqual(pool.integer(begin), index[dim]);
    end = begin;
    if (within->isNumber(0) || behind->isNumber(0))
      continue;
    SmallVector<const Expr *> inner(index);
    inner[dim] = pool.subtract(index[dim], pool.integer(begin));
    const Expr *value = at(piece, inner);
    result = result ? pool.select(within, value, result) : value;
  }
  return result;
}

const Expr *PointEvaluator::defineInsertSlice(Operation *op, Index index) {
  auto insert = cast<tensor::InsertSliceOp>(op);
  llvm::SmallBitVector dropped = insert.getDroppedDims();
  if (!insert.hasUnitStride() || !isStatic(insert.getSource()))
    return nullptr;
  const Expr *inside = pool.truth(true);
  SmallVector<const Expr *> inner;
  for (auto [dim, mixed, size] :
       llvm::enumerate(insert.getMixedOffsets(), insert.getStaticSizes())) {
    const Expr *offset = offsetOf(mixed);
    const Expr *relative = pool.subtract(index[dim], offset);
    if (size == 1) {
      inside = pool.conjunction(inside, pool.equal(index[dim], offset));
      relative = pool.integer(0);
    } else {
      const Expr *last = pool.integer(size - 1);
      inside = pool.conjunction(
          inside, pool.conjunction(pool.lessOrEqual(pool.integer(0), relative),
                                   pool.lessOrEqual(relative, last)));
    }
    if (!dropped.test(dim))
      inner.push_back(relative);
  }
  if (inside->isNumber(0))
    return at(insert.getDest(), index);
  const Expr *source = at(insert.getSource(), inner);
  if (inside->isNumber(1))
    return source;
  return pool.select(inside, source, at(insert.getDest(), index));
}

const Expr *PointEvaluator::defineConstant(Value tensor, Index index) {
  auto [entry, isNew] = tables.try_emplace(tensor);
  if (isNew) {
    auto attr = tensor.getDefiningOp<arith::ConstantOp>().getValue();
    entry->second = std::make_unique<ConstantTable>(cast<ElementsAttr>(attr));
  }
  return entry->second->at(pool, index);
}

//===----------------------------------------------------------------------===//
// Linalg
//===----------------------------------------------------------------------===//

const Expr *PointEvaluator::affine(AffineExpr expr, Index dims) {
  if (auto dim = dyn_cast<AffineDimExpr>(expr))
    return dims[dim.getPosition()];
  if (auto constant = dyn_cast<AffineConstantExpr>(expr))
    return pool.integer(constant.getValue());
  auto binary = dyn_cast<AffineBinaryOpExpr>(expr);
  if (!binary)
    return nullptr;
  const Expr *lhs = affine(binary.getLHS(), dims);
  const Expr *rhs = affine(binary.getRHS(), dims);
  if (!lhs || !rhs)
    return nullptr;
  if (expr.getKind() == AffineExprKind::Add)
    return pool.add(lhs, rhs);
  if (!rhs->is(ExprKind::Integer) || rhs->number <= 0)
    return nullptr;
  switch (expr.getKind()) {
  case AffineExprKind::Mul:
    return pool.scale(lhs, rhs->number);
  case AffineExprKind::FloorDiv:
    return pool.floorDiv(lhs, rhs->number);
  case AffineExprKind::Mod:
    return pool.mod(lhs, rhs->number);
  default:
    return nullptr;
  }
}

FailureOr<PointEvaluator::LoopPoint>
PointEvaluator::loopsAt(linalg::LinalgOp op, unsigned result, Index index) {
  LoopPoint point;
  SmallVector<int64_t> extents = op.getStaticLoopRanges();
  point.loops.assign(extents.size(), nullptr);
  AffineMap map = op.getIndexingMapMatchingResult(op->getResult(result));
  auto shape =
      cast<RankedTensorType>(op->getResult(result).getType()).getShape();
  for (auto [expr, at, size] :
       llvm::zip_equal(map.getResults(), index, shape)) {
    // Elsewhere the op leaves what was there.
    if (auto constant = dyn_cast<AffineConstantExpr>(expr)) {
      if (size != 1 && !at->isNumber(constant.getValue()))
        return failure();
      continue;
    }
    auto dim = dyn_cast<AffineDimExpr>(expr);
    if (!dim || point.loops[dim.getPosition()])
      return failure();
    point.loops[dim.getPosition()] = at;
  }
  for (auto [loop, extent, iterator] :
       llvm::zip_equal(point.loops, extents, op.getIteratorTypesArray())) {
    if (ShapedType::isDynamic(extent))
      return failure();
    if (loop)
      continue;
    if (extent != 1 && iterator != utils::IteratorType::reduction)
      return failure();
    loop = pool.symbol(extent, "k");
    if (extent != 1)
      point.reduced.push_back(loop);
  }
  return point;
}

const Expr *PointEvaluator::operandAt(OpOperand &operand, linalg::LinalgOp op,
                                      const LoopPoint &point) {
  if (op.isScalar(&operand))
    return scalar(operand.get());
  SmallVector<const Expr *> index;
  for (AffineExpr expr : op.getMatchingIndexingMap(&operand).getResults()) {
    index.push_back(affine(expr, point.loops));
    if (!index.back())
      return pool.unknown(isIntegral(operand.get()));
  }
  return at(operand.get(), index);
}

const Expr *PointEvaluator::defineLinalg(linalg::LinalgOp op, unsigned result,
                                         Index index) {
  if (!op.hasPureTensorSemantics())
    return nullptr;
  FailureOr<LoopPoint> point = loopsAt(op, result, index);
  if (failed(point))
    return nullptr;
  if (!point->reduced.empty())
    return defineReduction(op, result, index, *point);
  Scalars scalars;
  for (OpOperand &operand : op->getOpOperands())
    scalars[op.getMatchingBlockArgument(&operand)] =
        operandAt(operand, op, *point);
  return evaluateBlock(*op.getBlock(), scalars, point->loops)[result];
}

const Expr *PointEvaluator::defineReduction(linalg::LinalgOp op,
                                            unsigned result, Index index,
                                            const LoopPoint &point) {
  Scalars scalars;
  for (OpOperand *operand : op.getDpsInputOperands())
    scalars[op.getMatchingBlockArgument(operand)] =
        operandAt(*operand, op, point);
  SmallVector<const Expr *> soFar;
  for (BlockArgument argument : op.getRegionOutputArgs()) {
    soFar.push_back(
        pool.unknown(isIntegral(argument), rangeOfType(argument.getType())));
    scalars[argument] = soFar.back();
  }
  const Expr *next =
      evaluateBlock(*op.getBlock(), scalars, point.loops)[result];
  const Expr *accumulator = soFar[result], *term = nullptr;
  Reduction reduction = Reduction::All;
  if (next->is(ExprKind::And)) {
    SmallVector<const Expr *> parts = conjuncts(next);
    if (!llvm::is_contained(parts, accumulator))
      return nullptr;
    term = pool.truth(true);
    for (const Expr *part : parts)
      if (part != accumulator)
        term = pool.conjunction(term, part);
  } else if (next->is(ExprKind::Apply) && next->operands.size() == 2 &&
             llvm::is_contained(next->operands, accumulator)) {
    bool isMax =
        next->isApply("arith.maximumf") || next->isApply("arith.maxnumf");
    if (!isMax && !next->isApply("arith.addf"))
      return nullptr;
    reduction = isMax ? Reduction::Max : Reduction::Sum;
    term = next->operand(next->operand(0) == accumulator ? 1 : 0);
  }
  if (!term || llvm::any_of(soFar, [&](const Expr *accumulated) {
        return dependsOn(term, accumulated);
      }))
    return nullptr;
  const Expr *initial = at(op.getDpsInitOperand(result)->get(), index);
  return pool.reduce(reduction, term, initial, point.reduced);
}

const Expr *PointEvaluator::defineSoftmax(linalg::SoftmaxOp op, Index index) {
  auto type = dyn_cast<RankedTensorType>(op.getInput().getType());
  if (!type || !type.hasStaticShape())
    return nullptr;
  auto dim = static_cast<unsigned>(op.getDimension());
  auto exponential = [&](const Expr *along) {
    SmallVector<const Expr *> point(index);
    point[dim] = along;
    return pool.apply("math.exp", nullptr, {at(op.getInput(), point)},
                      /*isInteger=*/false);
  };
  const Expr *other = pool.symbol(type.getDimSize(dim), "s");
  const Expr *sum =
      pool.reduce(Reduction::Sum, exponential(other), pool.real(0), other);
  return pool.apply("arith.divf", nullptr, {exponential(index[dim]), sum},
                    /*isInteger=*/false);
}

//===----------------------------------------------------------------------===//
// Substitution and comparison
//===----------------------------------------------------------------------===//

namespace {
/// Rebuilds an expression with other symbols.
class Substituter {
public:
  Substituter(PointEvaluator &evaluator,
              const PointEvaluator::Substitution &map)
      : evaluator(evaluator), pool(evaluator.exprs()), map(map) {}

  const Expr *visit(const Expr *expr);
  bool isTooDeep = false;

private:
  const Expr *rebuild(const Expr *expr);

  PointEvaluator &evaluator;
  ExprPool &pool;
  const PointEvaluator::Substitution &map;
  llvm::DenseMap<const Expr *, const Expr *> done;
  unsigned depth = 0;
};
} // namespace

const Expr *Substituter::visit(const Expr *expr) {
  if (const Expr *mapped = map.lookup(expr))
    return mapped;
  if (expr->operands.empty())
    return expr->is(ExprKind::Element) ? evaluator.at(expr->tensor, {}) : expr;
  if (const Expr *known = done.lookup(expr))
    return known;
  constexpr unsigned maxDepth = 400;
  if (depth >= maxDepth) {
    isTooDeep = true;
    return pool.unknown(expr->isInteger);
  }
  ++depth;
  const Expr *result = rebuild(expr);
  --depth;
  done[expr] = result;
  return result;
}

const Expr *Substituter::rebuild(const Expr *expr) {
  SmallVector<const Expr *> operands;
  for (const Expr *operand : expr->operands)
    operands.push_back(visit(operand));
  switch (expr->kind) {
  case ExprKind::Linear: {
    const Expr *sum = pool.integer(expr->number);
    for (auto [operand, coefficient] :
         llvm::zip_equal(operands, expr->coefficients))
      sum = pool.add(sum, operand, coefficient);
    return sum;
  }
  case ExprKind::FloorDiv:
    return pool.floorDiv(operands[0], expr->number);
  case ExprKind::Mod:
    return pool.mod(operands[0], expr->number);
  case ExprKind::Element:
    return evaluator.at(expr->tensor, operands);
  case ExprKind::ToReal:
    return pool.toReal(operands[0]);
  case ExprKind::Round:
    return pool.round(operands[0], Type::getFromOpaquePointer(expr->key));
  case ExprKind::EqZero:
    return pool.equal(operands[0], pool.integer(0));
  case ExprKind::LeZero:
    return pool.lessOrEqual(operands[0], pool.integer(0));
  case ExprKind::Not:
    return pool.negate(operands[0]);
  case ExprKind::And: {
    const Expr *all = pool.truth(true);
    for (const Expr *operand : operands)
      all = pool.conjunction(all, operand);
    return all;
  }
  case ExprKind::Select:
    return pool.select(operands[0], operands[1], operands[2]);
  case ExprKind::Apply:
    return pool.apply(expr->name, expr->key, operands, expr->isInteger,
                      expr->range);
  case ExprKind::Reduce:
    return pool.reduce(expr->reduction, operands[0], operands[1],
                       ArrayRef(operands).drop_front(2));
  case ExprKind::Integer:
  case ExprKind::Real:
  case ExprKind::Symbol:
  case ExprKind::Unknown:
    return expr;
  }
  llvm_unreachable("an expression of no kind");
}

const Expr *PointEvaluator::substitute(const Expr *expr,
                                       const Substitution &map) {
  Substituter substituter(*this, map);
  const Expr *result = substituter.visit(expr);
  exhausted |= substituter.isTooDeep;
  return result;
}

bool PointEvaluator::same(const Expr *lhs, const Expr *rhs) {
  compared = 0;
  return sameParts(lhs, rhs);
}

bool PointEvaluator::sameParts(const Expr *lhs, const Expr *rhs) {
  constexpr unsigned maxCompared = 10000;
  if (lhs == rhs)
    return true;
  if (++compared > maxCompared || depth >= maxDepth) {
    exhausted = true;
    return false;
  }
  lhs = head(lhs);
  rhs = head(rhs);
  if (lhs == rhs)
    return true;
  if (lhs->kind != rhs->kind || lhs->is(ExprKind::Element) ||
      lhs->reduction != rhs->reduction || lhs->number != rhs->number ||
      lhs->real != rhs->real || lhs->key != rhs->key ||
      lhs->name != rhs->name || lhs->coefficients != rhs->coefficients ||
      lhs->operands.size() != rhs->operands.size())
    return false;
  if (lhs->is(ExprKind::Reduce)) {
    Substitution map;
    for (auto [left, right] : llvm::zip_equal(lhs->symbols(), rhs->symbols())) {
      if (left->range.high != right->range.high)
        return false;
      map[right] = left;
    }
    rhs = substitute(rhs, map);
  }
  ++depth;
  bool result = llvm::all_of(
      llvm::zip_equal(lhs->operands, rhs->operands), [&](auto pair) {
        return sameParts(std::get<0>(pair), std::get<1>(pair));
      });
  --depth;
  return result;
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

std::optional<double> PointEvaluator::constant(const Expr *expr) {
  if (expr->is(ExprKind::Real))
    return expr->real;
  if (!expr->is(ExprKind::Element) && !expr->is(ExprKind::Apply) &&
      !expr->is(ExprKind::Round))
    return std::nullopt;
  auto known = constants.find(expr);
  if (known != constants.end())
    return known->second;
  // What is this deep is the decoder itself.
  constexpr unsigned maxFolded = 12;
  if (folding >= maxFolded)
    return std::nullopt;
  ++folding;
  std::optional<double> value = fold(expr);
  --folding;
  constants[expr] = value;
  return value;
}

std::optional<double> PointEvaluator::fold(const Expr *expr) {
  if (expr->is(ExprKind::Element)) {
    const Expr *next = step(expr);
    return next == expr ? std::nullopt : constant(next);
  }
  SmallVector<double> numbers;
  for (const Expr *operand : expr->operands) {
    std::optional<double> number = constant(operand);
    if (!number)
      return std::nullopt;
    numbers.push_back(*number);
  }
  if (expr->is(ExprKind::Round)) {
    const Expr *rounded = pool.round(pool.real(numbers[0]),
                                     Type::getFromOpaquePointer(expr->key));
    return rounded->real;
  }
  if (expr->isApply("arith.mulf"))
    return numbers[0] * numbers[1];
  if (expr->isApply("arith.divf"))
    return numbers[0] / numbers[1];
  if (expr->isApply("arith.addf"))
    return numbers[0] + numbers[1];
  if (expr->isApply("arith.subf"))
    return numbers[0] - numbers[1];
  if (expr->isApply("arith.negf"))
    return -numbers[0];
  if (expr->isApply("math.sqrt"))
    return std::sqrt(numbers[0]);
  if (expr->isApply("math.rsqrt"))
    return 1.0 / std::sqrt(numbers[0]);
  return std::nullopt;
}
