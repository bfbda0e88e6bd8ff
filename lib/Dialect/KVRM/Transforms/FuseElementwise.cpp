//===- FuseElementwise.cpp - Elementwise ops with what uses them ----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"

#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_FUSEELEMENTWISEPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// Whether a producer of elementwise ops goes into what uses it: what several
/// ops use is computed once, but for single numbers, and so is what a product
/// reads again and again.
static bool isFused(OpOperand *operand) {
  auto producer = operand->get().getDefiningOp<linalg::LinalgOp>();
  auto consumer = dyn_cast<linalg::LinalgOp>(operand->getOwner());
  if (!producer || !consumer)
    return false;
  if (producer.getNumLoops() == 0)
    return true;
  bool isProduct =
      consumer.getNumReductionLoops() > 0 && consumer.getNumDpsInputs() > 1;
  return producer->hasOneUse() && !isProduct;
}

namespace {
/// An element of a tensor that is one number all over is that number.
struct ReadOfNumber : OpRewritePattern<tensor::ExtractOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(tensor::ExtractOp op,
                                PatternRewriter &rewriter) const override {
    auto generic = op.getTensor().getDefiningOp<linalg::GenericOp>();
    if (!generic || generic->getNumResults() != 1)
      return failure();
    Value yielded = generic.getBody()->getTerminator()->getOperand(0);
    if (yielded.getParentBlock() == generic.getBody())
      return failure();
    rewriter.replaceOp(op, yielded);
    return success();
  }
};

class FuseElementwisePass
    : public kvrm::impl::FuseElementwisePassBase<FuseElementwisePass> {
public:
  using FuseElementwisePassBase::FuseElementwisePassBase;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    linalg::populateElementwiseOpsFusionPatterns(patterns, isFused);
    patterns.add<ReadOfNumber>(&getContext());
    linalg::populateEraseUnusedOperandsAndResultsPatterns(patterns);
    linalg::GenericOp::getCanonicalizationPatterns(patterns, &getContext());
    populateMathAlgebraicSimplificationPatterns(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
