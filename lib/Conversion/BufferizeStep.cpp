//===- BufferizeStep.cpp - Tensors of a step to buffers -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Conversion/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"
#include "mlir/Dialect/Bufferization/IR/DstBufferizableOpInterfaceImpl.h"
#include "mlir/Dialect/Bufferization/Transforms/OneShotAnalysis.h"
#include "mlir/Dialect/Bufferization/Transforms/Transforms.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_BUFFERIZESTEPPASS
#include "kvrm/Conversion/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::bufferization;

//===----------------------------------------------------------------------===//
// Launch and dispatch as destination-style ops
//===----------------------------------------------------------------------===//

namespace {

/// Kernels and outlined functions take contiguous buffers: an input that
/// bufferized to a strided view is copied.
FailureOr<Value> getContiguousBuffer(RewriterBase &rewriter, Value value,
                                     const BufferizationOptions &options,
                                     const BufferizationState &state) {
  if (isa<MemRefType>(value.getType()))
    return value;
  FailureOr<Value> buffer = getBuffer(rewriter, value, options, state);
  if (failed(buffer))
    return failure();
  auto type = cast<MemRefType>(buffer->getType());
  auto [strides, offset] = type.getStridesAndOffset();
  auto contiguous = MemRefType::get(type.getShape(), type.getElementType());
  if (strides == contiguous.getStridesAndOffset().first)
    return *buffer;
  Location loc = value.getLoc();
  Value copy = memref::AllocOp::create(rewriter, loc, contiguous);
  linalg::CopyOp::create(rewriter, loc, *buffer, copy);
  return copy;
}

template <typename OpTy>
struct StepOpModel
    : public DstBufferizableOpInterfaceExternalModel<StepOpModel<OpTy>, OpTy> {
  LogicalResult bufferize(Operation *op, RewriterBase &rewriter,
                          const BufferizationOptions &options,
                          BufferizationState &state) const {
    auto step = cast<OpTy>(op);
    rewriter.setInsertionPoint(op);
    SmallVector<Value> inputs, outputs;
    for (Value input : step.getInputs()) {
      FailureOr<Value> buffer =
          getContiguousBuffer(rewriter, input, options, state);
      if (failed(buffer))
        return failure();
      inputs.push_back(*buffer);
    }
    for (Value output : step.getOutputs()) {
      FailureOr<Value> buffer = getBuffer(rewriter, output, options, state);
      if (failed(buffer))
        return failure();
      outputs.push_back(*buffer);
    }
    if constexpr (std::is_same_v<OpTy, LaunchOp>)
      LaunchOp::create(rewriter, op->getLoc(), TypeRange{},
                       step.getKernelAttr(), step.getSession(),
                       step.getDescriptor(), inputs, outputs,
                       step.getLayerAttr());
    else
      DispatchOp::create(rewriter, op->getLoc(), TypeRange{},
                         step.getCalleeAttr(), step.getTasksAttr(), inputs,
                         outputs, step.getSerialAttr());
    replaceOpWithBufferizedValues(rewriter, op, outputs);
    return success();
  }
};

} // namespace

void kvrm::registerBufferizationModels(DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, KVRMDialect *) {
    LaunchOp::attachInterface<StepOpModel<LaunchOp>>(*context);
    DispatchOp::attachInterface<StepOpModel<DispatchOp>>(*context);
  });
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
class BufferizeStepPass
    : public kvrm::impl::BufferizeStepPassBase<BufferizeStepPass> {
public:
  using BufferizeStepPassBase::BufferizeStepPassBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> steps = getSteps(getOperation());
    if (steps.empty())
      return;
    auto bytes = getOperation()->getAttrOfType<IntegerAttr>(kWeightBytesAttr);
    if (!bytes) {
      getOperation().emitError("weights have no place yet; run "
                               "kvrm-pack-weights first");
      return signalPassFailure();
    }
    for (func::FuncOp step : steps)
      if (failed(fixBoundary(step, bytes.getInt())) || failed(bufferize(step)))
        return signalPassFailure();
  }

private:
  /// Arguments, weights, descriptor fields and results become buffers; the
  /// tensors between them are left to the analysis.
  LogicalResult fixBoundary(func::FuncOp func, int64_t weightBytes) {
    if (!func.getBody().hasOneBlock())
      return func.emitOpError("has control flow; a step has one block");
    Block &entry = func.getBody().front();
    auto b = ImplicitLocOpBuilder::atBlockBegin(func.getLoc(), &entry);
    auto bufferOf = [](Type type) {
      auto tensor = cast<RankedTensorType>(type);
      return MemRefType::get(tensor.getShape(), tensor.getElementType());
    };
    auto isCache = [&](unsigned index) {
      std::optional<ArgumentRole> role = getArgumentRole(func, index);
      return role == ArgumentRole::KeyCache || role == ArgumentRole::ValueCache;
    };

    unsigned original = entry.getNumArguments();
    for (unsigned i = 0; i < original; ++i) {
      BlockArgument arg = entry.getArgument(i);
      if (isa<SessionType>(arg.getType())) {
        setArgumentRole(func, i, ArgumentRole::Session);
        continue;
      }
      auto tensor = dyn_cast<RankedTensorType>(arg.getType());
      if (!tensor || !tensor.hasStaticShape())
        return func.emitError("argument ")
               << i << " is " << arg.getType()
               << ", neither a static tensor nor a session";
      if (!getArgumentRole(func, i)) {
        if (!tensor.getElementType().isInteger(32) || tensor.getRank() != 2)
          return func.emitError("argument ")
                 << i << " is " << tensor
                 << "; only tokens (i32, [rows, queries]) are understood";
        setArgumentRole(func, i, ArgumentRole::Tokens);
      }
      bool writable = isCache(i);
      arg.setType(bufferOf(tensor));
      auto asTensor =
          ToTensorOp::create(b, tensor, arg, /*restrict=*/true, writable);
      arg.replaceAllUsesExcept(asTensor.getResult(), asTensor);
    }

    auto weightsType = MemRefType::get({weightBytes}, b.getI8Type());
    Value weights = entry.addArgument(weightsType, func.getLoc());
    SmallVector<ml_program::GlobalLoadConstOp> loads;
    func.walk([&](ml_program::GlobalLoadConstOp op) { loads.push_back(op); });
    auto module = func->getParentOfType<ModuleOp>();
    for (ml_program::GlobalLoadConstOp op : loads) {
      auto global = module.lookupSymbol<ml_program::GlobalOp>(
          op.getGlobal().getLeafReference());
      Value offset = arith::ConstantIndexOp::create(
          b, global->getAttrOfType<IntegerAttr>(kOffsetAttr).getInt());
      Value view = memref::ViewOp::create(b, bufferOf(op.getType()), weights,
                                          offset, ValueRange{});
      op.replaceAllUsesWith(
          ToTensorOp::create(b, op.getType(), view, /*restrict=*/true)
              .getResult());
    }
    // Not before: the first of them may be where `b` inserts.
    for (ml_program::GlobalLoadConstOp op : loads)
      op.erase();

    SmallVector<Operation *> fields;
    func.walk([&](Operation *op) {
      if (isa<PositionsOp, CountsOp>(op) &&
          isa<RankedTensorType>(op->getResult(0).getType()))
        fields.push_back(op);
    });
    for (Operation *op : fields) {
      b.setInsertionPointAfter(op);
      Value result = op->getResult(0);
      Type tensor = result.getType();
      result.setType(bufferOf(tensor));
      auto asTensor = ToTensorOp::create(b, tensor, result, /*restrict=*/true);
      result.replaceAllUsesExcept(asTensor.getResult(), asTensor);
    }

    // Logits go to a buffer of the caller; caches are where they were.
    auto ret = cast<func::ReturnOp>(entry.getTerminator());
    b.setInsertionPoint(ret);
    SmallVector<Value> results(ret.getOperands());
    unsigned cacheIndex = 0;
    SmallVector<Value> caches;
    for (unsigned i = 0; i < original; ++i)
      if (isCache(i))
        caches.push_back(entry.getArgument(i));
    std::optional<unsigned> logitsIndex;
    for (Value result : results) {
      Value destination;
      if (result.getType() == RankedTensorType() ||
          !cast<RankedTensorType>(result.getType()).getElementType().isF32()) {
        if (cacheIndex >= caches.size())
          return func.emitError("returns more caches than it takes");
        destination = caches[cacheIndex++];
      } else if (!logitsIndex) {
        logitsIndex = entry.getNumArguments();
        destination =
            entry.addArgument(bufferOf(result.getType()), func.getLoc());
      } else {
        return func.emitError("returns more than logits and caches");
      }
      MaterializeInDestinationOp::create(b, TypeRange{}, result, destination,
                                         /*restrict=*/true, /*writable=*/true);
    }
    if (!logitsIndex)
      return func.emitError("returns no logits (an f32 tensor)");
    ret->setOperands({});
    func.setFunctionType(
        b.getFunctionType(entry.getArgumentTypes(), TypeRange{}));
    // setFunctionType leaves the attributes of new arguments to us.
    SmallVector<Attribute> argAttrs;
    for (unsigned i = 0; i < entry.getNumArguments(); ++i)
      argAttrs.push_back(b.getDictionaryAttr({}));
    if (ArrayAttr old = func.getArgAttrsAttr())
      for (auto [i, attr] : llvm::enumerate(old))
        argAttrs[i] = attr;
    func.setAllArgAttrs(argAttrs);
    setArgumentRole(func, original, ArgumentRole::Weights);
    setArgumentRole(func, *logitsIndex, ArgumentRole::Logits);
    func.removeResAttrsAttr();
    return success();
  }

  /// What was computed in its destination is copied onto itself: the same
  /// buffer, or the same view of it made twice.
  static void eraseSelfCopies(func::FuncOp func) {
    func.walk([](linalg::CopyOp copy) {
      Value source = copy.getInputs().front(),
            target = copy.getOutputs().front();
      auto from = source.getDefiningOp<memref::SubViewOp>();
      auto to = target.getDefiningOp<memref::SubViewOp>();
      bool sameView = from && to && from.getSource() == to.getSource() &&
                      from.getType() == to.getType() &&
                      isEqualConstantIntOrValueArray(from.getMixedOffsets(),
                                                     to.getMixedOffsets());
      if (source == target || sameView)
        copy.erase();
    });
  }

  LogicalResult bufferize(func::FuncOp func) {
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
};
} // namespace
