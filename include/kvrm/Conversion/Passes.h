//===- Passes.h - Conversions out of the kvrm dialect -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CONVERSION_PASSES_H
#define KVRM_CONVERSION_PASSES_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::kvrm {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "kvrm/Conversion/Passes.h.inc"

} // namespace mlir::kvrm

#endif // KVRM_CONVERSION_PASSES_H
