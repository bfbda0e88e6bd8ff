//===- BlockKernels.h - Weights in blocks on a CPU --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_HOST_BLOCKKERNELS_H
#define KVRM_CODEGEN_HOST_BLOCKKERNELS_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

namespace mlir::kvrm {

/// What multiplies codes of eight bits and sums up.
enum class CodeDot : uint8_t {
  None,
  Maddubs, ///< two products to 16 bits, which saturate
  Vnni     ///< four products, added to 32 bits
};

/// Writes the loops of a product before it. Sums start from zero, or else from
/// what the output holds. Fails on what the target has no code for.
LogicalResult writeBlockProduct(BlockProductOp op, bool startsFromZero,
                                int64_t lanes, CodeDot dot);

/// Writes the loops that quantise rows before `op`.
void writeQuantizeRows(QuantizeRowsOp op, int64_t lanes);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_HOST_BLOCKKERNELS_H
