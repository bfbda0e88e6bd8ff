//===- ConstantTable.h - Constants at symbolic indices ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A constant tensor whose elements follow a law of their index: all alike,
// counting up (an arange), or a lower triangle of ones (a causal mask).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_CONSTANTTABLE_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_CONSTANTTABLE_H

#include "ScalarExpr.h"

#include "mlir/IR/BuiltinAttributes.h"

namespace mlir::kvrm::raise {

class ConstantTable {
public:
  explicit ConstantTable(ElementsAttr attr);

  /// The element at `index`; null if no law says what it is.
  const Expr *at(ExprPool &pool, ArrayRef<const Expr *> index) const;

private:
  bool isAffine();
  bool isTriangle();

  ElementsAttr attr;
  /// All elements in row-major order; none if they are not integers.
  SmallVector<int64_t> integers;
  /// Element [i...] is `base` + the sum of `coefficients` * i.
  SmallVector<int64_t> coefficients;
  /// Element [.., r, .., c, ..] is 1 if c <= r + `shift`, else 0.
  std::optional<int64_t> shift;
  unsigned rowDim = 0, columnDim = 0;
};

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_CONSTANTTABLE_H
