//===- KVRM.h - The compiler from C -----------------------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The dialect, its passes and its pipelines in the manner of MLIR's C API.
// Passes and pipelines are then named in text, for mlirParsePassPipeline(). The
// runtime has a C API of its own, kvrm/runtime/kvrm.h.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_C_KVRM_H
#define KVRM_C_KVRM_H

#include "mlir-c/IR.h"

#ifdef __cplusplus
extern "C" {
#endif

/// The dialect alone: mlirGetDialectHandle__kvrm__().
MLIR_DECLARE_CAPI_DIALECT_REGISTRATION(KVRM, kvrm);

/// Adds the dialect to `registry`, and the interfaces that it attaches.
MLIR_CAPI_EXPORTED void mlirRegisterKVRMDialects(MlirDialectRegistry registry);

/// Registers the passes and pipelines. Call it once a process.
MLIR_CAPI_EXPORTED void mlirRegisterKVRMPasses(void);

#ifdef __cplusplus
}
#endif

#endif // KVRM_C_KVRM_H
