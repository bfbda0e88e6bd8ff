//===- DenseKernels.h - The dense part on a GPU -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writers of dense kernels, one a kind of op. A kernel takes the addresses of
// its ops' buffers, inputs first, and waits for what was launched ahead of it
// before it touches anything that is not a weight (programmatic dependent
// launch, sm_90).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_DENSEKERNELS_H
#define KVRM_CODEGEN_NVVM_DENSEKERNELS_H

#include "DeviceKernel.h"
#include "RowSquares.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

#include <array>
#include <optional>
#include <string>

namespace mlir::kvrm {

/// What an op's kernel is launched with.
struct DenseLaunch {
  std::array<int64_t, 3> grid = {1, 1, 1};
  bool perProcessor = false; ///< grid[0] counts for each multiprocessor
};

/// The pool that a kernel appends keys and values to, and the tokens of a row.
struct AppendTarget {
  PoolType pool;
  int64_t queries;

  bool operator==(const AppendTarget &) const = default;
};

/// The buffers of ops, each once, in the order of its kernel's parameters.
struct DenseBuffers {
  SmallVector<Value> inputs, outputs;

  static DenseBuffers of(LinearOp op, const RowSquares &squares);
  static DenseBuffers of(RmsNormOp op);
  static DenseBuffers of(UnpackBlocksOp op);
  /// Without key and value, if the kernel appends them.
  static DenseBuffers of(QKVProjectionOp op, const RowSquares &squares,
                         const std::optional<AppendTarget> &append);
  /// Fails, with an error, for an op that uses a value that is neither a buffer
  /// nor a constant.
  static FailureOr<DenseBuffers> of(ArrayRef<linalg::LinalgOp> ops);

  int64_t size() const {
    return static_cast<int64_t>(inputs.size() + outputs.size());
  }
};

/// A product with a weight, by matrix units where the shape allows. Fails, with
/// an error, for a norm where it does not.
FailureOr<DenseLaunch> writeLinearKernel(LinearOp op, const RowSquares &squares,
                                         StringRef name,
                                         gpu::GPUModuleOp module,
                                         const DeviceOptions &options);

/// Query, key and value. Fails, with an error, for what matrix units do not
/// take.
FailureOr<DenseLaunch>
writeQKVProjectionKernel(QKVProjectionOp op, const RowSquares &squares,
                         const std::optional<AppendTarget> &append,
                         StringRef name, gpu::GPUModuleOp module,
                         const DeviceOptions &options);

/// One block a row.
DenseLaunch writeNormKernel(RmsNormOp op, StringRef name,
                            gpu::GPUModuleOp module,
                            const DeviceOptions &options);

/// A warp a panel of rows and a few blocks of it.
DenseLaunch writeUnpackKernel(UnpackBlocksOp op, StringRef name,
                              gpu::GPUModuleOp module,
                              const DeviceOptions &options);

/// Any ops of linalg that do not depend on one another: a thread an output
/// element, loops for what is reduced.
FailureOr<DenseLaunch> writeLoopsKernel(ArrayRef<linalg::LinalgOp> ops,
                                        const DenseBuffers &buffers,
                                        StringRef name, gpu::GPUModuleOp module,
                                        const DeviceOptions &options);

/// The kernel that chooses tokens from rows of so many logits.
void writeSampleKernel(Location loc, int64_t vocabulary,
                       gpu::GPUModuleOp module, const DeviceOptions &options);

/// The name of the kernel that sums over so many ranks by their mailboxes: of
/// the buffers out and in, and of kvrm_peers. None for sums that it is not for.
/// `kvrm.all_reduce` stays; a program has the kernel beside it. With kAddSuffix
/// it takes one buffer more, which it adds to the sum.
std::optional<std::string> reduceKernelName(AllReduceOp op, int64_t ranks);
std::array<int64_t, 3> reduceKernelGrid(AllReduceOp op);
void writeReduceKernel(AllReduceOp op, StringRef name, int64_t ranks, bool adds,
                       gpu::GPUModuleOp module, const DeviceOptions &options);
inline constexpr StringLiteral kAddSuffix = "_add";
/// On an all_reduce: nobody uses its output but the next op that does anything,
/// which adds it to something of the same size.
inline constexpr StringLiteral kAddedAttrName = "added";

/// On a product: its weight is none of the package, but what a kernel ahead of
/// it makes.
inline constexpr StringLiteral kMadeWeightAttrName = "made_weight";

/// A buffer as a kernel addresses it. Indices are i64.
struct StridedBuffer {
  Value pointer;
  MemRefType type;

  Value at(DeviceBuilder &b, ValueRange index) const;
  Value load(DeviceBuilder &b, ValueRange index) const {
    return b.load(type.getElementType(), at(b, index));
  }
  void store(DeviceBuilder &b, Value value, ValueRange index) const {
    b.store(value, at(b, index));
  }
};

/// Copies the scalar ops of `body` with `arguments` for its arguments, and
/// returns what it yields. `replace` stands in for an op if it returns a value.
SmallVector<Value>
cloneScalars(DeviceBuilder &b, Block &body, ValueRange arguments,
             function_ref<Value(Operation &, IRMapping &)> replace);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_DENSEKERNELS_H
