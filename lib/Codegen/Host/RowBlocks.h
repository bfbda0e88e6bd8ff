//===- RowBlocks.h - Rows of activations, a few at a time -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_HOST_ROWBLOCKS_H
#define KVRM_CODEGEN_HOST_ROWBLOCKS_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <algorithm>

namespace mlir::kvrm {

/// Calls `write` with the first row and the number of rows of each block of
/// `rows`: as many as leave the sums of a panel in the registers of a target of
/// `lanes` floats. A loop stands around all whole blocks but one.
inline void
forEachRowBlock(ImplicitLocOpBuilder &b, int64_t rows, int64_t lanes,
                function_ref<void(Value firstRow, int64_t count)> write) {
  auto index = [&](int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  };
  int64_t count = std::min<int64_t>(rows, lanes >= 16 ? 8 : 4);
  int64_t whole = rows / count * count;
  if (whole == count) {
    write(index(0), count);
  } else {
    auto loop = scf::ForOp::create(b, index(0), index(whole), index(count));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    write(loop.getInductionVar(), count);
  }
  if (whole != rows)
    write(index(whole), rows - whole);
}

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_HOST_ROWBLOCKS_H
