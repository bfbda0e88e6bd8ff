//===- HostTarget.h - Object code for a CPU -----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// What happens after the LLVM dialect: translation, LLVM's own optimisation,
// object code, and a shared library by ld.lld.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_HOSTTARGET_H
#define KVRM_CODEGEN_HOSTTARGET_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"
#include "llvm/Target/TargetMachine.h"

#include <memory>
#include <string>
#include <vector>

namespace mlir::kvrm {

/// A CPU to compile for.
class HostTarget {
public:
  /// `arch` is "native", or a CPU name of LLVM's (x86-64-v3, x86-64-v4,
  /// znver5, ...). Fails on an unknown name and on a CPU without fused
  /// multiply-add and half-precision conversion.
  static llvm::Expected<HostTarget> create(StringRef arch);

  StringRef getCPU() const { return cpu; }
  std::string getTriple() const;
  /// f32 lanes of the widest vector register that pays.
  int64_t getLanes() const { return lanes; }
  /// What it has to multiply codes of eight bits, in vectors of so many lanes:
  /// "vnni", "maddubs" or "none", as kvrm-lower-dense-to-host takes it.
  StringRef getDot() const { return dot; }
  /// CPU features, by the names of the package manifest, that code may use.
  ArrayRef<std::string> getRequiredFeatures() const { return required; }

  /// Translates a module in the LLVM dialect and optimises it for this CPU.
  /// Only functions called `kvrm_...` of phase 3 stay visible.
  llvm::Expected<std::unique_ptr<llvm::Module>>
  translate(ModuleOp module, llvm::LLVMContext &context) const;

  /// Writes `module` as a shared library.
  llvm::Error writeSharedLibrary(llvm::Module &module, StringRef path) const;

private:
  std::string cpu;
  std::string features;
  int64_t lanes = 4;
  StringRef dot = "none";
  std::vector<std::string> required;
  std::shared_ptr<llvm::TargetMachine> machine;
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_HOSTTARGET_H
