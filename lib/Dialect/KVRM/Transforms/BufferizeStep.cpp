//===- BufferizeStep.cpp - Tensors of a step to buffers -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Bufferization/Transforms/OneShotAnalysis.h"
#include "mlir/Dialect/Bufferization/Transforms/Transforms.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_BUFFERIZESTEPPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::bufferization;

namespace {

/// Makes buffers of what goes in and out of a step: arguments, weights and
/// results. The tensors between them are left to the analysis.
class StepBoundary {
public:
  StepBoundary(func::FuncOp step, int64_t weightBytes)
      : step(step), entry(step.getBody().front()), b(step.getLoc(), step),
        weightBytes(weightBytes) {}

  LogicalResult fix();

private:
  LogicalResult classifyArguments();
  LogicalResult classifyResults();
  void bindArguments();
  LogicalResult bindWeights();
  LogicalResult bindResults();

  bool isCache(BlockArgument arg) {
    std::optional<ArgumentRole> role =
        getArgumentRole(step, arg.getArgNumber());
    return role == ArgumentRole::KeyCache || role == ArgumentRole::ValueCache;
  }
  /// Adds a last argument.
  FailureOr<BlockArgument> addArgument(Type type, ArgumentRole role);

  func::FuncOp step;
  Block &entry;
  ImplicitLocOpBuilder b;
  int64_t weightBytes;
  /// For each result the cache that it is a new version of; none for logits.
  SmallVector<BlockArgument> cacheOf;
};

} // namespace

static MemRefType bufferOf(Type type) {
  auto tensor = cast<RankedTensorType>(type);
  return MemRefType::get(tensor.getShape(), tensor.getElementType());
}

/// The argument that `value` is a version of: where a chain of ops that write
/// in their destination starts.
static BlockArgument originOf(Value value) {
  while (auto result = dyn_cast<OpResult>(value)) {
    auto op = dyn_cast<DestinationStyleOpInterface>(result.getOwner());
    if (!op)
      return {};
    value = op.getTiedOpOperand(result)->get();
  }
  return cast<BlockArgument>(value);
}

LogicalResult StepBoundary::fix() {
  if (!step.getBody().hasOneBlock())
    return step.emitOpError("has control flow; a step has one block");
  if (failed(classifyArguments()) || failed(classifyResults()))
    return failure();
  b.setInsertionPointToStart(&entry);
  bindArguments();
  if (failed(bindWeights()) || failed(bindResults()))
    return failure();
  step.setFunctionType(
      b.getFunctionType(entry.getArgumentTypes(), TypeRange{}));
  step.removeResAttrsAttr();
  return success();
}

/// Gives each argument a role.
LogicalResult StepBoundary::classifyArguments() {
  for (BlockArgument arg : entry.getArguments()) {
    unsigned index = arg.getArgNumber();
    if (isa<SessionType>(arg.getType())) {
      setArgumentRole(step, index, ArgumentRole::Session);
      continue;
    }
    auto tensor = dyn_cast<RankedTensorType>(arg.getType());
    if (!tensor || !tensor.hasStaticShape())
      return step.emitError("argument ")
             << index << " is " << arg.getType()
             << ", neither a static tensor nor a session";
    if (getArgumentRole(step, index))
      continue;
    if (!tensor.getElementType().isInteger(32) || tensor.getRank() != 2)
      return step.emitError("argument ")
             << index << " is " << tensor
             << "; only tokens (i32, [rows, queries]) are understood";
    setArgumentRole(step, index, ArgumentRole::Tokens);
  }
  return success();
}

/// Caches are known by what they are versions of, whatever their order.
LogicalResult StepBoundary::classifyResults() {
  bool hasLogits = false;
  for (auto [i, value] :
       llvm::enumerate(entry.getTerminator()->getOperands())) {
    auto tensor = dyn_cast<RankedTensorType>(value.getType());
    if (!tensor || !tensor.hasStaticShape())
      return step.emitError("result ")
             << i << " is " << value.getType() << ", not a static tensor";
    BlockArgument origin = originOf(value);
    if (origin && isCache(origin)) {
      if (llvm::is_contained(cacheOf, origin))
        return step.emitError("returns two versions of argument ")
               << origin.getArgNumber() << ", a cache";
      cacheOf.push_back(origin);
      continue;
    }
    if (!tensor.getElementType().isF32())
      return step.emitError("result ")
             << i << " is " << tensor
             << ", neither logits (f32) nor a version of a cache argument";
    if (std::exchange(hasLogits, true))
      return step.emitError("returns more than logits and caches");
    cacheOf.push_back({});
  }
  if (!hasLogits)
    return step.emitError("returns no logits (an f32 tensor)");
  return success();
}

FailureOr<BlockArgument> StepBoundary::addArgument(Type type,
                                                   ArgumentRole role) {
  unsigned index = step.getNumArguments();
  if (failed(step.insertArgument(index, type, {}, step.getLoc())))
    return failure();
  setArgumentRole(step, index, role);
  return entry.getArgument(index);
}

/// A cache is written where it is, if the step returns it.
void StepBoundary::bindArguments() {
  for (BlockArgument arg : entry.getArguments()) {
    auto tensor = dyn_cast<RankedTensorType>(arg.getType());
    if (!tensor)
      continue;
    arg.setType(bufferOf(tensor));
    auto asTensor =
        ToTensorOp::create(b, tensor, arg, /*restrict=*/true,
                           /*writable=*/llvm::is_contained(cacheOf, arg));
    arg.replaceAllUsesExcept(asTensor.getResult(), asTensor);
  }
}

/// Weights are views of one block of memory, an argument.
LogicalResult StepBoundary::bindWeights() {
  FailureOr<BlockArgument> weights = addArgument(
      MemRefType::get({weightBytes}, b.getI8Type()), ArgumentRole::Weights);
  if (failed(weights))
    return failure();
  auto module = step->getParentOfType<ModuleOp>();
  SmallVector<ml_program::GlobalLoadConstOp> loads;
  step.walk([&](ml_program::GlobalLoadConstOp op) { loads.push_back(op); });
  for (ml_program::GlobalLoadConstOp op : loads) {
    Operation *global = module.lookupSymbol(op.getGlobal().getLeafReference());
    auto layout =
        global->getAttrOfType<WeightAttr>(KVRMDialect::getWeightAttrName());
    Value offset = arith::ConstantIndexOp::create(b, layout.getOffset());
    Value view = memref::ViewOp::create(b, bufferOf(op.getType()), *weights,
                                        offset, ValueRange{});
    op.replaceAllUsesWith(
        ToTensorOp::create(b, op.getType(), view, /*restrict=*/true)
            .getResult());
  }
  // Not before: the first of them may be where `b` inserts.
  for (ml_program::GlobalLoadConstOp op : loads)
    op.erase();
  return success();
}

/// Logits go to a buffer of the caller, caches where they were.
LogicalResult StepBoundary::bindResults() {
  Operation *ret = entry.getTerminator();
  b.setInsertionPoint(ret);
  for (auto [value, cache] : llvm::zip_equal(ret->getOperands(), cacheOf)) {
    Value destination = cache;
    if (!destination) {
      FailureOr<BlockArgument> logits =
          addArgument(bufferOf(value.getType()), ArgumentRole::Logits);
      if (failed(logits))
        return failure();
      destination = *logits;
    }
    MaterializeInDestinationOp::create(b, TypeRange{}, value, destination,
                                       /*restrict=*/true, /*writable=*/true);
  }
  ret->setOperands({});
  return success();
}

/// The view that `view` is another shape of.
static memref::SubViewOp reshapedView(Value view) {
  Operation *op = view.getDefiningOp();
  while (isa_and_nonnull<memref::ExpandShapeOp, memref::CollapseShapeOp>(op))
    op = op->getOperand(0).getDefiningOp();
  return dyn_cast_or_null<memref::SubViewOp>(op);
}

/// What was computed in its destination is copied onto itself: the same
/// buffer, or the same view of it made twice.
static void eraseSelfCopies(func::FuncOp func) {
  func.walk([](linalg::CopyOp copy) {
    Value source = copy.getInputs().front(), target = copy.getOutputs().front();
    memref::SubViewOp from = reshapedView(source), to = reshapedView(target);
    bool sameView = from && to && from.getSource() == to.getSource() &&
                    from.getType() == to.getType() &&
                    source.getType() == target.getType() &&
                    isEqualConstantIntOrValueArray(from.getMixedOffsets(),
                                                   to.getMixedOffsets());
    if (source == target || sameView)
      copy.erase();
  });
}

static LogicalResult bufferize(func::FuncOp func) {
  IRRewriter rewriter(func.getContext());
  if (failed(eliminateEmptyTensors(rewriter, func)))
    return func.emitError("cannot place results in their destinations");
  OneShotBufferizationOptions options;
  options.allowUnknownOps = true;
  options.bufferizeFunctionBoundaries = false;
  options.memCpyFn = [](OpBuilder &b, Location loc, Value from, Value to) {
    linalg::CopyOp::create(b, loc, from, to);
    return success();
  };
  BufferizationState state;
  if (failed(runOneShotBufferize(func, options, state)))
    return failure();
  eraseSelfCopies(func);
  return success();
}

/// Bytes from the first weight to the end of the last.
static FailureOr<int64_t> endOf(const WeightLoads &weights) {
  int64_t end = 0;
  for (auto &[weight, loads] : weights) {
    ml_program::GlobalOp global = weight;
    auto layout =
        global->getAttrOfType<WeightAttr>(KVRMDialect::getWeightAttrName());
    if (!layout) {
      ml_program::GlobalLoadConstOp load = loads.front();
      return load.emitOpError("loads '@")
             << global.getSymName()
             << "', which has no place yet; run kvrm-pack-weights first";
    }
    auto type = cast<RankedTensorType>(global.getType());
    end = std::max(end, layout.getOffset() + type.getNumElements() *
                                                 type.getElementTypeBitWidth() /
                                                 8);
  }
  return end;
}

namespace {
class BufferizeStepPass
    : public kvrm::impl::BufferizeStepPassBase<BufferizeStepPass> {
public:
  using BufferizeStepPassBase::BufferizeStepPassBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> steps = getSteps(getOperation());
    FailureOr<WeightLoads> weights = getWeights(getOperation(), steps);
    if (failed(weights))
      return signalPassFailure();
    FailureOr<int64_t> weightBytes = endOf(*weights);
    if (failed(weightBytes))
      return signalPassFailure();
    for (func::FuncOp step : steps)
      if (failed(StepBoundary(step, *weightBytes).fix()) ||
          failed(bufferize(step)))
        return signalPassFailure();
  }
};
} // namespace
