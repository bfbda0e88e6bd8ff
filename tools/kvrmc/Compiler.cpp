//===- Compiler.cpp - From a graph to a package ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Compiler.h"

#include "StepInfo.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/InitAll.h"
#include "kvrm/runtime/support/OneLine.h"
#include "kvrm/runtime/support/ReplaceFile.h"
#include "kvrm/text/ChatTemplate.h"

#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/InitAllDialects.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>

using namespace mlir;
using namespace mlir::kvrm;
using namespace kvrmc;
using ::kvrm::PackageManifest;
using ::kvrm::PackageWriter;
using ::kvrm::UnfinishedFile;
using ::kvrm::WeightLayout;
using ::kvrm::WeightType;

namespace {

using Clock = std::chrono::steady_clock;

class Compiler {
public:
  Compiler(Source source, Target &target, const Output &output,
           UnfinishedFile *file, PackageWriter *package)
      : source(std::move(source)), target(target), output(output), file(file),
        package(package), context(makeRegistry()) {
    // The first diagnostic is the error; the rest would only repeat it.
    context.getDiagEngine().registerHandler([this](Diagnostic &diagnostic) {
      if (diagnostic.getSeverity() == DiagnosticSeverity::Error &&
          firstError.empty())
        firstError = diagnostic.str();
    });
    context.loadAllAvailableDialects();
  }

  llvm::Error run();

private:
  static DialectRegistry makeRegistry() {
    DialectRegistry registry;
    registerAllDialects(registry);
    registerAllKVRMDialects(registry);
    return registry;
  }
  /// Says what is being done, with the time so far.
  void progress(const llvm::Twine &what) {
    if (output.isQuiet)
      return;
    std::chrono::duration<double> elapsed = Clock::now() - start;
    llvm::errs() << llvm::format("[%6.2f s] ", elapsed.count()) << what << "\n";
  }
  llvm::Error failure(llvm::StringRef otherwise) const {
    return llvm::createStringError(firstError.empty() ? otherwise.str()
                                                      : firstError);
  }
  llvm::Error runPasses(void (Target::*build)(OpPassManager &) const);
  llvm::Error emitText(llvm::function_ref<void(llvm::raw_ostream &)> print);
  llvm::Error toKernels(bool &isDone);
  llvm::Expected<std::vector<WeightLayout>> layoutWeights();
  llvm::Expected<PackageManifest> makeManifest();
  void checkChatTemplate(const std::string &chatTemplate);
  llvm::Error writePackage(llvm::Module &code, PackageManifest manifest,
                           ArrayRef<WeightLayout> layouts);

  Source source;
  Target &target;
  const Output &output;
  UnfinishedFile *file;   ///< for text; else null
  PackageWriter *package; ///< else null
  MLIRContext context;
  OwningOpRef<ModuleOp> module;
  std::string firstError;
  SessionType session; ///< null if not paged
  Clock::time_point start = Clock::now();
};

} // namespace

llvm::Error Compiler::runPasses(void (Target::*build)(OpPassManager &) const) {
  PassManager pm(&context);
  (target.*build)(pm);
  return succeeded(pm.run(*module)) ? llvm::Error::success()
                                    : failure("a pass failed");
}

static llvm::Error toError(const ::kvrm::Status &status) {
  return status.isOk() ? llvm::Error::success()
                       : llvm::createStringError(status.message());
}

llvm::Error
Compiler::emitText(llvm::function_ref<void(llvm::raw_ostream &)> print) {
  std::string text;
  llvm::raw_string_ostream os(text);
  print(os);
  if (::kvrm::Status written = file->write(text); !written.isOk())
    return toError(written);
  return toError(file->commit());
}

/// What kvrm-shard-step left of a weight to a rank. A vector is one row.
static ::kvrm::WeightSlices slicesOf(ml_program::GlobalOp global,
                                     int64_t ranks) {
  ::kvrm::WeightSlices slices;
  auto shard =
      global->getAttrOfType<ShardAttr>(KVRMDialect::getShardAttrName());
  if (!shard)
    return slices;
  bool isVector = cast<RankedTensorType>(global.getType()).getRank() == 1;
  slices.isOfColumns = shard.getDim() == 1 || isVector;
  slices.parts = shard.getParts().vec();
  slices.ranks = ranks;
  return slices;
}

/// The weights as kvrm-pack-weights placed them.
llvm::Expected<std::vector<WeightLayout>> Compiler::layoutWeights() {
  std::vector<WeightLayout> layouts;
  int64_t ranks = getRanks(*module);
  for (auto global : module->getOps<ml_program::GlobalOp>()) {
    auto weight =
        global->getAttrOfType<WeightAttr>(KVRMDialect::getWeightAttrName());
    if (!weight)
      continue;
    auto type = cast<RankedTensorType>(global.getType());
    WeightLayout layout;
    layout.name = global.getSymName().str();
    const ::kvrm::WeightSource *data =
        source.model ? source.model->lookup(layout.name) : nullptr;
    if (!data)
      return llvm::createStringError("the model has no weight '" + layout.name +
                                     "'");
    layout.type = type.getElementType().isF32()   ? WeightType::F32
                  : type.getElementType().isF16() ? WeightType::F16
                                                  : WeightType::BF16;
    if (weight.getFormat() != WeightFormat::RowMajor) {
      layout.rowPanel = weight.getPanel();
      layout.rows = weight.getRows();
      if (BlockFormatAttr block = weight.getBlock())
        layout.blocks = static_cast<::kvrm::BlockFormat>(block.getValue());
    } else {
      layout.rows = type.getRank() == 1 ? 1 : type.getDimSize(0);
    }
    layout.slices = slicesOf(global, ranks);
    layout.cols = data->cols();
    if (layout.slices.isOfColumns)
      layout.cols /= ranks;
    layout.offset = weight.getOffset();
    layouts.push_back(std::move(layout));
  }
  return layouts;
}

static void describeSession(SessionType session,
                            PackageManifest::Cache &cache) {
  cache.pagesPerSlot = session.getPages();
  if (FarHistoryAttr far = session.getFarHistory()) {
    cache.window = far.getWindow();
    cache.summaries = far.getEntries();
    cache.sinks = far.getSinks();
  }
}

llvm::Expected<PackageManifest> Compiler::makeManifest() {
  PackageManifest manifest;
  manifest.producer = "kvrmc " KVRM_VERSION;
  manifest.mode = source.isStatic ? "static" : "paged";
  manifest.ranks = getRanks(*module);
  manifest.model = source.config;
  manifest.cache.slots = source.slots;
  manifest.cache.capacity = source.capacity;
  if (session)
    describeSession(session, manifest.cache);
  manifest.cache.element = kvrm_element_name(source.cache);
  if (source.io && *source.io != source.cache)
    manifest.cache.io = kvrm_element_name(*source.io);
  target.describe(manifest);
  for (const Source::Entry &wanted : source.entries) {
    PackageManifest::Entry entry;
    entry.name = wanted.name;
    entry.rows = wanted.rows;
    entry.queries = wanted.queries;
    entry.batches = wanted.batches;
    if (llvm::Error error = target.describeEntry(*module, manifest, entry)) {
      // Say what a diagnostic said, if there was one.
      if (firstError.empty())
        return error;
      llvm::consumeError(std::move(error));
      return failure("");
    }
    manifest.entries.push_back(std::move(entry));
  }
  return manifest;
}

/// A chat template that cannot be run is of no harm to texts, but to be known.
void Compiler::checkChatTemplate(const std::string &chatTemplate) {
  if (chatTemplate.empty())
    return;
  ::kvrm::Status status = ::kvrm::ChatTemplate::parse(chatTemplate).status();
  if (!status.isOk())
    progress("no chats: " + status.message());
}

llvm::Error Compiler::writePackage(llvm::Module &code, PackageManifest manifest,
                                   ArrayRef<WeightLayout> layouts) {
  progress("generating code for " + target.name());
  if (llvm::Error error = target.writeCode(code, *package))
    return error;
  if (source.model) {
    progress("writing weights");
    for (int64_t rank = 0; rank < manifest.ranks; ++rank)
      if (llvm::Error error =
              source.isSeeded
                  ? package->addSeededWeights(*source.model, layouts, rank)
                  : package->addWeights(*source.model, layouts, /*threads=*/0,
                                        rank))
        return error;
    if (source.model->tokenizer) {
      checkChatTemplate(source.model->tokenizer->chatTemplate);
      if (llvm::Error error = package->addTokenizer(*source.model->tokenizer))
        return error;
    } else if (!source.model->tokenizerNote.empty()) {
      progress("no tokenizer: " + source.model->tokenizerNote);
    }
  }
  if (llvm::Error error = package->commit(std::move(manifest)))
    return error;
  progress("wrote " + output.path);
  return llvm::Error::success();
}

/// Phases 1 to 3, or as far as the output asks for.
llvm::Error Compiler::toKernels(bool &isDone) {
  auto printModule = [&](llvm::raw_ostream &os) { module->print(os); };
  isDone = true;
  progress("building " + ::kvrm::oneLine(source.config.name));
  llvm::Expected<OwningOpRef<ModuleOp>> built = source.build(context);
  if (!built)
    return built.takeError();
  module = std::move(*built);
  if (output.emit == Emit::Static)
    return emitText(printModule);

  progress(source.isStatic ? "lowering static attention" : "paging caches");
  if (llvm::Error error = runPasses(&Target::buildPaged))
    return error;
  if (output.emit == Emit::Paged)
    return emitText(printModule);
  // As the passes chose it: the code depends on it.
  session = getSession(*module->getOps<func::FuncOp>().begin());

  progress("generating kernels");
  if (llvm::Error error = runPasses(&Target::buildKernels))
    return error;
  target.addKernels(*module);
  if (output.emit == Emit::Kernels)
    return emitText(printModule);
  isDone = false;
  return llvm::Error::success();
}

llvm::Error Compiler::run() {
  bool isDone = false;
  if (llvm::Error error = toKernels(isDone))
    return error;
  if (isDone)
    return llvm::Error::success();
  llvm::Expected<std::vector<WeightLayout>> layouts = layoutWeights();
  if (!layouts)
    return layouts.takeError();

  progress("lowering to LLVM");
  if (llvm::Error error = runPasses(&Target::buildLowering))
    return error;
  llvm::Expected<PackageManifest> manifest = makeManifest();
  if (!manifest)
    return manifest.takeError();
  progress("optimising");
  llvm::LLVMContext llvmContext;
  llvm::Expected<std::unique_ptr<llvm::Module>> code =
      target.translate(*module, llvmContext);
  if (!code)
    return code.takeError();
  if (output.emit == Emit::LLVM)
    return emitText(
        [&](llvm::raw_ostream &os) { (*code)->print(os, nullptr); });
  if (output.emit == Emit::PTX) {
    llvm::Expected<std::string> text = target.assembly(**code);
    if (!text)
      return text.takeError();
    return emitText([&](llvm::raw_ostream &os) { os << *text; });
  }
  return writePackage(**code, std::move(*manifest), *layouts);
}

static llvm::Error compileToText(Source source, Target &target,
                                 const Output &output) {
  const std::string path = output.path.empty() ? "-" : output.path;
  if (llvm::Error error = toError(::kvrm::checkOutput(path, output.inputs)))
    return error;
  if (::kvrm::isPackage(llvm::sys::path::parent_path(path)))
    return llvm::createStringError(path + ": lies in a package");
  ::kvrm::Expected<UnfinishedFile> file = UnfinishedFile::create(path);
  if (!file)
    return toError(file.status());
  return Compiler(std::move(source), target, output, &*file, nullptr).run();
}

/// Says where a package is to be, for where it is while it is written.
static llvm::Error withName(llvm::Error error, const std::string &folder,
                            const std::string &name) {
  if (!error)
    return error;
  std::string text = llvm::toString(std::move(error));
  for (size_t at; (at = text.find(folder)) != std::string::npos;)
    text.replace(at, folder.size(), name);
  return llvm::createStringError(text);
}

static llvm::Error compileToPackage(Source source, Target &target,
                                    const Output &output) {
  if (output.path.empty() || output.path == "-")
    return llvm::createStringError("no output: say where the package goes, "
                                   "-o NAME.kvrm");
  ::kvrm::UnfinishedPath removal;
  llvm::Expected<PackageWriter> package =
      PackageWriter::create(output.path, [&](StringRef folder) {
        removal = ::kvrm::UnfinishedPath(folder);
      });
  if (!package)
    return package.takeError();
  const std::string folder = package->folder();
  return withName(
      Compiler(std::move(source), target, output, nullptr, &*package).run(),
      folder, output.path);
}

llvm::Error kvrmc::compile(Source source, Target &target,
                           const Output &output) {
  if (output.emit == Emit::Package)
    return compileToPackage(std::move(source), target, output);
  return compileToText(std::move(source), target, output);
}
