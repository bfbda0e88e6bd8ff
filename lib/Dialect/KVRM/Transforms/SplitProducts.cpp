//===- SplitProducts.cpp - Products on their own --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LinearBody.h"
#include "QKVProjection.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Products.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/TypeSwitch.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_SPLITPRODUCTSPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// The product of `input` with all rows of a weight, rounded to `element`.
static Value writeProduct(ImplicitLocOpBuilder &b, Value input, Value weight,
                          Type element) {
  auto dimOf = [](Value value) {
    return cast<ShapedType>(value.getType()).getDimSize(0);
  };
  const int64_t dims[] = {dimOf(input), dimOf(weight)};
  Value init = tensor::EmptyOp::create(b, dims, element);
  auto product = LinearOp::create(b, init.getType(), input, weight,
                                  /*gain=*/Value(), /*extras=*/ValueRange{},
                                  init, /*epsilon=*/FloatAttr(), /*parts=*/1,
                                  /*format=*/BlockFormatAttr(),
                                  /*normElement=*/TypeAttr());
  Block &body = product.getBody().emplaceBlock();
  Value sum = body.addArgument(b.getF32Type(), b.getLoc());
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToEnd(&body);
  if (!element.isF32())
    sum = arith::TruncFOp::create(b, element, sum);
  YieldOp::create(b, sum);
  return product.getResult();
}

/// A library multiplies elements: the values of a weight in blocks are rounded
/// to those of the input.
template <typename OpT> static void roundWeight(OpT op) {
  auto values = op.getWeight().template getDefiningOp<DequantizeOp>();
  ImplicitLocOpBuilder b(values.getLoc(), values);
  auto type = cast<RankedTensorType>(values.getType());
  op.getWeightMutable().assign(DequantizeOp::create(
      b, type.clone(getElementTypeOrSelf(op.getInput())), values.getBlocks()));
  if (values->use_empty())
    values.erase();
}

namespace {
class SplitProductsPass
    : public kvrm::impl::SplitProductsPassBase<SplitProductsPass> {
public:
  using SplitProductsPassBase::SplitProductsPassBase;

  void runOnOperation() override {
    if (rows < 0) {
      getOperation().emitError("rows is ")
          << rows.getValue() << ", which is negative";
      return signalPassFailure();
    }
    for (func::FuncOp step : getSteps(getOperation())) {
      WalkResult walked = step.walk([&](Operation *op) {
        return llvm::TypeSwitch<Operation *, WalkResult>(op)
            .Case<LinearOp, QKVProjectionOp>(
                [&](auto product) { return visit(product); })
            .Default(WalkResult::advance());
      });
      if (walked.wasInterrupted())
        return signalPassFailure();
    }
  }

private:
  template <typename OpT> WalkResult visit(OpT op) {
    if (op.getFormat())
      return op.emitOpError("has a packed weight; products are split before "
                            "weights are packed");
    int64_t streamed =
        isInBlocks(op) ? std::max(rows.getValue(), kStreamedBlockRows) : rows;
    bool isForLibrary = op.getRows() > streamed && hasProductShape(op);
    bool losesNorm =
        op.getGain() && (isForLibrary || !canNormalizeInKernel(op));
    bool rounds = isForLibrary && isInBlocks(op);
    if (!losesNorm && !rounds && !needsSplit(op, isForLibrary))
      return WalkResult::advance();
    if (op->getNumResults() == 0)
      return op.emitOpError("is on buffers; products are split on tensors");
    if (losesNorm)
      takeNormOut(op);
    if (rounds)
      roundWeight(op);
    if (needsSplit(op, isForLibrary)) {
      split(op);
      ++numSplit;
    }
    return WalkResult::advance();
  }

  /// No other kernel than that of matrix units reads blocks.
  static bool needsSplit(LinearOp op, bool isForLibrary) {
    if (isForLibrary)
      return !hasProductBody(op);
    auto parts = static_cast<int64_t>(op.getParts());
    return isInBlocks(op) && parts > 1 &&
           (parts > kTileParts || !hasMatrixUnitShape(op));
  }
  /// Nothing but matrix units runs a whole projection.
  static bool needsSplit(QKVProjectionOp op, bool isForLibrary) {
    return isForLibrary || !hasMatrixUnitShape(op);
  }

  void split(LinearOp op) {
    ImplicitLocOpBuilder b(op.getLoc(), op);
    Value product = writeProduct(b, op.getInput(), op.getWeight(),
                                 getElementTypeOrSelf(op.getInput()));
    op.getResult().replaceAllUsesWith(writeLinearBody(b, op, product));
    op.erase();
  }
  void split(QKVProjectionOp op) {
    ImplicitLocOpBuilder b(op.getLoc(), op);
    Value product =
        writeProduct(b, op.getInput(), op.getWeight(), b.getF32Type());
    op->replaceAllUsesWith(writeQKVProjection(b, op, product));
    op.erase();
  }
};
} // namespace
