//===- Columns.cpp - Slices of the columns of a matrix --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/Columns.h"

using namespace mlir;
using namespace mlir::kvrm;

Value kvrm::sliceColumns(ImplicitLocOpBuilder &b, Value matrix, int64_t begin,
                         int64_t columns) {
  int64_t rows = cast<RankedTensorType>(matrix.getType()).getDimSize(0);
  SmallVector<OpFoldResult> offsets = {b.getIndexAttr(0),
                                       b.getIndexAttr(begin)};
  SmallVector<OpFoldResult> sizes = {b.getIndexAttr(rows),
                                     b.getIndexAttr(columns)};
  SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
  return tensor::ExtractSliceOp::create(b, matrix, offsets, sizes, strides);
}

SmallVector<tensor::ExtractSliceOp> kvrm::getColumnSlices(Value matrix) {
  SmallVector<tensor::ExtractSliceOp> slices;
  for (Operation *user : matrix.getUsers()) {
    auto slice = dyn_cast<tensor::ExtractSliceOp>(user);
    if (!slice || slice.getType().getRank() != 2 || !slice.hasUnitStride())
      return {};
    slices.push_back(slice);
  }
  llvm::sort(slices, [](tensor::ExtractSliceOp a, tensor::ExtractSliceOp b) {
    return a.getStaticOffsets()[1] < b.getStaticOffsets()[1];
  });
  // What is dynamic is none of these numbers.
  ArrayRef<int64_t> shape = cast<RankedTensorType>(matrix.getType()).getShape();
  int64_t next = 0;
  for (tensor::ExtractSliceOp slice : slices) {
    int64_t columns = slice.getStaticSizes()[1];
    if (slice.getStaticOffsets() != ArrayRef<int64_t>{0, next} ||
        slice.getStaticSizes()[0] != shape[0] || ShapedType::isDynamic(columns))
      return {};
    next += columns;
  }
  if (next != shape[1])
    return {};
  return slices;
}
