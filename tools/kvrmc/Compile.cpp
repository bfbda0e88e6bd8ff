//===- Compile.cpp - From a model to a package --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Compile.h"

#include "StepInfo.h"

#include "kvrm/Codegen/HostTarget.h"
#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/InitAll.h"
#include "kvrm/Package/Package.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/InitAllDialects.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/ToolOutputFile.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>

using namespace mlir;
using namespace kvrmc;

namespace {

using Clock = std::chrono::steady_clock;

class Compiler {
public:
  Compiler(const ::kvrm::DecoderModel &model, const CompileOptions &options,
           mlir::kvrm::HostTarget target)
      : model(model), options(options), target(std::move(target)),
        context(makeRegistry()) {
    // The first diagnostic is the error; the rest would only repeat it.
    context.getDiagEngine().registerHandler([this](Diagnostic &diagnostic) {
      if (diagnostic.getSeverity() == DiagnosticSeverity::Error &&
          firstError.empty())
        firstError = diagnostic.str();
    });
  }

  llvm::Error run();

private:
  static DialectRegistry makeRegistry() {
    DialectRegistry registry;
    registerAllDialects(registry);
    mlir::kvrm::registerAllKVRMDialects(registry);
    return registry;
  }
  /// Says what is being done, with the time so far.
  void progress(const llvm::Twine &what) {
    if (options.quiet)
      return;
    std::chrono::duration<double> elapsed = Clock::now() - start;
    llvm::errs() << llvm::format("[%6.2f s] ", elapsed.count()) << what << "\n";
  }
  llvm::Error runPipeline(
      void (*build)(OpPassManager &, const mlir::kvrm::HostPipelineOptions &),
      const mlir::kvrm::HostPipelineOptions &pipeline);
  llvm::Error emitText(llvm::function_ref<void(llvm::raw_ostream &)> print);
  llvm::Expected<std::vector<::kvrm::WeightLayout>> layoutWeights();
  ::kvrm::PackageManifest makeManifest();
  llvm::Error addEntry(::kvrm::PackageManifest &manifest, StringRef name,
                       int64_t rows, int64_t queries,
                       const mlir::kvrm::HostPipelineOptions &pipeline);
  llvm::Error writePackage(llvm::Module &module,
                           const ::kvrm::PackageManifest &manifest,
                           ArrayRef<::kvrm::WeightLayout> layouts);

  const ::kvrm::DecoderModel &model;
  const CompileOptions &options;
  mlir::kvrm::HostTarget target;
  MLIRContext context;
  OwningOpRef<ModuleOp> module;
  std::string firstError;
  int64_t pagesPerSlot = 0; ///< 0 if not paged
  Clock::time_point start = Clock::now();
};

} // namespace

llvm::Error Compiler::runPipeline(
    void (*build)(OpPassManager &, const mlir::kvrm::HostPipelineOptions &),
    const mlir::kvrm::HostPipelineOptions &pipeline) {
  PassManager pm(&context);
  build(pm, pipeline);
  if (failed(pm.run(*module)))
    return llvm::createStringError(firstError.empty() ? "a pass failed"
                                                      : firstError);
  return llvm::Error::success();
}

llvm::Error
Compiler::emitText(llvm::function_ref<void(llvm::raw_ostream &)> print) {
  std::error_code code;
  llvm::ToolOutputFile file(options.output.empty() ? "-" : options.output, code,
                            llvm::sys::fs::OF_Text);
  if (code)
    return llvm::createFileError(options.output, code);
  print(file.os());
  file.keep();
  return llvm::Error::success();
}

/// The weights as kvrm-pack-weights placed them.
llvm::Expected<std::vector<::kvrm::WeightLayout>> Compiler::layoutWeights() {
  std::vector<::kvrm::WeightLayout> layouts;
  for (auto global : module->getOps<ml_program::GlobalOp>()) {
    auto weight = global->getAttrOfType<mlir::kvrm::WeightAttr>(
        mlir::kvrm::KVRMDialect::getWeightAttrName());
    if (!weight)
      continue;
    auto type = cast<RankedTensorType>(global.getType());
    ::kvrm::WeightLayout layout;
    layout.name = global.getSymName().str();
    const ::kvrm::WeightSource *source = model.lookup(layout.name);
    if (!source)
      return llvm::createStringError("the model has no weight '" + layout.name +
                                     "'");
    layout.type = type.getElementType().isF32()   ? ::kvrm::WeightType::F32
                  : type.getElementType().isF16() ? ::kvrm::WeightType::F16
                                                  : ::kvrm::WeightType::BF16;
    if (weight.getFormat() == mlir::kvrm::WeightFormat::Panels) {
      layout.rowPanel = weight.getPanel();
      layout.rows = weight.getRows();
    } else {
      layout.rows = type.getRank() == 1 ? 1 : type.getDimSize(0);
    }
    layout.cols = source->cols();
    layout.offset = weight.getOffset();
    layouts.push_back(std::move(layout));
  }
  return layouts;
}

::kvrm::PackageManifest Compiler::makeManifest() {
  ::kvrm::PackageManifest manifest;
  manifest.producer = "kvrmc " KVRM_VERSION;
  manifest.mode = options.pipeline.isStatic ? "static" : "paged";
  manifest.target.kind = "host";
  manifest.target.triple = target.getTriple();
  manifest.target.cpu = target.getCPU().str();
  manifest.target.requiredFeatures = target.getRequiredFeatures().vec();
  manifest.model = model.config;
  manifest.cache.slots = options.shape.slots;
  manifest.cache.capacity = options.shape.capacity;
  manifest.cache.pageTokens = options.pipeline.page;
  manifest.cache.pagesPerSlot = pagesPerSlot;
  manifest.cache.element = options.shape.bf16Cache ? "bf16" : "f16";
  manifest.cache.window = options.pipeline.window;
  manifest.cache.summaries = options.pipeline.summaries;
  manifest.cache.sinks = options.pipeline.sinks;
  return manifest;
}

/// Reads what the passes left on the step for the runtime.
llvm::Error
Compiler::addEntry(::kvrm::PackageManifest &manifest, StringRef name,
                   int64_t rows, int64_t queries,
                   const mlir::kvrm::HostPipelineOptions &pipeline) {
  ::kvrm::PackageManifest::Entry entry;
  entry.name = name.str();
  entry.symbol = "kvrm_" + entry.name;
  entry.rows = rows;
  entry.queries = queries;
  auto step = module->lookupSymbol<LLVM::LLVMFuncOp>(entry.symbol);
  if (!step)
    return llvm::createStringError("the compiled module has no '" +
                                   entry.symbol + "'");
  entry.arenaBytes = step->getAttrOfType<IntegerAttr>(
                             mlir::kvrm::KVRMDialect::getArenaBytesAttrName())
                         .getInt();
  entry.kvTile = pipeline.kvTile;
  if (mlir::kvrm::StepPlanAttr plan = mlir::kvrm::getStepPlan(step)) {
    mlir::kvrm::TileAttr tile = plan.getTile();
    mlir::kvrm::ScheduleAttr schedule = plan.getSchedule();
    mlir::kvrm::TransportAttr transport = plan.getTransport();
    entry.queryTile = tile.getQ();
    entry.kvTile = tile.getKv();
    entry.schedule = stringifyScheduleKind(schedule.getKind()).str();
    entry.splits = schedule.getSplits();
    entry.transport = stringifyTransport(transport.getValue()).str();
    entry.scratchBytes = mlir::kvrm::getHostScratchBytes(
        tile.getQ() * model.config.heads / model.config.kvHeads,
        model.config.headDim, tile.getKv(), pipeline.lanes);
  }
  manifest.entries.push_back(std::move(entry));
  return llvm::Error::success();
}

llvm::Error Compiler::writePackage(llvm::Module &llvmModule,
                                   const ::kvrm::PackageManifest &manifest,
                                   ArrayRef<::kvrm::WeightLayout> layouts) {
  llvm::Expected<::kvrm::PackageWriter> writer =
      ::kvrm::PackageWriter::create(options.output);
  if (!writer)
    return writer.takeError();
  progress("generating code for " + target.getCPU());
  if (llvm::Error error =
          target.writeSharedLibrary(llvmModule, writer->pathOf("code.so")))
    return error;
  if (llvm::Error error = writer->addWritten("code.so"))
    return error;
  progress("writing weights");
  if (llvm::Error error = writer->addWeights(model, layouts))
    return error;
  if (model.tokenizer) {
    if (llvm::Error error = writer->addTokenizer(*model.tokenizer))
      return error;
  } else if (!model.tokenizerNote.empty()) {
    progress("no tokenizer: " + model.tokenizerNote);
  }
  if (llvm::Error error = writer->commit(manifest))
    return error;
  progress("wrote " + options.output);
  return llvm::Error::success();
}

llvm::Error Compiler::run() {
  mlir::kvrm::HostPipelineOptions pipeline;
  pipeline.copyOptionValuesFrom(options.pipeline);
  pipeline.lanes = target.getLanes();

  progress("building " + model.config.name);
  llvm::Expected<OwningOpRef<ModuleOp>> built =
      ::kvrm::buildDecoder(context, model.config, options.shape);
  if (!built)
    return built.takeError();
  module = std::move(*built);
  auto printModule = [&](llvm::raw_ostream &os) { module->print(os); };
  if (options.emit == Emit::Static)
    return emitText(printModule);

  progress(options.pipeline.isStatic ? "lowering static attention"
                                     : "paging caches");
  if (llvm::Error error = runPipeline(mlir::kvrm::buildPagedPipeline, pipeline))
    return error;
  if (options.emit == Emit::Paged)
    return emitText(printModule);
  // As the passes chose it: the code depends on it.
  pagesPerSlot = getPagesPerSlot(*module->getOps<func::FuncOp>().begin());

  progress("generating kernels");
  if (llvm::Error error =
          runPipeline(mlir::kvrm::buildHostKernelsPipeline, pipeline))
    return error;
  if (options.emit == Emit::Kernels)
    return emitText(printModule);
  llvm::Expected<std::vector<::kvrm::WeightLayout>> layouts = layoutWeights();
  if (!layouts)
    return layouts.takeError();

  progress("lowering to LLVM");
  if (llvm::Error error =
          runPipeline(mlir::kvrm::buildHostLLVMPipeline, pipeline))
    return error;
  ::kvrm::PackageManifest manifest = makeManifest();
  if (llvm::Error error =
          addEntry(manifest, "decode_step", options.shape.slots, 1, pipeline))
    return error;
  if (llvm::Error error = addEntry(manifest, "prefill", 1,
                                   options.shape.prefillChunk, pipeline))
    return error;
  progress("optimising");
  llvm::LLVMContext llvmContext;
  llvm::Expected<std::unique_ptr<llvm::Module>> llvmModule =
      target.translate(*module, llvmContext);
  if (!llvmModule)
    return llvmModule.takeError();
  if (options.emit == Emit::LLVM)
    return emitText(
        [&](llvm::raw_ostream &os) { (*llvmModule)->print(os, nullptr); });
  return writePackage(**llvmModule, manifest, *layouts);
}

llvm::Error kvrmc::compile(const ::kvrm::DecoderModel &model,
                           const CompileOptions &options) {
  if (options.emit == Emit::Package && options.output.empty())
    return llvm::createStringError("no output: say where the package goes, "
                                   "-o NAME.kvrm");
  llvm::Expected<mlir::kvrm::HostTarget> target =
      mlir::kvrm::HostTarget::create(options.arch);
  if (!target)
    return target.takeError();
  int64_t lanes = target->getLanes(), headDim = model.config.headDim;
  if (!options.pipeline.isStatic && headDim % lanes != 0)
    return llvm::createStringError("--arch: '" + options.arch +
                                   "' has vectors of " + llvm::Twine(lanes) +
                                   " lanes, of which head_dim " +
                                   llvm::Twine(headDim) + " is no multiple");
  return Compiler(model, options, std::move(*target)).run();
}
