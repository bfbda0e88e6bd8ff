//===- WeightView.h - A tensor as a view of a weight ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_ARRANGE_WEIGHTVIEW_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_ARRANGE_WEIGHTVIEW_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <optional>

namespace mlir::kvrm {

/// A tensor whose elements are those of a weight, by sizes and strides.
struct WeightView {
  struct Factor {
    int64_t size, stride;
  };
  /// Slowest first. A dim that joins several has one for each.
  using Dim = SmallVector<Factor, 2>;

  FlatSymbolRefAttr weight;
  int64_t offset = 0;
  SmallVector<Dim> dims;

  /// What `value` is of the weight that it was loaded from: through reshapes,
  /// transposes, slices and casts. None if it is made in another way.
  static std::optional<WeightView> of(Value value);

  /// The matrix whose rows run along `rows`, dims of the view, and whose
  /// columns along `columns`.
  WeightPartAttr asMatrix(ArrayRef<unsigned> rows,
                          ArrayRef<unsigned> columns) const;

private:
  bool expand(tensor::ExpandShapeOp op);
  void collapse(tensor::CollapseShapeOp op);
  bool slice(tensor::ExtractSliceOp op);
};

} // namespace mlir::kvrm

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_ARRANGE_WEIGHTVIEW_H
