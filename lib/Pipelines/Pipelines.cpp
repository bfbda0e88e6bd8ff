//===- Pipelines.cpp - From decoder IR to a target ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Pipelines/Pipelines.h"

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Conversion/Passes.h"
#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Products.h"
#include "kvrm/runtime/abi/pool.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Linalg/Passes.h"
#include "mlir/Dialect/MemRef/Transforms/Passes.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace mlir::kvrm;

void kvrm::buildRaisePipeline(OpPassManager &pm,
                              const ImportPipelineOptions &options) {
  pm.addPass(createInlinerPass());
  pm.addPass(createSymbolDCEPass());
  pm.addPass(createImportGraphPass());
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  RaiseStaticCachePassOptions raising;
  raising.narrow = options.narrow;
  raising.causalMasks.assign(options.causalMasks.begin(),
                             options.causalMasks.end());
  raising.positions.assign(options.positions.begin(), options.positions.end());
  pm.addPass(createRaiseStaticCachePass(raising));
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

void kvrm::buildAdoptPipeline(OpPassManager &pm,
                              const ImportPipelineOptions &options) {
  auto simplify = [&] {
    pm.addPass(createCanonicalizerPass());
    pm.addPass(createCSEPass());
  };
  pm.addPass(createAdoptStepPass());
  pm.addPass(createLinalgGeneralizeNamedOpsPass());
  pm.addPass(createWidenDensePass());
  pm.addPass(createLinalgFoldUnitExtentDimsPass());
  pm.addNestedPass<func::FuncOp>(createFuseElementwisePass());
  simplify();
  pm.addPass(
      createBatchStepPass({options.slots, options.chunk, options.mixed}));
  simplify();
  pm.addPass(createArrangeWeightsPass({options.element}));
  pm.addNestedPass<func::FuncOp>(createFuseElementwisePass());
  simplify();
}

/// Before all else: what follows sees the step of one rank.
static void addSharding(OpPassManager &pm, int64_t ranks) {
  if (ranks != 1)
    pm.addPass(createShardStepPass({ranks}));
}

void kvrm::buildPagedPipeline(OpPassManager &pm,
                              const HostPipelineOptions &options) {
  addSharding(pm, options.ranks);
  if (options.isStatic) {
    pm.addPass(createStaticBaselinePass({options.lanes}));
    return;
  }
  PageCachePassOptions paging;
  paging.page = options.page;
  paging.window = options.window;
  paging.summaries = options.summaries;
  paging.sinks = options.sinks;
  paging.transport = options.transport;
  pm.addPass(createPageCachePass(paging));
  pm.addPass(createMergeTransportPass());
  SelectSchedulePassOptions scheduling;
  scheduling.schedule = options.schedule;
  scheduling.splits = options.splits;
  scheduling.kvTile = options.kvTile;
  pm.addPass(createSelectSchedulePass(scheduling));
}

void kvrm::buildHostKernelsPipeline(OpPassManager &pm,
                                    const HostPipelineOptions &options) {
  if (!options.isStatic)
    pm.addPass(createGenerateKernelsPass());
  // Two vectors a panel: at eight rows that is half of AVX-512's registers.
  const int64_t panel = 2 * options.lanes;
  // No kernel here is for a form; but a residual needs no op of its own.
  pm.addPass(createFormDispatchesPass());
  pm.addPass(createDecomposeFormsPass({panel}));
  PackWeightsPassOptions packing;
  packing.panel = panel;
  packing.blockPanel = options.lanes;
  packing.exactActivations = options.exactActivations || options.dot == "none";
  pm.addPass(createPackWeightsPass(packing));
  // No CSE before this: two zero-fills made one would have to be copied.
  pm.addPass(createBufferizeStepPass());
  pm.addPass(createOutlineDispatchesPass());
}

void kvrm::buildHostLLVMPipeline(OpPassManager &pm,
                                 const HostPipelineOptions &options) {
  if (!options.isStatic)
    pm.addPass(createLowerKernelsToHostPass({options.lanes}));
  pm.addPass(createLowerDenseToHostPass({options.lanes, options.dot}));
  pm.addPass(createConvertKVRMToRuntimePass());
  pm.addPass(createApproximateMathPass());
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  pm.addPass(memref::createExpandStridedMetadataPass());
  pm.addPass(createLowerAffinePass());
  pm.addPass(createSCFToControlFlowPass());
  pm.addPass(createConvertVectorToLLVMPass());
  pm.addPass(createConvertMathToLLVMPass());
  pm.addPass(createFinalizeMemRefToLLVMConversionPass());
  pm.addPass(createArithToLLVMConversionPass());
  pm.addPass(createConvertIndexToLLVMPass());
  pm.addPass(createConvertControlFlowToLLVMPass());
  pm.addPass(createConvertFuncToLLVMPass());
  pm.addPass(createReconcileUnrealizedCastsPass());
  pm.addPass(createCSEPass());
}

void kvrm::buildHostPipeline(OpPassManager &pm,
                             const HostPipelineOptions &options) {
  buildPagedPipeline(pm, options);
  buildHostKernelsPipeline(pm, options);
  buildHostLLVMPipeline(pm, options);
}

void kvrm::buildNVVMPagedPipeline(OpPassManager &pm,
                                  const NVVMPipelineOptions &options) {
  addSharding(pm, options.ranks);
  PageCachePassOptions paging;
  paging.page = options.page;
  paging.layout = "swizzled";
  paging.padded = options.isStatic;
  paging.window = options.window;
  paging.summaries = options.summaries;
  paging.sinks = options.sinks;
  pm.addPass(createPageCachePass(paging));
  pm.addPass(createMergeTransportPass());
  SelectSchedulePassOptions scheduling;
  scheduling.schedule = "workqueue";
  scheduling.kvTile = options.kvTile;
  // Kernels alone are there to be measured, schedule by schedule.
  if (options.dense && options.arch != "sm_80")
    scheduling.promptWarps = KVRM_MAX_PROMPT_WARPS;
  pm.addPass(createSelectSchedulePass(scheduling));
}

void kvrm::buildNVVMKernelsPipeline(OpPassManager &pm,
                                    const NVVMPipelineOptions &options) {
  if (options.dense) {
    pm.addPass(createFormDispatchesPass());
    pm.addPass(createSplitProductsPass());
  }
  pm.addPass(createGenerateKernelsPass());
  if (!options.dense)
    return;
  // Row-major: a copy of a tile is one of each of its rows.
  pm.addPass(createPackWeightsPass({/*panel=*/0, /*blockPanel=*/kMatrixPanel}));
  pm.addPass(createBufferizeStepPass());
  pm.addPass(createSampleOnDevicePass());
}

void kvrm::buildNVVMPipeline(OpPassManager &pm,
                             const NVVMPipelineOptions &options) {
  LowerKernelsToNVVMPassOptions lowering;
  lowering.arch = options.arch;
  lowering.warps = options.warps;
  lowering.stages = options.stages;
  lowering.blocksPerSM = options.blocksPerSM;
  pm.addPass(createLowerKernelsToNVVMPass(lowering));
  if (options.dense)
    pm.addPass(createLowerDenseToNVVMPass({options.arch}));
  auto &kernels = pm.nest<gpu::GPUModuleOp>();
  kernels.addPass(createCanonicalizerPass());
  kernels.addPass(createCSEPass());
  kernels.addPass(createSCFToControlFlowPass());
  kernels.addPass(createConvertMathToLLVMPass());
  kernels.addPass(createArithToLLVMConversionPass());
  // Nothing outside the kernels is in this dialect.
  pm.addPass(createConvertControlFlowToLLVMPass());
  auto &device = pm.nest<gpu::GPUModuleOp>();
  device.addPass(createConvertNVVMToLLVMPass());
  device.addPass(createReconcileUnrealizedCastsPass());
}

void kvrm::buildToNVVMPipeline(OpPassManager &pm,
                               const NVVMPipelineOptions &options) {
  buildNVVMPagedPipeline(pm, options);
  buildNVVMKernelsPipeline(pm, options);
  buildNVVMPipeline(pm, options);
}

void kvrm::registerKVRMPipelines() {
  PassPipelineRegistration<NVVMPipelineOptions>(
      "kvrm-to-nvvm",
      "Lower static decoder IR to kernels for NVIDIA GPUs, in the LLVM and "
      "NVVM "
      "dialects: attention, and with `dense` the rest, which else stays as it "
      "is",
      buildToNVVMPipeline);
  PassPipelineRegistration<ImportPipelineOptions>(
      "kvrm-import-step",
      "Raise a decode step of another frontend, and make it and a prefill of "
      "it what the frontends of kvrm make",
      [](OpPassManager &pm, const ImportPipelineOptions &options) {
        buildRaisePipeline(pm, options);
        buildAdoptPipeline(pm, options);
      });
  PassPipelineRegistration<HostPipelineOptions>(
      "kvrm-to-host",
      "Lower static decoder IR to the LLVM dialect for a CPU, over the paged "
      "runtime or as the static baseline",
      buildHostPipeline);
}
