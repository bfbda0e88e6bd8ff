//===- FormDispatches.cpp - Dense ops that one kernel runs ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QKVProjection.h"
#include "RmsNorm.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Columns.h"
#include "kvrm/Dialect/KVRM/Utils/Products.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_FORMDISPATCHESPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// Erases `op`, and what nothing but it used.
static void eraseWithUnused(Operation *op) {
  llvm::SetVector<Operation *> dead;
  dead.insert(op);
  while (!dead.empty()) {
    Operation *next = dead.pop_back_val();
    llvm::SetVector<Operation *> used;
    for (Value operand : next->getOperands())
      if (Operation *definition = operand.getDefiningOp())
        used.insert(definition);
    next->erase();
    for (Operation *definition : used)
      if (isOpTriviallyDead(definition))
        dead.insert(definition);
  }
}

static bool isActivation(Type element) {
  return element.isF32() || element.isF16() || element.isBF16();
}

/// A static tensor that a form can take.
static bool isActivation(Value value, int64_t rank) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && kvrm::detail::isPositiveShape(type, rank) &&
         isActivation(type.getElementType());
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

/// Whether `value` is a weight, or the values of one in blocks.
static bool isWeight(Value value) {
  if (auto dequantize = value.getDefiningOp<DequantizeOp>())
    value = dequantize.getBlocks();
  return value.getDefiningOp<ml_program::GlobalLoadConstOp>() != nullptr;
}

/// Whether `matmul` is a product with the transpose of a weight, from zero.
static bool multipliesWithWeight(linalg::MatmulOp matmul) {
  if (!isa<linalg::MatmulTransposeBOp>(matmul.getOperation()) ||
      !matmul.hasPureTensorSemantics())
    return false;
  Value weight = matmul.getInputs()[1], init = matmul.getOutputs()[0];
  auto zero = init.getDefiningOp<linalg::FillOp>();
  return isWeight(weight) && zero &&
         matchPattern(zero.getInputs().front(), m_AnyZeroFloat()) &&
         isActivation(matmul.getInputs()[0], 2) && isActivation(weight, 2) &&
         isActivation(init, 2) && getElementTypeOrSelf(init).isF32();
}

/// A kvrm.linear with a body without ops.
static LinearOp createLinear(ImplicitLocOpBuilder &b, Value input, Value weight,
                             ValueRange extras, Value output, int64_t parts) {
  auto linear =
      LinearOp::create(b, output.getType(), input, weight, /*gain=*/Value(),
                       extras, output, /*epsilon=*/FloatAttr(), parts,
                       /*format=*/BlockFormatAttr(),
                       /*normElement=*/TypeAttr());
  Block &body = linear.getBody().emplaceBlock();
  for (int64_t part = 0; part < parts; ++part)
    body.addArgument(b.getF32Type(), b.getLoc());
  for (Value extra : extras)
    body.addArgument(getElementTypeOrSelf(extra), b.getLoc());
  return linear;
}

static LinearOp formLinear(linalg::MatmulOp matmul) {
  ImplicitLocOpBuilder b(matmul.getLoc(), matmul);
  auto zero = matmul.getOutputs()[0].getDefiningOp<linalg::FillOp>();
  LinearOp linear =
      createLinear(b, matmul.getInputs()[0], matmul.getInputs()[1],
                   /*extras=*/{}, zero.getOutputs()[0], /*parts=*/1);
  b.setInsertionPointToEnd(&linear.getBody().front());
  YieldOp::create(b, linear.getSums().front());
  matmul.getResult(0).replaceAllUsesWith(linear.getResult());
  eraseWithUnused(matmul);
  return linear;
}

//===----------------------------------------------------------------------===//
// What follows a product
//===----------------------------------------------------------------------===//

namespace {

/// The elementwise op that alone uses a product, either as it is or in parts:
/// slices of equal width that share all its columns among them, in order.
struct Consumer {
  linalg::GenericOp op;
  SmallVector<Value> parts;

  static std::optional<Consumer> find(LinearOp linear);
  /// The product, its body followed by that of the consumer.
  LinearOp absorbInto(LinearOp linear);

private:
  bool isPart(Value value) const { return llvm::is_contained(parts, value); }
  bool isAbsorbable() const;
  bool isAbsorbable(OpOperand *input) const;
  SmallVector<Value> getExtras() const;
  void writeBody(LinearOp linear, LinearOp fused);
};

} // namespace

/// Whether the output is the sum itself.
static bool isPlainProduct(LinearOp linear) {
  auto yield = cast<YieldOp>(linear.getBody().front().getTerminator());
  return linear.getParts() == 1 && linear.getExtras().empty() &&
         yield.getValue() == linear.getSums().front();
}

/// The parts of a product; none if anything uses it that is no part.
static SmallVector<Value> columnPartsOf(LinearOp linear) {
  if (!isPlainProduct(linear))
    return {};
  SmallVector<tensor::ExtractSliceOp> slices =
      getColumnSlices(linear.getResult());
  bool areEqual = llvm::all_of(slices, [&](tensor::ExtractSliceOp slice) {
    return slice.getType() == slices.front().getType();
  });
  return areEqual ? SmallVector<Value>(slices.begin(), slices.end())
                  : SmallVector<Value>();
}

std::optional<Consumer> Consumer::find(LinearOp linear) {
  Consumer consumer;
  consumer.parts = columnPartsOf(linear);
  if (consumer.parts.empty())
    consumer.parts.push_back(linear.getResult());
  for (Value part : consumer.parts)
    for (Operation *user : part.getUsers()) {
      auto op = dyn_cast<linalg::GenericOp>(user);
      if (!op || (consumer.op && op != consumer.op))
        return std::nullopt;
      consumer.op = op;
    }
  if (!consumer.op || consumer.op->getBlock() != linear->getBlock() ||
      !consumer.isAbsorbable())
    return std::nullopt;
  return consumer;
}

static bool isConstant(Value value) {
  return value.getDefiningOp<arith::ConstantOp>() != nullptr;
}

/// Whether the body is a scalar function of the elements that it is given.
static bool isScalarFunction(Block &body) {
  auto isKnown = [&](Value value) {
    return value.getParentBlock() == &body || isConstant(value);
  };
  return llvm::all_of(body.without_terminator(),
                      [&](Operation &op) {
                        return LinearOp::isBodyOp(&op) &&
                               llvm::all_of(op.getOperands(), isKnown);
                      }) &&
         llvm::all_of(body.getTerminator()->getOperands(), isKnown);
}

bool Consumer::isAbsorbable(OpOperand *input) const {
  MLIRContext *context = input->getOwner()->getContext();
  linalg::GenericOp generic = op;
  AffineMap map = generic.getMatchingIndexingMap(input);
  if (map == AffineMap::getMultiDimIdentityMap(2, context))
    return isActivation(input->get(), 2);
  return map == AffineMap::getMultiDimMapWithTargets(2, 1, context) &&
         isActivation(input->get(), 1) && !isPart(input->get());
}

bool Consumer::isAbsorbable() const {
  linalg::GenericOp generic = op;
  if (!generic.hasPureTensorSemantics() || generic.getNumDpsInits() != 1 ||
      generic.getNumLoops() != 2 || generic.getNumParallelLoops() != 2)
    return false;
  OpOperand *init = generic.getDpsInitOperand(0);
  return generic.getMatchingIndexingMap(init).isIdentity() &&
         isActivation(init->get(), 2) && !isPart(init->get()) &&
         generic.getRegionOutputArgs().front().use_empty() &&
         llvm::all_of(generic.getDpsInputOperands(),
                      [&](OpOperand *input) { return isAbsorbable(input); }) &&
         isScalarFunction(*generic.getBody());
}

SmallVector<Value> Consumer::getExtras() const {
  linalg::GenericOp generic = op;
  SmallVector<Value> extras;
  for (Value input : generic.getInputs())
    if (!isPart(input))
      extras.push_back(input);
  return extras;
}

/// Clones the ops of a scalar function, with the constants that it takes from
/// outside, and returns the copy of what it yields.
static Value cloneBody(OpBuilder &b, Block &body, IRMapping &mapping) {
  auto keep = [&](Value value) {
    if (value.getParentBlock() != &body && !mapping.contains(value))
      mapping.map(value, b.clone(*value.getDefiningOp())->getResult(0));
  };
  for (Operation &op : body.without_terminator()) {
    llvm::for_each(op.getOperands(), keep);
    b.clone(op, mapping);
  }
  Value yielded = body.getTerminator()->getOperand(0);
  keep(yielded);
  return mapping.lookup(yielded);
}

void Consumer::writeBody(LinearOp linear, LinearOp fused) {
  ImplicitLocOpBuilder b(op.getLoc(), fused.getContext());
  b.setInsertionPointToEnd(&fused.getBody().front());
  SmallVector<Value> values;
  auto nextExtra = fused.getExtraElements().begin();
  if (isPlainProduct(linear)) {
    llvm::append_range(values, fused.getSums());
  } else {
    IRMapping mapping;
    mapping.map(linear.getSums(), fused.getSums());
    for (BlockArgument element : linear.getExtraElements())
      mapping.map(element, *nextExtra++);
    values.push_back(cloneBody(b, linear.getBody().front(), mapping));
  }
  IRMapping mapping;
  for (auto [input, element] :
       llvm::zip_equal(op.getInputs(), op.getRegionInputArgs())) {
    const auto *part = llvm::find(parts, input);
    if (part != parts.end())
      mapping.map(element, values[part - parts.begin()]);
    else
      mapping.map(element, *nextExtra++);
  }
  YieldOp::create(b, cloneBody(b, *op.getBody(), mapping));
}

LinearOp Consumer::absorbInto(LinearOp linear) {
  SmallVector<Value> extras(linear.getExtras());
  llvm::append_range(extras, getExtras());
  int64_t count = isPlainProduct(linear)
                      ? static_cast<int64_t>(parts.size())
                      : static_cast<int64_t>(linear.getParts());
  // At the consumer, where all extras are known.
  ImplicitLocOpBuilder b(
      FusedLoc::get(op.getContext(), {linear.getLoc(), op.getLoc()}), op);
  LinearOp fused = createLinear(b, linear.getInput(), linear.getWeight(),
                                extras, op.getOutputs()[0], count);
  if (Value gain = linear.getGain()) {
    fused.getGainMutable().assign(gain);
    fused.setEpsilonAttr(linear.getEpsilonAttr());
    fused.setNormElementAttr(linear.getNormElementAttr());
  }
  writeBody(linear, fused);
  op.getResult(0).replaceAllUsesWith(fused.getResult());
  eraseWithUnused(op);
  return fused;
}

//===----------------------------------------------------------------------===//
// What comes before a product
//===----------------------------------------------------------------------===//

/// Takes in the norm that makes the input for this product alone.
template <typename OpT> static bool absorbNorm(OpT product) {
  auto norm = product.getInput().template getDefiningOp<RmsNormOp>();
  if (!norm || product.getGain() || !norm->hasOneUse())
    return false;
  Type element = getElementTypeOrSelf(norm.getResult());
  if (element != getElementTypeOrSelf(product.getWeight())) {
    if (!isInBlocks(product))
      return false;
    product.setNormElementAttr(TypeAttr::get(element));
  }
  product.getInputMutable().assign(norm.getInput());
  product.getGainMutable().assign(norm.getGain());
  product.setEpsilonAttr(norm.getEpsilonAttr());
  eraseWithUnused(norm);
  return true;
}

/// The projection that a plain product is part of, if it is.
static bool formProjection(LinearOp product) {
  std::optional<QKVProjection> found =
      isPlainProduct(product) ? QKVProjection::match(product) : std::nullopt;
  if (!found)
    return false;
  found->form(product);
  for (Operation *op : {found->query.last.getOperation(),
                        found->key.last.getOperation(), found->value})
    eraseWithUnused(op);
  return true;
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
class FormDispatchesPass
    : public kvrm::impl::FormDispatchesPassBase<FormDispatchesPass> {
public:
  using FormDispatchesPassBase::FormDispatchesPassBase;

  void runOnOperation() override {
    for (func::FuncOp step : getSteps(getOperation())) {
      formNorms(step);
      formLinears(step);
      formProjections(step);
      absorbConsumers(step);
      absorbNorms(step);
    }
  }

private:
  void formNorms(func::FuncOp step) {
    SmallVector<RmsNorm> norms;
    step.walk([&](linalg::GenericOp op) {
      if (std::optional<RmsNorm> norm = RmsNorm::match(op))
        norms.push_back(*norm);
    });
    // From the last on, since the input of one may be the result of another.
    for (RmsNorm &norm : llvm::reverse(norms)) {
      ImplicitLocOpBuilder b(norm.last.getLoc(), norm.last);
      Value output = norm.last.getOutputs()[0];
      auto formed =
          RmsNormOp::create(b, output.getType(), norm.input, norm.gain, output,
                            b.getF32FloatAttr(norm.epsilon.convertToFloat()));
      norm.last.getResult(0).replaceAllUsesWith(formed.getResult());
      eraseWithUnused(norm.last);
      ++numNorms;
    }
  }

  void formLinears(func::FuncOp step) {
    SmallVector<linalg::MatmulOp> products;
    step.walk([&](linalg::MatmulOp op) {
      if (multipliesWithWeight(op))
        products.push_back(op);
    });
    for (linalg::MatmulOp product : products) {
      formLinear(product);
      ++numLinears;
    }
  }

  SmallVector<LinearOp> linearsOf(func::FuncOp step) {
    SmallVector<LinearOp> linears;
    step.walk([&](LinearOp op) {
      if (op.getResult())
        linears.push_back(op);
    });
    return linears;
  }

  void formProjections(func::FuncOp step) {
    for (LinearOp linear : linearsOf(step))
      numProjections += formProjection(linear);
  }

  void absorbConsumers(func::FuncOp step) {
    for (LinearOp linear : linearsOf(step))
      while (std::optional<Consumer> consumer = Consumer::find(linear)) {
        linear = consumer->absorbInto(linear);
        ++numAbsorbed;
      }
  }

  void absorbNorms(func::FuncOp step) {
    step.walk([&](Operation *op) {
      if (auto linear = dyn_cast<LinearOp>(op))
        numAbsorbed += absorbNorm(linear);
      else if (auto projection = dyn_cast<QKVProjectionOp>(op))
        numAbsorbed += absorbNorm(projection);
    });
  }
};
} // namespace
