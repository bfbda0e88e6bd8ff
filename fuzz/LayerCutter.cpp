//===- LayerCutter.cpp - Decode steps of fewer layers ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Layers of a decoder are alike, and what goes from one to the next is one
// tensor. It is the last of those, behind a layer's attention, without which
// nothing behind the layer would know of that attention.
//
//===----------------------------------------------------------------------===//

#include "GraphMutator.h"

#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/DenseSet.h"

using namespace mlir;
using namespace fuzz;
using kvrm::raise::AttentionLayer;
using kvrm::raise::RaisableStep;

/// The ops of the body that depend on `root`, but for through `cut`.
static llvm::DenseSet<Operation *> dependOn(Value root, Operation *cut) {
  llvm::DenseSet<Operation *> found;
  SmallVector<Value> todo = {root};
  Block *body = root.getParentBlock();
  while (!todo.empty())
    for (Operation *user : todo.pop_back_val().getUsers()) {
      Operation *op = body->findAncestorOpInBlock(*user);
      if (op != cut && found.insert(op).second)
        llvm::append_range(todo, op->getResults());
    }
  return found;
}

/// Values behind an attention through which alone it reaches what the function
/// returns, in order, up to the next attention.
static SmallVector<Value> bottlenecks(func::FuncOp func, Operation *attention,
                                      Operation *next) {
  Operation *end = func.getBody().front().getTerminator();
  SmallVector<Value> found;
  for (Operation *op = attention->getNextNode(); op != (next ? next : end);
       op = op->getNextNode())
    if (op->getNumResults() == 1 &&
        !dependOn(attention->getResult(0), op).contains(end) &&
        dependOn(attention->getResult(0), nullptr).contains(op))
      found.push_back(op->getResult(0));
  return found;
}

/// Erases what nobody uses.
static void eraseDead(func::FuncOp func) {
  for (Operation &op :
       llvm::make_early_inc_range(llvm::reverse(func.getBody().front())))
    if (!op.hasTrait<OpTrait::IsTerminator>() && op.use_empty() &&
        isMemoryEffectFree(&op))
      op.erase();
}

/// Erases the caches of layers from `kept` on, where they are nobody else's.
static bool eraseCaches(func::FuncOp func, const RaisableStep &step,
                        size_t kept) {
  llvm::BitVector arguments(func.getNumArguments());
  llvm::BitVector results(func.getNumResults());
  for (const AttentionLayer &layer : ArrayRef(step.layers).drop_front(kept))
    for (BlockArgument cache : {layer.keyCache, layer.valueCache})
      arguments.set(cache.getArgNumber());
  for (auto [argument, result] : llvm::zip_equal(step.cacheArguments.set_bits(),
                                                 step.cacheResults.set_bits()))
    if (arguments.test(argument))
      results.set(result);
  func.getBody().front().getTerminator()->eraseOperands(results);
  if (failed(func.eraseResults(results)))
    return false;
  eraseDead(func);
  for (unsigned number : arguments.set_bits())
    if (!func.getArgument(number).use_empty())
      return false;
  return succeeded(func.eraseArguments(arguments));
}

bool fuzz::cutLayers(func::FuncOp func, const RaisableStep &step, size_t kept) {
  ArrayRef<AttentionLayer> layers = step.layers;
  if (layers.size() <= kept)
    return false;
  SmallVector<Value> ofKept =
      bottlenecks(func, layers[kept - 1].op, layers[kept].op);
  SmallVector<Value> ofLast = bottlenecks(func, layers.back().op, nullptr);
  if (ofKept.empty() || ofLast.size() <= ofKept.size())
    return false;
  Value neck = ofKept.back(), last = ofLast[ofKept.size() - 1];
  if (neck.getType() != last.getType())
    return false;
  last.replaceAllUsesWith(neck);
  return eraseCaches(func, step, kept);
}
