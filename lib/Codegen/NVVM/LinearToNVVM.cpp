//===- LinearToNVVM.cpp - kvrm.linear on a GPU ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ProductKernel.h"

#include "kvrm/Dialect/KVRM/Utils/Products.h"

using namespace mlir;
using namespace mlir::kvrm;

DenseBuffers DenseBuffers::of(LinearOp op, const RowSquares &squares) {
  DenseBuffers buffers{{op.getInput(), op.getWeight()}, {op.getOutput()}};
  if (op.getGain())
    buffers.inputs.push_back(op.getGain());
  if (squares.taken)
    buffers.inputs.push_back(squares.taken);
  llvm::append_range(buffers.inputs, op.getExtras());
  if (squares.made)
    buffers.outputs.push_back(squares.made);
  return buffers;
}

namespace {

/// What the op's body makes of a column's sums.
class LinearEpilogue final : public ProductEpilogue {
public:
  LinearEpilogue(LinearOp op, DeviceBuilder &b, ArrayRef<StridedBuffer> extras,
                 StridedBuffer output)
      : ProductEpilogue(op.getColumns(), static_cast<int64_t>(op.getParts())),
        op(op), b(b), extras(extras), output(output) {}

  /// The rows of each part follow one another.
  Value weightRow(Value part, Value column) override {
    return b.add(b.mul(part, columns), column);
  }
  Value store(Value row, Value column, ArrayRef<Value> sums) override;

private:
  LinearOp op;
  DeviceBuilder &b;
  ArrayRef<StridedBuffer> extras;
  StridedBuffer output;
};

} // namespace

Value LinearEpilogue::store(Value row, Value column, ArrayRef<Value> sums) {
  row = b.widen(row);
  column = b.widen(column);
  SmallVector<Value> arguments(sums);
  for (const StridedBuffer &extra : extras)
    arguments.push_back(extra.type.getRank() == 1
                            ? extra.load(b, {column})
                            : extra.load(b, {row, column}));
  SmallVector<Value> results =
      cloneScalars(b, op.getBody().front(), arguments,
                   [](Operation &, IRMapping &) { return Value(); });
  output.store(b, results.front(), {row, column});
  return results.front();
}

//===----------------------------------------------------------------------===//
// A thread an output element
//===----------------------------------------------------------------------===//

static constexpr int64_t kThreads = 256;

/// In f32, for what matrix units do not take.
static DenseLaunch writePlainProduct(LinearOp op, StringRef name,
                                     gpu::GPUModuleOp module,
                                     const DeviceOptions &options) {
  DenseBuffers buffers = DenseBuffers::of(op, /*squares=*/{});
  DeviceKernel kernel(module, op.getLoc(), name, buffers.size(), kThreads,
                      /*sharedBytes=*/0);
  DeviceBuilder &b = kernel.b;
  waitForInputs(b, options);
  SmallVector<StridedBuffer> bound;
  for (Value value : llvm::concat<Value>(buffers.inputs, buffers.outputs))
    bound.push_back(
        {kernel.pointer(bound.size()), cast<MemRefType>(value.getType())});
  StridedBuffer &input = bound[0], &weight = bound[1], &output = bound.back();
  int64_t rows = output.type.getDimSize(0), columns = output.type.getDimSize(1);
  auto loadFloat = [&](StridedBuffer &buffer, ValueRange index) -> Value {
    Value value = buffer.load(b, index);
    if (value.getType().isF32())
      return value;
    return arith::ExtFOp::create(b, b.getF32Type(), value);
  };
  Value element = b.add(b.mul(b.blockId(), kThreads), b.threadId());
  b.ifThen(b.lessThan(element, rows * columns), [&] {
    Value row = b.widen(b.div(element, columns));
    Value column = b.widen(b.rem(element, columns));
    SmallVector<Value> arguments;
    for (int64_t part = 0; part < static_cast<int64_t>(op.getParts()); ++part) {
      Variable sum = b.variable(b.f32(0.0f));
      b.forLoop(b.i32(0), b.i32(input.type.getDimSize(1)), b.i32(1),
                [&](Value depth) {
                  Value at = b.widen(depth);
                  Value weightRow = b.add(column, part * columns);
                  sum.set(b.fma(loadFloat(input, {row, at}),
                                loadFloat(weight, {weightRow, at}), sum.get()));
                });
      arguments.push_back(sum.get());
    }
    for (size_t i = 2; i + 1 < bound.size(); ++i)
      arguments.push_back(bound[i].type.getRank() == 1
                              ? bound[i].load(b, {column})
                              : bound[i].load(b, {row, column}));
    SmallVector<Value> results =
        cloneScalars(b, op.getBody().front(), arguments,
                     [](Operation &, IRMapping &) { return Value(); });
    output.store(b, results.front(), {row, column});
  });
  kernel.finish();
  int64_t blocks = llvm::divideCeil(rows * columns, kThreads);
  return {{blocks, 1, 1}, /*perProcessor=*/false};
}

FailureOr<DenseLaunch>
kvrm::writeLinearKernel(LinearOp op, const RowSquares &squares, StringRef name,
                        gpu::GPUModuleOp module, const DeviceOptions &options) {
  auto parts = static_cast<int64_t>(op.getParts());
  if (parts > kTileParts || !fitsMatrixUnits(getProductOperands(op))) {
    if (op.getGain())
      return op.emitOpError("has a norm and is no product for matrix units; "
                            "run kvrm-split-products first");
    return writePlainProduct(op, name, module, options);
  }
  ProductLaunch plan =
      planProduct(getProductOperands(op), op.getColumns(), parts, options);
  DeviceKernel kernel(module, op.getLoc(), name,
                      DenseBuffers::of(op, squares).size(), plan.threads,
                      plan.sharedBytes);
  PointerCursor pointers(kernel);
  ProductOperands operands = pointers.nextOperands(op, squares.taken);
  SmallVector<StridedBuffer> extras = llvm::map_to_vector(
      op.getExtras(), [&](Value extra) { return pointers.next(extra); });
  LinearEpilogue epilogue(op, kernel.b, extras, pointers.next(op.getOutput()));
  if (squares.made)
    epilogue.squares = pointers.next(squares.made);
  writeProduct(operands, epilogue, kernel, options);
  return plan.grid;
}
