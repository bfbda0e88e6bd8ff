//===- Optimize.h - LLVM's own optimisation ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_OPTIMIZE_H
#define KVRM_CODEGEN_OPTIMIZE_H

#include "llvm/IR/Module.h"
#include "llvm/Target/TargetMachine.h"

namespace mlir::kvrm {

/// Runs LLVM's default pipeline at O3 for `machine`.
void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_OPTIMIZE_H
