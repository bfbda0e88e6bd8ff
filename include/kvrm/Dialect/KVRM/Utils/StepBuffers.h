//===- StepBuffers.h - Where the buffers of a step lie ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// Assigns the buffers of a straight-line step constant offsets in one arena. A
// buffer lives from the first op, in block order, that accesses it, itself or
// by a view, to the last that uses it or a view of it; two that live at once
// never overlap. Greedy best fit by size (Pisarchyk and Lee, "Efficient Memory
// Management for Deep Neural Net Inference", arXiv 2001.03288).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_UTILS_STEPBUFFERS_H
#define KVRM_DIALECT_KVRM_UTILS_STEPBUFFERS_H

#include "mlir/IR/Block.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Operation.h"
#include "mlir/IR/Value.h"
#include "llvm/ADT/SmallVector.h"

namespace mlir::kvrm {

struct ArenaPlan {
  llvm::SmallVector<int64_t> offsets; ///< bytes, one a buffer, 64-byte aligned
  int64_t bytes = 0;                  ///< of the whole arena
};

/// Where a buffer lies: bytes into something that the step is given.
struct BufferPlace {
  Value root; ///< an argument, an allocation, or a field of the rows
  int64_t offset = 0;
};

/// Follows views of `buffer`, a strided buffer of numbers, to what they are
/// views of. Fails, with an error at `user`, if that is none of the above or
/// the distance is not static.
llvm::FailureOr<BufferPlace> findBuffer(Value buffer, Operation *user);

/// Whether a step makes what `buffer` holds: it is no argument of the step.
bool isMadeByStep(Value buffer, Operation *user);

/// All ops that use an allocation, by whatever view, but the views; an op that
/// uses several of them is there as often.
llvm::SmallVector<Operation *> getBufferUsers(Value root);

/// Bytes from the first element of a static buffer to the end of its last.
int64_t getExtentBytes(MemRefType type);

/// The op behind `op` in its block that may read or write memory, allocations
/// aside; null if there is none.
Operation *nextAccess(Operation *op);

/// Plans `buffers`, memrefs of static shape defined by ops of `block`.
llvm::FailureOr<ArenaPlan> planArena(Block &block, ArrayRef<Value> buffers);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_STEPBUFFERS_H
