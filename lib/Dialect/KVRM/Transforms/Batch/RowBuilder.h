//===- RowBuilder.h - A step again, for another number of rows --*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_BATCH_ROWBUILDER_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_BATCH_ROWBUILDER_H

#include "RowAnalysis.h"

#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm::batch {

/// Builds ops of an analysed step for `rows` rows. Values that have rows have
/// the type that RowPlace says: a dim of `rows * inner`, or one of `rows` in
/// front.
class RowBuilder {
public:
  RowBuilder(const RowAnalysis &analysis, OpBuilder &builder, int64_t rows,
             IRMapping &shared)
      : analysis(analysis), b(builder.getUnknownLoc(), builder), rows(rows),
        shared(shared) {}

  void map(Value old, Value value) { values[old] = value; }
  /// What stands for `old`. What has no rows is built on demand, once for all
  /// builders that share.
  Value get(Value old);
  /// Builds an op whose operands are there.
  void build(Operation &op);

  /// `[rows, ...]` of a value that has rows in front, `[rows, 1, ...]` with a
  /// size of one between where the step has one row.
  Value toFront(Value old);
  /// And back: the form of `old`.
  Value fromFront(Value front, Value old);
  /// The rows `numbers`, a tensor of an i32 for each row of this builder, of a
  /// value as `other` built it, in the form of this builder.
  Value selectRows(Value old, RowBuilder &other, Value numbers);

  ImplicitLocOpBuilder &builder() { return b; }

private:
  RankedTensorType typeOf(Value old) const;
  Value buildGeneric(linalg::GenericOp op);
  Value buildReshape(Operation &op);
  Value buildExtract(tensor::ExtractSliceOp op);
  Value buildInsert(tensor::InsertSliceOp op);
  IRMapping mapCaptured(linalg::GenericOp op);
  void cloneBody(linalg::GenericOp from, linalg::GenericOp to, bool isLead,
                 IRMapping &mapping);
  /// A uniform value with another size of a dim.
  Value resize(Value old, unsigned dim, int64_t size);
  /// A value without rows with a dim of rows in front.
  Value repeat(Value value);

  const RowAnalysis &analysis;
  ImplicitLocOpBuilder b;
  int64_t rows;
  IRMapping &shared;
  llvm::DenseMap<Value, Value> values;
};

} // namespace mlir::kvrm::batch

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_BATCH_ROWBUILDER_H
