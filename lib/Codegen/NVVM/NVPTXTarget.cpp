//===- NVPTXTarget.cpp - PTX and machine code for NVIDIA GPUs -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Codegen/NVPTXTarget.h"

#include "../Optimize.h"
#include "../RunTool.h"

#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/GPU/GPUToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/TargetSelect.h"

using namespace mlir;
using namespace mlir::kvrm;

llvm::Expected<NVPTXTarget> NVPTXTarget::create(StringRef arch) {
  if (arch != "sm_80" && arch != "sm_90")
    return llvm::createStringError("--arch: '" + arch +
                                   "' is not sm_80 or sm_90");
  llvm::InitializeAllTargetInfos();
  llvm::InitializeAllTargets();
  llvm::InitializeAllTargetMCs();
  llvm::InitializeAllAsmPrinters();
  llvm::Triple triple("nvptx64-nvidia-cuda");
  std::string message;
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, message);
  if (!target)
    return llvm::createStringError("this LLVM has no NVPTX backend: " +
                                   message);
  NVPTXTarget result;
  result.arch = arch.str();
  // The oldest PTX that has what each architecture's kernels use, so that old
  // drivers can compile it: clusters and programmatic launch, and movmatrix.
  StringRef features = arch == "sm_90" ? "+ptx80" : "+ptx78";
  result.machine.reset(target->createTargetMachine(
      triple, arch, features, llvm::TargetOptions(), llvm::Reloc::PIC_,
      std::nullopt, llvm::CodeGenOptLevel::Aggressive));
  if (!result.machine)
    return llvm::createStringError("LLVM cannot target " + arch);
  return result;
}

llvm::Expected<std::unique_ptr<llvm::Module>>
NVPTXTarget::translate(gpu::GPUModuleOp module,
                       llvm::LLVMContext &context) const {
  MLIRContext &mlirContext = *module->getContext();
  registerBuiltinDialectTranslation(mlirContext);
  registerGPUDialectTranslation(mlirContext);
  registerLLVMDialectTranslation(mlirContext);
  registerNVVMDialectTranslation(mlirContext);
  std::unique_ptr<llvm::Module> result =
      translateModuleToLLVMIR(module, context, module.getName());
  if (!result)
    return llvm::createStringError("cannot translate the kernels to LLVM IR");
  result->setDataLayout(machine->createDataLayout());
  result->setTargetTriple(machine->getTargetTriple());
  for (llvm::Function &function : *result) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", arch);
    function.addFnAttr("target-features", machine->getTargetFeatureString());
    // Denormals are flushed in weights that are too small to matter.
    function.addFnAttr("denormal-fp-math-f32", "preserve-sign,preserve-sign");
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }

  optimizeModule(*result, *machine);
  return result;
}

llvm::Expected<std::string> NVPTXTarget::emitPTX(llvm::Module &module) const {
  SmallString<0> text;
  llvm::raw_svector_ostream os(text);
  llvm::legacy::PassManager passes;
  if (machine->addPassesToEmitFile(passes, os, nullptr,
                                   llvm::CodeGenFileType::AssemblyFile))
    return llvm::createStringError("LLVM cannot write PTX");
  passes.run(module);
  return text.str().str();
}

llvm::Expected<std::optional<std::string>> NVPTXTarget::findAssembler() {
  if (const char *chosen = std::getenv("KVRM_PTXAS")) {
    if (!*chosen)
      return std::nullopt;
    llvm::ErrorOr<std::string> found = llvm::sys::findProgramByName(chosen);
    std::error_code code = found.getError();
    if (!code && !llvm::sys::fs::can_execute(*found))
      code = std::make_error_code(std::errc::no_such_file_or_directory);
    if (code)
      return llvm::createStringError(llvm::Twine("KVRM_PTXAS: ") + chosen +
                                     ": " + code.message());
    return *found;
  }
  llvm::ErrorOr<std::string> found = llvm::sys::findProgramByName("ptxas");
  return found ? std::optional<std::string>(*found) : std::nullopt;
}

llvm::Expected<std::string> NVPTXTarget::assemble(StringRef assembler,
                                                  StringRef ptxPath,
                                                  StringRef cubinPath) const {
  std::string archOption = "-arch=" + arch;
  SmallVector<StringRef> args = {assembler, archOption, "-O3",    "-v",
                                 ptxPath,   "-o",       cubinPath};
  return runTool(assembler, args, ptxPath, cubinPath, /*seconds=*/120);
}
