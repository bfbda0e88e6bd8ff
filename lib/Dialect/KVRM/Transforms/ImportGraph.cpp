//===- ImportGraph.cpp - Make other frontends' graphs straight ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Raise/PointEvaluator.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"

#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SCF/Utils/Utils.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Tensor/Transforms/Transforms.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_IMPORTGRAPHPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::kvrm::raise;

/// More are not a loop over layers.
static constexpr int64_t maxIterations = 1024;

/// Clones what a region of one block computes, with `values` for its arguments.
/// Gives what it returns.
static SmallVector<Value> cloneRegion(OpBuilder &b, Region &region,
                                      ValueRange values,
                                      SmallVectorImpl<Operation *> *made) {
  IRMapping mapping;
  mapping.map(region.getArguments(), values);
  for (Operation &op : region.front().without_terminator()) {
    Operation *clone = b.clone(op, mapping);
    if (made)
      made->push_back(clone);
  }
  return llvm::map_to_vector(
      region.front().getTerminator()->getOperands(),
      [&](Value value) { return mapping.lookupOrDefault(value); });
}

/// Whether the condition of a loop holds for `values`; none if they do not
/// tell.
static std::optional<bool> holds(OpBuilder &b, Region &condition,
                                 ValueRange values) {
  SmallVector<Operation *> made;
  SmallVector<Value> returned = cloneRegion(b, condition, values, &made);
  ExprPool pool;
  PointEvaluator evaluator(pool, {});
  std::optional<bool> result;
  if (returned.size() == 1 && isa<RankedTensorType>(returned[0].getType()) &&
      cast<RankedTensorType>(returned[0].getType()).getRank() == 0) {
    const Expr *value = evaluator.at(returned[0], {});
    if (value->is(ExprKind::Integer))
      result = value->number != 0;
  }
  for (Operation *op : llvm::reverse(made))
    op->erase();
  return result;
}

/// Whether a region is one block that takes what the loop carries.
static bool takesCarried(Region &region, Operation *loop) {
  return region.hasOneBlock() && !region.front().empty() &&
         region.front().back().hasTrait<OpTrait::IsTerminator>() &&
         llvm::equal(region.getArgumentTypes(), loop->getOperandTypes());
}

/// Unrolls stablehlo.while, if its condition tells each time.
static LogicalResult unrollWhile(Operation *loop) {
  if (loop->getNumRegions() != 2 || !takesCarried(loop->getRegion(0), loop) ||
      !takesCarried(loop->getRegion(1), loop) ||
      !llvm::equal(loop->getRegion(1).front().back().getOperandTypes(),
                   loop->getOperandTypes()) ||
      !llvm::equal(loop->getResultTypes(), loop->getOperandTypes()))
    return failure();
  OpBuilder b(loop);
  SmallVector<Value> values(loop->getOperands());
  SmallVector<Operation *> made;
  for (int64_t i = 0; i <= maxIterations; ++i) {
    std::optional<bool> goesOn = holds(b, loop->getRegion(0), values);
    if (goesOn == false) {
      loop->replaceAllUsesWith(values);
      loop->erase();
      return success();
    }
    if (!goesOn)
      break;
    values = cloneRegion(b, loop->getRegion(1), values, &made);
  }
  for (Operation *op : llvm::reverse(made))
    op->erase();
  return failure();
}

/// Unrolls scf.for with constant bounds.
static LogicalResult unrollFor(scf::ForOp loop) {
  std::optional<llvm::APInt> trips = loop.getStaticTripCount();
  if (!trips || trips->ugt(maxIterations))
    return failure();
  return loopUnrollFull(loop);
}

namespace {
class ImportGraphPass
    : public kvrm::impl::ImportGraphPassBase<ImportGraphPass> {
public:
  using ImportGraphPassBase::ImportGraphPassBase;

  void runOnOperation() override {
    unrollLoops();
    getOperation()->walk([&](cf::AssertOp op) {
      op.erase();
      ++numAssertions;
    });
    RewritePatternSet patterns(&getContext());
    tensor::populateDecomposeTensorConcatPatterns(patterns);
    linalg::populateElementwiseToLinalgConversionPatterns(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }

private:
  void unrollLoops() {
    // Inner loops first: the walk is in post-order.
    SmallVector<Operation *> loops;
    getOperation()->walk([&](Operation *op) {
      bool carriesTensors = llvm::any_of(op->getResultTypes(), [](Type type) {
        return isa<RankedTensorType>(type);
      });
      if (carriesTensors && (isa<scf::ForOp>(op) ||
                             op->getName().getStringRef() == "stablehlo.while"))
        loops.push_back(op);
    });
    for (Operation *op : loops) {
      auto loop = dyn_cast<scf::ForOp>(op);
      if (succeeded(loop ? unrollFor(loop) : unrollWhile(op)))
        ++numUnrolled;
      else
        op->emitRemark("not unrolled: how often it runs is not known, or is "
                       "more than ")
            << maxIterations << " times";
    }
  }
};
} // namespace
