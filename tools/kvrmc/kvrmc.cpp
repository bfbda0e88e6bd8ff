//===- kvrmc.cpp - Compile a decoder ahead of time ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   kvrmc MODEL -o DIR.kvrm [options]          a model to a package: a GGUF
//                                              file, or a folder of Hugging
//                                              Face
//   kvrmc synth -o DIR.kvrm [options]          a seeded decoder of any shape
//   kvrmc GRAPH.mlir --weights W.safetensors   a decode step of another
//                                              frontend
//
// With --emit the work stops at a phase and its text goes to -o, or to standard
// output.
//
//===----------------------------------------------------------------------===//

#include "AttentionCommand.h"
#include "CPUTarget.h"
#include "CommandOptions.h"
#include "Compiler.h"
#include "GPUTarget.h"
#include "GraphSource.h"
#include "TensorParallel.h"

#include "kvrm/Frontend/CheckRange.h"
#include "kvrm/Frontend/CodedWeights.h"
#include "kvrm/Frontend/DecoderBuilder.h"
#include "kvrm/Frontend/GGUF.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/model.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/support/OneLine.h"
#include "kvrm/runtime/support/StandardStreams.h"
#include "kvrm/runtime/support/Unfinished.h"

#include "llvm/Config/llvm-config.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

using namespace kvrmc;
namespace cl = llvm::cl;

namespace {

cl::SubCommand synthCommand("synth", "Make a decoder with seeded weights");

cl::opt<std::string> model(cl::Positional,
                           cl::desc("MODEL.gguf, FOLDER or GRAPH.mlir"),
                           cl::cat(category()));
cl::opt<std::string>
    weights("weights",
            cl::desc("Weights of a graph: safetensors, or an index of shards"),
            cl::value_desc("path"), cl::cat(category()));
cl::opt<std::string>
    manifest("manifest",
             cl::desc("Names and roles of a graph's arguments, JSON"),
             cl::value_desc("path"), cl::cat(category()));
cl::opt<std::string>
    tokenizer("tokenizer",
              cl::desc("Folder with the tokenizer of a graph's model, as "
                       "transformers write it"),
              cl::value_desc("path"), cl::cat(category()));
cl::opt<std::string> output("o", cl::desc("Package to write, or file to emit"),
                            cl::value_desc("path"), cl::cat(category()),
                            cl::sub(cl::SubCommand::getTopLevel()),
                            cl::sub(synthCommand));
cl::opt<Emit> emit(
    "emit", cl::desc("Stop at a phase:"),
    cl::values(clEnumValN(Emit::Static, "static", "phase 1: static graph"),
               clEnumValN(Emit::Paged, "paged", "phase 2: paged session"),
               clEnumValN(Emit::Kernels, "kernels", "phase 3: tile programs"),
               clEnumValN(Emit::LLVM, "llvm", "optimised LLVM IR"),
               clEnumValN(Emit::PTX, "ptx", "PTX, for nvptx"),
               clEnumValN(Emit::Package, "package", "the package (default)")),
    cl::init(Emit::Package), cl::cat(category()),
    cl::sub(cl::SubCommand::getTopLevel()), cl::sub(synthCommand));
cl::opt<bool> isStatic(
    "static",
    cl::desc("Compile the static baseline: KV reserved at slots x capacity"),
    cl::cat(category()), cl::sub(cl::SubCommand::getTopLevel()),
    cl::sub(synthCommand));
cl::opt<std::string> target("target", cl::desc("host (default) or nvptx"),
                            cl::init("host"), cl::cat(category()),
                            cl::sub(cl::SubCommand::getTopLevel()),
                            cl::sub(synthCommand));
cl::opt<std::string> arch("arch",
                          cl::desc("CPU to compile for: native (default), or "
                                   "a name such as x86-64-v3; or GPU: sm_90 "
                                   "(default) or sm_80"),
                          cl::init(""), cl::cat(category()),
                          cl::sub(cl::SubCommand::getTopLevel()),
                          cl::sub(synthCommand));
cl::opt<int64_t> slots("slots", cl::desc("Requests decoded at once (8)"),
                       cl::init(8), cl::cat(category()),
                       cl::sub(cl::SubCommand::getTopLevel()),
                       cl::sub(synthCommand));
cl::opt<int64_t>
    capacity("capacity",
             cl::desc("Tokens a slot (2048, or the model's if fewer)"),
             cl::init(2048), cl::cat(category()),
             cl::sub(cl::SubCommand::getTopLevel()), cl::sub(synthCommand));
cl::opt<int64_t> chunk("prefill-chunk",
                       cl::desc("Prompt tokens of one prefill step (64; for a "
                                "GPU 512, or what whole 64s a slot has; with "
                                "--mixed 512 less the slots)"),
                       cl::init(64), cl::cat(category()),
                       cl::sub(cl::SubCommand::getTopLevel()),
                       cl::sub(synthCommand));
cl::opt<bool> mixes("mixed",
                    cl::desc("Compile a step, too, that decodes and computes a "
                             "part of a prompt at once"),
                    cl::cat(category()), cl::sub(cl::SubCommand::getTopLevel()),
                    cl::sub(synthCommand));
cl::opt<int64_t> page("page-size",
                      cl::desc("Tokens a page (16; 64 for --static on a GPU)"),
                      cl::init(16), cl::cat(category()),
                      cl::sub(cl::SubCommand::getTopLevel()),
                      cl::sub(synthCommand));
cl::opt<int64_t> window("window",
                        cl::desc("Tokens of a request attended to exactly; "
                                 "older ones go (0: all are)"),
                        cl::init(0), cl::cat(category()),
                        cl::sub(cl::SubCommand::getTopLevel()),
                        cl::sub(synthCommand));
cl::opt<int64_t> summaries("summaries",
                           cl::desc("With --window: entries that older tokens "
                                    "collapse to (0: they are dropped)"),
                           cl::init(0), cl::cat(category()),
                           cl::sub(cl::SubCommand::getTopLevel()),
                           cl::sub(synthCommand));
cl::opt<int64_t> sinks("sinks",
                       cl::desc("Of these entries, those that are a request's "
                                "first tokens for good (4)"),
                       cl::init(4), cl::cat(category()),
                       cl::sub(cl::SubCommand::getTopLevel()),
                       cl::sub(synthCommand));
cl::opt<std::string> schedule("schedule",
                              cl::desc("auto, rows, split or workqueue"),
                              cl::init("auto"), cl::cat(category()),
                              cl::sub(cl::SubCommand::getTopLevel()),
                              cl::sub(synthCommand));
cl::opt<int64_t> splits("splits", cl::desc("Splits of a split schedule (4)"),
                        cl::init(4), cl::cat(category()),
                        cl::sub(cl::SubCommand::getTopLevel()),
                        cl::sub(synthCommand));
cl::opt<std::string> transport("transport", cl::desc("native or staged"),
                               cl::init("native"), cl::cat(category()),
                               cl::sub(cl::SubCommand::getTopLevel()),
                               cl::sub(synthCommand));
cl::opt<int64_t> kvTile("kv-tile", cl::desc("Cached tokens a tile (64)"),
                        cl::init(64), cl::cat(category()),
                        cl::sub(cl::SubCommand::getTopLevel()),
                        cl::sub(synthCommand));
cl::opt<std::string> cacheType("cache-type",
                               cl::desc("Element of the KV pool: f16, bf16, or "
                                        "of a byte f8e4m3 or int8, which has a "
                                        "scale for each token and KV head"),
                               cl::init("f16"), cl::cat(category()),
                               cl::sub(cl::SubCommand::getTopLevel()),
                               cl::sub(synthCommand));
const std::string weightTypes =
    "Element of matrices: f16, bf16; blocks that they are rounded to: " +
    kvrm::codedFormatNames() +
    "; or file (default): the blocks of a GGUF file, else f16";
cl::opt<std::string> weightType("weight-type", cl::desc(weightTypes),
                                cl::init("file"), cl::cat(category()),
                                cl::sub(cl::SubCommand::getTopLevel()),
                                cl::sub(synthCommand));
enum class Rounding { Int8, Exact };
cl::opt<Rounding> rounding(
    "quantized-activations",
    cl::desc("What is multiplied with weights in blocks:"),
    cl::values(clEnumValN(Rounding::Int8, "int8",
                          "activations rounded to eight bits, 32 to a scale "
                          "(default where the CPU has AVX2)"),
               clEnumValN(Rounding::Exact, "exact", "activations as they are")),
    cl::init(Rounding::Int8), cl::cat(category()),
    cl::sub(cl::SubCommand::getTopLevel()), cl::sub(synthCommand));
cl::opt<kvrm::ActivationType>
    activations("activations",
                cl::desc("Element of what products and attention read:"),
                cl::values(clEnumValN(kvrm::ActivationType::F32, "f32",
                                      "what CPUs take (default)"),
                           clEnumValN(kvrm::ActivationType::F16, "f16",
                                      "with a cache of f16, f8e4m3 or int8"),
                           clEnumValN(kvrm::ActivationType::BF16, "bf16",
                                      "with a cache of bf16, f8e4m3 or "
                                      "int8")),
                cl::init(kvrm::ActivationType::F32), cl::cat(category()),
                cl::sub(cl::SubCommand::getTopLevel()), cl::sub(synthCommand));
RanksOption tensorParallel(category(), synthCommand);
cl::opt<bool> quiet("quiet", cl::desc("Say nothing but errors"),
                    cl::cat(category()), cl::sub(cl::SubCommand::getTopLevel()),
                    cl::sub(synthCommand));

// The shape of a synthetic decoder.
#define KVRMC_SYNTH_OPTION(name, flag, value, text)                            \
  cl::opt<int64_t> name(flag, cl::desc(text), cl::init(value),                 \
                        cl::cat(category()), cl::sub(synthCommand))
KVRMC_SYNTH_OPTION(synthLayers, "layers", 4, "Layers (4)");
KVRMC_SYNTH_OPTION(synthHidden, "hidden", 256, "Hidden width (256)");
KVRMC_SYNTH_OPTION(synthHeads, "heads", 4, "Query heads (4)");
KVRMC_SYNTH_OPTION(synthKvHeads, "kv-heads", 2, "KV heads (2)");
KVRMC_SYNTH_OPTION(synthHeadDim, "head-dim", 64, "Head dimension (64)");
KVRMC_SYNTH_OPTION(synthFeedForward, "ffn", 512, "Feed-forward width (512)");
KVRMC_SYNTH_OPTION(synthVocabulary, "vocab", 1024, "Vocabulary (1024)");
KVRMC_SYNTH_OPTION(synthSeed, "seed", 1, "Seed of the weights (1)");
#undef KVRMC_SYNTH_OPTION

cl::opt<bool> isSeeded("seeded",
                       cl::desc("Write seeds, of which the runtime makes the "
                                "weights when it loads the package"),
                       cl::cat(category()), cl::sub(synthCommand));

llvm::Expected<kvrm::DecoderModel> openModel() {
  if (!synthCommand) {
    if (model.empty())
      return llvm::createStringError("no model: name a GGUF file, a folder or "
                                     "a graph, or use 'kvrmc synth'");
    llvm::Expected<kvrm::DecoderModel> opened =
        kvrm::openModel(model, capacity);
    // Who asks for no capacity gets what the model has.
    if (!opened || capacity.getNumOccurrences() != 0 ||
        opened->config.context >= capacity)
      return opened;
    capacity = opened->config.context;
    return kvrm::openModel(model, capacity);
  }
  kvrm::SynthOptions options;
  options.layers = synthLayers;
  options.hidden = synthHidden;
  options.heads = synthHeads;
  options.kvHeads = synthKvHeads;
  options.headDim = synthHeadDim;
  options.feedForward = synthFeedForward;
  options.vocabulary = synthVocabulary;
  options.context = capacity;
  options.seed = static_cast<uint64_t>(synthSeed);
  return kvrm::synthModel(options);
}

bool isForGPU() { return target == "nvptx"; }

llvm::StringRef archOr(llvm::StringRef otherwise) {
  return arch.empty() ? otherwise : llvm::StringRef(arch);
}

/// --window and --summaries, which depend on other options.
llvm::Error checkFarHistory() {
  if (window < 0)
    return llvm::createStringError("--window: %lld is negative",
                                   static_cast<long long>(window));
  if (summaries != 0 && window == 0)
    return llvm::createStringError(
        "--summaries: there is nothing to sum up without --window");
  if (sinks.getNumOccurrences() && summaries == 0)
    return llvm::createStringError(
        "--sinks: there are no entries for them without --summaries");
  if (window == 0)
    return llvm::Error::success();
  if (isStatic)
    return llvm::createStringError(
        "--window: a static package has no pages to collapse");
  if (window >= capacity)
    return llvm::createStringError(
        "--window: %lld tokens are not less than the capacity %lld",
        static_cast<long long>(window), static_cast<long long>(capacity));
  for (auto [name, tokens] :
       {std::pair<const char *, int64_t>("window", window),
        {"summaries", summaries}})
    if (page > 0 && tokens % page != 0)
      return llvm::createStringError(
          "--%s: %lld tokens are not whole pages of %lld", name,
          static_cast<long long>(tokens), static_cast<long long>(page));
  return llvm::Error::success();
}

/// A window of the model's hides what summaries would stand for.
llvm::Error checkModelWindows(const kvrm::DecoderConfig &config) {
  for (int64_t size : config.windows)
    if (window != 0 && size != 0 && size < capacity)
      return llvm::createStringError(
          "--window: layers of the model have a window of their own, of %lld "
          "tokens",
          static_cast<long long>(size));
  return llvm::Error::success();
}

llvm::Error checkMixed(int64_t slots) {
  if (!mixes)
    return llvm::Error::success();
  if (isStatic)
    return llvm::createStringError(
        "--mixed: the static baseline has no such step");
  if (slots < 2)
    return llvm::createStringError(
        "--mixed: with 1 slot there is nobody to decode beside a prompt");
  if (slots >= KVRM_MAX_ROWS)
    return llvm::createStringError(
        "--mixed: %lld slots and a prompt are more than %d rows",
        static_cast<long long>(slots), static_cast<int>(KVRM_MAX_ROWS));
  return llvm::Error::success();
}

/// A GPU's activations are of the cache's element, unless that is a code.
bool isCacheOfCodes() {
  llvm::Expected<kvrm_element> element = kvrmc::cacheElement(cacheType);
  if (element)
    return kvrm_element_is_code(*element);
  llvm::consumeError(element.takeError()); // told of where it is used
  return false;
}

/// The element of matrices that are in no blocks. A GPU multiplies them with
/// activations of the same.
std::string matrixType() {
  if (weightType != "file" && !kvrm::codedFormat(weightType))
    return weightType;
  bool isOfCache = isForGPU() && !isCacheOfCodes();
  return isOfCache ? std::string(cacheType) : std::string("f16");
}

/// Those of a graph are in no blocks.
std::string graphMatrixType() {
  return weightType == "file" ? std::string("f16") : std::string(weightType);
}

/// What GPUs have not, or not yet.
llvm::Error checkGPUOptions() {
  if (schedule != "auto" && schedule != "workqueue")
    return llvm::createStringError(
        "--schedule: '" + schedule +
        "' is for the host; a GPU's package has workqueue and cluster, of "
        "which the runtime chooses");
  if (transport != "native")
    return llvm::createStringError(
        "--transport: '" + transport +
        "' is for the host; on GPUs kvrmc attention --staged compares it");
  if (activations.getNumOccurrences())
    return llvm::createStringError(
        "--activations: a GPU's are of the --weight-type");
  if (rounding.getNumOccurrences() && rounding == Rounding::Int8)
    return llvm::createStringError(
        "--quantized-activations: a GPU multiplies blocks with activations of "
        "16 bits, exact");
  if (matrixType() != cacheType && !isCacheOfCodes())
    return llvm::createStringError("--weight-type: '" + matrixType() +
                                   "' is not the --cache-type, '" + cacheType +
                                   "', of which a GPU's activations are");
  return llvm::Error::success();
}

/// A GPU is busy with arithmetic from a few hundred tokens on, which then take
/// longer than the weights to read. Products take rows by the 128, so that
/// those of a mixed step are to be 512 in all and not a few more.
int64_t prefillChunk() {
  if (!isForGPU() || chunk.getNumOccurrences())
    return chunk;
  constexpr int64_t unit = 64, most = 512;
  int64_t room = std::min<int64_t>(capacity, mixes ? most - slots : most);
  return std::clamp(room / unit * unit, unit, most);
}

/// Where pages lie one behind the other, nothing is gained by small ones.
int64_t gpuPage() {
  constexpr int64_t largest = 64;
  return isStatic && !page.getNumOccurrences() ? largest : page;
}

llvm::Expected<kvrm::GraphShape> decoderShape() {
  llvm::Expected<kvrm_element> cache = cacheElement(cacheType);
  if (!cache)
    return cache.takeError();
  std::string element = matrixType();
  if (element != "f16" && element != "bf16")
    return llvm::createStringError("--weight-type: '" + element +
                                   "' is none of file, f16, bf16, " +
                                   kvrm::codedFormatNames());
  kvrm::GraphShape shape;
  shape.slots = slots;
  shape.capacity = capacity;
  shape.prefillChunk = prefillChunk();
  shape.mixes = mixes;
  shape.cache = *cache;
  shape.bf16Weights = element == "bf16";
  shape.activations = activations;
  // What a GPU's matrix units take: of the pool too, unless that is of bytes.
  if (isForGPU())
    shape.activations = shape.bf16Weights ? kvrm::ActivationType::BF16
                                          : kvrm::ActivationType::F16;
  return shape;
}

/// `decoder` outlives the source.
Source decoderSource(const kvrm::DecoderModel &decoder,
                     const kvrm::GraphShape &shape) {
  Source source;
  source.build = [&decoder, shape](mlir::MLIRContext &context) {
    return kvrm::buildDecoder(context, decoder.config, shape);
  };
  source.model = &decoder;
  source.config = decoder.config;
  source.slots = shape.slots;
  source.capacity = shape.capacity;
  source.cache = shape.cache;
  if (isForGPU())
    source.io = shape.bf16Weights ? KVRM_BF16 : KVRM_F16;
  source.isStatic = isStatic;
  source.isSeeded = isSeeded;
  source.entries = {{"decode_step", shape.slots, 1},
                    {"prefill", 1, shape.prefillChunk}};
  if (shape.mixes)
    source.entries.push_back(
        {.name = "mixed_step", .batches = {"decode_step", "prefill"}});
  return source;
}

llvm::Expected<std::unique_ptr<Target>>
cpuTarget(const kvrm::DecoderConfig &config) {
  llvm::Expected<mlir::kvrm::HostTarget> machine =
      mlir::kvrm::HostTarget::create(archOr("native"));
  if (!machine)
    return machine.takeError();
  int64_t lanes = machine->getLanes();
  if (!isStatic && config.headDim % lanes != 0)
    return llvm::createStringError(
        "--arch: '" + arch + "' has vectors of " + llvm::Twine(lanes) +
        " lanes, of which head_dim " + llvm::Twine(config.headDim) +
        " is no multiple");
  if (rounding.getNumOccurrences() && rounding == Rounding::Int8 &&
      machine->getDot() == "none")
    return llvm::createStringError("--quantized-activations: '" + arch +
                                   "' cannot multiply int8");
  mlir::kvrm::HostPipelineOptions pipeline;
  pipeline.exactActivations = rounding == Rounding::Exact;
  pipeline.isStatic = isStatic;
  pipeline.ranks = tensorParallel.ranks();
  pipeline.page = page;
  pipeline.window = window;
  pipeline.summaries = summaries;
  pipeline.sinks = summaries != 0 ? sinks : 0;
  pipeline.transport = transport;
  pipeline.schedule = schedule;
  pipeline.splits = splits;
  pipeline.kvTile = kvTile;
  return std::make_unique<CPUTarget>(std::move(*machine), pipeline);
}

llvm::Expected<std::unique_ptr<Target>> gpuTarget() {
  llvm::Expected<mlir::kvrm::NVPTXTarget> machine =
      mlir::kvrm::NVPTXTarget::create(archOr("sm_90"));
  if (!machine)
    return machine.takeError();
  GPUTarget::Options options;
  options.pipeline.page = gpuPage();
  options.pipeline.ranks = tensorParallel.ranks();
  options.pipeline.window = window;
  options.pipeline.summaries = summaries;
  options.pipeline.sinks = summaries != 0 ? sinks : 0;
  options.pipeline.kvTile = kvTile;
  options.pipeline.isStatic = isStatic;
  options.isDecoder = true;
  options.isQuiet = quiet;
  return std::make_unique<GPUTarget>(std::move(*machine), options);
}

bool isGraph() {
  return !synthCommand && (llvm::StringRef(model).ends_with(".mlir") ||
                           llvm::StringRef(model).ends_with(".mlirbc"));
}

/// What a graph of another frontend has not, or not yet.
llvm::Error checkGraphOptions() {
  if (llvm::Error error = tensorParallel.checkGraph())
    return error;
  if (isForGPU())
    return llvm::createStringError(
        "--target: graphs of other frontends are compiled for the host alone");
  if (activations.getNumOccurrences())
    return llvm::createStringError(
        "--activations: a graph's are what the graph says");
  if (llvm::Expected<kvrm_element> cache = cacheElement(cacheType); !cache)
    return cache.takeError();
  if (rounding.getNumOccurrences())
    return llvm::createStringError(
        "--quantized-activations: a graph's weights are in no blocks");
  std::string element = graphMatrixType();
  if (element != "f16" && element != "bf16" && element != "f32")
    return llvm::createStringError("--weight-type: '" + element +
                                   "' is none of f32, f16 and bf16");
  if (llvm::Error error = kvrm::checkRange("--slots", slots, 1, KVRM_MAX_ROWS))
    return error;
  return kvrm::checkRange("--prefill-chunk", chunk, 1, KVRM_MAX_QUERIES);
}

llvm::Error runGraph() {
  if (llvm::Error error = checkGraphOptions())
    return error;
  GraphOptions options;
  options.path = model;
  options.weights = weights;
  options.manifest = manifest;
  options.tokenizer = tokenizer;
  options.cacheType = cacheType;
  options.weightType = graphMatrixType();
  options.slots = slots.getNumOccurrences() ? slots : 0;
  options.prefillChunk = chunk;
  options.mixes = mixes;
  options.needsWeights = emit == Emit::Package || emit == Emit::LLVM;
  llvm::Expected<std::unique_ptr<Graph>> graph = openGraph(options);
  if (!graph)
    return graph.takeError();
  if (capacity.getNumOccurrences() && capacity != (*graph)->capacity)
    return llvm::createStringError("--capacity: the graph's is %lld",
                                   static_cast<long long>((*graph)->capacity));
  if (llvm::Error error = checkMixed((*graph)->slots))
    return error;
  if (!quiet)
    for (const std::string &note : (*graph)->notes)
      llvm::errs() << "note: " << kvrm::oneLine(note) << "\n";
  llvm::Expected<std::unique_ptr<Target>> machine =
      cpuTarget((*graph)->model.config);
  if (!machine)
    return machine.takeError();
  Source source = graphSource(**graph);
  source.isStatic = isStatic;
  std::vector<std::string> inputs = (*graph)->model.files;
  if (!manifest.empty())
    inputs.push_back(manifest);
  return compile(std::move(source), **machine, {output, inputs, emit, quiet});
}

/// Where no weight stays in blocks nothing is rounded, nor left as it is.
llvm::Error checkRounding(const kvrm::MatrixPieces &pieces) {
  if (!rounding.getNumOccurrences() || !pieces.empty())
    return llvm::Error::success();
  if (tensorParallel.ranks() > 1)
    return llvm::createStringError("--quantized-activations: the weights of "
                                   "--tensor-parallel are in no blocks");
  return llvm::createStringError(
      "--quantized-activations: no weights are in blocks");
}

/// Which matrices stay in blocks, or are brought to them.
llvm::Error chooseBlocks(kvrm::DecoderModel &decoder, kvrm::GraphShape &shape) {
  std::optional<kvrm::BlockFormat> coded = kvrm::codedFormat(weightType);
  // Ranks have slices of matrices, and blocks are not sliced.
  bool isSliced = tensorParallel.ranks() > 1;
  if (coded && isSliced)
    return llvm::createStringError("--weight-type: the weights of "
                                   "--tensor-parallel are in no blocks");
  if (coded)
    if (llvm::Error error = kvrm::codeMatrices(decoder, *coded))
      return error;
  if (coded || (weightType == "file" && !isSliced))
    shape.pieces = decoder.matricesInBlocks();
  return checkRounding(shape.pieces);
}

llvm::Error run() {
  if (isAttentionCommand())
    return runAttention();
  if (target != "host" && !isForGPU())
    return llvm::createStringError("--target: '" + target +
                                   "' is neither host nor nvptx");
  if (llvm::Error error = checkFarHistory())
    return error;
  if (llvm::Error error = checkTile(kvTile))
    return error;
  if (isGraph())
    return runGraph();
  if (llvm::Error error = checkMixed(slots))
    return error;
  if (!weights.empty() || !manifest.empty() || !tokenizer.empty())
    return llvm::createStringError(
        "--weights, --manifest and --tokenizer are for a graph, a file of "
        ".mlir or .mlirbc");
  if (isForGPU())
    if (llvm::Error error = checkGPUOptions())
      return error;
  llvm::Expected<kvrm::GraphShape> shape = decoderShape();
  if (!shape)
    return shape.takeError();
  llvm::Expected<kvrm::DecoderModel> decoder = openModel();
  if (!decoder)
    return decoder.takeError();
  if (llvm::Error error = checkModelWindows(decoder->config))
    return error;
  if (llvm::Error error =
          tensorParallel.check(decoder->config, isStatic && !isForGPU()))
    return error;
  if (llvm::Error error = chooseBlocks(*decoder, *shape))
    return error;
  llvm::Expected<std::unique_ptr<Target>> machine =
      isForGPU() ? gpuTarget() : cpuTarget(decoder->config);
  if (!machine)
    return machine.takeError();
  return compile(decoderSource(*decoder, *shape), **machine,
                 {output, decoder->files, emit, quiet});
}

} // namespace

/// Every failure is one line on standard error.
static int fail(llvm::StringRef message) {
  kvrm::pauseIfEnding();
  std::string line = message.str();
  std::replace(line.begin(), line.end(), '\n', ' ');
  llvm::errs() << "kvrmc: error: " << kvrm::oneLine(std::move(line)) << "\n";
  return 1;
}

/// Parses the command line. LLVM hands some of its messages back and prints
/// others to standard error at once; both end up in `message`.
static bool parseCommandLine(int argc, char **argv, std::string &message) {
  llvm::raw_string_ostream handedBack(message);
  std::FILE *printed = std::tmpfile();
  int standardError = printed ? ::dup(STDERR_FILENO) : -1;
  if (standardError >= 0)
    ::dup2(::fileno(printed), STDERR_FILENO);
  bool isParsed = cl::ParseCommandLineOptions(
      argc, argv, "kvrm compiler: a decoder to an ahead-of-time package\n",
      &handedBack);
  if (standardError >= 0) {
    ::dup2(standardError, STDERR_FILENO);
    ::close(standardError);
    (void)std::fseek(printed, 0, SEEK_SET);
    char text[1024];
    size_t count = std::fread(text, 1, sizeof(text), printed);
    message.insert(0, text, count);
  }
  if (printed)
    std::fclose(printed);
  return isParsed;
}

/// What LLVM calls fatal is a failure like any other: of the input or of the
/// machine, and one line.
[[noreturn]] static void onFatalError(void *, const char *reason, bool) {
  std::exit(fail(reason));
}

static void printVersion(llvm::raw_ostream &os) {
  os << "kvrmc " KVRM_VERSION ", with LLVM " LLVM_VERSION_STRING "\n";
}

int main(int argc, char **argv) {
  kvrm::openStandardStreams();
  // Before LLVM sets handlers of its own, which let ours follow: it cannot be
  // told afterwards which signals are ignored.
  kvrm::removeUnfinishedAtEnd();
  llvm::InitLLVM init(argc, argv);
  llvm::install_fatal_error_handler(onFatalError);
  cl::SetVersionPrinter(printVersion);
  cl::HideUnrelatedOptions(category());
  cl::HideUnrelatedOptions(category(), synthCommand);
  std::string message;
  if (!parseCommandLine(argc, argv, message)) {
    // The first line says what is wrong, others what else is wrong.
    llvm::StringRef first = llvm::StringRef(message).split('\n').first;
    first.consume_front(llvm::sys::path::filename(argv[0]));
    first.consume_front(":");
    return fail(first.trim());
  }
  if (llvm::Error error = run())
    return fail(llvm::toString(std::move(error)));
  return 0;
}
