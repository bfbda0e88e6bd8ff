//===- RowAnalysis.h - Where values of a step have its rows -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A decode step of several rows computes each of them apart, but for what it
// reads of weights. That is proved here, op by op: of each value it is known
// whether it has the rows of the step, and where.
//
// A step of one row has nothing to find. It is the function of a row, and each
// value that depends on tokens or positions gets a dim of rows in front.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_BATCH_ROWANALYSIS_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_BATCH_ROWANALYSIS_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/DenseMap.h"

#include <optional>

namespace mlir::kvrm::batch {

/// Where a value has the rows of its step.
struct RowPlace {
  enum class Kind : uint8_t {
    None, ///< it has none: it is the same for all
    Dim,  ///< along `dim`, `inner` elements a row
    Lead  ///< the value is of one row; those of several get a dim in front
  };
  Kind kind = Kind::None;
  unsigned dim = 0;
  int64_t inner = 1;
  /// Which row, where the step has several and the value is of one.
  std::optional<int64_t> row;

  static RowPlace lead(std::optional<int64_t> row = {}) {
    return {Kind::Lead, 0, 1, row};
  }
  static RowPlace along(unsigned dim, int64_t inner = 1) {
    return {Kind::Dim, dim, inner, {}};
  }
  explicit operator bool() const { return kind != Kind::None; }
  bool isLead() const { return kind == Kind::Lead; }
  bool isDim() const { return kind == Kind::Dim; }
  friend bool operator==(const RowPlace &a, const RowPlace &b) {
    return a.kind == b.kind && a.dim == b.dim && a.inner == b.inner &&
           a.row == b.row;
  }
};

/// A parallel loop over rows, `inner` iterations each.
struct RowLoop {
  unsigned loop = 0;
  int64_t inner = 1;
};

class RowAnalysis {
public:
  /// Of an adopted decode step (kvrm-adopt-step).
  explicit RowAnalysis(func::FuncOp step);

  /// Fails at the first op that mixes rows, or may; an error says which.
  LogicalResult run();

  int64_t getRows() const { return rows; }
  RowPlace of(Value value) const { return places.lookup(value); }
  /// Of a generic one of whose operands has rows along a dim.
  RowLoop loopOf(linalg::GenericOp op) const { return loops.lookup(op); }
  /// The value of row 0, if `value` is a stack of values of each row that are
  /// all made the same way.
  Value stackedOf(Value value) const { return stacks.lookup(value); }

private:
  LogicalResult place(Operation &op);
  LogicalResult placeGeneric(linalg::GenericOp op);
  LogicalResult placeAlongLoop(linalg::GenericOp op);
  LogicalResult placeExpand(tensor::ExpandShapeOp op);
  LogicalResult placeCollapse(tensor::CollapseShapeOp op);
  LogicalResult placeExtract(tensor::ExtractSliceOp op);
  LogicalResult placeInsert(tensor::InsertSliceOp op);
  LogicalResult placeStack(tensor::InsertSliceOp op, int64_t row);
  bool isAlike(Value a, Value b, int64_t rowOfB) const;

  func::FuncOp step;
  int64_t rows;
  llvm::DenseMap<Value, RowPlace> places;
  llvm::DenseMap<Operation *, RowLoop> loops;
  llvm::DenseMap<Value, SmallVector<Value>> partial; ///< stacks so far
  llvm::DenseMap<Value, Value> stacks;
};

/// Tensors that the body of a generic reads elements of.
SmallVector<tensor::ExtractOp> getBodyReads(linalg::GenericOp op);

/// Whether `value` is the same all along `dim`, so that it can be made of any
/// size there.
bool isUniform(Value value, unsigned dim);

/// The input that dim `dim` of a slice is of.
unsigned getSourceDim(const llvm::SmallBitVector &dropped, unsigned dim);

} // namespace mlir::kvrm::batch

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_BATCH_ROWANALYSIS_H
