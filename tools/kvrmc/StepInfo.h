//===- StepInfo.h - What a manifest says of a compiled step -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_STEPINFO_H
#define KVRM_TOOLS_KVRMC_STEPINFO_H

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace kvrmc {

/// Entries of a slot's block table in the session that a step takes; 0 for a
/// step without one.
int64_t getPagesPerSlot(mlir::func::FuncOp step);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_STEPINFO_H
