//===- CPUTarget.h - Packages for a CPU -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_CPUTARGET_H
#define KVRM_TOOLS_KVRMC_CPUTARGET_H

#include "Target.h"

#include "kvrm/Codegen/HostTarget.h"
#include "kvrm/Pipelines/Pipelines.h"

namespace kvrmc {

/// Writes code.so. The attributes that a step keeps in the LLVM dialect say
/// what its entry needs.
class CPUTarget final : public Target {
public:
  CPUTarget(mlir::kvrm::HostTarget machine,
            const mlir::kvrm::HostPipelineOptions &options);

  llvm::StringRef kind() const override { return "host"; }
  llvm::StringRef name() const override { return machine.getCPU(); }
  void buildPaged(mlir::OpPassManager &pm) const override;
  void buildKernels(mlir::OpPassManager &pm) const override;
  void buildLowering(mlir::OpPassManager &pm) const override;
  void describe(kvrm::PackageManifest &manifest) const override;
  llvm::Error describeEntry(mlir::ModuleOp module,
                            kvrm::PackageManifest &manifest,
                            kvrm::PackageManifest::Entry &entry) override;
  llvm::Expected<std::unique_ptr<llvm::Module>>
  translate(mlir::ModuleOp module, llvm::LLVMContext &context) const override;
  llvm::Expected<std::string> assembly(llvm::Module &module) const override;
  llvm::Error writeCode(llvm::Module &module,
                        kvrm::PackageWriter &writer) override;

private:
  mlir::kvrm::HostTarget machine;
  mlir::kvrm::HostPipelineOptions pipeline;
};

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_CPUTARGET_H
