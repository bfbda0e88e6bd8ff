//===- NormToNVVM.cpp - RMS norm on a GPU ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One block a row, and four elements a thread and turn where rows are of fours.
// A row of a few thousand elements is some 16 KB: what a step waits for is the
// latency of one load from the L2 cache, of the sum over the block, and of a
// second load, which finds the row in the L1.
//
//===----------------------------------------------------------------------===//

#include "DenseKernels.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::kvrm;

static constexpr int64_t kMaxThreads = 1024;
static constexpr int64_t kMaxWarps = kMaxThreads / kWarpLanes;

DenseBuffers DenseBuffers::of(RmsNormOp op) {
  return {{op.getInput(), op.getGain()}, {op.getOutput()}};
}

namespace {

class NormKernel {
public:
  NormKernel(RmsNormOp op, DeviceKernel &kernel, int64_t threads, int64_t width)
      : op(op), kernel(kernel), b(kernel.b), threads(threads), width(width),
        input(bufferOf(0, op.getInput())), gain(bufferOf(1, op.getGain())),
        output(bufferOf(2, op.getOutput())) {}

  void write();

private:
  StridedBuffer bufferOf(size_t index, Value value) {
    return {kernel.pointer(index), cast<MemRefType>(value.getType())};
  }
  Value sumOverBlock(Value value);
  void forEachColumn(function_ref<void(Value)> body);
  SmallVector<Value> load(const StridedBuffer &buffer, ValueRange index);
  void store(ArrayRef<Value> values, ValueRange index);

  RmsNormOp op;
  DeviceKernel &kernel;
  DeviceBuilder &b;
  int64_t threads;
  int64_t width; ///< elements that a thread takes at once
  StridedBuffer input, gain, output;
};

} // namespace

/// The sum over the block's threads, the same in all of them.
Value NormKernel::sumOverBlock(Value value) {
  value = b.sumOverWarp(value);
  Value memory = kernel.sharedMemory();
  Value warp = b.shiftRight(b.threadId(), 5);
  b.ifThen(b.equal(b.bitAnd(b.threadId(), kWarpLanes - 1), 0), [&] {
    b.storeShared(value, b.add(memory, b.shiftLeft(warp, 2)), 4);
  });
  b.syncBlock();
  Value sum = b.f32(0.0f);
  for (int64_t i = 0; i < threads / kWarpLanes; ++i)
    sum = b.fadd(sum, b.loadShared(b.getF32Type(), b.add(memory, 4 * i), 4));
  return sum;
}

/// The first of each of the thread's runs of `width` columns.
void NormKernel::forEachColumn(function_ref<void(Value)> body) {
  int64_t runs = input.type.getDimSize(1) / width;
  b.forLoop(b.threadId(), b.i32(runs), b.i32(threads),
            [&](Value run) { body(b.widen(b.mul(run, width))); });
}

SmallVector<Value> NormKernel::load(const StridedBuffer &buffer,
                                    ValueRange index) {
  if (width == 1)
    return {buffer.load(b, index)};
  return b.unpack(b.load(VectorType::get({width}, b.getF32Type()),
                         buffer.at(b, index),
                         static_cast<unsigned>(4 * width)));
}

void NormKernel::store(ArrayRef<Value> values, ValueRange index) {
  Type element = output.type.getElementType();
  auto rounded = llvm::map_to_vector(
      values, [&](Value value) { return b.round(value, element); });
  if (width == 1)
    return output.store(b, rounded.front(), index);
  b.store(b.pack(rounded), output.at(b, index),
          width * element.getIntOrFloatBitWidth() / 8);
}

void NormKernel::write() {
  Value row = b.widen(b.blockId());
  Variable squares = b.variable(b.f32(0.0f));
  forEachColumn([&](Value column) {
    for (Value x : load(input, {row, column}))
      squares.set(b.fma(x, x, squares.get()));
  });
  auto columns = static_cast<float>(input.type.getDimSize(1));
  Value mean = b.fmul(sumOverBlock(squares.get()), b.f32(1.0f / columns));
  Value root = math::SqrtOp::create(
      b, b.fadd(mean, b.f32(op.getEpsilon().convertToFloat())));
  Value scale = arith::DivFOp::create(b, b.f32(1.0f), root);
  forEachColumn([&](Value column) {
    SmallVector<Value> values = load(input, {row, column});
    SmallVector<Value> gains = load(gain, {column});
    for (auto [value, factor] : llvm::zip_equal(values, gains))
      value = b.fmul(b.fmul(value, scale), factor);
    store(values, {row, column});
  });
  kernel.finish();
}

/// Whether fours of elements lie at multiples of their size.
static bool isOfFours(Value value) {
  auto [strides, offset] =
      cast<MemRefType>(value.getType()).getStridesAndOffset();
  strides.pop_back();
  strides.push_back(offset);
  return llvm::all_of(strides, [](int64_t size) { return size % 4 == 0; });
}

DenseLaunch kvrm::writeNormKernel(RmsNormOp op, StringRef name,
                                  gpu::GPUModuleOp module,
                                  const DeviceOptions &options) {
  auto type = cast<MemRefType>(op.getInput().getType());
  int64_t columns = type.getDimSize(1);
  bool isWide = columns % 4 == 0 && isOfFours(op.getInput()) &&
                isOfFours(op.getGain()) && isOfFours(op.getOutput());
  int64_t width = isWide ? 4 : 1;
  int64_t threads = std::min<int64_t>(
      llvm::alignTo(columns / width, kWarpLanes), kMaxThreads);
  DeviceKernel kernel(module, op.getLoc(), name, /*pointers=*/3, threads,
                      kMaxWarps * 4);
  waitForInputs(kernel.b, options);
  NormKernel(op, kernel, threads, width).write();
  return {{type.getDimSize(0), 1, 1}, /*perProcessor=*/false};
}
