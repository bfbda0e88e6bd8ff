//===- TableReads.h - Rows of tables that a step reads ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_TABLEREADS_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_TABLEREADS_H

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::kvrm::raise {

/// Checks that what `func` reads at an index that is made of `argument` is
/// there while elements of that, `what` they are called, are in [0, count). An
/// error is at the op that reads. An index that cannot be followed is taken to
/// be right.
LogicalResult checkTableReads(func::FuncOp func, BlockArgument argument,
                              int64_t count, StringRef what);

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_TABLEREADS_H
