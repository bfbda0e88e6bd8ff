//===- RowAnalysis.cpp - Where values of a step have its rows -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RowAnalysis.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::kvrm::batch;

SmallVector<tensor::ExtractOp> batch::getBodyReads(linalg::GenericOp op) {
  SmallVector<tensor::ExtractOp> reads;
  op.getBody()->walk([&](tensor::ExtractOp read) { reads.push_back(read); });
  return reads;
}

unsigned batch::getSourceDim(const llvm::SmallBitVector &dropped,
                             unsigned dim) {
  for (unsigned at = 0;; ++at)
    if (!dropped.test(at) && dim-- == 0)
      return at;
}

static bool usesIndexOf(linalg::GenericOp op, unsigned loop) {
  WalkResult walked = op.getBody()->walk([&](linalg::IndexOp index) {
    return index.getDim() == loop ? WalkResult::interrupt()
                                  : WalkResult::advance();
  });
  return walked.wasInterrupted();
}

bool batch::isUniform(Value value, unsigned dim) {
  Operation *op = value.getDefiningOp();
  if (isa_and_nonnull<tensor::EmptyOp>(op))
    return true;
  auto generic = dyn_cast_or_null<linalg::GenericOp>(op);
  if (!generic || generic->getNumResults() != 1)
    return false;
  AffineMap map = generic.getIndexingMapMatchingResult(generic->getResult(0));
  auto loop = dyn_cast<AffineDimExpr>(map.getResult(dim));
  if (!loop || usesIndexOf(generic, loop.getPosition()))
    return false;
  return llvm::all_of(generic->getOpOperands(), [&](OpOperand &operand) {
    AffineMap operandMap = generic.getMatchingIndexingMap(&operand);
    if (!operandMap.isFunctionOfDim(loop.getPosition()))
      return true;
    std::optional<unsigned> at = operandMap.getResultPosition(loop);
    return at && isUniform(operand.get(), *at);
  });
}

RowAnalysis::RowAnalysis(func::FuncOp step)
    : step(step),
      rows(cast<RankedTensorType>(step.getArgumentTypes()[0]).getDimSize(0)) {}

LogicalResult RowAnalysis::run() {
  RowPlace ofArguments = rows == 1 ? RowPlace::lead() : RowPlace::along(0);
  places[step.getArgument(0)] = places[step.getArgument(1)] = ofArguments;
  for (Operation &op : step.getBody().front().without_terminator())
    if (failed(place(op)))
      return failure();
  Value logits = step.getBody().front().getTerminator()->getOperand(0);
  if (of(logits) == ofArguments)
    return success();
  return step.emitError("rows of the logits are not those of the tokens");
}

/// An error for an op whose rows cannot be told apart.
static LogicalResult refuse(Operation *op, const Twine &why) {
  return op->emitError("cannot be made of another number of rows: ") << why;
}

LogicalResult RowAnalysis::place(Operation &op) {
  if (auto attention = dyn_cast<CachedAttentionOp>(op)) {
    RowPlace wanted = rows == 1 ? RowPlace::lead() : RowPlace::along(0);
    for (Value value :
         {attention.getQuery(), attention.getKey(), attention.getValue()})
      if (!(of(value) == wanted))
        return refuse(&op, "its queries, keys or values have no rows in front");
    places[attention.getOutput()] = wanted;
    return success();
  }
  SetVector<Value> used(op.operand_begin(), op.operand_end());
  getUsedValuesDefinedAbove(op.getRegions(), used);
  if (llvm::none_of(used, [&](Value value) { return bool(of(value)); }))
    return success();
  return llvm::TypeSwitch<Operation *, LogicalResult>(&op)
      .Case([&](linalg::GenericOp generic) { return placeGeneric(generic); })
      .Case([&](tensor::ExpandShapeOp expand) { return placeExpand(expand); })
      .Case([&](tensor::CollapseShapeOp collapse) {
        return placeCollapse(collapse);
      })
      .Case([&](tensor::ExtractSliceOp slice) { return placeExtract(slice); })
      .Case([&](tensor::InsertSliceOp slice) { return placeInsert(slice); })
      .Default([&](Operation *other) {
        return refuse(other, "it is no op that rows are followed through");
      });
}

//===----------------------------------------------------------------------===//
// Generics
//===----------------------------------------------------------------------===//

LogicalResult RowAnalysis::placeGeneric(linalg::GenericOp op) {
  if (op->getNumResults() != 1 || !op.hasPureTensorSemantics())
    return refuse(op, "it has several results");
  SetVector<Value> used(op->operand_begin(), op->operand_end());
  SetVector<Value> captured;
  getUsedValuesDefinedAbove(op->getRegions(), captured);
  SmallVector<tensor::ExtractOp> reads = getBodyReads(op);
  for (Value value : captured)
    if (of(value) && llvm::any_of(value.getUsers(), [&](Operation *user) {
          return op->isProperAncestor(user) && !(isa<tensor::ExtractOp>(user) &&
                                                 user->getOperand(0) == value);
        }))
      return refuse(op, "its body takes a value that depends on the row");
  used.insert(captured.begin(), captured.end());
  std::optional<RowPlace> lead;
  bool hasDim = false;
  for (Value value : used) {
    RowPlace at = of(value);
    hasDim |= at.isDim();
    if (at.isLead() && std::exchange(lead, at).value_or(at).row != at.row)
      return refuse(op, "it takes values of different rows");
  }
  if (lead && hasDim)
    return refuse(op, "it takes a value of one row and values of all");
  if (!lead)
    return placeAlongLoop(op);
  places[op->getResult(0)] = *lead;
  return success();
}

/// An index of a body as a sum: a factor for each loop, then a number. None if
/// it is no such sum.
static std::optional<SmallVector<int64_t>> asSum(Value index, size_t loops) {
  SmallVector<int64_t> sum(loops + 1, 0);
  Operation *op = index.getDefiningOp();
  llvm::APInt number;
  if (matchPattern(index, m_ConstantInt(&number))) {
    sum.back() = number.getSExtValue();
    return sum;
  }
  if (auto loop = dyn_cast_or_null<linalg::IndexOp>(op)) {
    sum[loop.getDim()] = 1;
    return sum;
  }
  if (!isa_and_nonnull<arith::AddIOp, arith::MulIOp>(op))
    return std::nullopt;
  auto lhs = asSum(op->getOperand(0), loops);
  auto rhs = asSum(op->getOperand(1), loops);
  if (!lhs || !rhs)
    return std::nullopt;
  if (isa<arith::AddIOp>(op)) {
    for (auto [total, left, right] : llvm::zip_equal(sum, *lhs, *rhs))
      total = left + right;
    return sum;
  }
  auto isNumber = [](ArrayRef<int64_t> of) {
    return llvm::all_of(of.drop_back(), [](int64_t f) { return f == 0; });
  };
  if (!isNumber(*rhs))
    std::swap(lhs, rhs);
  if (!isNumber(*rhs))
    return std::nullopt;
  for (auto [total, left] : llvm::zip_equal(sum, *lhs))
    total = left * rhs->back();
  return sum;
}

/// The loop of which `index` is the row, `inner` elements of it each: loop *
/// inner + something from 0 to inner - 1.
static std::optional<unsigned> rowLoopOf(Value index, int64_t inner,
                                         ArrayRef<int64_t> ranges) {
  auto sum = asSum(index, ranges.size());
  if (!sum || sum->back() < 0)
    return std::nullopt;
  std::optional<unsigned> row;
  int64_t rest = sum->back();
  for (auto [loop, range] : llvm::enumerate(ranges)) {
    int64_t factor = (*sum)[loop];
    if (factor < 0)
      return std::nullopt;
    if (factor == inner && !row && range > 1)
      row = loop;
    else
      rest += factor * (range - 1);
  }
  return rest < inner ? row : std::nullopt;
}

/// Whether an index of the row serves to read tensors along their rows, and for
/// nothing else.
static bool onlyReadsRows(Value index,
                          const llvm::SmallPtrSetImpl<OpOperand *> &known) {
  return llvm::all_of(index.getUses(), [&](OpOperand &use) {
    if (known.contains(&use))
      return true;
    return isa<arith::AddIOp, arith::MulIOp>(use.getOwner()) &&
           onlyReadsRows(use.getOwner()->getResult(0), known);
  });
}

LogicalResult RowAnalysis::placeAlongLoop(linalg::GenericOp op) {
  SmallVector<int64_t> ranges = op.getStaticLoopRanges();
  std::optional<RowLoop> row;
  auto agree = [&](unsigned loop, int64_t inner) {
    if (row)
      return row->loop == loop && row->inner == inner;
    row = RowLoop{loop, inner};
    return true;
  };
  for (OpOperand &operand : op->getOpOperands()) {
    RowPlace at = of(operand.get());
    if (!at)
      continue;
    auto loop = dyn_cast<AffineDimExpr>(
        op.getMatchingIndexingMap(&operand).getResult(at.dim));
    if (!loop || !agree(loop.getPosition(), at.inner))
      return refuse(op, "its operands have rows along different loops");
  }
  llvm::SmallPtrSet<OpOperand *, 4> known;
  for (tensor::ExtractOp read : getBodyReads(op)) {
    RowPlace at = of(read.getTensor());
    if (!at)
      continue;
    OpOperand &index = read->getOpOperand(1 + at.dim);
    std::optional<unsigned> loop = rowLoopOf(index.get(), at.inner, ranges);
    if (!loop || !agree(*loop, 1))
      return refuse(op, "its body reads other rows than its own");
    known.insert(&index);
  }
  auto loop = getAffineDimExpr(row->loop, op.getContext());
  if (op.getIteratorTypesArray()[row->loop] != utils::IteratorType::parallel)
    return refuse(op, "it reduces over rows");
  WalkResult walked = op.getBody()->walk([&](linalg::IndexOp index) {
    return index.getDim() == row->loop && !onlyReadsRows(index, known)
               ? WalkResult::interrupt()
               : WalkResult::advance();
  });
  if (walked.wasInterrupted())
    return refuse(op, "its body computes with the number of the row");
  for (OpOperand &operand : op->getOpOperands()) {
    AffineMap map = op.getMatchingIndexingMap(&operand);
    if (of(operand.get()) || !map.isFunctionOfDim(row->loop))
      continue;
    std::optional<unsigned> at = map.getResultPosition(loop);
    if (!at || !isUniform(operand.get(), *at))
      return refuse(op, "it takes a value that differs from row to row");
  }
  AffineMap map = op.getIndexingMapMatchingResult(op->getResult(0));
  std::optional<unsigned> at = map.getResultPosition(loop);
  if (!at)
    return refuse(op, "its result has no rows");
  loops[op] = *row;
  places[op->getResult(0)] = RowPlace::along(*at, row->inner);
  return success();
}

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

LogicalResult RowAnalysis::placeExpand(tensor::ExpandShapeOp op) {
  RowPlace at = of(op.getSrc());
  if (at.isLead()) {
    places[op.getResult()] = at;
    return success();
  }
  // Rows are what is slowest in their group.
  int64_t inner = at.inner;
  ReassociationIndices group = op.getReassociationIndices()[at.dim];
  for (int64_t dim : group) {
    int64_t size = op.getResultType().getDimSize(dim);
    if (size == 1)
      continue;
    if (size % rows != 0 || inner % (size / rows) != 0)
      break;
    places[op.getResult()] = RowPlace::along(dim, size / rows);
    return success();
  }
  return refuse(op, "it takes rows apart");
}

LogicalResult RowAnalysis::placeCollapse(tensor::CollapseShapeOp op) {
  RowPlace at = of(op.getSrc());
  if (at.isLead()) {
    places[op.getResult()] = at;
    return success();
  }
  for (auto [dim, group] : llvm::enumerate(op.getReassociationIndices())) {
    if (!llvm::is_contained(group, at.dim))
      continue;
    int64_t inner = at.inner;
    for (int64_t source : group) {
      int64_t size = op.getSrcType().getDimSize(source);
      if (source < at.dim && size != 1)
        return refuse(op, "it has something slower than rows in their dim");
      inner *= source > at.dim ? size : 1;
    }
    places[op.getResult()] = RowPlace::along(dim, inner);
    return success();
  }
  return refuse(op, "it takes rows away");
}

/// Whether a slice takes all of `dim`.
static bool takesAll(ArrayRef<OpFoldResult> offsets,
                     ArrayRef<OpFoldResult> sizes, unsigned dim,
                     int64_t extent) {
  return isConstantIntValue(offsets[dim], 0) &&
         isConstantIntValue(sizes[dim], extent);
}

/// The row that a slice is, if it is one row, all of it, and rows are in front.
template <typename OpT>
static std::optional<int64_t> rowOfSlice(OpT op, RankedTensorType whole) {
  SmallVector<OpFoldResult> offsets = op.getMixedOffsets(),
                            sizes = op.getMixedSizes();
  for (unsigned dim = 1; dim < offsets.size(); ++dim)
    if (!takesAll(offsets, sizes, dim, whole.getDimSize(dim)))
      return std::nullopt;
  return !offsets.empty() && isConstantIntValue(sizes[0], 1)
             ? getConstantIntValue(offsets[0])
             : std::nullopt;
}

LogicalResult RowAnalysis::placeExtract(tensor::ExtractSliceOp op) {
  for (Value number : op->getOperands().drop_front())
    if (of(number))
      return refuse(op, "where it begins depends on the row");
  RowPlace at = of(op.getSource());
  if (at.isLead()) {
    places[op.getResult()] = at;
    return success();
  }
  if (takesAll(op.getMixedOffsets(), op.getMixedSizes(), at.dim,
               op.getSourceType().getDimSize(at.dim))) {
    llvm::SmallBitVector dropped = op.getDroppedDims();
    unsigned before = 0;
    for (unsigned dim = 0; dim < at.dim; ++dim)
      before += !dropped.test(dim);
    places[op.getResult()] = RowPlace::along(before, at.inner);
    return success();
  }
  std::optional<int64_t> row = rowOfSlice(op, op.getSourceType());
  if (!row || !(at == RowPlace::along(0)))
    return refuse(op, "it takes some of the rows");
  places[op.getResult()] = RowPlace::lead(row);
  return success();
}

LogicalResult RowAnalysis::placeInsert(tensor::InsertSliceOp op) {
  for (Value number : op->getOperands().drop_front(2))
    if (of(number))
      return refuse(op, "where it begins depends on the row");
  RowPlace source = of(op.getSource()), dest = of(op.getDest());
  if (source.isLead()) {
    if (dest == source) {
      places[op.getResult()] = source;
      return success();
    }
    if (std::optional<int64_t> row = rowOfSlice(op, op.getDestType());
        row && row == source.row)
      return placeStack(op, *row);
    if (!dest) {
      places[op.getResult()] = source;
      return success();
    }
    return refuse(op, "it takes values of different rows");
  }
  if (dest.isLead() && !source) {
    places[op.getResult()] = dest;
    return success();
  }
  // Of both, or of one where the other is the same in all rows.
  llvm::SmallBitVector dropped = op.getDroppedDims();
  unsigned dim = source ? getSourceDim(dropped, source.dim) : dest.dim;
  unsigned sourceDim = 0;
  for (unsigned i = 0; i < dim; ++i)
    sourceDim += !dropped.test(i);
  int64_t inner = source ? source.inner : dest.inner;
  bool areAlong = takesAll(op.getMixedOffsets(), op.getMixedSizes(), dim,
                           op.getDestType().getDimSize(dim)) &&
                  !dropped.test(dim) &&
                  (!source || source == RowPlace::along(sourceDim, inner)) &&
                  (!dest || dest == RowPlace::along(dim, inner)) &&
                  (source || isUniform(op.getSource(), sourceDim)) &&
                  (dest || isUniform(op.getDest(), dim));
  if (!areAlong)
    return refuse(op, "its operands have rows along different dims");
  places[op.getResult()] = RowPlace::along(dim, inner);
  return success();
}

//===----------------------------------------------------------------------===//
// Stacks of what was computed row by row
//===----------------------------------------------------------------------===//

/// Whether `b`, of row `rowOfB`, is made as `a`, of row 0.
bool RowAnalysis::isAlike(Value a, Value b, int64_t rowOfB) const {
  if (a == b)
    return !of(a);
  Operation *opA = a.getDefiningOp(), *opB = b.getDefiningOp();
  if (!opA || !opB || opA->getName() != opB->getName())
    return false;
  auto sliceA = dyn_cast<tensor::ExtractSliceOp>(opA);
  auto sliceB = dyn_cast<tensor::ExtractSliceOp>(opB);
  if (sliceA && sliceB && sliceA.getSource() == sliceB.getSource() &&
      of(sliceA.getSource()).isDim())
    return of(a).row == 0 && of(b).row == rowOfB &&
           sliceA.getType() == sliceB.getType();
  // Values of regions are alike if the ops before them were.
  llvm::DenseMap<Value, Value> inRegions;
  auto areAlike = [&](Value valueA, Value valueB) {
    auto known = inRegions.find(valueA);
    return success(known != inRegions.end() ? known->second == valueB
                                            : isAlike(valueA, valueB, rowOfB));
  };
  auto note = [&](Value valueA, Value valueB) { inRegions[valueA] = valueB; };
  return OperationEquivalence::isEquivalentTo(
      opA, opB, areAlike, note, OperationEquivalence::IgnoreLocations);
}

LogicalResult RowAnalysis::placeStack(tensor::InsertSliceOp op, int64_t row) {
  SmallVector<Value> values = partial.lookup(op.getDest());
  if (row != static_cast<int64_t>(values.size()))
    return refuse(op, "it stacks rows in another order");
  if (row > 0 && !isAlike(values.front(), op.getSource(), row))
    return refuse(op, "it stacks rows that are made in different ways");
  values.push_back(op.getSource());
  if (row + 1 < rows) {
    partial[op.getResult()] = values;
    // Nothing else may use it; such a user would see a value without rows.
    if (!op->hasOneUse() || !isa<tensor::InsertSliceOp>(*op->user_begin()))
      return refuse(op, "a stack of some rows is used");
    return success();
  }
  stacks[op.getResult()] = values.front();
  places[op.getResult()] = RowPlace::along(0);
  return success();
}
