//===- StepAnalysis.h - A decode step over static caches --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What has to hold of a whole function before its layers may be raised: they
// agree on the position and on shapes, each cache is returned as attention saw
// it, and nothing else reads one. All layers or none.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_STEPANALYSIS_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_STEPANALYSIS_H

#include "AttentionMatcher.h"

#include "llvm/ADT/BitVector.h"

namespace mlir::kvrm::raise {

struct RaisableStep {
  /// Keeps the expressions of the layers alive.
  std::unique_ptr<ExprPool> pool;
  /// In the order of their ops; `layerNumbers` are those of the caches.
  SmallVector<AttentionLayer, 0> layers;
  SmallVector<int64_t> layerNumbers;
  BlockArgument position;
  /// One position serves all rows, of which there are several.
  bool hasCommonPosition = false;
  /// Results that return a cache, and arguments that bring one.
  llvm::BitVector cacheResults, cacheArguments;
};

/// The step that `func` is. Where it is none, remarks at its ops say why; a
/// function without anything like a cache gets none. `causalMasks` are
/// arguments that hide the tokens behind the position, by contract.
FailureOr<RaisableStep> analyseStep(func::FuncOp func,
                                    ArrayRef<Value> causalMasks = {});

/// Whether `op` may be erased where nobody uses its results. An assertion in
/// its body is about indices, and goes with it.
bool isRemovable(Operation *op);

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_STEPANALYSIS_H
