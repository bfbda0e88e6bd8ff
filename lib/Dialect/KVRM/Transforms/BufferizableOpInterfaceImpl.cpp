//===- BufferizableOpInterfaceImpl.cpp - Bufferization of kvrm ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Transforms/BufferizableOpInterfaceImpl.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"
#include "mlir/Dialect/Bufferization/IR/DstBufferizableOpInterfaceImpl.h"
#include "mlir/Dialect/Utils/StructuredOpsUtils.h"

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::bufferization;

static FailureOr<Value> getBufferOf(RewriterBase &rewriter, Value value,
                                    const BufferizationOptions &options,
                                    const BufferizationState &state) {
  if (isa<MemRefType>(value.getType()))
    return value;
  return getBuffer(rewriter, value, options, state);
}

/// Kernels and outlined functions take contiguous buffers: an input that
/// bufferized to a strided view is copied.
static FailureOr<Value> getContiguousBuffer(RewriterBase &rewriter, Value value,
                                            const BufferizationOptions &options,
                                            const BufferizationState &state) {
  FailureOr<Value> buffer = getBufferOf(rewriter, value, options, state);
  if (failed(buffer) || isa<MemRefType>(value.getType()))
    return buffer;
  auto type = cast<MemRefType>(buffer->getType());
  auto [strides, offset] = type.getStridesAndOffset();
  auto contiguous = MemRefType::get(type.getShape(), type.getElementType());
  if (strides == contiguous.getStridesAndOffset().first)
    return *buffer;
  Location loc = value.getLoc();
  FailureOr<Value> copy =
      options.createAlloc(rewriter, loc, contiguous, /*dynShape=*/{});
  if (failed(copy) ||
      failed(options.createMemCpy(rewriter, loc, *buffer, *copy)))
    return failure();
  return *copy;
}

namespace {

/// Launches and dispatches write their outputs in place.
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

/// Forms of the dense part write their outputs, whatever they held unless they
/// add to it, and take buffers that are contiguous in their last dimension.
template <typename OpTy>
struct FormOpModel
    : public DstBufferizableOpInterfaceExternalModel<FormOpModel<OpTy>, OpTy> {
  bool bufferizesToMemoryRead(Operation *op, OpOperand &operand,
                              const AnalysisState & /*state*/) const {
    return std::is_same_v<OpTy, BlockProductOp> ||
           !cast<DestinationStyleOpInterface>(op).isDpsInit(&operand);
  }
  LogicalResult bufferize(Operation *op, RewriterBase &rewriter,
                          const BufferizationOptions &options,
                          BufferizationState &state) const {
    rewriter.setInsertionPoint(op);
    auto form = cast<DestinationStyleOpInterface>(op);
    SmallVector<Value> operands, outputs;
    for (OpOperand &operand : op->getOpOperands()) {
      FailureOr<Value> buffer =
          getBufferOf(rewriter, operand.get(), options, state);
      if (failed(buffer))
        return failure();
      if (!cast<MemRefType>(buffer->getType()).isLastDimUnitStride()) {
        if (form.isDpsInit(&operand))
          return op->emitOpError("output has no buffer that is contiguous in "
                                 "its last dimension");
        buffer = getContiguousBuffer(rewriter, operand.get(), options, state);
        if (failed(buffer))
          return failure();
      }
      operands.push_back(*buffer);
      if (form.isDpsInit(&operand))
        outputs.push_back(*buffer);
    }
    clone(rewriter, op, TypeRange{}, operands);
    replaceOpWithBufferizedValues(rewriter, op, outputs);
    return success();
  }
};

/// Transports take an input and an output that are runs of bytes.
template <typename OpTy>
struct CollectiveOpModel
    : public DstBufferizableOpInterfaceExternalModel<CollectiveOpModel<OpTy>,
                                                     OpTy> {
  bool bufferizesToMemoryRead(Operation *op, OpOperand &operand,
                              const AnalysisState & /*state*/) const {
    return !cast<DestinationStyleOpInterface>(op).isDpsInit(&operand);
  }
  LogicalResult bufferize(Operation *op, RewriterBase &rewriter,
                          const BufferizationOptions &options,
                          BufferizationState &state) const {
    auto collective = cast<OpTy>(op);
    rewriter.setInsertionPoint(op);
    FailureOr<Value> input =
        getContiguousBuffer(rewriter, collective.getInput(), options, state);
    FailureOr<Value> output =
        getBufferOf(rewriter, collective.getOutput(), options, state);
    if (failed(input) || failed(output))
      return failure();
    OpTy::create(rewriter, op->getLoc(), TypeRange{}, *input, *output);
    replaceOpWithBufferizedValues(rewriter, op, *output);
    return success();
  }
};

/// One field of every row is a view of the descriptor that nothing may write.
template <typename OpTy>
struct RowFieldModel
    : public BufferizableOpInterface::ExternalModel<RowFieldModel<OpTy>, OpTy> {
  FailureOr<BufferLikeType> getBufferType(Operation *op, Value value,
                                          const BufferizationOptions &,
                                          const BufferizationState &,
                                          SmallVector<Value> &) const {
    auto type = cast<ShapedType>(value.getType());
    return cast<BufferLikeType>(
        getRowFieldType(op->getContext(), type.getDimSize(0)));
  }
  bool isWritable(Operation *, Value, const AnalysisState &) const {
    return false;
  }
  LogicalResult bufferize(Operation *op, RewriterBase &rewriter,
                          const BufferizationOptions & /*options*/,
                          BufferizationState & /*state*/) const {
    auto field = cast<OpTy>(op);
    if (isa<MemRefType>(field.getResult().getType()))
      return success();
    replaceOpWithNewBufferizedOp<OpTy>(
        rewriter, op,
        getRowFieldType(op->getContext(),
                        field.getDescriptor().getType().getRows()),
        field.getDescriptor());
    return success();
  }
};

} // namespace

void kvrm::registerBufferizableOpInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, KVRMDialect *) {
    LaunchOp::attachInterface<StepOpModel<LaunchOp>>(*context);
    DispatchOp::attachInterface<StepOpModel<DispatchOp>>(*context);
    LinearOp::attachInterface<FormOpModel<LinearOp>>(*context);
    QKVProjectionOp::attachInterface<FormOpModel<QKVProjectionOp>>(*context);
    RmsNormOp::attachInterface<FormOpModel<RmsNormOp>>(*context);
    AllReduceOp::attachInterface<CollectiveOpModel<AllReduceOp>>(*context);
    AllGatherOp::attachInterface<CollectiveOpModel<AllGatherOp>>(*context);
    QuantizeRowsOp::attachInterface<FormOpModel<QuantizeRowsOp>>(*context);
    UnpackBlocksOp::attachInterface<FormOpModel<UnpackBlocksOp>>(*context);
    BlockProductOp::attachInterface<FormOpModel<BlockProductOp>>(*context);
    PositionsOp::attachInterface<RowFieldModel<PositionsOp>>(*context);
    CountsOp::attachInterface<RowFieldModel<CountsOp>>(*context);
  });
}
