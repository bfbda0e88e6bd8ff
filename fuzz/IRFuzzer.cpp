//===- IRFuzzer.cpp - IR through the pipelines ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The input is MLIR. If it parses and verifies, it must survive printing and
// parsing again, and then passes: those that its first line names, e.g.
//
//   // PASSES: kvrm-page-cache{page=32},kvrm-select-schedule
//
// else each pass and each pipeline alone. A kernel that verifies means what its
// ops say, and is what is written for what they say. Refusing with a diagnostic
// is always right; crashing, or leaving IR that does not verify in silence,
// never is.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "TileReference.h"
#include "kvrm/Dialect/KVRM/IR/TileProgram.h"
#include "kvrm/InitAll.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"
#include "mlir/InitAllDialects.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"

#include <memory>
#include <string>

using namespace mlir;

static const char *const allPasses[] = {
#include "Passes.inc" // each pass, with its options' defaults
    "kvrm-page-cache{page=32 transport=staged layout=swizzled}",
    "kvrm-raise-static-cache{narrow=f16}",
    "kvrm-select-schedule{schedule=split splits=8 kv-tile=32}",
    "kvrm-to-host",
    "kvrm-to-host{transport=staged schedule=workqueue lanes=8}",
    "kvrm-to-host{static=true}",
    "kvrm-to-nvvm",
    "kvrm-to-nvvm{arch=sm_80 warps=4}",
};

/// What is uniqued in a context stays there, so it is a new one at times.
static MLIRContext &freshContext() {
  static const DialectRegistry registry = [] {
    mlir::kvrm::registerAllKVRMPasses();
    DialectRegistry all;
    registerAllDialects(all);
    mlir::kvrm::registerAllKVRMDialects(all);
    return all;
  }();
  static std::unique_ptr<MLIRContext> context;
  static int uses = 0;
  if (uses++ % 256 == 0) {
    context = std::make_unique<MLIRContext>(registry,
                                            MLIRContext::Threading::DISABLED);
    // Diagnostics are what is wanted; they need not be read.
    context->getDiagEngine().registerHandler([](Diagnostic &) {});
  }
  return *context;
}

static std::string print(ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream os(text);
  module.print(os);
  return text;
}

/// A mutation that verifies is still attention: else its code would differ from
/// the reference without a word, since targets lower what is matched.
static void checkKernel(mlir::kvrm::KernelOp kernel,
                        const std::string &printed) {
  fuzz::check(fuzz::isAppendOrAttention(kernel),
              "a kernel that verifies appends or attends", printed);
  FailureOr<mlir::kvrm::TileProgram> program =
      mlir::kvrm::TileProgram::match(kernel);
  fuzz::check(succeeded(program), "a kernel that verifies can be matched",
              printed);
  fuzz::check(program->attends() == kernel.attends(),
              "a kernel is matched as what it is", printed);
  OpBuilder builder(kernel);
  auto written =
      cast<mlir::kvrm::KernelOp>(builder.cloneWithoutRegions(*kernel));
  program->write(written);
  FailureOr<mlir::kvrm::TileProgram> again =
      mlir::kvrm::TileProgram::match(written);
  fuzz::check(succeeded(again) && *again == *program,
              "what is written for a program is that program", printed);
  written.erase();
}

static void runPasses(ModuleOp module, llvm::StringRef passes) {
  OwningOpRef<ModuleOp> copy = module.clone();
  PassManager manager(module.getContext(), ModuleOp::getOperationName(),
                      OpPassManager::Nesting::Implicit);
  std::string ignored;
  llvm::raw_string_ostream os(ignored);
  if (failed(parsePassPipeline(passes, manager, os)))
    return;
  // What fails says so itself, and what succeeds has been verified.
  (void)manager.run(*copy);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  MLIRContext &context = freshContext();
  std::string text(fuzz::textOf(data, size));
  ParserConfig config(&context);
  OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(text, config);
  if (!module)
    return 0;
  std::string printed = print(*module);
  OwningOpRef<ModuleOp> again = parseSourceString<ModuleOp>(printed, config);
  fuzz::check(bool(again), "what is printed can be parsed", printed);
  fuzz::check(print(*again) == printed, "what is parsed is printed the same",
              printed);
  again->walk(
      [&](mlir::kvrm::KernelOp kernel) { checkKernel(kernel, printed); });
  llvm::StringRef passes(text);
  if (passes.consume_front("// PASSES: ")) {
    runPasses(*module, passes.take_until([](char c) { return c == '\n'; }));
    return 0;
  }
  for (const char *each : allPasses)
    runPasses(*module, each);
  return 0;
}
