//===- RowPositions.cpp - A position for each row -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RowPositions.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvrm::raise;

RowPositions::RowPositions(func::FuncOp func, const RaisableStep &step,
                           ArrayRef<Value> positions)
    : b(func.getContext()) {
  for (Value position : positions)
    rows.emplace_back().map(step.position, position);
  dependent.insert(step.position);
  llvm::DenseSet<Operation *> attentions;
  for (const AttentionLayer &layer : step.layers)
    attentions.insert(layer.op);
  for (Operation &op : func.getBody().front()) {
    WalkResult walked = op.walk([&](Operation *nested) {
      return llvm::any_of(nested->getOperands(),
                          [&](Value value) { return isDependent(value); })
                 ? WalkResult::interrupt()
                 : WalkResult::advance();
    });
    if (walked.wasInterrupted() && !attentions.contains(&op))
      dependent.insert(op.result_begin(), op.result_end());
  }
}

void RowPositions::undo() {
  for (Operation *op : llvm::reverse(made))
    op->erase();
  made.clear();
}

Value RowPositions::ofRow(Value value, int64_t row) {
  if (!isDependent(value))
    return value;
  if (Value known = rows[row].lookupOrNull(value))
    return known;
  Operation *op = value.getDefiningOp();
  // Values in regions of the op may be of the row too.
  op->walk([&](Operation *nested) {
    for (Value operand : nested->getOperands())
      if (operand.getParentBlock() == op->getBlock())
        (void)ofRow(operand, row);
  });
  b.setInsertionPointAfter(op);
  keep(b.clone(*op, rows[row]));
  return rows[row].lookup(value);
}

Value RowPositions::stack(Value tensor) {
  if (Value known = stacks.lookup(tensor))
    return known;
  SmallVector<Value> values;
  for (int64_t row = 0; row < static_cast<int64_t>(rows.size()); ++row)
    values.push_back(ofRow(tensor, row));
  auto type = cast<RankedTensorType>(tensor.getType());
  SmallVector<int64_t> shape = {static_cast<int64_t>(rows.size())};
  llvm::append_range(shape, type.getShape());
  // Behind the last of the clones.
  b.setInsertionPointAfterValue(values.front());
  for (Value value : values)
    if (b.getInsertionPoint() != b.getBlock()->end() &&
        !value.getDefiningOp()->isBeforeInBlock(&*b.getInsertionPoint()))
      b.setInsertionPointAfterValue(value);
  Location loc = tensor.getLoc();
  Value result = tensor::EmptyOp::create(b, loc, shape, type.getElementType());
  keep(result.getDefiningOp());
  for (auto [row, value] : llvm::enumerate(values)) {
    SmallVector<OpFoldResult> offsets(shape.size(), b.getIndexAttr(0));
    SmallVector<OpFoldResult> strides(shape.size(), b.getIndexAttr(1));
    SmallVector<OpFoldResult> sizes = {b.getIndexAttr(1)};
    offsets[0] = b.getIndexAttr(static_cast<int64_t>(row));
    for (int64_t size : type.getShape())
      sizes.push_back(b.getIndexAttr(size));
    result = tensor::InsertSliceOp::create(b, loc, value, result, offsets,
                                           sizes, strides);
    keep(result.getDefiningOp());
  }
  return stacks[tensor] = result;
}

Value RowPositions::spread(Value tensor, unsigned rowDim) {
  if (!isDependent(tensor))
    return tensor;
  if (Value known = spreads.lookup({tensor, rowDim}))
    return known;
  Operation *op = tensor.getDefiningOp();
  Value result = op ? spreadOp(op, tensor, rowDim) : Value();
  if (!result && !unknown)
    unknown = op;
  return spreads[{tensor, rowDim}] = result;
}

/// Whether a slice takes all of `dim`.
static bool takesAll(ArrayRef<OpFoldResult> offsets,
                     ArrayRef<OpFoldResult> sizes, unsigned dim,
                     int64_t extent) {
  return isConstantIntValue(offsets[dim], 0) &&
         isConstantIntValue(sizes[dim], extent);
}

/// The dim of the larger tensor that a rank-reducing slice's dim is.
static unsigned undropped(const llvm::SmallBitVector &dropped, unsigned dim) {
  unsigned at = 0;
  while (true) {
    if (!dropped.test(at) && dim-- == 0)
      return at;
    ++at;
  }
}

Value RowPositions::spreadOp(Operation *op, Value tensor, unsigned rowDim) {
  int64_t extent = cast<RankedTensorType>(tensor.getType()).getDimSize(rowDim);
  return llvm::TypeSwitch<Operation *, Value>(op)
      .Case([&](linalg::LinalgOp linalgOp) {
        return spreadLinalg(linalgOp, rowDim);
      })
      .Case([&](tensor::ExpandShapeOp expand) -> Value {
        for (auto [dim, group] :
             llvm::enumerate(expand.getReassociationIndices()))
          if (llvm::is_contained(group, rowDim) &&
              expand.getSrcType().getDimSize(dim) == extent)
            return cloneSpread(op, {{&expand.getSrcMutable(), dim}});
        return {};
      })
      .Case([&](tensor::CollapseShapeOp collapse) -> Value {
        for (int64_t dim : collapse.getReassociationIndices()[rowDim])
          if (collapse.getSrcType().getDimSize(dim) == extent)
            return cloneSpread(op, {{&collapse.getSrcMutable(), dim}});
        return {};
      })
      .Case([&](tensor::ExtractSliceOp slice) -> Value {
        unsigned dim = undropped(slice.getDroppedDims(), rowDim);
        if (!takesAll(slice.getMixedOffsets(), slice.getMixedSizes(), dim,
                      slice.getSourceType().getDimSize(dim)))
          return {};
        return cloneSpread(op, {{&slice.getSourceMutable(), dim}});
      })
      .Case([&](tensor::InsertSliceOp insert) -> Value {
        llvm::SmallBitVector dropped = insert.getDroppedDims();
        if (dropped.test(rowDim) ||
            !takesAll(insert.getMixedOffsets(), insert.getMixedSizes(), rowDim,
                      extent))
          return {};
        unsigned sourceDim = 0;
        for (unsigned dim = 0; dim < rowDim; ++dim)
          sourceDim += dropped.test(dim) ? 0 : 1;
        return cloneSpread(op, {{&insert.getSourceMutable(), sourceDim},
                                {&insert.getDestMutable(), rowDim}});
      })
      .Case([&](tensor::ConcatOp concat) -> Value {
        if (concat.getDim() == rowDim)
          return {};
        SmallVector<std::pair<OpOperand *, unsigned>> operands;
        for (OpOperand &operand : op->getOpOperands())
          operands.emplace_back(&operand, rowDim);
        return cloneSpread(op, operands);
      })
      .Default(Value());
}

Value RowPositions::cloneSpread(
    Operation *op, ArrayRef<std::pair<OpOperand *, unsigned>> operands) {
  SmallVector<Value> values(op->getOperands());
  llvm::SmallBitVector isSpread(values.size());
  for (auto [operand, dim] : operands) {
    Value &value = values[operand->getOperandNumber()];
    value = spread(operand->get(), dim);
    if (!value)
      return {};
    isSpread.set(operand->getOperandNumber());
  }
  // Offsets that depend on the position would be another slice in each row.
  for (auto [number, value] : llvm::enumerate(op->getOperands()))
    if (!isSpread.test(number) && isDependent(value))
      return {};
  b.setInsertionPointAfter(op);
  Operation *clone = keep(b.clone(*op));
  clone->setOperands(values);
  return clone->getResult(0);
}

/// What the body of `op` extracts from tensors that depend on the position;
/// none if it takes anything else that does.
std::optional<SmallVector<RowPositions::BodyRead>>
RowPositions::spreadReads(linalg::LinalgOp op, unsigned rowLoop) {
  SmallVector<BodyRead> reads;
  WalkResult walked = op.getBlock()->walk([&](Operation *nested) {
    for (OpOperand &operand : nested->getOpOperands()) {
      if (!isDependent(operand.get()))
        continue;
      auto extract = dyn_cast<tensor::ExtractOp>(nested);
      if (!extract)
        return WalkResult::interrupt();
      // A row's own element, of a dim of rows and no other: not of the front of
      // a longer one.
      auto isRow = [&](unsigned dim) {
        auto loop = extract.getIndices()[dim].getDefiningOp<linalg::IndexOp>();
        return loop && loop.getDim() == rowLoop &&
               extract.getTensor().getType().getDimSize(dim) ==
                   static_cast<int64_t>(rows.size());
      };
      unsigned dim = 0, rank = extract.getIndices().size();
      while (dim < rank && !isRow(dim))
        ++dim;
      bool isStack = dim == rank;
      Value tensor = isStack ? stack(extract.getTensor())
                             : spread(extract.getTensor(), dim);
      if (!tensor)
        return WalkResult::interrupt();
      reads.push_back({extract, tensor, isStack});
    }
    return WalkResult::advance();
  });
  if (walked.wasInterrupted())
    return std::nullopt;
  return reads;
}

Value RowPositions::spreadLinalg(linalg::LinalgOp op, unsigned rowDim) {
  if (op->getNumResults() != 1 || !op.hasPureTensorSemantics())
    return {};
  AffineMap resultMap = op.getIndexingMapMatchingResult(op->getResult(0));
  auto rowLoop = dyn_cast<AffineDimExpr>(resultMap.getResult(rowDim));
  if (!rowLoop)
    return {};
  unsigned loop = rowLoop.getPosition();
  std::optional<SmallVector<BodyRead>> reads = spreadReads(op, loop);
  if (!reads)
    return {};
  SmallVector<Value> values;
  SmallVector<AffineMap> maps;
  for (OpOperand &operand : op->getOpOperands()) {
    AffineMap map = op.getMatchingIndexingMap(&operand);
    Value value = operand.get();
    if (isDependent(value)) {
      std::optional<unsigned> dim = map.getResultPosition(rowLoop);
      bool isInit = op.isDpsInit(&operand);
      if (!isa<RankedTensorType>(value.getType()) || (isInit && !dim))
        return {};
      if (dim) {
        value = spread(value, *dim);
      } else if (map.isFunctionOfDim(loop)) {
        return {};
      } else {
        value = stack(value);
        map = map.insertResult(rowLoop, 0);
      }
      if (!value)
        return {};
    }
    values.push_back(value);
    maps.push_back(map);
  }
  // Behind all that it takes: a stack may have been made after the op.
  b.setInsertionPointAfter(op);
  SmallVector<Value> taken(values);
  for (const BodyRead &read : *reads)
    taken.push_back(read.tensor);
  for (Value value : taken)
    if (Operation *producer = value.getDefiningOp())
      if (!producer->isBeforeInBlock(&*b.getInsertionPoint()))
        b.setInsertionPointAfter(producer);
  auto inputs = ArrayRef(values).take_front(op.getNumDpsInputs());
  auto generic =
      linalg::GenericOp::create(b, op.getLoc(), op->getResultTypes(), inputs,
                                ArrayRef(values).drop_front(inputs.size()),
                                maps, op.getIteratorTypesArray());
  keep(generic);
  IRMapping mapping;
  op->getRegion(0).cloneInto(&generic.getRegion(), mapping);
  for (BodyRead &read : *reads) {
    auto clone =
        mapping.lookup(read.op.getResult()).getDefiningOp<tensor::ExtractOp>();
    clone.getTensorMutable().assign(read.tensor);
    if (!read.isStack)
      continue;
    // The body's own op: an extract may stand in a branch, where no index may.
    b.setInsertionPointToStart(generic.getBody());
    Value row = linalg::IndexOp::create(b, op.getLoc(), loop);
    clone->insertOperands(1, row);
  }
  return generic.getResult(0);
}
