//===- StepRewrite.h - A static step in the form of phase 1 -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_STEPREWRITE_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_STEPREWRITE_H

#include "StepAnalysis.h"

namespace mlir::kvrm::raise {

/// Puts `kvrm.cached_attention` in the place of every layer of `func`; false if
/// it was refused, and a remark said why. Its caches become one pair of
/// `element`, the last arguments and results; its position becomes an i32 for
/// each row, where the old one was.
FailureOr<bool> rewriteStep(func::FuncOp func, const RaisableStep &step,
                            Type element);

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_STEPREWRITE_H
