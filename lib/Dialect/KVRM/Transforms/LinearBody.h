//===- LinearBody.h - The body of a linear on its own -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_TRANSFORMS_LINEARBODY_H
#define KVRM_DIALECT_TRANSFORMS_LINEARBODY_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {

/// Writes the body of `op` as a linalg op on `product`, [M, parts * N]: its
/// slices are the sums. Elements that are not f32 are cast to it first.
Value writeLinearBody(ImplicitLocOpBuilder &b, LinearOp op, Value product);

/// Makes the norm of a product an op of its own before it; null if there is
/// none.
template <typename OpT> RmsNormOp takeNormOut(OpT op) {
  if (!op.getGain())
    return {};
  ImplicitLocOpBuilder b(op.getLoc(), op);
  const int64_t dims[] = {op.getRows(), op.getDepth()};
  Value init = tensor::EmptyOp::create(b, dims, op.getMultiplicandElement());
  return takeNormOut(op, init);
}

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_TRANSFORMS_LINEARBODY_H
