//===- GraphMutator.h - Decode steps that are nearly others -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FUZZ_GRAPHMUTATOR_H
#define KVRM_FUZZ_GRAPHMUTATOR_H

#include "Raise/StepAnalysis.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <random>
#include <string>

namespace fuzz {

using Random = std::mt19937_64;

/// Changes `func` in one place, near what depends on `roots` mostly: an
/// operand, a constant, a map, an offset, an op. False if nothing could be
/// changed, or what was changed does not verify; `func` is to be thrown away
/// then. `description` says what was done.
bool mutate(mlir::func::FuncOp func, llvm::ArrayRef<mlir::Value> roots,
            llvm::ArrayRef<mlir::Operation *> stops, Random &random,
            std::string &description);

/// Divides the sizes of tensors that are multiples of 32 by 16, or by 256 where
/// they are at least 8192, and with them the integers that go with sizes. False
/// if the graph has no such form.
bool shrink(mlir::func::FuncOp func);

/// Leaves the first layers of a step alone, as many as `kept`. False if what
/// goes from layer to layer is not found, or caches are of several; `func` is
/// to be thrown away then.
bool cutLayers(mlir::func::FuncOp func,
               const mlir::kvrm::raise::RaisableStep &step, size_t kept);

} // namespace fuzz

#endif // KVRM_FUZZ_GRAPHMUTATOR_H
