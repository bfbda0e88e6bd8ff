//===- Steps.h - What belongs to the steps of a module ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A module may hold other people's functions and globals beside the steps. A
// pass of kvrm changes a step, the weights that it loads, and the functions and
// kernels that it dispatches or launches, and nothing else.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_UTILS_STEPS_H
#define KVRM_DIALECT_KVRM_UTILS_STEPS_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::kvrm {

/// The functions of `module` that are marked `kvrm.step` and have a body.
SmallVector<func::FuncOp> getSteps(ModuleOp module);

/// The name of an argument of a graph from outside: its `kvrm.name`, the name
/// of its location, or "argN".
std::string getArgumentName(func::FuncOp func, unsigned index);

/// The descriptors of a step's batches; none if it does not commit.
SmallVector<DescriptorType> getBatches(func::FuncOp step);

/// Whose tokens argument `index` is, which has that role: they are in the order
/// of the batches.
unsigned getBatchOfTokens(func::FuncOp step, unsigned index);

/// Fails, with a diagnostic, unless the arguments that are tokens have the
/// shapes of the batches.
LogicalResult verifyTokens(func::FuncOp step);

/// A weight and all loads of it.
using WeightLoads = llvm::MapVector<ml_program::GlobalOp,
                                    SmallVector<ml_program::GlobalLoadConstOp>>;

/// The globals that `steps` load, in the order of the module. Fails, with a
/// diagnostic, if a load names no global of the module, or if anything but such
/// a load uses one.
FailureOr<WeightLoads> getWeights(ModuleOp module,
                                  ArrayRef<func::FuncOp> steps);

/// Fails, with a diagnostic, if anything outside a step uses `symbol`: what a
/// pass makes of it for the steps would change somebody else's code.
LogicalResult verifyUsedBySteps(Operation *symbol, const SymbolUserMap &users);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_STEPS_H
