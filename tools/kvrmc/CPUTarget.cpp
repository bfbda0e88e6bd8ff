//===- CPUTarget.cpp - Packages for a CPU ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CPUTarget.h"

#include "StepInfo.h"
#include "kvrm/Codegen/Passes.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace kvrmc;
using ::kvrm::PackageManifest;

CPUTarget::CPUTarget(HostTarget target, const HostPipelineOptions &options)
    : machine(std::move(target)) {
  pipeline.copyOptionValuesFrom(options);
  pipeline.lanes = machine.getLanes();
  pipeline.dot = machine.getDot().str();
}

void CPUTarget::buildPaged(OpPassManager &pm) const {
  buildPagedPipeline(pm, pipeline);
}

void CPUTarget::buildKernels(OpPassManager &pm) const {
  buildHostKernelsPipeline(pm, pipeline);
}

void CPUTarget::buildLowering(OpPassManager &pm) const {
  buildHostLLVMPipeline(pm, pipeline);
}

void CPUTarget::describe(PackageManifest &manifest) const {
  manifest.target.kind = kind().str();
  manifest.target.triple = machine.getTriple();
  manifest.target.cpu = machine.getCPU().str();
  manifest.target.requiredFeatures = machine.getRequiredFeatures().vec();
  manifest.cache.pageTokens = pipeline.page;
}

/// Reads what the passes left on the step for the runtime.
llvm::Error CPUTarget::describeEntry(ModuleOp module, PackageManifest &manifest,
                                     PackageManifest::Entry &entry) {
  entry.symbol = "kvrm_" + entry.name;
  auto step = module.lookupSymbol<LLVM::LLVMFuncOp>(entry.symbol);
  if (!step)
    return llvm::createStringError("the compiled module has no '" +
                                   entry.symbol + "'");
  entry.arenaBytes =
      step->getAttrOfType<IntegerAttr>(KVRMDialect::getArenaBytesAttrName())
          .getInt();
  entry.kvTile = pipeline.kvTile;
  SmallVector<StepPlanAttr> plans = getStepPlans(step);
  if (plans.empty())
    return llvm::Error::success();
  if (llvm::Error error = describePlans(plans, manifest, entry))
    return error;
  if (!entry.batches.empty())
    return llvm::Error::success(); // its kernels are those of other entries
  StepPlanAttr plan = plans.front();
  const ::kvrm::DecoderConfig &model = manifest.model;
  entry.scratchBytes = getHostScratchBytes(
      plan.getTile().getQ() * model.heads / model.kvHeads, model.headDim,
      plan.getTile().getKv(), pipeline.lanes);
  return llvm::Error::success();
}

llvm::Expected<std::unique_ptr<llvm::Module>>
CPUTarget::translate(ModuleOp module, llvm::LLVMContext &context) const {
  return machine.translate(module, context);
}

llvm::Expected<std::string> CPUTarget::assembly(llvm::Module &) const {
  return llvm::createStringError("--emit=ptx is for GPUs");
}

llvm::Error CPUTarget::writeCode(llvm::Module &module,
                                 ::kvrm::PackageWriter &writer) {
  if (llvm::Error error =
          machine.writeSharedLibrary(module, writer.pathOf("code.so")))
    return error;
  return writer.addWritten("code.so");
}
