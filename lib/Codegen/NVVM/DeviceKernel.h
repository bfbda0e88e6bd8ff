//===- DeviceKernel.h - One generated GPU kernel ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What all generated kernels share: a signature of 8-byte parameters, which is
// kvrm_device_args (abi/device.h), a parameter a field, for those of attention,
// and the attributes that say how to launch them.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_DEVICEKERNEL_H
#define KVRM_CODEGEN_NVVM_DEVICEKERNEL_H

#include "DeviceBuilder.h"

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/IR/TileProgram.h"
#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/abi/program.h"

#include "mlir/Dialect/GPU/IR/GPUDialect.h"

namespace mlir::kvrm {

/// What the generator is told about the GPU.
struct DeviceOptions {
  int64_t sm = 90;    ///< compute capability, times ten
  int64_t warps = 0;  ///< of an attention block; 0 = as its head shape has
  int64_t stages = 0; ///< strips in flight a warp; 0 = what memory allows
  int64_t blocksPerSM = 1;

  /// Bulk copies, clusters and programmatic dependent launch.
  bool isHopper() const { return sm >= 90; }
  /// Shared memory that blocks of one multiprocessor may have in all, as the
  /// CUDA programming guide gives it by compute capability, less the 1 KiB a
  /// block that the system takes.
  int64_t sharedBytes() const {
    int64_t bytes = isHopper() ? 228 : sm == 80 || sm == 87 ? 164 : 100;
    return bytes * 1024 / blocksPerSM - 1024;
  }
};

/// The options of an architecture, sm_80 or sm_90; fails, with an error at
/// `loc`, for another.
FailureOr<DeviceOptions> readDeviceOptions(Location loc, StringRef arch);

/// Lets what follows start, and waits for what went before (sm_90).
void waitForInputs(DeviceBuilder &b, const DeviceOptions &options);

/// The function that the tile program `kernel` becomes in a role.
std::string deviceKernelName(StringRef kernel, DeviceRole role);

/// A kernel being written, and its parameters.
class DeviceKernel {
public:
  /// A kernel of kvrm_device_args.
  DeviceKernel(gpu::GPUModuleOp module, Location loc, StringRef name,
               DeviceRole role, int64_t threads, int64_t sharedBytes,
               const DeviceOptions &options);
  /// A kernel of `pointers` global pointers, and behind them, if it `appends`,
  /// of what kvrm_append_arg_base lists.
  DeviceKernel(gpu::GPUModuleOp module, Location loc, StringRef name,
               int64_t pointers, int64_t threads, int64_t sharedBytes,
               DeviceRole role = DeviceRole::Dense, bool appends = false);
  /// Ends the body.
  void finish() { LLVM::ReturnOp::create(b, ValueRange{}); }

  /// The parameter at `offset` of kvrm_device_args: a global pointer, or i64.
  Value parameter(size_t offset) {
    return function.getArgument(static_cast<unsigned>(offset / 8));
  }
  /// Pointer `index` of a kernel of pointers.
  Value pointer(size_t index) {
    return function.getArgument(static_cast<unsigned>(index));
  }

  /// The parameter of this base of a kernel that appends: a global pointer, or
  /// i64.
  Value appendArgument(kvrm_program_base base);

  /// Address of the block's dynamic shared memory, 1024-byte aligned.
  Value sharedMemory();

private:
  DeviceKernel(gpu::GPUModuleOp module, Location loc, StringRef name,
               ArrayRef<Type> parameters, DeviceKernelAttr launch,
               int64_t blocksPerSM);

  gpu::GPUModuleOp module;
  LLVM::LLVMFuncOp function;

public:
  DeviceBuilder b;
};

/// Writes the attention kernels of a tile program: `_workqueue`, whose blocks
/// take the shares of the descriptor, and `_cluster`, in which one cluster
/// attends to one row, KV head and query tile. Fails, with an error, if they
/// need more shared memory than the GPU has.
LogicalResult lowerAttentionToNVVM(KernelOp kernel, const TileProgram &program,
                                   gpu::GPUModuleOp module,
                                   DeviceOptions options);

/// Whether a tile program has several query tokens, and more rows of them than
/// a warp takes, so that the warps of a block share what they read.
bool isPromptKernel(KernelOp kernel);

/// Writes the attention kernel of such a tile program, `_prompt`, in which a
/// block attends to one row, KV head and query tile (sm_90).
void lowerPromptAttentionToNVVM(KernelOp kernel, const TileProgram &program,
                                gpu::GPUModuleOp module,
                                const DeviceOptions &options);

/// Writes the kernel that appends new keys and values.
void lowerAppendToNVVM(KernelOp kernel, gpu::GPUModuleOp module,
                       const DeviceOptions &options);

/// Writes the kernel that copies transfer groups to the staging memory that
/// `kernel`, of transport staged, attends to.
void writeStageKernel(KernelOp kernel, gpu::GPUModuleOp module,
                      const DeviceOptions &options);

/// Writes the kernel that makes summaries of a page of far history.
void writeCollapseKernel(Location loc, PoolType pool, gpu::GPUModuleOp module,
                         const DeviceOptions &options);

/// Writes the kernel that applies a commit's delta to the descriptor.
void writeCommitKernel(Location loc, gpu::GPUModuleOp module,
                       const DeviceOptions &options);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_DEVICEKERNEL_H
