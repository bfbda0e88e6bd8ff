//===- StepInfo.cpp - What a manifest says of a compiled step -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepInfo.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

int64_t kvrmc::getPagesPerSlot(mlir::func::FuncOp step) {
  for (mlir::Type type : step.getArgumentTypes())
    if (auto session = mlir::dyn_cast<mlir::kvrm::SessionType>(type))
      return session.getPages();
  return 0;
}
