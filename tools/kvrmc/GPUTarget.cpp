//===- GPUTarget.cpp - Packages for an NVIDIA GPU -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GPUTarget.h"

#include "StepInfo.h"
#include "kvrm/Codegen/DeviceProgram.h"
#include "kvrm/Codegen/Passes.h"
#include "kvrm/runtime/abi/limits.h"

#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace kvrmc;
using ::kvrm::PackageManifest;

GPUTarget::GPUTarget(NVPTXTarget target, const Options &options)
    : machine(std::move(target)), isStaged(options.isStaged),
      printsResources(options.printsResources), isQuiet(options.isQuiet) {
  pipeline.copyOptionValuesFrom(options.pipeline);
  pipeline.arch = machine.getArch().str();
  pipeline.dense = options.isDecoder;
}

//===----------------------------------------------------------------------===//
// Passes
//===----------------------------------------------------------------------===//

void GPUTarget::buildPaged(OpPassManager &pm) const {
  buildNVVMPagedPipeline(pm, pipeline);
}

void GPUTarget::buildKernels(OpPassManager &pm) const {
  buildNVVMKernelsPipeline(pm, pipeline);
}

/// Adds attention's tile program once more, over staged pages.
void GPUTarget::addKernels(ModuleOp module) const {
  if (!isStaged)
    return;
  for (auto kernel : llvm::to_vector(module.getOps<KernelOp>())) {
    if (!kernel.attends())
      continue;
    KernelOp staged = kernel.clone();
    staged.setTransport(Transport::Staged);
    staged.setSymName((kernel.getSymName() + kStagedSuffix).str());
    OpBuilder(kernel->getBlock(), std::next(kernel->getIterator()))
        .insert(staged);
  }
}

void GPUTarget::buildLowering(OpPassManager &pm) const {
  buildNVVMPipeline(pm, pipeline);
}

//===----------------------------------------------------------------------===//
// Manifest
//===----------------------------------------------------------------------===//

void GPUTarget::describe(PackageManifest &manifest) const {
  manifest.target.kind = kind().str();
  manifest.target.arch = machine.getArch().str();
  manifest.cache.pageTokens = pipeline.page;
}

static gpu::GPUModuleOp deviceModule(ModuleOp module) {
  return *module.getOps<gpu::GPUModuleOp>().begin();
}

/// Every kernel of the device module, in the order that programs number them.
void GPUTarget::describeKernels(ModuleOp module,
                                PackageManifest &manifest) const {
  for (LLVM::LLVMFuncOp kernel : getDeviceKernels(deviceModule(module))) {
    auto launch = kernel->getAttrOfType<DeviceKernelAttr>(
        KVRMDialect::getDeviceKernelAttrName());
    PackageManifest::Kernel entry;
    entry.role = stringifyDeviceRole(launch.getRole()).str();
    entry.symbol = kernel.getSymName().str();
    entry.threads = launch.getThreads();
    entry.sharedBytes = launch.getSharedBytes();
    if (StringRef(entry.role).starts_with("attend"))
      entry.blocksPerSM = pipeline.blocksPerSM;
    if (launch.getRole() == DeviceRole::AttendCluster && isHopper())
      entry.maxCluster = KVRM_MAX_CLUSTER;
    manifest.kernels.push_back(std::move(entry));
  }
}

llvm::Error GPUTarget::describeEntry(ModuleOp module, PackageManifest &manifest,
                                     PackageManifest::Entry &entry) {
  if (module.getOps<gpu::GPUModuleOp>().empty())
    return llvm::createStringError("no step of the graph attends");
  if (manifest.kernels.empty())
    describeKernels(module, manifest);
  auto step = module.lookupSymbol<func::FuncOp>(entry.name);
  if (!step)
    return llvm::createStringError("the graph has no step '" + entry.name +
                                   "'");
  FailureOr<DeviceProgram> program =
      writeDeviceProgram(step, deviceModule(module), isHopper());
  if (failed(program))
    return llvm::createStringError("step '" + entry.name +
                                   "' is no program of commands");
  for (const ProgramTensor &tensor : program->tensors)
    entry.tensors.push_back({tensor.name, tensor.rowBytes});
  entry.arenaBytes = program->arenaBytes;
  entry.program = entry.name + ".program";
  programs.push_back({entry.program, program->bytes});
  return describePlans(getStepPlans(step), manifest, entry);
}

//===----------------------------------------------------------------------===//
// Code
//===----------------------------------------------------------------------===//

llvm::Expected<std::unique_ptr<llvm::Module>>
GPUTarget::translate(ModuleOp module, llvm::LLVMContext &context) const {
  return machine.translate(deviceModule(module), context);
}

llvm::Expected<std::string> GPUTarget::assembly(llvm::Module &module) const {
  return machine.emitPTX(module);
}

/// Assembles the PTX that is written already, where ptxas is found.
llvm::Error GPUTarget::writeMachineCode(::kvrm::PackageWriter &writer) const {
  llvm::Expected<std::optional<std::string>> assembler =
      NVPTXTarget::findAssembler();
  if (!assembler)
    return assembler.takeError();
  if (!*assembler) {
    if (!isQuiet)
      llvm::errs() << "no ptxas: wrote PTX alone, which the driver compiles "
                      "when it is loaded\n";
    return llvm::Error::success();
  }
  llvm::Expected<std::string> log =
      machine.assemble(**assembler, writer.pathOf("kernels.ptx"),
                       writer.pathOf("kernels.cubin"));
  if (!log)
    return log.takeError();
  if (printsResources)
    llvm::outs() << *log;
  return writer.addWritten("kernels.cubin");
}

llvm::Error GPUTarget::writeCode(llvm::Module &module,
                                 ::kvrm::PackageWriter &writer) {
  llvm::Expected<std::string> ptx = machine.emitPTX(module);
  if (!ptx)
    return ptx.takeError();
  if (llvm::Error error = writer.addFile("kernels.ptx", *ptx))
    return error;
  for (const Program &program : programs)
    if (llvm::Error error = writer.addFile(program.file, program.bytes))
      return error;
  return writeMachineCode(writer);
}
