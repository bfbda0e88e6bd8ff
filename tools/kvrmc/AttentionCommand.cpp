//===- AttentionCommand.cpp - kvrmc attention --------------------------- -===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionCommand.h"

#include "AttentionGraph.h"
#include "CommandOptions.h"
#include "Compiler.h"
#include "GPUTarget.h"

#include "kvrm/runtime/abi/pool.h"

using namespace kvrmc;
namespace cl = llvm::cl;

namespace {

cl::SubCommand attentionCommand("attention",
                                "Compile attention kernels for an NVIDIA GPU");

#define KVRMC_ATTENTION_OPTION(type, name, flag, value, text)                  \
  cl::opt<type> name(flag, cl::desc(text), cl::init(value),                    \
                     cl::cat(category()), cl::sub(attentionCommand))
KVRMC_ATTENTION_OPTION(int64_t, attentionHeads, "heads", 32,
                       "Query heads (32)");
KVRMC_ATTENTION_OPTION(int64_t, attentionKvHeads, "kv-heads", 8,
                       "KV heads (8)");
KVRMC_ATTENTION_OPTION(int64_t, attentionHeadDim, "head-dim", 128,
                       "Head dimension: " KVRM_HEAD_SHAPES_TEXT " (128)");
KVRMC_ATTENTION_OPTION(int64_t, attentionQueries, "queries", 1,
                       "Query tokens a slot and step (1)");
KVRMC_ATTENTION_OPTION(int64_t, attentionPage, "page-size", 16,
                       "Tokens a page: 16, 32 or 64 (16)");
KVRMC_ATTENTION_OPTION(int64_t, attentionKvTile, "kv-tile", 64,
                       "Cached tokens a tile of work (64)");
KVRMC_ATTENTION_OPTION(int64_t, attentionWarps, "warps", 0,
                       "Warps of a block; 0: as suits the head dimension (0)");
KVRMC_ATTENTION_OPTION(int64_t, attentionStages, "stages", 0,
                       "Strips in flight a warp; 0: all that fit (0)");
KVRMC_ATTENTION_OPTION(int64_t, attentionBlocksPerSM, "blocks-per-sm", 1,
                       "Blocks that share a multiprocessor (1)");
KVRMC_ATTENTION_OPTION(std::string, attentionElement, "cache-type", "f16",
                       "Element of the pool: f16, bf16, f8e4m3 or int8");
KVRMC_ATTENTION_OPTION(std::string, attentionIo, "activations", "",
                       "Element of queries and output: f16 or bf16; that of "
                       "the pool, and f16 with one of bytes");
KVRMC_ATTENTION_OPTION(std::string, attentionArch, "arch", "sm_90",
                       "sm_80 or sm_90 (sm_90)");
KVRMC_ATTENTION_OPTION(bool, attentionStaged, "staged", false,
                       "Kernels over staged pages too, to compare");
KVRMC_ATTENTION_OPTION(bool, attentionResources, "resources", false,
                       "Print registers and spills, as ptxas reports them");
KVRMC_ATTENTION_OPTION(bool, attentionQuiet, "quiet", false,
                       "Say nothing but errors");
#undef KVRMC_ATTENTION_OPTION
cl::opt<std::string>
    attentionOutput("o", cl::desc("Kernel set to write, or file to emit"),
                    cl::value_desc("path"), cl::cat(category()),
                    cl::sub(attentionCommand));
cl::opt<Emit> attentionEmit(
    "emit", cl::desc("Stop at a phase:"),
    cl::values(clEnumValN(Emit::Static, "static", "phase 1: static graph"),
               clEnumValN(Emit::Paged, "paged", "phase 2: paged session"),
               clEnumValN(Emit::Kernels, "kernels", "phase 3: tile programs"),
               clEnumValN(Emit::LLVM, "llvm", "optimised LLVM IR"),
               clEnumValN(Emit::PTX, "ptx", "PTX"),
               clEnumValN(Emit::Package, "package", "the package (default)")),
    cl::init(Emit::Package), cl::cat(category()), cl::sub(attentionCommand));

} // namespace

bool kvrmc::isAttentionCommand() { return static_cast<bool>(attentionCommand); }

/// What goes in and out beside a pool of `cache`.
static llvm::Expected<kvrm_element> ioElement(kvrm_element cache) {
  if (attentionIo.empty())
    return kvrm_element_is_code(cache) ? KVRM_F16 : cache;
  llvm::Expected<bool> isIoBF16 = isBF16("activations", attentionIo);
  if (!isIoBF16)
    return isIoBF16.takeError();
  kvrm_element io = *isIoBF16 ? KVRM_BF16 : KVRM_F16;
  if (!kvrm_element_is_code(cache) && cache != io)
    return llvm::createStringError("--activations: '" + attentionIo +
                                   "' is not the --cache-type, '" +
                                   attentionElement + "'");
  return io;
}

llvm::Error kvrmc::runAttention() {
  if (llvm::Error error = checkTile(attentionKvTile))
    return error;
  llvm::Expected<kvrm_element> cache = cacheElement(attentionElement);
  if (!cache)
    return cache.takeError();
  llvm::Expected<kvrm_element> io = ioElement(*cache);
  if (!io)
    return io.takeError();
  llvm::Expected<Source> source = attentionSource({.heads = attentionHeads,
                                                   .kvHeads = attentionKvHeads,
                                                   .headDim = attentionHeadDim,
                                                   .pageTokens = attentionPage,
                                                   .queries = attentionQueries,
                                                   .cache = *cache,
                                                   .io = *io});
  if (!source)
    return source.takeError();
  llvm::Expected<mlir::kvrm::NVPTXTarget> machine =
      mlir::kvrm::NVPTXTarget::create(attentionArch);
  if (!machine)
    return machine.takeError();
  GPUTarget::Options options;
  options.pipeline.page = attentionPage;
  options.pipeline.kvTile = attentionKvTile;
  options.pipeline.warps = attentionWarps;
  options.pipeline.stages = attentionStages;
  options.pipeline.blocksPerSM = attentionBlocksPerSM;
  options.isStaged = attentionStaged;
  options.printsResources = attentionResources;
  options.isQuiet = attentionQuiet;
  GPUTarget gpu(std::move(*machine), options);
  return compile(std::move(*source), gpu,
                 {attentionOutput, {}, attentionEmit, attentionQuiet});
}
