//===- NVPTXTarget.h - PTX and machine code for NVIDIA GPUs -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What happens to a `gpu.module` after the LLVM and NVVM dialects: translation,
// LLVM's own optimisation, PTX by LLVM's NVPTX backend, and machine code by
// `ptxas` where the CUDA toolkit is installed. Nothing of CUDA is linked.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVPTXTARGET_H
#define KVRM_CODEGEN_NVPTXTARGET_H

#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"
#include "llvm/Target/TargetMachine.h"

#include <memory>
#include <optional>
#include <string>

namespace mlir::kvrm {

/// A GPU architecture to compile for.
class NVPTXTarget {
public:
  /// `arch` is sm_80 or sm_90. Fails on any other, and where LLVM was built
  /// without its NVPTX backend.
  static llvm::Expected<NVPTXTarget> create(StringRef arch);

  StringRef getArch() const { return arch; }

  /// Translates a module in the LLVM and NVVM dialects and optimises it.
  llvm::Expected<std::unique_ptr<llvm::Module>>
  translate(gpu::GPUModuleOp module, llvm::LLVMContext &context) const;

  /// PTX of `module`, which is spent afterwards.
  llvm::Expected<std::string> emitPTX(llvm::Module &module) const;

  /// Path of ptxas: what the environment's KVRM_PTXAS says, else ptxas on the
  /// PATH. None if there is none, or KVRM_PTXAS is empty.
  static llvm::Expected<std::optional<std::string>> findAssembler();

  /// Assembles a PTX file to machine code for this architecture. Returns what
  /// ptxas says of registers and spills, a line a kernel.
  llvm::Expected<std::string> assemble(StringRef assembler, StringRef ptxPath,
                                       StringRef cubinPath) const;

private:
  std::string arch;
  std::shared_ptr<llvm::TargetMachine> machine;
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVPTXTARGET_H
