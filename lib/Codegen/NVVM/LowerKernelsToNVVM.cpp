//===- LowerKernelsToNVVM.cpp - Tile programs to GPU kernels --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DeviceKernel.h"
#include "WorkItems.h"

#include "kvrm/Codegen/Passes.h"

#include "llvm/Support/MathExtras.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_LOWERKERNELSTONVVMPASS
#include "kvrm/Codegen/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {
class LowerKernelsToNVVMPass
    : public kvrm::impl::LowerKernelsToNVVMPassBase<LowerKernelsToNVVMPass> {
public:
  using LowerKernelsToNVVMPassBase::LowerKernelsToNVVMPassBase;
  void runOnOperation() override;

private:
  FailureOr<DeviceOptions> readOptions();
};
} // namespace

/// The same of a kernel with more query rows than a warp has.
static LogicalResult checkPromptKernel(KernelOp kernel,
                                       const kvrm_head_shape &shape,
                                       const DeviceOptions &options) {
  if (!options.isHopper() || kernel.getTile().getQ() == 1)
    return kernel.emitOpError("has ")
           << kernel.getQueryRows() << " query rows a tile; this target "
           << "takes at most " << shape.query_rows << " at head_dim "
           << shape.head_dim;
  if (kernel.getQueryRows() % shape.query_rows != 0 ||
      kernel.getQueryRows() > KVRM_MAX_PROMPT_WARPS * shape.query_rows)
    return kernel.emitOpError("has ")
           << kernel.getQueryRows() << " query rows a tile; this target takes "
           << "up to " << shape.query_rows << " at head_dim " << shape.head_dim
           << ", or a multiple of that up to "
           << KVRM_MAX_PROMPT_WARPS * shape.query_rows;
  if (kernel.getTransport() == Transport::Staged)
    return kernel.emitOpError("has ")
           << kernel.getQueryRows() << " query rows a tile over staged pages; "
           << "this target takes at most " << shape.query_rows;
  return success();
}

/// What the generated code takes for granted.
static LogicalResult checkKernel(KernelOp kernel,
                                 const DeviceOptions &options) {
  PoolType pool = kernel.getPool();
  if (pool.getLayout() != Layout::Swizzled)
    return kernel.emitOpError(
               "needs a pool of layout swizzled for this target, "
               "got ")
           << stringifyLayout(pool.getLayout());
  // q, k, v and out of kvrm_device_args are what matrix units take.
  bool isOfBytes = pool.getElement().getIntOrFloatBitWidth() == 8;
  if (isOfBytes ? kernel.getIo().isF32() : kernel.getIo() != pool.getElement())
    return kernel.emitOpError("has io ")
           << kernel.getIo() << " over a pool of " << pool.getElement()
           << "; this target takes activations of "
           << (isOfBytes ? "f16 or bf16" : "the pool's element");
  if (pool.getPage() != 16 && pool.getPage() != 32 && pool.getPage() != 64)
    return kernel.emitOpError("has pages of ")
           << pool.getPage() << " tokens; this target takes 16, 32 and 64";
  if (kernel.attends()) {
    const kvrm_head_shape &shape = *kvrm_head_shape_of(pool.getHeadDim());
    if (kernel.getQueryRows() > shape.query_rows &&
        failed(checkPromptKernel(kernel, shape, options)))
      return failure();
    int32_t strip = kvrm_strip_tokens(&shape, isOfBytes ? 1 : 2);
    if (kernel.getTile().getKv() % strip != 0)
      return kernel.emitOpError("has a KV tile of ")
             << kernel.getTile().getKv() << " tokens; this target takes "
             << "multiples of " << strip;
  }
  return success();
}

/// The kernels of a step serve the schedule of each of its batches.
static LogicalResult checkPlan(Operation *step, StepPlanAttr plan,
                               const DeviceOptions &options) {
  ScheduleAttr schedule = plan.getSchedule();
  if (schedule.getKind() == ScheduleKind::Workqueue)
    return success();
  if (schedule.getKind() != ScheduleKind::Cluster)
    return step->emitOpError("has the schedule ")
           << stringifyScheduleKind(schedule.getKind())
           << "; this target takes workqueue and cluster";
  if (plan.getTransport().getValue() == Transport::Staged)
    return step->emitOpError("stages pages for clusters; this target does for "
                             "a workqueue alone");
  if (schedule.getBlocks() > 1 && !options.isHopper())
    return step->emitOpError("has clusters of ")
           << schedule.getBlocks() << " blocks, which sm_" << options.sm
           << " has not";
  return success();
}

FailureOr<DeviceOptions> LowerKernelsToNVVMPass::readOptions() {
  FailureOr<DeviceOptions> result =
      readDeviceOptions(getOperation().getLoc(), arch);
  if (failed(result))
    return failure();
  if (warps < 0 || warps > 16 || (warps && !llvm::isPowerOf2_64(warps))) {
    emitError(getOperation().getLoc())
        << "warps: " << warps.getValue()
        << " is neither 0 nor a power of two up to 16";
    return failure();
  }
  if (stages < 0 || stages > 16) {
    emitError(getOperation().getLoc())
        << "stages: " << stages.getValue() << " is outside 0..16";
    return failure();
  }
  if (blocksPerSM < 1 || blocksPerSM > 8) {
    emitError(getOperation().getLoc())
        << "blocks-per-sm: " << blocksPerSM.getValue() << " is outside 1..8";
    return failure();
  }
  result->warps = warps;
  result->stages = stages;
  result->blocksPerSM = blocksPerSM;
  return result;
}

void LowerKernelsToNVVMPass::runOnOperation() {
  ModuleOp module = getOperation();
  FailureOr<DeviceOptions> options = readOptions();
  if (failed(options))
    return signalPassFailure();
  for (auto func : module.getOps<FunctionOpInterface>())
    if (llvm::any_of(getStepPlans(func), [&](StepPlanAttr plan) {
          return failed(checkPlan(func, plan, *options));
        }))
      return signalPassFailure();
  auto kernels = llvm::to_vector(module.getOps<KernelOp>());
  SmallVector<TileProgram> programs;
  for (KernelOp kernel : kernels) {
    FailureOr<TileProgram> program = TileProgram::match(kernel);
    if (failed(program) || failed(checkKernel(kernel, *options)))
      return signalPassFailure();
    programs.push_back(*program);
  }
  if (kernels.empty())
    return;

  OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
  auto device =
      gpu::GPUModuleOp::create(builder, module.getLoc(), "kvrm_kernels");
  writeCommitKernel(module.getLoc(), device, *options);
  if (kernels.front().getSessionType().getSummaries() > 0)
    writeCollapseKernel(module.getLoc(), kernels.front().getPool(), device,
                        *options);
  for (auto [kernel, program] : llvm::zip_equal(kernels, programs)) {
    if (!program.attends()) {
      lowerAppendToNVVM(kernel, device, *options);
      continue;
    }
    if (isPromptKernel(kernel)) {
      lowerPromptAttentionToNVVM(kernel, program, device, *options);
      continue;
    }
    if (failed(lowerAttentionToNVVM(kernel, program, device, *options)))
      return signalPassFailure();
    if (kernel.getTransport() == Transport::Staged)
      writeStageKernel(kernel, device, *options);
  }
}
