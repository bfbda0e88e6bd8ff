//===- StepBuffers.cpp - Buffers that share one block of memory --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/StepBuffers.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Matchers.h"
#include "mlir/IR/Operation.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Interfaces/ViewLikeInterface.h"
#include "llvm/ADT/STLExtras.h"

#include <numeric>

using namespace mlir;
using namespace mlir::kvrm;

namespace {
struct Lifetime {
  unsigned begin, end; ///< first op to access it and last to use it, inclusive
  int64_t bytes;
  bool overlaps(const Lifetime &other) const {
    return begin <= other.end && other.begin <= end;
  }
};
} // namespace

Operation *kvrm::nextAccess(Operation *op) {
  Operation *next = op->getNextNode();
  while (next && (isMemoryEffectFree(next) || isa<memref::AllocOp>(next)))
    next = next->getNextNode();
  return next;
}

FailureOr<BufferPlace> kvrm::findBuffer(Value buffer, Operation *user) {
  auto type = dyn_cast<MemRefType>(buffer.getType());
  SmallVector<int64_t> strides;
  int64_t offset = 0;
  if (!type || !type.getElementType().isIntOrFloat() ||
      failed(type.getStridesAndOffset(strides, offset)))
    return user->emitOpError("uses ")
           << buffer.getType() << ", which is not a strided buffer of numbers";
  if (ShapedType::isDynamic(offset))
    return user->emitOpError("uses a buffer at an offset that is not static");
  // A view's type counts from where the whole starts, but for memref.view.
  BufferPlace place{buffer, offset * type.getElementTypeBitWidth() / 8};
  while (auto view = place.root.getDefiningOp<ViewLikeOpInterface>()) {
    if (auto shifted = dyn_cast<memref::ViewOp>(view.getOperation())) {
      llvm::APInt shift;
      if (!matchPattern(shifted.getByteShift(), m_ConstantInt(&shift)))
        return shifted.emitOpError("in a step must be at a constant place");
      place.offset += shift.getSExtValue();
    }
    place.root = view.getViewSource();
  }
  if (!isa<BlockArgument>(place.root) &&
      !isa<memref::AllocOp, PositionsOp, CountsOp>(place.root.getDefiningOp()))
    return user->emitOpError("uses a buffer of unknown origin");
  return place;
}

bool kvrm::isMadeByStep(Value buffer, Operation *user) {
  FailureOr<BufferPlace> place = findBuffer(buffer, user);
  return succeeded(place) && place->root.getDefiningOp<memref::AllocOp>();
}

SmallVector<Operation *> kvrm::getBufferUsers(Value root) {
  SmallVector<Operation *> users;
  SmallVector<Value> views = {root};
  while (!views.empty())
    for (Operation *user : views.pop_back_val().getUsers()) {
      if (isa<ViewLikeOpInterface>(user))
        llvm::append_range(views, user->getResults());
      else
        users.push_back(user);
    }
  return users;
}

int64_t kvrm::getExtentBytes(MemRefType type) {
  SmallVector<int64_t> strides = type.getStridesAndOffset().first;
  int64_t last = 0;
  for (auto [size, stride] : llvm::zip_equal(type.getShape(), strides))
    last += (size - 1) * stride;
  return (last + 1) * type.getElementTypeBitWidth() / 8;
}

FailureOr<ArenaPlan> kvrm::planArena(Block &block, ArrayRef<Value> buffers) {
  DenseMap<Operation *, unsigned> order;
  for (Operation &op : block)
    order[&op] = order.size();

  SmallVector<Lifetime> lifetimes;
  for (Value buffer : buffers) {
    auto type = cast<MemRefType>(buffer.getType());
    if (!type.hasStaticShape() || !type.getLayout().isIdentity() ||
        !type.getElementType().isIntOrFloat())
      return emitError(buffer.getLoc(), "a buffer of a step must be static and "
                                        "contiguous, got ")
             << buffer.getType();
    // It may be defined long before anything is in it.
    unsigned begin = order.size(), end = order.lookup(buffer.getDefiningOp());
    SmallVector<Value> aliases = {buffer};
    while (!aliases.empty()) {
      for (Operation *user : aliases.pop_back_val().getUsers()) {
        unsigned at = order.lookup(block.findAncestorOpInBlock(*user));
        end = std::max(end, at);
        if (isa<ViewLikeOpInterface>(user))
          llvm::append_range(aliases, user->getResults());
        else
          begin = std::min(begin, at);
      }
    }
    begin = std::min(begin, end);
    lifetimes.push_back(
        {begin, end,
         kvrm_align_up(llvm::divideCeil(
             type.getNumElements() * type.getElementTypeBitWidth(), 8))});
  }

  // Large buffers first, each in the smallest gap that holds it.
  SmallVector<unsigned> bySize(buffers.size());
  std::iota(bySize.begin(), bySize.end(), 0);
  llvm::stable_sort(bySize, [&](unsigned lhs, unsigned rhs) {
    return lifetimes[lhs].bytes > lifetimes[rhs].bytes;
  });
  ArenaPlan plan;
  plan.offsets.resize(buffers.size());
  SmallVector<unsigned> placed; // by offset
  for (unsigned index : bySize) {
    int64_t bytes = lifetimes[index].bytes, cursor = 0;
    int64_t best = -1, bestGap = std::numeric_limits<int64_t>::max();
    for (unsigned other : placed) {
      if (!lifetimes[other].overlaps(lifetimes[index]))
        continue;
      int64_t gap = plan.offsets[other] - cursor;
      if (gap >= bytes && gap < bestGap) {
        best = cursor;
        bestGap = gap;
      }
      cursor = std::max(cursor, plan.offsets[other] + lifetimes[other].bytes);
    }
    plan.offsets[index] = best >= 0 ? best : cursor;
    plan.bytes = std::max(plan.bytes, plan.offsets[index] + bytes);
    placed.insert(llvm::upper_bound(placed, index,
                                    [&](unsigned lhs, unsigned rhs) {
                                      return plan.offsets[lhs] <
                                             plan.offsets[rhs];
                                    }),
                  index);
  }
  return plan;
}
