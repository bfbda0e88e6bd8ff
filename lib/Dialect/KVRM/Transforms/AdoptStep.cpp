//===- AdoptStep.cpp - A raised step with kvrm's interface ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Raise/TableReads.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Reshape.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_ADOPTSTEPPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// Gives one raised step the interface of a decode step: tokens, positions and
/// caches in, logits and caches out.
class StepAdoption {
public:
  explicit StepAdoption(func::FuncOp step)
      : step(step), entry(step.getBody().front()), b(step.getLoc(), step) {}

  LogicalResult run(StringRef name);

private:
  LogicalResult findAttention();
  LogicalResult findLogits();
  LogicalResult checkDropped(unsigned result);
  LogicalResult findArguments();
  LogicalResult replaceConstants();
  LogicalResult replaceWeights();
  ml_program::GlobalOp declare(StringRef name, Type type, Attribute value);

  Value elementwise(Value input, Type element,
                    function_ref<Value(OpBuilder &, Location, Value)> body);
  /// `[rows, 1]` tokens in the type of the old argument.
  Value tokensAsBefore(Value newTokens);
  Value positionsInTable(Value positions);
  Value logitsAsExpected();
  void replaceInterface(StringRef name);

  func::FuncOp step;
  Block &entry;
  ImplicitLocOpBuilder b;
  CachedAttentionOp first; ///< layer
  int64_t rows = 0, capacity = 0;
  BlockArgument positions, keyCache, valueCache, tokens;
  Value newKeyCache, newValueCache, logits;
  SmallVector<BlockArgument> weights;
};

} // namespace

/// What the caches of the first layer are, and those of the last become.
LogicalResult StepAdoption::findAttention() {
  auto layers = step.getOps<CachedAttentionOp>();
  if (layers.empty())
    return step.emitError("is a step without attention");
  first = *layers.begin();
  auto cache = cast<RankedTensorType>(first.getKeyCache().getType());
  rows = cache.getDimSize(1);
  capacity = cache.getDimSize(3);
  positions = dyn_cast<BlockArgument>(first.getPositions());
  keyCache = dyn_cast<BlockArgument>(first.getKeyCache());
  valueCache = dyn_cast<BlockArgument>(first.getValueCache());
  for (CachedAttentionOp layer : layers) {
    if (layer.getCounts() || layer.getSlots() ||
        layer.getPositions() != first.getPositions())
      return layer.emitOpError("is of no decode step of one batch");
    newKeyCache = layer.getNewKeyCache();
    newValueCache = layer.getNewValueCache();
  }
  if (!positions || !keyCache || !valueCache)
    return first.emitOpError("has positions or caches that are no arguments");
  return success();
}

/// A result that goes has to be made of tokens, positions and numbers that the
/// caller has: nothing is lost that a request computed.
LogicalResult StepAdoption::checkDropped(unsigned result) {
  Value value = entry.getTerminator()->getOperand(result);
  SetVector<Operation *> slice;
  BackwardSliceOptions options;
  options.inclusive = true;
  options.omitBlockArguments = true;
  (void)getBackwardSlice(value, &slice, options);
  if (llvm::any_of(slice, llvm::IsaPred<CachedAttentionOp>) ||
      !getElementTypeOrSelf(value.getType()).isIntOrIndex())
    return step.emitError("result ")
           << result << " is " << value.getType()
           << ", and neither logits, nor a cache, nor integers that no cache "
           << "is in";
  step.emitRemark("result ")
      << result << " is dropped: it is integers that no cache is in";
  return success();
}

LogicalResult StepAdoption::findLogits() {
  Operation *ret = entry.getTerminator();
  for (auto [number, value] : llvm::enumerate(ret->getOperands())) {
    if (value == newKeyCache || value == newValueCache)
      continue;
    auto type = dyn_cast<RankedTensorType>(value.getType());
    bool isFloat = type && type.hasStaticShape() &&
                   isa<FloatType>(type.getElementType()) &&
                   type.getElementTypeBitWidth() <= 32;
    // [rows, vocabulary], with sizes of one before, between or behind.
    int64_t wide = 0;
    if (isFloat)
      for (int64_t size : type.getShape())
        wide += size != 1;
    bool isLogits = isFloat && type.getRank() > 0 &&
                    type.getNumElements() % rows == 0 &&
                    wide == (rows > 1 ? 2 : 1) &&
                    (rows == 1 || llvm::find_if(type.getShape(), [](int64_t s) {
                                    return s != 1;
                                  })[0] == rows);
    if (!isLogits) {
      if (failed(checkDropped(number)))
        return failure();
      continue;
    }
    if (logits)
      return step.emitError("result ")
             << number << " is " << type
             << ": there are logits already, of which a step has one";
    logits = value;
  }
  if (!logits)
    return step.emitError("no result is logits, [")
           << rows << ", vocabulary] of floating point";
  return success();
}

/// Tokens, weights, and what nothing needs.
LogicalResult StepAdoption::findArguments() {
  for (BlockArgument arg : entry.getArguments()) {
    unsigned number = arg.getArgNumber();
    std::optional<ArgumentRole> role = getArgumentRole(step, number);
    if (arg == positions || arg == keyCache || arg == valueCache)
      continue;
    if (arg.use_empty() && role != ArgumentRole::Tokens)
      continue;
    auto type = dyn_cast<RankedTensorType>(arg.getType());
    if (type && type.hasStaticShape() &&
        isa<FloatType>(type.getElementType()) && role != ArgumentRole::Tokens) {
      weights.push_back(arg);
      continue;
    }
    Type element = type ? type.getElementType() : Type();
    bool mayBeTokens = type && type.hasStaticShape() &&
                       type.getNumElements() == rows &&
                       (element.isInteger(32) || element.isInteger(64));
    if (!mayBeTokens)
      return step.emitError("argument ")
             << number << " is " << arg.getType()
             << ": neither tokens, a position, a cache nor a weight";
    if (tokens &&
        getArgumentRole(step, tokens.getArgNumber()) == ArgumentRole::Tokens)
      return step.emitError("argument ")
             << number << " is " << type << ", and argument "
             << tokens.getArgNumber() << " is the tokens already";
    if (tokens && role != ArgumentRole::Tokens)
      return step.emitError("arguments ")
             << tokens.getArgNumber() << " and " << number
             << " may both be tokens; say which with kvrm.argument";
    tokens = arg;
  }
  if (!tokens)
    return step.emitError("no argument is tokens, ") << rows << " integers";
  return success();
}

ml_program::GlobalOp StepAdoption::declare(StringRef name, Type type,
                                           Attribute value) {
  auto module = step->getParentOfType<ModuleOp>();
  if (module.lookupSymbol(name)) {
    step.emitError("two weights or functions are called '") << name << "'";
    return {};
  }
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(step);
  return ml_program::GlobalOp::create(
      b, name, type, /*is_mutable=*/false,
      value ? value : ml_program::ExternAttr::get(b.getContext(), type),
      b.getStringAttr("private"));
}

LogicalResult StepAdoption::replaceWeights() {
  for (BlockArgument arg : weights) {
    std::string name = getArgumentName(step, arg.getArgNumber());
    if (!declare(name, arg.getType(), {}))
      return failure();
    Value load = ml_program::GlobalLoadConstOp::create(
        b, arg.getType(), SymbolRefAttr::get(b.getContext(), name));
    arg.replaceAllUsesWith(load);
  }
  return success();
}

/// Tensors that the graph holds are weights, too, with a value.
LogicalResult StepAdoption::replaceConstants() {
  SmallVector<arith::ConstantOp> constants;
  step.walk([&](arith::ConstantOp op) {
    if (isa<RankedTensorType>(op.getType()))
      constants.push_back(op);
  });
  for (auto [number, op] : llvm::enumerate(constants)) {
    auto type = cast<RankedTensorType>(op.getType());
    b.setInsertionPoint(op);
    auto dense = dyn_cast<DenseElementsAttr>(op.getValue());
    Value value;
    if (dense && dense.isSplat()) {
      Value scalar =
          arith::ConstantOp::create(b, dense.getSplatValue<TypedAttr>());
      Value empty =
          tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
      value = linalg::FillOp::create(b, scalar, empty).getResult(0);
    } else if (isa<FloatType>(type.getElementType()) &&
               type.getElementTypeBitWidth() <= 32) {
      std::string name = ("constant." + Twine(number)).str();
      if (!declare(name, type, op.getValue()))
        return failure();
      value = ml_program::GlobalLoadConstOp::create(
          b, type, SymbolRefAttr::get(b.getContext(), name));
    } else {
      return op.emitOpError("of ")
             << type << " is left in a step; only tables of f32, f16 and bf16 "
             << "are kept";
    }
    op.replaceAllUsesWith(value);
    op.erase();
  }
  return success();
}

Value StepAdoption::elementwise(
    Value input, Type element,
    function_ref<Value(OpBuilder &, Location, Value)> body) {
  auto type = cast<RankedTensorType>(input.getType());
  Value init = tensor::EmptyOp::create(b, type.getShape(), element);
  SmallVector<AffineMap> maps(2, b.getMultiDimIdentityMap(type.getRank()));
  SmallVector<utils::IteratorType> loops(type.getRank(),
                                         utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, input, init, maps, loops,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               linalg::YieldOp::create(nested, loc,
                                       body(nested, loc, args.front()));
             })
      .getResult(0);
}

Value StepAdoption::tokensAsBefore(Value newTokens) {
  auto type = cast<RankedTensorType>(tokens.getType());
  Value value = reshape(b, newTokens, {rows});
  if (type.getElementType().isInteger(64))
    value = elementwise(value, type.getElementType(),
                        [&](OpBuilder &nested, Location loc, Value token) {
                          return arith::ExtSIOp::create(
                                     nested, loc, type.getElementType(), token)
                              .getResult();
                        });
  return reshape(b, value, type.getShape());
}

/// Positions for all but attention. A row that is idle in a full slot stands at
/// the capacity, which a table of angles does not have.
Value StepAdoption::positionsInTable(Value newPositions) {
  return elementwise(
      newPositions, b.getI32Type(),
      [&](OpBuilder &nested, Location loc, Value position) -> Value {
        Value last = arith::ConstantOp::create(
            nested, loc,
            nested.getI32IntegerAttr(static_cast<int32_t>(capacity - 1)));
        return arith::MinSIOp::create(nested, loc, position, last);
      });
}

Value StepAdoption::logitsAsExpected() {
  auto type = cast<RankedTensorType>(logits.getType());
  Value value = reshape(b, logits, {rows, type.getNumElements() / rows});
  if (type.getElementType().isF32())
    return value;
  return elementwise(
      value, b.getF32Type(), [](OpBuilder &nested, Location loc, Value logit) {
        return arith::ExtFOp::create(nested, loc, nested.getF32Type(), logit)
            .getResult();
      });
}

void StepAdoption::replaceInterface(StringRef name) {
  Type i32 = b.getI32Type();
  unsigned old = entry.getNumArguments();
  b.setInsertionPointToStart(&entry);
  Location loc = step.getLoc();
  Value newTokens =
      entry.addArgument(RankedTensorType::get({rows, 1}, i32), loc);
  Value newPositions = entry.addArgument(positions.getType(), loc);
  tokens.replaceAllUsesWith(tokensAsBefore(newTokens));
  positions.replaceUsesWithIf(newPositions, [](OpOperand &use) {
    return isa<CachedAttentionOp>(use.getOwner());
  });
  if (!positions.use_empty())
    positions.replaceAllUsesWith(positionsInTable(newPositions));
  for (BlockArgument cache : {keyCache, valueCache})
    cache.replaceAllUsesWith(entry.addArgument(cache.getType(), loc));
  entry.eraseArguments(0, old);

  Operation *ret = entry.getTerminator();
  b.setInsertionPoint(ret);
  ret->setOperands({logitsAsExpected(), newKeyCache, newValueCache});
  step.removeArgAttrsAttr();
  step.removeResAttrsAttr();
  step.setFunctionType(
      b.getFunctionType(entry.getArgumentTypes(), ret->getOperandTypes()));
  step.setSymName(name);
}

/// Erases what nothing uses.
static void eraseUnused(Block &block) {
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(block)))
    if (isOpTriviallyDead(&op))
      op.erase();
}

LogicalResult StepAdoption::run(StringRef name) {
  if (failed(findAttention()) || failed(findLogits()))
    return failure();
  // What only a dropped result needed is no argument.
  entry.getTerminator()->setOperands({logits, newKeyCache, newValueCache});
  step.setFunctionType(b.getFunctionType(
      entry.getArgumentTypes(), entry.getTerminator()->getOperandTypes()));
  step.removeResAttrsAttr();
  eraseUnused(entry);
  if (failed(findArguments()))
    return failure();
  int64_t vocabulary =
      cast<RankedTensorType>(logits.getType()).getNumElements() / rows;
  if (failed(raise::checkTableReads(step, tokens, vocabulary, "tokens")) ||
      failed(raise::checkTableReads(step, positions, capacity, "positions")))
    return failure();
  b.setInsertionPointToStart(&entry);
  if (failed(replaceWeights()) || failed(replaceConstants()))
    return failure();
  replaceInterface(name);
  return success();
}

namespace {
class AdoptStepPass : public kvrm::impl::AdoptStepPassBase<AdoptStepPass> {
public:
  using AdoptStepPassBase::AdoptStepPassBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> steps = getSteps(getOperation());
    if (steps.size() != 1) {
      getOperation().emitError("has ")
          << steps.size() << " raised steps; one is adopted";
      return signalPassFailure();
    }
    if (failed(StepAdoption(steps.front()).run("decode_step")))
      signalPassFailure();
  }
};
} // namespace
