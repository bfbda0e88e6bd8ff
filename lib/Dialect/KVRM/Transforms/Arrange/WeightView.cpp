//===- WeightView.cpp - A tensor as a view of a weight --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WeightView.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvrm;

/// What a generic copies, transposed by the map, if it does no more than that
/// and to widen.
static std::optional<std::pair<Value, AffineMap>>
findCopied(linalg::GenericOp op) {
  if (op.getNumDpsInputs() != 1 || op.getNumDpsInits() != 1 ||
      !op.hasPureTensorSemantics() ||
      op.getNumParallelLoops() != op.getNumLoops())
    return std::nullopt;
  Value yielded = op.getBody()->getTerminator()->getOperand(0);
  if (auto widened = yielded.getDefiningOp<arith::ExtFOp>())
    yielded = widened.getIn();
  AffineMap from = op.getMatchingIndexingMap(op.getDpsInputOperand(0));
  AffineMap to = op.getMatchingIndexingMap(op.getDpsInitOperand(0));
  if (yielded != op.getBody()->getArgument(0) || !from.isPermutation() ||
      !to.isPermutation())
    return std::nullopt;
  // From the result's dims to the input's.
  return std::pair(op.getDpsInputs()[0], from.compose(inversePermutation(to)));
}

bool WeightView::expand(tensor::ExpandShapeOp op) {
  SmallVector<Dim> expanded(op.getResultType().getRank());
  for (auto [dim, group] : llvm::enumerate(op.getReassociationIndices())) {
    Dim left = dims[dim];
    for (int64_t result : llvm::reverse(group)) {
      int64_t size = op.getResultType().getDimSize(result);
      while (size > 1) {
        // The fastest factor, or its fastest part.
        Factor &fastest = left.back();
        if (fastest.size == 1) {
          left.pop_back();
          continue;
        }
        int64_t taken = std::min(size, fastest.size);
        if (size % taken || fastest.size % taken)
          return false;
        expanded[result].insert(expanded[result].begin(),
                                {taken, fastest.stride});
        fastest = {fastest.size / taken, fastest.stride * taken};
        size /= taken;
      }
    }
  }
  dims = std::move(expanded);
  return true;
}

void WeightView::collapse(tensor::CollapseShapeOp op) {
  SmallVector<Dim> collapsed;
  for (const ReassociationIndices &group : op.getReassociationIndices()) {
    Dim &joined = collapsed.emplace_back();
    for (int64_t dim : group)
      llvm::append_range(joined, dims[dim]);
  }
  dims = std::move(collapsed);
}

bool WeightView::slice(tensor::ExtractSliceOp op) {
  if (!op.hasUnitStride())
    return false;
  SmallVector<Dim> sliced;
  llvm::SmallBitVector dropped = op.getDroppedDims();
  for (auto [dim, factors] : llvm::enumerate(dims)) {
    std::optional<int64_t> begin =
        getConstantIntValue(op.getMixedOffsets()[dim]);
    int64_t size = op.getStaticSizes()[dim];
    if (!begin || ShapedType::isDynamic(size))
      return false;
    if (size != op.getSourceType().getDimSize(dim)) {
      if (factors.size() != 1)
        return false;
      offset += *begin * factors.front().stride;
      factors.front().size = size;
    }
    if (!dropped.test(dim))
      sliced.push_back(factors);
  }
  dims = std::move(sliced);
  return true;
}

std::optional<WeightView> WeightView::of(Value value) {
  Operation *op = value.getDefiningOp();
  if (auto load = dyn_cast_or_null<ml_program::GlobalLoadConstOp>(op)) {
    WeightView view;
    auto name = dyn_cast<FlatSymbolRefAttr>(load.getGlobalAttr());
    auto type = dyn_cast<RankedTensorType>(load.getType());
    if (!name || !type)
      return std::nullopt;
    view.weight = name;
    int64_t stride = 1;
    for (int64_t size : llvm::reverse(type.getShape())) {
      view.dims.insert(view.dims.begin(), Dim{{size, stride}});
      stride *= size;
    }
    return view;
  }
  if (!op || op->getNumOperands() == 0)
    return std::nullopt;
  std::optional<WeightView> view = of(op->getOperand(0));
  if (!view)
    return std::nullopt;
  bool isFollowed =
      llvm::TypeSwitch<Operation *, bool>(op)
          .Case([&](tensor::ExpandShapeOp expand) {
            return view->expand(expand);
          })
          .Case([&](tensor::CollapseShapeOp collapse) {
            view->collapse(collapse);
            return true;
          })
          .Case(
              [&](tensor::ExtractSliceOp slice) { return view->slice(slice); })
          .Case([&](linalg::GenericOp generic) {
            auto copied = findCopied(generic);
            if (!copied)
              return false;
            SmallVector<Dim> transposed(view->dims.size());
            for (auto [dim, from] :
                 llvm::enumerate(copied->second.getResults()))
              transposed[cast<AffineDimExpr>(from).getPosition()] =
                  view->dims[dim];
            view->dims = std::move(transposed);
            return true;
          })
          .Default(false);
  return isFollowed ? view : std::nullopt;
}

/// Sizes and strides, as few as there can be and at least one.
static std::pair<SmallVector<int64_t>, SmallVector<int64_t>>
joinFactors(ArrayRef<WeightView::Dim> dims, ArrayRef<unsigned> order) {
  SmallVector<int64_t> sizes, strides;
  for (unsigned dim : order)
    for (WeightView::Factor factor : dims[dim]) {
      if (factor.size == 1)
        continue;
      if (!sizes.empty() && strides.back() == factor.size * factor.stride) {
        sizes.back() *= factor.size;
        strides.back() = factor.stride;
        continue;
      }
      sizes.push_back(factor.size);
      strides.push_back(factor.stride);
    }
  if (sizes.empty()) {
    sizes.push_back(1);
    strides.push_back(0);
  }
  return {sizes, strides};
}

WeightPartAttr WeightView::asMatrix(ArrayRef<unsigned> rows,
                                    ArrayRef<unsigned> columns) const {
  auto [rowSizes, rowStrides] = joinFactors(dims, rows);
  auto [columnSizes, columnStrides] = joinFactors(dims, columns);
  return WeightPartAttr::get(weight.getContext(), weight.getAttr(), offset,
                             rowSizes, rowStrides, columnSizes, columnStrides);
}
