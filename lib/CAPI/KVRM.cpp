//===- KVRM.cpp - The compiler from C -------------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm-c/KVRM.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/InitAll.h"

#include "mlir/CAPI/IR.h"
#include "mlir/CAPI/Registration.h"

MLIR_DEFINE_CAPI_DIALECT_REGISTRATION(KVRM, kvrm, mlir::kvrm::KVRMDialect)

void mlirRegisterKVRMDialects(MlirDialectRegistry registry) {
  mlir::kvrm::registerAllKVRMDialects(*unwrap(registry));
}

void mlirRegisterKVRMPasses(void) { mlir::kvrm::registerAllKVRMPasses(); }
