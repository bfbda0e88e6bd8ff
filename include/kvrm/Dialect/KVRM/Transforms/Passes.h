//===- Passes.h - Passes inside the kvrm dialect ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_TRANSFORMS_PASSES_H
#define KVRM_DIALECT_KVRM_TRANSFORMS_PASSES_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Utils/Products.h"

#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::kvrm {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_TRANSFORMS_PASSES_H
