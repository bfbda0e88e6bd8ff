//===- WidenDense.cpp - Compute the dense part in f32 ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/TypeSwitch.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_WIDENDENSEPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

static bool isNarrow(Type element) {
  return element.isF16() || element.isBF16();
}

namespace {

/// Retypes the ops of one step, in order. What comes from a weight stays as the
/// weight has it until it is computed with.
class DenseWidening {
public:
  explicit DenseWidening(func::FuncOp step)
      : step(step), b(step.getLoc(), step.getContext()) {}

  void run();

private:
  Type wide() { return b.getF32Type(); }
  Type widened(Type type);
  void setElement(Value value, Type element);
  void widenOperands(Operation *op);
  void widenTensor(OpOperand &operand);
  void retype(Operation *op);
  void retypeGeneric(linalg::GenericOp op);
  void retypeScalar(Operation *op);
  void replace(Operation *op, Value value);

  func::FuncOp step;
  ImplicitLocOpBuilder b;
  SmallVector<Operation *> dead;
};

} // namespace

Type DenseWidening::widened(Type type) {
  if (isNarrow(type))
    return wide();
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && isNarrow(tensor.getElementType()) ? tensor.clone(wide())
                                                     : type;
}

void DenseWidening::setElement(Value value, Type element) {
  value.setType(cast<RankedTensorType>(value.getType()).clone(element));
}

/// Widens the numbers that an op takes.
void DenseWidening::widenOperands(Operation *op) {
  b.setInsertionPoint(op);
  b.setLoc(op->getLoc());
  for (OpOperand &operand : op->getOpOperands())
    if (isNarrow(operand.get().getType()))
      operand.set(arith::ExtFOp::create(b, wide(), operand.get()));
}

/// Widens a tensor that an op takes.
void DenseWidening::widenTensor(OpOperand &operand) {
  auto type = cast<RankedTensorType>(operand.get().getType());
  if (!isNarrow(type.getElementType()))
    return;
  b.setInsertionPoint(operand.getOwner());
  b.setLoc(operand.getOwner()->getLoc());
  Value init = tensor::EmptyOp::create(b, type.getShape(), wide());
  SmallVector<AffineMap> maps(2, b.getMultiDimIdentityMap(type.getRank()));
  SmallVector<utils::IteratorType> loops(type.getRank(),
                                         utils::IteratorType::parallel);
  auto cast = linalg::GenericOp::create(
      b, TypeRange{init.getType()}, operand.get(), init, maps, loops,
      [&](OpBuilder &nested, Location loc, ValueRange args) {
        Value element =
            arith::ExtFOp::create(nested, loc, wide(), args.front());
        linalg::YieldOp::create(nested, loc, element);
      });
  operand.set(cast.getResult(0));
}

void DenseWidening::replace(Operation *op, Value value) {
  op->getResult(0).replaceAllUsesWith(value);
  dead.push_back(op);
}

void DenseWidening::retypeGeneric(linalg::GenericOp op) {
  if (!op.hasPureTensorSemantics())
    return; // on buffers, of f32
  for (OpOperand &operand : op->getOpOperands()) {
    if (op.isDpsInit(&operand))
      widenTensor(operand);
    op.getMatchingBlockArgument(&operand).setType(
        getElementTypeOrSelf(operand.get().getType()));
  }
  for (auto [result, init] : llvm::zip_equal(op->getResults(), op.getOutputs()))
    result.setType(init.getType());
}

/// An op on numbers, in a body or outside.
void DenseWidening::retypeScalar(Operation *op) {
  if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
    auto number = dyn_cast<FloatAttr>(constant.getValue());
    if (!number || !isNarrow(number.getType()))
      return;
    b.setInsertionPoint(op);
    replace(op,
            arith::ConstantOp::create(b, b.getF32FloatAttr(static_cast<float>(
                                             number.getValueAsDouble()))));
    return;
  }
  if (auto read = dyn_cast<tensor::ExtractOp>(op)) {
    read.getResult().setType(getElementTypeOrSelf(read.getTensor().getType()));
    return;
  }
  if (isa<arith::ExtFOp, arith::TruncFOp>(op)) {
    Value from = op->getOperand(0);
    Type type = widened(op->getResult(0).getType());
    if (from.getType() == type)
      return replace(op, from);
    op->getResult(0).setType(type);
    // What is narrow yet, of a weight, is widened: never rounded.
    if (isNarrow(from.getType()) && isa<arith::TruncFOp>(op)) {
      b.setInsertionPoint(op);
      replace(op, arith::ExtFOp::create(b, wide(), from));
    }
    return;
  }
  widenOperands(op);
  for (Value result : op->getResults())
    result.setType(widened(result.getType()));
}

void DenseWidening::retype(Operation *op) {
  llvm::TypeSwitch<Operation *>(op)
      .Case([&](ml_program::GlobalLoadConstOp) {})
      .Case([&](func::ReturnOp) {})
      .Case([&](linalg::GenericOp generic) { retypeGeneric(generic); })
      .Case([&](tensor::EmptyOp empty) {
        empty.getResult().setType(
            cast<RankedTensorType>(widened(empty.getType())));
      })
      .Case<tensor::ExpandShapeOp, tensor::CollapseShapeOp,
            tensor::ExtractSliceOp>([&](Operation *shape) {
        setElement(shape->getResult(0),
                   getElementTypeOrSelf(shape->getOperand(0).getType()));
      })
      .Case([&](tensor::InsertSliceOp insert) {
        widenTensor(insert.getSourceMutable());
        widenTensor(insert.getDestMutable());
        insert.getResult().setType(
            cast<RankedTensorType>(insert.getDest().getType()));
      })
      .Case([&](CachedAttentionOp attention) {
        widenTensor(attention.getQueryMutable());
        widenTensor(attention.getKeyMutable());
        widenTensor(attention.getValueMutable());
        setElement(attention.getOutput(), wide());
      })
      .Default([&](Operation *scalar) { retypeScalar(scalar); });
}

void DenseWidening::run() {
  SmallVector<Operation *> ops;
  step.getBody().walk<WalkOrder::PreOrder>(
      [&](Operation *op) { ops.push_back(op); });
  for (Operation *op : ops)
    retype(op);
  for (Operation *op : llvm::reverse(dead))
    op->erase();
}

static bool hasNarrow(TypeRange types) {
  return llvm::any_of(
      types, [](Type type) { return isNarrow(getElementTypeOrSelf(type)); });
}

/// Whether retype() knows what becomes of an op.
static bool isFollowed(Operation *op) {
  auto isDynamic = [](Type type) {
    auto shaped = dyn_cast<ShapedType>(type);
    return shaped && !shaped.hasStaticShape();
  };
  if (llvm::any_of(op->getOperandTypes(), isDynamic) ||
      llvm::any_of(op->getResultTypes(), isDynamic))
    return false;
  if (auto generic = dyn_cast<linalg::GenericOp>(op))
    return generic.hasPureTensorSemantics();
  if (isa<arith::ConstantOp, ml_program::GlobalLoadConstOp, func::ReturnOp,
          linalg::YieldOp, scf::IfOp, scf::YieldOp, tensor::EmptyOp,
          tensor::ExtractOp, tensor::ExpandShapeOp, tensor::CollapseShapeOp,
          tensor::ExtractSliceOp, tensor::InsertSliceOp, CachedAttentionOp>(op))
    return true;
  // An op on numbers; but not one that looks at their bits.
  auto isShaped = [](Type type) { return isa<ShapedType>(type); };
  return isa<arith::ArithDialect, math::MathDialect>(op->getDialect()) &&
         !isa<arith::BitcastOp>(op) &&
         llvm::none_of(op->getOperandTypes(), isShaped) &&
         llvm::none_of(op->getResultTypes(), isShaped);
}

/// The first op of narrow numbers that is not followed; null if there is none.
static Operation *findFixed(func::FuncOp step) {
  Operation *fixed = nullptr;
  step.getBody().walk([&](Operation *op) {
    if (!fixed && !isFollowed(op) &&
        (hasNarrow(op->getOperandTypes()) || hasNarrow(op->getResultTypes())))
      fixed = op;
  });
  return fixed;
}

namespace {
class WidenDensePass : public kvrm::impl::WidenDensePassBase<WidenDensePass> {
public:
  using WidenDensePassBase::WidenDensePassBase;

  void runOnOperation() override {
    for (func::FuncOp step : getSteps(getOperation())) {
      if (Operation *fixed = findFixed(step)) {
        fixed->emitError("cannot be made f32");
        return signalPassFailure();
      }
      DenseWidening(step).run();
    }
  }
};
} // namespace
