//===- GraphSource.cpp - Decode steps of other frontends ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GraphSource.h"

#include "GraphWeights.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/Frontend/FileError.h"
#include "kvrm/Frontend/JsonText.h"
#include "kvrm/InitAll.h"
#include "kvrm/Pipelines/Pipelines.h"

#include "mlir/Bytecode/BytecodeWriter.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/InitAllDialects.h"
#include "mlir/Parser/Parser.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SourceMgr.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace kvrmc;
using ::kvrm::fileError;

namespace {

class GraphImport {
public:
  explicit GraphImport(const GraphOptions &options);

  llvm::Expected<std::unique_ptr<Graph>> run();

private:
  llvm::Error fail(const Twine &message) const {
    return fileError(options.path, message);
  }
  /// What a diagnostic said, or else `otherwise`.
  llvm::Error failure(StringRef otherwise) const {
    return fail(firstError.empty() ? otherwise : StringRef(firstError));
  }
  llvm::Error parse();
  llvm::Error findStep();
  llvm::Error readManifest();
  llvm::Error applyRole(unsigned index, const llvm::json::Object &entry);
  llvm::Error raise();
  llvm::Error describe();

  const GraphOptions &options;
  MLIRContext context;
  OwningOpRef<ModuleOp> module;
  func::FuncOp step;
  GraphArguments arguments;
  ImportPipelineOptions pipeline;
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();
  std::string firstError, refusal;
};

} // namespace

static DialectRegistry makeRegistry() {
  DialectRegistry registry;
  registerAllDialects(registry);
  registerAllKVRMDialects(registry);
  return registry;
}

/// "line: message", where the line is known.
static std::string withLine(Diagnostic &diagnostic) {
  auto at = diagnostic.getLocation()->findInstanceOf<FileLineColLoc>();
  return at ? (Twine(at.getLine()) + ": " + diagnostic.str()).str()
            : diagnostic.str();
}

GraphImport::GraphImport(const GraphOptions &options)
    : options(options), context(makeRegistry()) {
  context.getDiagEngine().registerHandler([this](Diagnostic &diagnostic) {
    bool isError = diagnostic.getSeverity() == DiagnosticSeverity::Error;
    if (isError && firstError.empty())
      firstError = withLine(diagnostic);
    if (diagnostic.getSeverity() != DiagnosticSeverity::Remark)
      return;
    if (StringRef(diagnostic.str()).starts_with("not raised")) {
      if (refusal.empty())
        refusal = withLine(diagnostic);
      return;
    }
    graph->notes.push_back(diagnostic.str());
  });
  context.loadAllAvailableDialects();
  pipeline.narrow = options.cacheType;
  pipeline.element = options.weightType;
  pipeline.slots = options.slots;
  pipeline.mixed = options.mixes;
}

llvm::Error GraphImport::parse() {
  auto buffer = llvm::MemoryBuffer::getFile(options.path);
  if (!buffer)
    return fail("cannot open: " + buffer.getError().message());
  llvm::SourceMgr source;
  source.AddNewSourceBuffer(std::move(*buffer), llvm::SMLoc());
  module = parseSourceFile<ModuleOp>(source, ParserConfig(&context));
  return module ? llvm::Error::success() : failure("is no MLIR module");
}

/// The one function that others may call, or that is called main.
llvm::Error GraphImport::findStep() {
  for (auto func : module->getOps<func::FuncOp>()) {
    if (func.isExternal() || !func.isPublic())
      continue;
    if (step && func.getSymName() != "main" && step.getSymName() == "main")
      continue;
    if (step && func.getSymName() != "main")
      return fail("has two functions, '" + step.getSymName() + "' and '" +
                  func.getSymName() + "', and neither is called main");
    step = func;
  }
  if (!step)
    return fail("has no public function");
  // The others are the step's, or nobody's.
  for (auto func : module->getOps<func::FuncOp>())
    if (func != step)
      func.setPrivate();
  return llvm::Error::success();
}

llvm::Error GraphImport::applyRole(unsigned index,
                                   const llvm::json::Object &entry) {
  for (const auto &[key, value] : entry)
    if ((key != "name" && key != "role") || !value.getAsString())
      return fileError(options.manifest, "arguments[" + Twine(index) + "]: '" +
                                             StringRef(key) +
                                             "' is no name or role");
  if (auto name = entry.getString("name"))
    step.setArgAttr(index, KVRMDialect::getNameAttrName(),
                    StringAttr::get(&context, *name));
  std::optional<StringRef> role = entry.getString("role");
  if (!role || *role == "weight")
    return llvm::Error::success();
  if (*role == "causal_mask")
    pipeline.causalMasks.push_back(index);
  else if (*role == "position")
    pipeline.positions.push_back(index);
  else if (*role == "tokens")
    setArgumentRole(step, index, ArgumentRole::Tokens);
  else
    return fileError(options.manifest,
                     "arguments[" + Twine(index) + "]: role '" + *role +
                         "' is none of weight, tokens, position and "
                         "causal_mask");
  return llvm::Error::success();
}

llvm::Error GraphImport::readManifest() {
  if (options.manifest.empty())
    return llvm::Error::success();
  llvm::Expected<llvm::json::Object> root =
      ::kvrm::readJsonObject(options.manifest);
  if (!root)
    return root.takeError();
  const llvm::json::Array *list = root->getArray("arguments");
  if (!list || list->size() != step.getNumArguments())
    return fileError(options.manifest,
                     "arguments: there are " + Twine(list ? list->size() : 0) +
                         ", the graph has " + Twine(step.getNumArguments()));
  for (auto [index, value] : llvm::enumerate(*list)) {
    const llvm::json::Object *entry = value.getAsObject();
    if (!entry)
      return fileError(options.manifest,
                       "arguments[" + Twine(index) + "] is not an object");
    if (llvm::Error error = applyRole(index, *entry))
      return error;
  }
  const llvm::json::Value *unused = root->get("unused");
  if (!unused)
    return llvm::Error::success();
  const llvm::json::Array *names = unused->getAsArray();
  if (!names)
    return fileError(options.manifest, "unused: is no list");
  for (const llvm::json::Value &name : *names) {
    if (!name.getAsString())
      return fileError(options.manifest, "unused: has what is no name");
    arguments.unused.insert(*name.getAsString());
  }
  return llvm::Error::success();
}

llvm::Error GraphImport::raise() {
  // Names and types as the file has them: raising moves arguments.
  for (unsigned i = 0; i < step.getNumArguments(); ++i) {
    std::string name = getArgumentName(step, i);
    step.setArgAttr(i, KVRMDialect::getNameAttrName(),
                    StringAttr::get(&context, name));
    arguments.types[name] = step.getArgumentTypes()[i];
  }
  PassManager raising(&context);
  buildRaisePipeline(raising, pipeline);
  if (failed(raising.run(*module)))
    return failure("a pass failed");
  SmallVector<func::FuncOp> steps = getSteps(*module);
  if (steps.empty())
    return fail(refusal.empty() ? "not raised: no attention over a static "
                                  "cache was found"
                                : refusal);
  auto cache = cast<RankedTensorType>(steps.front().getArgumentTypes().back());
  graph->capacity = cache.getDimSize(3);
  pipeline.chunk = std::min(options.prefillChunk, graph->capacity);
  PassManager adopting(&context);
  buildAdoptPipeline(adopting, pipeline);
  if (failed(adopting.run(*module)))
    return failure("a pass failed");
  return llvm::Error::success();
}

/// Columns of what the logits are a product of.
static int64_t findHidden(func::FuncOp decode) {
  int64_t vocabulary =
      cast<RankedTensorType>(decode.getResultTypes()[0]).getDimSize(1);
  int64_t hidden = 0;
  for (auto product : decode.getOps<linalg::MatmulOp>()) {
    auto weight = cast<RankedTensorType>(product.getInputs()[1].getType());
    if (weight.getDimSize(0) == vocabulary)
      hidden = weight.getDimSize(1);
  }
  return hidden;
}

llvm::Error GraphImport::describe() {
  auto decode = module->lookupSymbol<func::FuncOp>("decode_step");
  auto attention = *decode.getOps<CachedAttentionOp>().begin();
  auto query = cast<RankedTensorType>(attention.getQuery().getType());
  auto cache = cast<RankedTensorType>(attention.getKeyCache().getType());
  ::kvrm::DecoderConfig &config = graph->model.config;
  config.name = llvm::sys::path::stem(options.path).str();
  config.architecture = "graph";
  config.vocabulary =
      cast<RankedTensorType>(decode.getResultTypes()[0]).getDimSize(1);
  config.layers = cache.getDimSize(0);
  config.heads = query.getDimSize(2);
  config.kvHeads = cache.getDimSize(2);
  config.headDim = query.getDimSize(3);
  config.hidden = findHidden(decode);
  if (config.hidden == 0)
    config.hidden = config.heads * config.headDim;
  config.context = graph->capacity;
  graph->slots = cache.getDimSize(1);
  graph->prefillChunk = pipeline.chunk;
  graph->mixes = options.mixes;
  graph->cache = *getCacheElement(cache.getElementType());
  graph->model.tokenizerNote = "a graph has none (--tokenizer)";
  graph->model.files.push_back(options.path);
  return options.tokenizer.empty()
             ? llvm::Error::success()
             : ::kvrm::addFolderTokenizer(options.tokenizer, graph->model);
}

llvm::Expected<std::unique_ptr<Graph>> GraphImport::run() {
  if (llvm::Error error = parse())
    return error;
  if (llvm::Error error = findStep())
    return error;
  if (llvm::Error error = readManifest())
    return error;
  if (llvm::Error error = raise())
    return error;
  if (llvm::Error error = describe())
    return error;
  if (llvm::Error error =
          bindWeights(*module, arguments, options, graph->model))
    return error;
  llvm::raw_string_ostream os(graph->bytecode);
  if (failed(writeBytecodeToFile(*module, os)))
    return fail("cannot be written as bytecode");
  return std::move(graph);
}

llvm::Expected<std::unique_ptr<Graph>>
kvrmc::openGraph(const GraphOptions &options) {
  return GraphImport(options).run();
}

Source kvrmc::graphSource(const Graph &graph) {
  Source source;
  source.build =
      [&graph](MLIRContext &context) -> llvm::Expected<OwningOpRef<ModuleOp>> {
    OwningOpRef<ModuleOp> module =
        parseSourceString<ModuleOp>(graph.bytecode, ParserConfig(&context));
    if (!module)
      return llvm::createStringError("the raised graph cannot be read again");
    return module;
  };
  source.model = &graph.model;
  source.config = graph.model.config;
  source.slots = graph.slots;
  source.capacity = graph.capacity;
  source.cache = graph.cache;
  source.entries = {{"decode_step", graph.slots, 1},
                    {"prefill", 1, graph.prefillChunk}};
  if (graph.mixes)
    source.entries.push_back(
        {.name = "mixed_step", .batches = {"decode_step", "prefill"}});
  return source;
}
