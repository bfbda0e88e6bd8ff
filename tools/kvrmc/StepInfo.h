//===- StepInfo.h - What a manifest says of a compiled step -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_STEPINFO_H
#define KVRM_TOOLS_KVRMC_STEPINFO_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Package/Package.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/Support/Error.h"

namespace kvrmc {

/// The session that a step takes; null for a step without one.
mlir::kvrm::SessionType getSession(mlir::func::FuncOp step);

/// Says in `entry` how its one batch is planned. For a step of several batches
/// it checks that they are planned as those of the entries that `entry` names,
/// which the manifest has already: the runtime plans each batch once.
llvm::Error describePlans(llvm::ArrayRef<mlir::kvrm::StepPlanAttr> plans,
                          const kvrm::PackageManifest &manifest,
                          kvrm::PackageManifest::Entry &entry);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_STEPINFO_H
