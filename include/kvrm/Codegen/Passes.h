//===- Passes.h - Kernel generation -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_PASSES_H
#define KVRM_CODEGEN_PASSES_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::kvrm {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "kvrm/Codegen/Passes.h.inc"

/// Scratch memory, in bytes, that a worker needs for an attention kernel of
/// `queryRows` query rows.
int64_t getHostScratchBytes(int64_t queryRows, int64_t headDim, int64_t kvTile,
                            int64_t lanes);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_PASSES_H
