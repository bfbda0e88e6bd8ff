//===- Reshape.h - The same elements in another shape -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_UTILS_RESHAPE_H
#define KVRM_DIALECT_KVRM_UTILS_RESHAPE_H

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {

/// The elements of `value`, in their order, in another static shape. The shapes
/// differ in sizes of one, or one of them is the other with dims joined.
Value reshape(ImplicitLocOpBuilder &b, Value value, ArrayRef<int64_t> shape);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_RESHAPE_H
