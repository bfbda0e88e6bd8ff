//===- SplitProducts.cpp - Products on their own --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LinearBody.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Products.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_SPLITPRODUCTSPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// The product of all parts, rounded to the element of the input.
static LinearOp writeProduct(ImplicitLocOpBuilder &b, LinearOp op) {
  Type element = getElementTypeOrSelf(op.getInput());
  const int64_t dims[] = {op.getRows(), static_cast<int64_t>(op.getParts()) *
                                            op.getColumns()};
  Value init = tensor::EmptyOp::create(b, dims, element);
  auto product =
      LinearOp::create(b, init.getType(), op.getInput(), op.getWeight(),
                       /*extras=*/ValueRange{}, init, /*parts=*/1);
  Block &body = product.getBody().emplaceBlock();
  Value sum = body.addArgument(b.getF32Type(), b.getLoc());
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToEnd(&body);
  YieldOp::create(b, arith::TruncFOp::create(b, element, sum));
  return product;
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
      SmallVector<LinearOp> linears;
      step.walk([&](LinearOp op) {
        if (op.getRows() > rows && hasProductShape(op) && !hasProductBody(op))
          linears.push_back(op);
      });
      for (LinearOp op : linears) {
        if (!op.getResult()) {
          op.emitOpError("is on buffers; products are split on tensors");
          return signalPassFailure();
        }
        split(op);
      }
    }
  }

private:
  void split(LinearOp op) {
    ImplicitLocOpBuilder b(op.getLoc(), op);
    LinearOp product = writeProduct(b, op);
    op.getResult().replaceAllUsesWith(
        writeLinearBody(b, op, product.getResult()));
    op.erase();
    ++numSplit;
  }
};
} // namespace
