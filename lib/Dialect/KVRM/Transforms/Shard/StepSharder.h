//===- StepSharder.h - One step as each of several ranks has it -*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Goes through a step of phase 1 from its first op to its last and knows of
// each value whether ranks have it whole, and alike, or in parts. An op on
// parts becomes the same op on a rank's; where that would mean something else,
// it gets its operands gathered.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_TRANSFORMS_SHARD_STEPSHARDER_H
#define KVRM_LIB_TRANSFORMS_SHARD_STEPSHARDER_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {

/// Along a dimension the whole value is parts, one behind the other, and a rank
/// has an equal piece of each.
struct Split {
  int64_t dim = 0;
  SmallVector<int64_t> parts; ///< their whole sizes

  bool operator==(const Split &other) const {
    return dim == other.dim && parts == other.parts;
  }
};

class StepSharder {
public:
  StepSharder(func::FuncOp step, int64_t ranks)
      : step(step), ranks(ranks), b(step.getLoc(), step) {}

  /// Fails with a diagnostic. Loads of weights that are split have a rank's
  /// type then, and the globals are to get it.
  LogicalResult run();

  /// Of a load; null if ranks have all of it.
  const Split *splitOf(Value value) const {
    auto found = splits.find(value);
    return found == splits.end() ? nullptr : &found->second;
  }

  int64_t numReduced = 0, numGathered = 0;

private:
  /// How an op on tensors is cut: of one of its loops each rank runs its part.
  struct Cut {
    unsigned loop = 0;
    SmallVector<int64_t> parts;
    /// Weights to split, and along which dimension.
    SmallVector<std::pair<Value, int64_t>> weights;
  };

  LogicalResult splitCaches();
  LogicalResult shard(Operation &op);
  LogicalResult shardAttention(CachedAttentionOp op);
  LogicalResult shardReturn(func::ReturnOp op);
  LogicalResult shardLinalg(linalg::LinalgOp op);
  LogicalResult shardSlice(tensor::ExtractSliceOp op);
  LogicalResult shardInsertion(tensor::InsertSliceOp op);
  LogicalResult shardExpansion(tensor::ExpandShapeOp op);
  LogicalResult shardCollapse(tensor::CollapseShapeOp op);
  /// Gives `op` the whole of what it reads.
  LogicalResult gatherOperands(Operation *op);
  FailureOr<Value> gather(Value value, Operation *user);

  std::optional<Cut> chooseCut(linalg::LinalgOp op);
  /// The loop that runs along the split dimension of all operands that are
  /// split; none of several.
  std::optional<Cut> cutOfOperands(linalg::LinalgOp op);
  /// That of the columns of a product with a weight.
  std::optional<Cut> cutOfColumns(linalg::LinalgOp op);
  bool takesPart(linalg::LinalgOp op, OpOperand &input, Cut &cut);
  bool takesInit(linalg::LinalgOp op, OpOperand &init, const Cut &cut);
  bool indexesParts(linalg::LinalgOp op, const Cut &cut);
  LogicalResult apply(linalg::LinalgOp op, const Cut &cut);

  int64_t ofRank(int64_t size) const { return size / ranks; }
  RankedTensorType ofRank(Type type, int64_t dim) const;
  bool divides(ArrayRef<int64_t> parts) const;
  bool isCache(Value value) const;
  void split(Value value, int64_t dim, ArrayRef<int64_t> parts);
  /// What holds nothing, or one value, in the size that a rank has.
  Value initOfRank(Value init, int64_t dim);
  void reduce(Value partial);
  void replace(Operation *op, Value value, const Split &split);

  func::FuncOp step;
  int64_t ranks;
  ImplicitLocOpBuilder b;
  DenseMap<Value, Split> splits;
  DenseMap<Value, Value> gathered;
  DenseSet<Value> wholeWeights; ///< that some op reads all of
};

} // namespace mlir::kvrm

#endif // KVRM_LIB_TRANSFORMS_SHARD_STEPSHARDER_H
