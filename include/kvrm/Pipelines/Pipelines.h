//===- Pipelines.h - From decoder IR to a target ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// The pipelines of kvrm-opt and kvrmc. A pipeline is three parts, so that a
// driver can stop between them: to pages, to kernels, to LLVM.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_PIPELINES_PIPELINES_H
#define KVRM_PIPELINES_PIPELINES_H

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

namespace mlir::kvrm {

/// What every target is asked: what becomes of tokens past a window, and how
/// many ranks run a step.
template <typename Options>
struct TargetOptions : public PassPipelineOptions<Options> {
  template <typename T>
  using Option = PassPipelineOptions<Options>::template Option<T>;

  Option<int64_t> window{
      *this, "window",
      llvm::cl::desc("Tokens of a request kept exactly; 0 = all"),
      llvm::cl::init(0)};
  Option<int64_t> summaries{
      *this, "summaries",
      llvm::cl::desc("Entries that older tokens collapse to"),
      llvm::cl::init(0)};
  Option<int64_t> sinks{
      *this, "sinks",
      llvm::cl::desc("Entries that are a request's first tokens for good"),
      llvm::cl::init(0)};
  Option<int64_t> ranks{
      *this, "ranks",
      llvm::cl::desc("Ranks that run each step together, split by KV heads"),
      llvm::cl::init(1)};
};

struct HostPipelineOptions : public TargetOptions<HostPipelineOptions> {
  Option<bool> isStatic{*this, "static",
                        llvm::cl::desc("Lower to the static baseline"),
                        llvm::cl::init(false)};
  Option<int64_t> page{*this, "page", llvm::cl::desc("Tokens a page"),
                       llvm::cl::init(16)};
  Option<std::string> transport{*this, "transport",
                                llvm::cl::desc("native or staged"),
                                llvm::cl::init("native")};
  Option<std::string> schedule{*this, "schedule",
                               llvm::cl::desc("auto, rows, split or workqueue"),
                               llvm::cl::init("auto")};
  Option<int64_t> splits{*this, "splits",
                         llvm::cl::desc("Splits of a split schedule"),
                         llvm::cl::init(4)};
  Option<int64_t> kvTile{*this, "kv-tile",
                         llvm::cl::desc("Cached tokens a tile"),
                         llvm::cl::init(64)};
  Option<int64_t> lanes{
      *this, "lanes",
      llvm::cl::desc("f32 lanes of a vector register: 16, 8 or 4"),
      llvm::cl::init(16)};
  Option<std::string> dot{
      *this, "dot",
      llvm::cl::desc("What multiplies codes of eight bits: vnni, maddubs or "
                     "none"),
      llvm::cl::init("vnni")};
  Option<bool> exactActivations{
      *this, "exact-activations",
      llvm::cl::desc("Multiply weights in blocks with activations in f32, and "
                     "not rounded to eight bits; always so without a dot"),
      llvm::cl::init(false)};
};

/// Options of `kvrm-to-nvvm`.
struct NVVMPipelineOptions : public TargetOptions<NVVMPipelineOptions> {
  Option<int64_t> page{*this, "page", llvm::cl::desc("Tokens a page"),
                       llvm::cl::init(16)};
  Option<int64_t> kvTile{*this, "kv-tile",
                         llvm::cl::desc("Cached tokens a tile"),
                         llvm::cl::init(64)};
  Option<bool> isStatic{
      *this, "static",
      llvm::cl::desc("Attend over whole capacities, as a static graph does"),
      llvm::cl::init(false)};
  Option<std::string> arch{*this, "arch", llvm::cl::desc("sm_80 or sm_90"),
                           llvm::cl::init("sm_90")};
  Option<int64_t> warps{*this, "warps",
                        llvm::cl::desc("Warps of an attention block; 0 = as "
                                       "suits the head dimension"),
                        llvm::cl::init(0)};
  Option<int64_t> stages{*this, "stages",
                         llvm::cl::desc("Strips in flight a warp; 0 = all "
                                        "that shared memory allows"),
                         llvm::cl::init(0)};
  Option<int64_t> blocksPerSM{*this, "blocks-per-sm",
                              llvm::cl::desc("Attention blocks that share a "
                                             "multiprocessor"),
                              llvm::cl::init(1)};
  Option<bool> dense{*this, "dense",
                     llvm::cl::desc("Lower the dense part of steps, too"),
                     llvm::cl::init(false)};
};

/// Options of `kvrm-import-step`.
struct ImportPipelineOptions
    : public PassPipelineOptions<ImportPipelineOptions> {
  Option<std::string> narrow{*this, "narrow",
                             llvm::cl::desc("Element of caches that are f32"),
                             llvm::cl::init("f16")};
  ListOption<unsigned> causalMasks{
      *this, "causal-masks",
      llvm::cl::desc("Numbers of arguments that are causal masks")};
  ListOption<unsigned> positions{
      *this, "positions",
      llvm::cl::desc("Numbers of arguments that are the position")};
  Option<int64_t> slots{
      *this, "slots",
      llvm::cl::desc("Requests decoded at once; 0: as the graph has it"),
      llvm::cl::init(0)};
  Option<int64_t> chunk{*this, "chunk",
                        llvm::cl::desc("Prompt tokens of a prefill step"),
                        llvm::cl::init(64)};
  Option<bool> mixed{*this, "mixed",
                     llvm::cl::desc("Make a step that decodes and takes a "
                                    "chunk of a prompt, too"),
                     llvm::cl::init(false)};
  Option<std::string> element{*this, "element",
                              llvm::cl::desc("Element of matrices"),
                              llvm::cl::init("f16")};
};

/// A decode step of another frontend to phase 1 as the other pipelines take it:
/// in two parts, between which a driver may look whether the step was raised.
void buildRaisePipeline(OpPassManager &pm,
                        const ImportPipelineOptions &options);
void buildAdoptPipeline(OpPassManager &pm,
                        const ImportPipelineOptions &options);

/// Phase 1 to phase 2, or to the static baseline.
void buildPagedPipeline(OpPassManager &pm, const HostPipelineOptions &options);

/// Phase 2 to phase 3: tile programs, packed weights, buffers, dispatches.
void buildHostKernelsPipeline(OpPassManager &pm,
                              const HostPipelineOptions &options);

/// Phase 3 to the LLVM dialect.
void buildHostLLVMPipeline(OpPassManager &pm,
                           const HostPipelineOptions &options);

/// All three: `kvrm-to-host`.
void buildHostPipeline(OpPassManager &pm, const HostPipelineOptions &options);

/// Phase 1 to phase 2 for an NVIDIA GPU.
void buildNVVMPagedPipeline(OpPassManager &pm,
                            const NVVMPipelineOptions &options);

/// On to phase 3: tile programs and launches of them; with `dense` the dense
/// part as forms and linalg on buffers, else as it was.
void buildNVVMKernelsPipeline(OpPassManager &pm,
                              const NVVMPipelineOptions &options);

/// Tile programs, and with `dense` the dense part, to `gpu.module
/// @kvrm_kernels` in the LLVM and NVVM dialects, ready for NVPTXTarget.
void buildNVVMPipeline(OpPassManager &pm, const NVVMPipelineOptions &options);

/// `kvrm-to-nvvm`: all three of the above.
void buildToNVVMPipeline(OpPassManager &pm, const NVVMPipelineOptions &options);

void registerKVRMPipelines();

} // namespace mlir::kvrm

#endif // KVRM_PIPELINES_PIPELINES_H
