//===- DeclaredPositions.h - Arguments that are one position ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Some frontends give a step its position several times: once a layer, or once
// for the caches and once for the rotary embedding. That these are equal is a
// fact about calls, which the graph cannot tell and the user can.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_DECLAREDPOSITIONS_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_DECLAREDPOSITIONS_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/SmallVector.h"

namespace mlir::kvrm::raise {

/// Has a function read all its positions from one argument, until it is undone.
class DeclaredPositions {
public:
  explicit DeclaredPositions(func::FuncOp func) : func(func) {}

  /// Of the arguments `numbers`, integers or tensors of them, one a row or one
  /// for all rows, the first with the fewest elements stands for all. Errors,
  /// at the function: an argument that is no such thing, or has neither as many
  /// elements as that one nor, where that one has one, any number.
  LogicalResult unify(ArrayRef<unsigned> numbers);
  /// Leaves the function as it was.
  void undo();

private:
  FailureOr<int64_t> countOf(unsigned number);
  Value spread(OpBuilder &builder, BlockArgument from, Type type);

  func::FuncOp func;
  SmallVector<std::pair<OpOperand *, Value>> replaced; ///< and what it was
  SmallVector<Operation *> made;
};

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_DECLAREDPOSITIONS_H
