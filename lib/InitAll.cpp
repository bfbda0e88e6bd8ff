//===- InitAll.cpp - Register all dialects and passes of kvrm -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/InitAll.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

void mlir::kvrm::registerAllKVRMDialects(DialectRegistry &registry) {
  registry.insert<KVRMDialect>();
}

void mlir::kvrm::registerAllKVRMPasses() {}
