//===- DeviceProgram.h - A step of a GPU as a table -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The step program of abi/program.h, from a step of phase 3 whose kernels
// kvrm-lower-kernels-to-nvvm and kvrm-lower-dense-to-nvvm have lowered. Commit,
// appends, attentions and dispatches become commands in their order; each
// attention becomes one command a schedule that there is a kernel for. A step
// is on tensors, all of them its inputs or results, or it is bufferized: then
// its allocations get places in an arena.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_DEVICEPROGRAM_H
#define KVRM_CODEGEN_DEVICEPROGRAM_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

#include <string>

namespace mlir::kvrm {

/// A tile program of this ending reads staged pages; it stands beside the one
/// that reads them natively.
inline constexpr StringLiteral kStagedSuffix = "_staged";

/// One input or output of a step.
struct ProgramTensor {
  std::string name;     ///< input0, input1, ..., output0, ...
  int64_t rowBytes = 0; ///< of a row of the step
};

struct DeviceProgram {
  std::string bytes;
  SmallVector<ProgramTensor> tensors; ///< inputs, then outputs
  int64_t arenaBytes = 0;             ///< of the buffers between commands
};

/// The kernels of a device module, in the order in which programs number them.
SmallVector<LLVM::LLVMFuncOp> getDeviceKernels(gpu::GPUModuleOp device);

/// Writes the program of `step`. With `overlaps` launches may start before the
/// command ahead of them has ended, as kernels for sm_90 and later allow.
/// Reports an error at any op that no command stands for.
FailureOr<DeviceProgram>
writeDeviceProgram(func::FuncOp step, gpu::GPUModuleOp device, bool overlaps);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_DEVICEPROGRAM_H
