//===- Target.h - What a package is compiled for ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_TARGET_H
#define KVRM_TOOLS_KVRMC_TARGET_H

#include "kvrm/Package/Package.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>

namespace kvrmc {

class Target {
public:
  virtual ~Target() = default;

  /// "host" or "nvptx", as manifests say.
  virtual llvm::StringRef kind() const = 0;
  /// The CPU or the GPU's architecture.
  virtual llvm::StringRef name() const = 0;

  /// Phase 1 to phase 2, or to the static baseline.
  virtual void buildPaged(mlir::OpPassManager &pm) const = 0;
  /// On to phase 3.
  virtual void buildKernels(mlir::OpPassManager &pm) const = 0;
  /// After it: what no pass adds.
  virtual void addKernels(mlir::ModuleOp) const {}
  /// On to the LLVM dialect.
  virtual void buildLowering(mlir::OpPassManager &pm) const = 0;

  /// Writes down in `manifest` the target, and what of the cache is its own.
  virtual void describe(kvrm::PackageManifest &manifest) const = 0;
  /// Fills in what the compiled module says of an entry: `step` is the entry as
  /// phase 3 left it, where it is still there.
  virtual llvm::Error describeEntry(mlir::ModuleOp module,
                                    kvrm::PackageManifest &manifest,
                                    kvrm::PackageManifest::Entry &entry) = 0;

  /// Optimised LLVM IR of the code.
  virtual llvm::Expected<std::unique_ptr<llvm::Module>>
  translate(mlir::ModuleOp module, llvm::LLVMContext &context) const = 0;
  /// Its text in the target's assembly, for --emit.
  virtual llvm::Expected<std::string> assembly(llvm::Module &module) const = 0;
  /// Writes the code's files. `module` is spent afterwards.
  virtual llvm::Error writeCode(llvm::Module &module,
                                kvrm::PackageWriter &writer) = 0;
};

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_TARGET_H
