//===- QKVProjection.h - Projections of attention in linalg -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What follows the one product of query, key and value: three slices of its
// columns, two of which are turned to the tokens' positions.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_QKVPROJECTION_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_QKVPROJECTION_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Utils/Rotation.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

namespace mlir::kvrm {

/// Ops that alone use a plain product, and make query, key and value of it.
struct QKVProjection {
  /// Query or key: a slice of columns that a generic turns.
  struct Turned {
    tensor::ExtractSliceOp slice;
    linalg::GenericOp last;
    Rotation rotation;
  };

  Turned query, key;
  Value bias; ///< that is added to the product; null if none is
  /// The value: a slice, or what rounds one.
  Operation *value;

  /// None if anything else uses the product.
  static std::optional<QKVProjection> match(LinearOp product);

  /// Writes the op that does all of it where `product` is, and replaces the
  /// results. Leaves the ops matched without a use.
  QKVProjectionOp form(LinearOp product);
};

/// Writes before `op` what follows its product, f32 `[rows, columns]`, and
/// returns query, key and value.
SmallVector<Value> writeQKVProjection(ImplicitLocOpBuilder &b,
                                      QKVProjectionOp op, Value product);

} // namespace mlir::kvrm

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_QKVPROJECTION_H
