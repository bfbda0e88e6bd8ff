//===- Columns.h - Slices of the columns of a matrix ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_UTILS_COLUMNS_H
#define KVRM_DIALECT_KVRM_UTILS_COLUMNS_H

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {

/// Columns `[begin, begin + columns)` of a matrix of static shape.
Value sliceColumns(ImplicitLocOpBuilder &b, Value matrix, int64_t begin,
                   int64_t columns);

/// The slices that share all columns of a matrix of static shape among them, in
/// order; none if anything else uses the matrix.
SmallVector<tensor::ExtractSliceOp> getColumnSlices(Value matrix);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_COLUMNS_H
