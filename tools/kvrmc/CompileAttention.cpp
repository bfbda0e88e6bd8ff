//===- CompileAttention.cpp - Attention kernels for a GPU -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompileAttention.h"

#include "StepInfo.h"

#include "kvrm/Codegen/DeviceProgram.h"
#include "kvrm/Codegen/NVPTXTarget.h"
#include "kvrm/Codegen/Passes.h"
#include "kvrm/InitAll.h"
#include "kvrm/Package/Package.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/pool.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/InitAllDialects.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/ToolOutputFile.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvrm;
using namespace kvrmc;

static llvm::Error checkLimit(const char *name, int64_t value, int64_t low,
                              int64_t high) {
  if (value >= low && value <= high)
    return llvm::Error::success();
  return llvm::createStringError("--" + llvm::Twine(name) + ": " +
                                 llvm::Twine(value) + " is outside " +
                                 llvm::Twine(low) + ".." + llvm::Twine(high));
}

static llvm::Error checkOptions(const AttentionOptions &options) {
  if (llvm::Error error =
          checkLimit("kv-heads", options.kvHeads, 1, KVRM_MAX_KV_HEADS))
    return error;
  if (llvm::Error error =
          checkLimit("heads", options.heads, 1, 16 * KVRM_MAX_KV_HEADS))
    return error;
  if (options.heads % options.kvHeads != 0)
    return llvm::createStringError("--heads: " + llvm::Twine(options.heads) +
                                   " is not a multiple of --kv-heads, " +
                                   llvm::Twine(options.kvHeads));
  if (!kvrm_head_shape_of(options.headDim))
    return llvm::createStringError(
        "--head-dim: " + llvm::Twine(options.headDim) +
        " is none of " KVRM_HEAD_SHAPES_TEXT);
  int64_t page = options.pipeline.page;
  if (page != 16 && page != 32 && page != 64)
    return llvm::createStringError("--page-size: " + llvm::Twine(page) +
                                   " is none of 16, 32 and 64");
  return checkLimit("queries", options.queries, 1, 64);
}

/// Of the graph. Neither kernels nor commands depend on them.
static constexpr int64_t graphSlots = 8, graphCapacity = 131072;

/// One layer that appends and attends.
static OwningOpRef<ModuleOp> buildGraph(MLIRContext &context,
                                        const AttentionOptions &options) {
  constexpr int64_t slots = graphSlots, capacity = graphCapacity;
  auto loc = UnknownLoc::get(&context);
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  auto b = ImplicitLocOpBuilder::atBlockEnd(loc, module->getBody());
  Type element = options.isBF16 ? Type(b.getBF16Type()) : b.getF16Type();
  auto tensor = [](ArrayRef<int64_t> shape, Type type) {
    return RankedTensorType::get(shape, type);
  };
  auto query =
      tensor({slots, options.queries, options.heads, options.headDim}, element);
  auto key = tensor({slots, options.queries, options.kvHeads, options.headDim},
                    element);
  auto positions = tensor({slots}, b.getI32Type());
  auto cache =
      tensor({1, slots, options.kvHeads, capacity, options.headDim}, element);
  auto func = func::FuncOp::create(
      b, "decode_step",
      b.getFunctionType({query, key, key, positions, cache, cache},
                        {query, cache, cache}));
  func->setAttr(KVRMDialect::getStepAttrName(), b.getUnitAttr());
  Block *body = func.addEntryBlock();
  b.setInsertionPointToStart(body);
  auto scale =
      static_cast<float>(1 / std::sqrt(static_cast<double>(options.headDim)));
  auto attention = CachedAttentionOp::create(
      b, TypeRange{query, cache, cache}, body->getArgument(0),
      body->getArgument(1), body->getArgument(2), body->getArgument(4),
      body->getArgument(5), body->getArgument(3), /*counts=*/Value(),
      /*slots=*/Value(), /*layer=*/0, llvm::APFloat(scale));
  func::ReturnOp::create(b, attention.getResults());
  return module;
}

/// Adds the attention tile program once more, over staged pages.
static void addStagedKernel(ModuleOp module) {
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

static llvm::Error
emitText(const AttentionOptions &options,
         llvm::function_ref<void(llvm::raw_ostream &)> print) {
  std::error_code code;
  llvm::ToolOutputFile file(options.output.empty() ? "-" : options.output, code,
                            llvm::sys::fs::OF_Text);
  if (code)
    return llvm::createFileError(options.output, code);
  print(file.os());
  file.keep();
  return llvm::Error::success();
}

/// Every kernel of the device module, in the order that programs number them.
static void addKernels(::kvrm::PackageManifest &manifest,
                       const AttentionOptions &options,
                       gpu::GPUModuleOp device) {
  for (LLVM::LLVMFuncOp kernel : getDeviceKernels(device)) {
    auto launch = kernel->getAttrOfType<DeviceKernelAttr>(
        KVRMDialect::getDeviceKernelAttrName());
    ::kvrm::PackageManifest::Kernel entry;
    entry.role = stringifyDeviceRole(launch.getRole()).str();
    entry.symbol = kernel.getSymName().str();
    entry.threads = launch.getThreads();
    entry.sharedBytes = launch.getSharedBytes();
    if (StringRef(entry.role).starts_with("attend"))
      entry.blocksPerSM = options.pipeline.blocksPerSM;
    if (launch.getRole() == DeviceRole::AttendCluster &&
        options.arch != "sm_80")
      entry.maxCluster = KVRM_MAX_CLUSTER;
    manifest.kernels.push_back(std::move(entry));
  }
}

/// A model of one layer that attends and has no logits.
static ::kvrm::PackageManifest makeManifest(const AttentionOptions &options,
                                            gpu::GPUModuleOp device) {
  ::kvrm::PackageManifest manifest;
  manifest.producer = "kvrmc " KVRM_VERSION;
  manifest.target.kind = "nvptx";
  manifest.target.arch = options.arch;
  manifest.model.name = "attention";
  manifest.model.architecture = "attention";
  manifest.model.layers = 1;
  manifest.model.heads = options.heads;
  manifest.model.kvHeads = options.kvHeads;
  manifest.model.headDim = options.headDim;
  manifest.model.context = graphCapacity;
  manifest.cache.slots = graphSlots;
  manifest.cache.capacity = graphCapacity;
  manifest.cache.pageTokens = options.pipeline.page;
  manifest.cache.element = options.isBF16 ? "bf16" : "f16";
  addKernels(manifest, options, device);
  return manifest;
}

static ::kvrm::PackageManifest::Entry makeEntry(const AttentionOptions &options,
                                                StepPlanAttr plan,
                                                const DeviceProgram &program) {
  ::kvrm::PackageManifest::Entry entry;
  entry.name = "decode_step";
  entry.program = "decode_step.program";
  for (const ProgramTensor &tensor : program.tensors)
    entry.tensors.push_back({tensor.name, tensor.rowBytes});
  entry.rows = graphSlots;
  entry.queries = options.queries;
  entry.queryTile = plan.getTile().getQ();
  entry.kvTile = plan.getTile().getKv();
  entry.schedule = stringifyScheduleKind(plan.getSchedule().getKind()).str();
  entry.transport = stringifyTransport(plan.getTransport().getValue()).str();
  return entry;
}

/// Writes PTX, machine code where ptxas is found, and the manifest.
static llvm::Error writePackage(const AttentionOptions &options,
                                const NVPTXTarget &target, StringRef ptx,
                                StringRef program,
                                const ::kvrm::PackageManifest &manifest) {
  llvm::Expected<::kvrm::PackageWriter> writer =
      ::kvrm::PackageWriter::create(options.output);
  if (!writer)
    return writer.takeError();
  if (llvm::Error error = writer->addFile("kernels.ptx", ptx))
    return error;
  if (llvm::Error error =
          writer->addFile(manifest.entries.front().program, program))
    return error;
  llvm::Expected<std::optional<std::string>> assembler =
      NVPTXTarget::findAssembler();
  if (!assembler)
    return assembler.takeError();
  if (*assembler) {
    llvm::Expected<std::string> log =
        target.assemble(**assembler, writer->pathOf("kernels.ptx"),
                        writer->pathOf("kernels.cubin"));
    if (!log)
      return log.takeError();
    if (options.printsResources)
      llvm::outs() << *log;
    if (llvm::Error error = writer->addWritten("kernels.cubin"))
      return error;
  } else if (!options.quiet) {
    llvm::errs() << "no ptxas: wrote PTX alone, which the driver compiles when "
                    "it is loaded\n";
  }
  return writer->commit(manifest);
}

llvm::Error kvrmc::compileAttention(const AttentionOptions &options) {
  if (options.emit == AttentionEmit::Package && options.output.empty())
    return llvm::createStringError("no output: say where the kernels go, "
                                   "-o NAME.kvrm");
  if (llvm::Error error = checkOptions(options))
    return error;
  llvm::Expected<NVPTXTarget> target = NVPTXTarget::create(options.arch);
  if (!target)
    return target.takeError();

  DialectRegistry registry;
  registerAllDialects(registry);
  registerAllKVRMDialects(registry);
  MLIRContext context(registry);
  std::string firstError;
  context.getDiagEngine().registerHandler([&](Diagnostic &diagnostic) {
    if (diagnostic.getSeverity() == DiagnosticSeverity::Error &&
        firstError.empty())
      firstError = diagnostic.str();
  });
  context.loadAllAvailableDialects();
  OwningOpRef<ModuleOp> module = buildGraph(context, options);
  auto run = [&](void (*build)(OpPassManager &,
                               const NVVMPipelineOptions &)) -> llvm::Error {
    PassManager pm(&context);
    NVVMPipelineOptions pipeline;
    pipeline.copyOptionValuesFrom(options.pipeline);
    pipeline.arch = options.arch;
    build(pm, pipeline);
    if (succeeded(pm.run(*module)))
      return llvm::Error::success();
    return llvm::createStringError(firstError.empty() ? "a pass failed"
                                                      : firstError);
  };
  auto printModule = [&](llvm::raw_ostream &os) { module->print(os); };
  if (options.emit == AttentionEmit::Static)
    return emitText(options, printModule);
  if (llvm::Error error = run(buildNVVMKernelsPipeline))
    return error;
  if (options.isStaged)
    addStagedKernel(*module);
  if (options.emit == AttentionEmit::Kernels)
    return emitText(options, printModule);
  if (llvm::Error error = run(buildNVVMPipeline))
    return error;
  auto step = *module->getOps<func::FuncOp>().begin();
  auto device = *module->getOps<gpu::GPUModuleOp>().begin();
  FailureOr<DeviceProgram> program =
      writeDeviceProgram(step, device, /*overlaps=*/options.arch != "sm_80");
  if (failed(program))
    return llvm::createStringError(firstError);
  ::kvrm::PackageManifest manifest = makeManifest(options, device);
  manifest.cache.pagesPerSlot = getPagesPerSlot(step);
  manifest.entries.push_back(makeEntry(options, getStepPlan(step), *program));

  llvm::LLVMContext llvmContext;
  llvm::Expected<std::unique_ptr<llvm::Module>> llvmModule =
      target->translate(device, llvmContext);
  if (!llvmModule)
    return llvmModule.takeError();
  if (options.emit == AttentionEmit::LLVM)
    return emitText(options, [&](llvm::raw_ostream &os) {
      (*llvmModule)->print(os, nullptr);
    });
  llvm::Expected<std::string> ptx = target->emitPTX(**llvmModule);
  if (!ptx)
    return ptx.takeError();
  if (options.emit == AttentionEmit::PTX)
    return emitText(options, [&](llvm::raw_ostream &os) { os << *ptx; });
  return writePackage(options, *target, *ptx, program->bytes, manifest);
}
