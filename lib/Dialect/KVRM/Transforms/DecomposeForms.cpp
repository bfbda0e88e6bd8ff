//===- DecomposeForms.cpp - Forms back to linalg --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LinearBody.h"
#include "QKVProjection.h"
#include "RmsNorm.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/TypeSwitch.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_DECOMPOSEFORMSPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

static Value zeroFill(ImplicitLocOpBuilder &b, Value init) {
  Value zero = arith::ConstantOp::create(b, b.getF32FloatAttr(0.0f));
  return linalg::FillOp::create(b, zero, init).getResult(0);
}

/// init + input * weight^T
template <typename OpT>
static Value multiply(ImplicitLocOpBuilder &b, OpT op, Value init) {
  return linalg::MatmulTransposeBOp::create(
             b, b.getLoc(), TypeRange{init.getType()},
             ValueRange{op.getInput(), op.getWeight()}, ValueRange{init})
      ->getResult(0);
}

namespace {
/// Writes one kvrm.linear as linalg ops before it.
class LinearWriter {
public:
  /// Products accumulate onto an extra if their columns are a multiple of
  /// `panel`.
  LinearWriter(LinearOp op, int64_t panel)
      : b(op.getLoc(), op), op(op), panel(panel) {}
  Value write();

private:
  Value findAccumulator();
  bool yieldsSum() {
    return op.getParts() == 1 && getYielded() == op.getSums().front();
  }
  Value getYielded() {
    return cast<YieldOp>(op.getBody().front().getTerminator()).getValue();
  }
  Value multiply(Value init) { return ::multiply(b, op, init); }

  ImplicitLocOpBuilder b;
  LinearOp op;
  int64_t panel;
};
} // namespace

/// The extra that a sum is added to, if that is all of the body, and f32.
Value LinearWriter::findAccumulator() {
  auto sum = getYielded().getDefiningOp<arith::AddFOp>();
  if (!sum || op.getParts() != 1 || op.getExtras().size() != 1 ||
      op.getColumns() % panel ||
      op.getExtras()[0].getType() != op.getOutput().getType())
    return {};
  Value element = op.getExtraElements()[0], product = op.getSums()[0];
  bool adds = (sum.getLhs() == element && sum.getRhs() == product) ||
              (sum.getLhs() == product && sum.getRhs() == element);
  return adds ? op.getExtras()[0] : Value();
}

Value LinearWriter::write() {
  if (Value accumulator = findAccumulator())
    return multiply(accumulator);
  bool outputIsF32 = getElementTypeOrSelf(op.getOutput()).isF32();
  if (yieldsSum() && outputIsF32)
    return multiply(zeroFill(b, op.getOutput()));
  const int64_t dims[] = {op.getRows(), static_cast<int64_t>(op.getParts()) *
                                            op.getColumns()};
  Value init = tensor::EmptyOp::create(b, dims, b.getF32Type());
  return writeLinearBody(b, op, multiply(zeroFill(b, init)));
}

/// The product in f32, and then the ops that use it.
static SmallVector<Value> writeProjection(QKVProjectionOp op) {
  ImplicitLocOpBuilder b(op.getLoc(), op);
  const int64_t dims[] = {op.getRows(), op.getColumns()};
  Value init = tensor::EmptyOp::create(b, dims, b.getF32Type());
  return writeQKVProjection(b, op, multiply(b, op, zeroFill(b, init)));
}

namespace {
class DecomposeFormsPass
    : public kvrm::impl::DecomposeFormsPassBase<DecomposeFormsPass> {
public:
  using DecomposeFormsPassBase::DecomposeFormsPassBase;

  void runOnOperation() override {
    if (panel < 1) {
      getOperation().emitError("panel is ")
          << panel.getValue() << ", not positive";
      return signalPassFailure();
    }
    for (func::FuncOp step : getSteps(getOperation()))
      if (failed(decompose(step)))
        return signalPassFailure();
  }

private:
  LogicalResult decompose(func::FuncOp step) {
    SmallVector<Operation *> forms;
    WalkResult walked = step.walk([&](DestinationStyleOpInterface op) {
      if (!isa<LinearOp, QKVProjectionOp, RmsNormOp>(*op))
        return WalkResult::advance();
      if (!op.hasPureTensorSemantics())
        return WalkResult(
            op.emitOpError("is on buffers; forms are taken apart on tensors"));
      if (op->hasAttr("format"))
        return WalkResult(op.emitOpError(
            "has a packed weight; forms are taken apart before"));
      forms.push_back(op);
      return WalkResult::advance();
    });
    if (walked.wasInterrupted())
      return failure();
    for (Operation *op : forms) {
      ++numDecomposed;
      llvm::TypeSwitch<Operation *>(op)
          .Case<LinearOp, QKVProjectionOp>([&](auto product) {
            if (RmsNormOp norm = takeNormOut(product))
              replace(norm);
            replace(product);
          })
          .Case<RmsNormOp>([&](RmsNormOp norm) { replace(norm); });
    }
    return success();
  }

  SmallVector<Value> write(LinearOp op) {
    return {LinearWriter(op, panel).write()};
  }
  SmallVector<Value> write(QKVProjectionOp op) { return writeProjection(op); }
  SmallVector<Value> write(RmsNormOp op) { return {writeRmsNorm(op)}; }

  template <typename OpT> void replace(OpT op) {
    op->replaceAllUsesWith(write(op));
    op.erase();
  }
};
} // namespace
