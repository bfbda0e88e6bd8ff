//===- PackBlocks.h - Weights in blocks, packed -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_TRANSFORMS_PACKBLOCKS_H
#define KVRM_DIALECT_KVRM_TRANSFORMS_PACKBLOCKS_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {

/// Retypes weights in blocks to records of `panel` rows, and rewrites what
/// reads them.
class BlockPacker {
public:
  BlockPacker(int64_t panel, bool exactActivations)
      : panel(panel), exactActivations(exactActivations) {}

  /// Packs one weight, whose place is `offset`. Says which use it cannot
  /// rewrite.
  FailureOr<WeightAttr> pack(ml_program::GlobalOp global,
                             ArrayRef<ml_program::GlobalLoadConstOp> loads,
                             int64_t offset);

private:
  LogicalResult rewriteUses(DequantizeOp dequantize, BlockFormat format);
  void rewriteProduct(linalg::MatmulOp matmul, BlockFormat format,
                      Value records);
  Value getInput(linalg::MatmulOp matmul, BlockFormat format);

  int64_t panel;
  bool exactActivations;
};

/// `init` with columns up to `columns`, more than it has. Only of an output
/// that is zero is that free.
Value widenColumns(ImplicitLocOpBuilder &b, Value init, int64_t columns);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_TRANSFORMS_PACKBLOCKS_H
