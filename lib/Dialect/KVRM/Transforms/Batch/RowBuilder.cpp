//===- RowBuilder.cpp - A step again, for another number of rows ----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RowBuilder.h"

#include "kvrm/Dialect/KVRM/Utils/Reshape.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::kvrm::batch;

static RankedTensorType withLead(RankedTensorType type, int64_t rows) {
  SmallVector<int64_t> shape = {rows};
  llvm::append_range(shape, type.getShape());
  return type.clone(shape);
}

RankedTensorType RowBuilder::typeOf(Value old) const {
  auto type = cast<RankedTensorType>(old.getType());
  RowPlace at = analysis.of(old);
  if (at.isLead())
    return withLead(type, rows);
  if (!at)
    return type;
  SmallVector<int64_t> shape(type.getShape());
  shape[at.dim] = rows * at.inner;
  return type.clone(shape);
}

Value RowBuilder::get(Value old) {
  if (analysis.of(old))
    return values.at(old);
  if (Value known = shared.lookupOrNull(old))
    return known;
  Operation *op = old.getDefiningOp();
  SetVector<Value> used(op->operand_begin(), op->operand_end());
  getUsedValuesDefinedAbove(op->getRegions(), used);
  for (Value value : used)
    (void)get(value);
  b.clone(*op, shared);
  return shared.lookup(old);
}

void RowBuilder::build(Operation &op) {
  if (op.getNumResults() == 0 || !analysis.of(op.getResult(0)))
    return;
  b.setLoc(op.getLoc());
  if (Value ofFirst = analysis.stackedOf(op.getResult(0))) {
    // Sizes of one, which slices of a row may have or not.
    Value stacked =
        reshape(b, get(ofFirst), typeOf(op.getResult(0)).getShape());
    values[op.getResult(0)] = stacked;
    return;
  }
  values[op.getResult(0)] =
      llvm::TypeSwitch<Operation *, Value>(&op)
          .Case(
              [&](linalg::GenericOp generic) { return buildGeneric(generic); })
          .Case<tensor::ExpandShapeOp, tensor::CollapseShapeOp>(
              [&](auto) { return buildReshape(op); })
          .Case(
              [&](tensor::ExtractSliceOp slice) { return buildExtract(slice); })
          .Case(
              [&](tensor::InsertSliceOp slice) { return buildInsert(slice); });
}

//===----------------------------------------------------------------------===//
// Generics
//===----------------------------------------------------------------------===//

/// What a body takes from outside, built before the op that it is of.
IRMapping RowBuilder::mapCaptured(linalg::GenericOp op) {
  SetVector<Value> captured;
  getUsedValuesDefinedAbove(op->getRegions(), captured);
  IRMapping mapping;
  for (Value value : captured)
    mapping.map(value, get(value));
  return mapping;
}

/// Copies a body. Where values have rows in front, loops have moved by one, and
/// what is read of such a value is read at the row.
void RowBuilder::cloneBody(linalg::GenericOp from, linalg::GenericOp to,
                           bool isLead, IRMapping &mapping) {
  from.getRegion().cloneInto(&to.getRegion(), mapping);
  if (!isLead)
    return;
  to.getBody()->walk(
      [](linalg::IndexOp index) { index.setDim(index.getDim() + 1); });
  OpBuilder nested = OpBuilder::atBlockBegin(to.getBody());
  Value row;
  for (tensor::ExtractOp read : getBodyReads(from)) {
    if (!analysis.of(read.getTensor()).isLead())
      continue;
    if (!row)
      row = linalg::IndexOp::create(nested, from.getLoc(), 0);
    mapping.lookup(read.getResult()).getDefiningOp()->insertOperands(1, row);
  }
}

Value RowBuilder::buildGeneric(linalg::GenericOp op) {
  bool isLead = analysis.of(op->getResult(0)).isLead();
  RowLoop row = analysis.loopOf(op);
  auto loop = getAffineDimExpr(row.loop, b.getContext());
  SmallVector<Value> operands;
  SmallVector<AffineMap> maps;
  for (OpOperand &operand : op->getOpOperands()) {
    AffineMap map = op.getMatchingIndexingMap(&operand);
    Value old = operand.get(), value;
    RowPlace at = analysis.of(old);
    if (isLead) {
      map = map.shiftDims(1);
      bool isInit = op.isDpsInit(&operand);
      value = get(old);
      if (!at && isInit)
        value = repeat(value);
      if (at || isInit)
        map = map.insertResult(getAffineDimExpr(0, b.getContext()), 0);
    } else if (at || !map.isFunctionOfDim(row.loop)) {
      value = get(old);
    } else {
      value = resize(old, *map.getResultPosition(loop), rows * row.inner);
    }
    operands.push_back(value);
    maps.push_back(map);
  }
  SmallVector<utils::IteratorType> iterators = op.getIteratorTypesArray();
  if (isLead)
    iterators.insert(iterators.begin(), utils::IteratorType::parallel);
  IRMapping mapping = mapCaptured(op);
  b.setLoc(op.getLoc());
  auto inputs = ArrayRef(operands).take_front(op.getNumDpsInputs());
  auto built = linalg::GenericOp::create(
      b, TypeRange{operands.back().getType()}, inputs,
      ArrayRef(operands).drop_front(inputs.size()), maps, iterators);
  cloneBody(op, built, isLead, mapping);
  return built.getResult(0);
}

Value RowBuilder::repeat(Value value) {
  RankedTensorType type =
      withLead(cast<RankedTensorType>(value.getType()), rows);
  Value init =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  if (value.getDefiningOp<tensor::EmptyOp>())
    return init;
  AffineMap all = b.getMultiDimIdentityMap(type.getRank());
  SmallVector<utils::IteratorType> loops(type.getRank(),
                                         utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, TypeRange{type}, value, init, ArrayRef{all.dropResult(0), all},
             loops,
             [](OpBuilder &nested, Location loc, ValueRange args) {
               linalg::YieldOp::create(nested, loc, args.front());
             })
      .getResult(0);
}

Value RowBuilder::resize(Value old, unsigned dim, int64_t size) {
  auto type = cast<RankedTensorType>(old.getType());
  SmallVector<int64_t> shape(type.getShape());
  shape[dim] = size;
  auto generic = old.getDefiningOp<linalg::GenericOp>();
  if (!generic)
    return tensor::EmptyOp::create(b, shape, type.getElementType());
  AffineMap resultMap =
      generic.getIndexingMapMatchingResult(generic->getResult(0));
  auto loop = cast<AffineDimExpr>(resultMap.getResult(dim));
  SmallVector<Value> operands;
  for (OpOperand &operand : generic->getOpOperands()) {
    AffineMap map = generic.getMatchingIndexingMap(&operand);
    std::optional<unsigned> at = map.getResultPosition(loop);
    operands.push_back(at ? resize(operand.get(), *at, size)
                          : get(operand.get()));
  }
  IRMapping mapping = mapCaptured(generic);
  auto inputs = ArrayRef(operands).take_front(generic.getNumDpsInputs());
  auto built = linalg::GenericOp::create(
      b, TypeRange{type.clone(shape)}, inputs,
      ArrayRef(operands).drop_front(inputs.size()),
      generic.getIndexingMapsArray(), generic.getIteratorTypesArray());
  cloneBody(generic, built, /*isLead=*/false, mapping);
  return built.getResult(0);
}

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

Value RowBuilder::buildReshape(Operation &op) {
  auto expanding = dyn_cast<tensor::ExpandShapeOp>(op);
  SmallVector<ReassociationIndices> groups =
      expanding ? expanding.getReassociationIndices()
                : cast<tensor::CollapseShapeOp>(op).getReassociationIndices();
  if (analysis.of(op.getResult(0)).isLead()) {
    for (ReassociationIndices &group : groups)
      for (int64_t &dim : group)
        ++dim;
    // Of a scalar there are no groups, and its dims of one go with the rows.
    if (groups.empty()) {
      int64_t rank =
          std::max(cast<RankedTensorType>(op.getOperand(0).getType()).getRank(),
                   cast<RankedTensorType>(op.getResult(0).getType()).getRank());
      groups.push_back(llvm::to_vector(llvm::seq<int64_t>(0, rank + 1)));
    } else {
      groups.insert(groups.begin(), ReassociationIndices{0});
    }
  }
  Value source = get(op.getOperand(0));
  RankedTensorType type = typeOf(op.getResult(0));
  if (expanding)
    return tensor::ExpandShapeOp::create(b, type, source, groups);
  return tensor::CollapseShapeOp::create(b, type, source, groups);
}

namespace {
struct SliceShape {
  SmallVector<OpFoldResult> offsets, sizes, strides;
};
} // namespace

Value RowBuilder::buildExtract(tensor::ExtractSliceOp op) {
  SliceShape slice{op.getMixedOffsets(), op.getMixedSizes(),
                   op.getMixedStrides()};
  for (SmallVector<OpFoldResult> *numbers :
       {&slice.offsets, &slice.sizes, &slice.strides})
    for (OpFoldResult &number : *numbers)
      if (auto value = dyn_cast<Value>(number))
        number = get(value);
  RowPlace from = analysis.of(op.getSource());
  Value source = get(op.getSource());
  RankedTensorType type = typeOf(op.getResult());
  if (from.isLead()) {
    slice.offsets.insert(slice.offsets.begin(), b.getIndexAttr(0));
    slice.sizes.insert(slice.sizes.begin(), b.getIndexAttr(rows));
    slice.strides.insert(slice.strides.begin(), b.getIndexAttr(1));
  } else if (analysis.of(op.getResult()).isLead()) {
    // One row of all: here, each of them.
    return reshape(b, source, type.getShape());
  } else {
    slice.sizes[from.dim] = b.getIndexAttr(rows * from.inner);
  }
  return tensor::ExtractSliceOp::create(b, type, source, slice.offsets,
                                        slice.sizes, slice.strides);
}

Value RowBuilder::buildInsert(tensor::InsertSliceOp op) {
  SliceShape slice{op.getMixedOffsets(), op.getMixedSizes(),
                   op.getMixedStrides()};
  RowPlace at = analysis.of(op.getResult());
  Value source, dest;
  if (at.isLead()) {
    auto withRows = [&](Value old) {
      return analysis.of(old) ? get(old) : repeat(get(old));
    };
    source = withRows(op.getSource());
    dest = withRows(op.getDest());
    slice.offsets.insert(slice.offsets.begin(), b.getIndexAttr(0));
    slice.sizes.insert(slice.sizes.begin(), b.getIndexAttr(rows));
    slice.strides.insert(slice.strides.begin(), b.getIndexAttr(1));
  } else {
    int64_t size = rows * at.inner;
    llvm::SmallBitVector dropped = op.getDroppedDims();
    unsigned sourceDim = 0;
    for (unsigned dim = 0; dim < at.dim; ++dim)
      sourceDim += !dropped.test(dim);
    source = analysis.of(op.getSource())
                 ? get(op.getSource())
                 : resize(op.getSource(), sourceDim, size);
    dest = analysis.of(op.getDest()) ? get(op.getDest())
                                     : resize(op.getDest(), at.dim, size);
    slice.sizes[at.dim] = b.getIndexAttr(size);
  }
  return tensor::InsertSliceOp::create(b, source, dest, slice.offsets,
                                       slice.sizes, slice.strides);
}

//===----------------------------------------------------------------------===//
// Rows in front
//===----------------------------------------------------------------------===//

Value RowBuilder::toFront(Value old) {
  Value value = get(old);
  if (!analysis.of(old).isLead())
    return value;
  auto type = cast<RankedTensorType>(old.getType());
  SmallVector<int64_t> shape(type.getShape());
  shape.front() = rows;
  return reshape(b, value, shape);
}

Value RowBuilder::fromFront(Value front, Value old) {
  return reshape(b, front, typeOf(old).getShape());
}

Value RowBuilder::selectRows(Value old, RowBuilder &other, Value numbers) {
  RowPlace at = analysis.of(old);
  RankedTensorType type = typeOf(old);
  Value all = other.get(old);
  Value init =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  AffineMap identity = b.getMultiDimIdentityMap(type.getRank());
  int64_t inner = at.inner;
  AffineMap rowOf =
      AffineMap::get(type.getRank(), 0,
                     rows == 1 ? b.getAffineConstantExpr(0)
                               : b.getAffineDimExpr(at.dim).floorDiv(inner));
  SmallVector<utils::IteratorType> loops(type.getRank(),
                                         utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, TypeRange{type}, numbers, init, ArrayRef{rowOf, identity},
             loops,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               auto constant = [&](int64_t value) -> Value {
                 return arith::ConstantIndexOp::create(nested, loc, value);
               };
               Value first = arith::IndexCastOp::create(
                   nested, loc, nested.getIndexType(), args.front());
               SmallVector<Value> indices;
               for (int64_t dim = 0; dim < type.getRank(); ++dim)
                 indices.push_back(linalg::IndexOp::create(nested, loc, dim));
               Value &index = indices[at.dim];
               if (rows > 1)
                 index = arith::RemUIOp::create(nested, loc, index,
                                                constant(inner));
               index = arith::AddIOp::create(
                   nested, loc,
                   arith::MulIOp::create(nested, loc, first, constant(inner)),
                   index);
               Value element =
                   tensor::ExtractOp::create(nested, loc, all, indices);
               linalg::YieldOp::create(nested, loc, element);
             })
      .getResult(0);
}
