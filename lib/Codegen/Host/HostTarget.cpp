//===- HostTarget.cpp - Object code for a CPU ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Codegen/HostTarget.h"

#include "../Optimize.h"
#include "../RunTool.h"

#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/MC/MCSubtargetInfo.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/SubtargetFeature.h"

using namespace mlir;
using namespace mlir::kvrm;

llvm::Expected<HostTarget> HostTarget::create(StringRef arch) {
  llvm::InitializeNativeTarget();
  llvm::InitializeNativeTargetAsmPrinter();
  HostTarget result;
  llvm::Triple triple(llvm::sys::getProcessTriple());
  std::string message;
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, message);
  if (!target)
    return llvm::createStringError("target: " + message);

  if (arch == "native") {
    result.cpu = llvm::sys::getHostCPUName().str();
    llvm::SubtargetFeatures subtarget;
    for (const auto &[name, enabled] : llvm::sys::getHostCPUFeatures())
      subtarget.AddFeature(name, enabled);
    result.features = subtarget.getString();
  } else {
    result.cpu = arch.str();
  }
  // A target machine would answer an unknown name with warnings of its own.
  std::unique_ptr<llvm::MCSubtargetInfo> known(
      target->createMCSubtargetInfo(triple, "", ""));
  if (!known || !known->isCPUStringValid(result.cpu))
    return llvm::createStringError(
        "--arch: '" + arch + "' is no CPU that LLVM knows for " + triple.str());
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Standard;
  result.machine.reset(target->createTargetMachine(
      triple, result.cpu, result.features, options, llvm::Reloc::PIC_,
      std::nullopt, llvm::CodeGenOptLevel::Aggressive));
  if (!result.machine)
    return llvm::createStringError("--arch: LLVM cannot target '" + arch + "'");

  const llvm::MCSubtargetInfo &subtarget =
      *result.machine->getMCSubtargetInfo();
  auto has = [&](StringRef feature) {
    return subtarget.checkFeatures(("+" + feature).str());
  };
  if (triple.isX86()) {
    if (!has("avx2") || !has("fma") || !has("f16c"))
      return llvm::createStringError(
          "--arch: '" + arch + "' lacks AVX2, FMA or F16C, which kernels need");
    result.lanes = has("avx512f") && has("avx512vl") ? 16 : 8;
    bool isWide = result.lanes == 16;
    if (isWide ? has("avx512vnni") : has("avxvnni"))
      result.dot = "vnni";
    else if (!isWide || has("avx512bw"))
      result.dot = "maddubs";
    // What the optimiser may use of this CPU; the runtime knows the same names.
    for (StringRef feature : {"popcnt",       "lzcnt",
                              "movbe",        "avx",
                              "avx2",         "fma",
                              "f16c",         "bmi",
                              "bmi2",         "avx512f",
                              "avx512bw",     "avx512cd",
                              "avx512dq",     "avx512vl",
                              "avx512vbmi",   "avx512vbmi2",
                              "avx512ifma",   "avx512vnni",
                              "avx512bitalg", "avx512bf16",
                              "avx512fp16",   "avx512vpopcntdq",
                              "avxvnni",      "gfni",
                              "vaes",         "vpclmulqdq"})
      if (has(feature))
        result.required.push_back(feature.str());
  }
  return result;
}

std::string HostTarget::getTriple() const {
  return machine->getTargetTriple().str();
}

llvm::Expected<std::unique_ptr<llvm::Module>>
HostTarget::translate(ModuleOp module, llvm::LLVMContext &context) const {
  registerBuiltinDialectTranslation(*module->getContext());
  registerLLVMDialectTranslation(*module->getContext());
  std::unique_ptr<llvm::Module> result =
      translateModuleToLLVMIR(module, context, "kvrm");
  if (!result)
    return llvm::createStringError("cannot translate the module to LLVM IR");
  result->setDataLayout(machine->createDataLayout());
  result->setTargetTriple(machine->getTargetTriple());
  for (llvm::Function &function : *result) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", cpu);
    if (!features.empty())
      function.addFnAttr("target-features", features);
    function.addFnAttr("prefer-vector-width", std::to_string(lanes * 32));
    function.addFnAttr(llvm::Attribute::NoUnwind);
    if (function.getName().starts_with("kvrm_"))
      continue;
    // An entry calls the same few functions in every layer: copies of them
    // would make code and compile time grow with the layers.
    function.setLinkage(llvm::GlobalValue::InternalLinkage);
    function.addFnAttr(llvm::Attribute::NoInline);
  }

  optimizeModule(*result, *machine);
  return result;
}

llvm::Error HostTarget::writeSharedLibrary(llvm::Module &module,
                                           StringRef path) const {
  llvm::ErrorOr<std::string> linker = llvm::sys::findProgramByName("ld.lld-22");
  for (StringRef name : {"ld.lld", "ld"})
    if (!linker)
      linker = llvm::sys::findProgramByName(name);
  if (!linker)
    return llvm::createStringError(
        "no linker: none of ld.lld-22, ld.lld and ld is on the PATH");

  SmallString<128> object(path);
  object += ".o";
  std::error_code code;
  {
    llvm::raw_fd_ostream os(object, code);
    if (code)
      return llvm::createFileError(object, code);
    llvm::legacy::PassManager passes;
    if (machine->addPassesToEmitFile(passes, os, nullptr,
                                     llvm::CodeGenFileType::ObjectFile))
      return llvm::createStringError("this target cannot write object code");
    passes.run(module);
    os.flush();
    if (os.has_error()) {
      code = os.error();
      os.clear_error();
      return llvm::createFileError(object, code);
    }
  }
  SmallVector<StringRef> args = {*linker, "-shared", "-Bsymbolic",
                                 "-o",    path,      object};
  llvm::Error failed =
      runTool(*linker, args, object, path, /*seconds=*/60).takeError();
  (void)llvm::sys::fs::remove(object);
  return failed;
}
