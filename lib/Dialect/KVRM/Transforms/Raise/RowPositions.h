//===- RowPositions.h - A position for each row -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Many frontends have one position for all rows of a batch. Phase 1 has one for
// each, so what a row's queries and keys make of the position, a rotary
// embedding mostly, has to be that of the row: row r of them becomes what it
// was where the common position is r's.
//
// What has no rows, such as sines and cosines, is computed once a row and
// stacked; what has rows is computed once, of the stacks.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_ROWPOSITIONS_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_ROWPOSITIONS_H

#include "StepAnalysis.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/DenseSet.h"

namespace mlir::kvrm::raise {

class RowPositions {
public:
  /// `positions` are those of the rows, each as the common one was.
  RowPositions(func::FuncOp func, const RaisableStep &step,
               ArrayRef<Value> positions);

  /// `tensor`, whose dim `rowDim` is that of rows, with each row's position.
  /// Null if an op on the way is one that this does not know.
  Value spread(Value tensor, unsigned rowDim);
  /// Whether `value` is computed from the position, but not through attention.
  bool isDependent(Value value) const { return dependent.contains(value); }
  /// The first op that was not known.
  Operation *getUnknown() const { return unknown; }
  /// Erases all ops that were made.
  void undo();

private:
  /// What an op in a body extracts elements of, in place of its tensor; a stack
  /// takes the row as its first index.
  struct BodyRead {
    tensor::ExtractOp op;
    Value tensor;
    bool isStack;
  };

  Value spreadOp(Operation *op, Value tensor, unsigned rowDim);
  Value spreadLinalg(linalg::LinalgOp op, unsigned rowDim);
  std::optional<SmallVector<BodyRead>> spreadReads(linalg::LinalgOp op,
                                                   unsigned rowLoop);
  /// Clones an op that has rows, with `operands` spread along their dims.
  Value cloneSpread(Operation *op,
                    ArrayRef<std::pair<OpOperand *, unsigned>> operands);
  /// `tensor`, which has no rows, once a row: `[rows, ...]`.
  Value stack(Value tensor);
  Value ofRow(Value value, int64_t row);
  Operation *keep(Operation *op) {
    made.push_back(op);
    return op;
  }

  OpBuilder b;
  llvm::DenseSet<Value> dependent;
  SmallVector<IRMapping> rows;
  llvm::DenseMap<std::pair<Value, unsigned>, Value> spreads;
  llvm::DenseMap<Value, Value> stacks;
  SmallVector<Operation *> made;
  Operation *unknown = nullptr;
};

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_ROWPOSITIONS_H
