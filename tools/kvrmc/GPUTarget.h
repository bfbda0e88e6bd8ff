//===- GPUTarget.h - Packages for an NVIDIA GPU -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_GPUTARGET_H
#define KVRM_TOOLS_KVRMC_GPUTARGET_H

#include "Target.h"

#include "kvrm/Codegen/NVPTXTarget.h"
#include "kvrm/Pipelines/Pipelines.h"

#include <vector>

namespace kvrmc {

/// Writes kernels.ptx, kernels.cubin where ptxas is found, and a program an
/// entry.
class GPUTarget final : public Target {
public:
  struct Options {
    mlir::kvrm::NVVMPipelineOptions pipeline;
    bool isDecoder = false; ///< a whole decoder, else attention alone
    bool isStaged = false;  ///< staged kernels too, to compare with native ones
    bool printsResources = false; ///< registers and spills, as ptxas has them
    bool isQuiet = false;
  };

  GPUTarget(mlir::kvrm::NVPTXTarget machine, const Options &options);

  llvm::StringRef kind() const override { return "nvptx"; }
  llvm::StringRef name() const override { return machine.getArch(); }
  void buildPaged(mlir::OpPassManager &pm) const override;
  void buildKernels(mlir::OpPassManager &pm) const override;
  void addKernels(mlir::ModuleOp module) const override;
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
  struct Program {
    std::string file;
    std::string bytes;
  };

  bool isHopper() const { return machine.getArch() != "sm_80"; }
  void describeKernels(mlir::ModuleOp module,
                       kvrm::PackageManifest &manifest) const;
  llvm::Error writeMachineCode(kvrm::PackageWriter &writer) const;

  mlir::kvrm::NVPTXTarget machine;
  mlir::kvrm::NVVMPipelineOptions pipeline;
  bool isStaged;
  bool printsResources;
  bool isQuiet;
  std::vector<Program> programs; ///< of the entries described so far
};

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_GPUTARGET_H
