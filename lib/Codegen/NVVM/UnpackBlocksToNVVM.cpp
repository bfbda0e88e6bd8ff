//===- UnpackBlocksToNVVM.cpp - kvrm.unpack_blocks on a GPU ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Memory is the limit: of a weight of 4 bits it reads half a byte and writes
// two. A warp takes the rows of a panel and some stretches of them; the lanes
// of a row store 32 bytes that follow one another.
//
//===----------------------------------------------------------------------===//

#include "BlockDecoder.h"
#include "DenseKernels.h"

using namespace mlir;
using namespace mlir::kvrm;
using kvrmblocks::kStretch;

static constexpr int64_t kWarps = 8;
static constexpr int64_t kThreads = kWarps * kWarpLanes;
/// Stretches of a warp.
static constexpr int64_t kStretches = 4;

DenseBuffers DenseBuffers::of(UnpackBlocksOp op) {
  return {{op.getWeight()}, {op.getOutput()}};
}

namespace {
class UnpackWriter {
public:
  UnpackWriter(UnpackBlocksOp op, DeviceKernel &kernel,
               const DeviceOptions &options)
      : b(kernel.b), options(options), format(op.getFormat()),
        shape(getShape(format)),
        weight{kernel.pointer(0), cast<MemRefType>(op.getWeight().getType())},
        output{kernel.pointer(1), cast<MemRefType>(op.getOutput().getType())} {}

  /// `item` counts runs of stretches of a panel, panel by panel.
  void write(Value item, Value lane);

private:
  void unpackStretch(Value panel, Value stretch, Value lane);
  void storeRun(Value row, Value column, ArrayRef<Value> pairs, Value scale,
                Value minimum);

  DeviceBuilder &b;
  DeviceOptions options;
  BlockFormat format;
  kvrmblocks::BlockShape shape;
  StridedBuffer weight, output;
};
} // namespace

static int64_t runsOf(MemRefType output) {
  return llvm::divideCeil(output.getDimSize(1) / kStretch, kStretches);
}

/// Stores four neighbours, which are two pairs of codes.
void UnpackWriter::storeRun(Value row, Value column, ArrayRef<Value> pairs,
                            Value scale, Value minimum) {
  Type element = output.type.getElementType();
  SmallVector<Value> words;
  for (Value pair : pairs) {
    SmallVector<Value> values;
    Value codes =
        LLVM::BitcastOp::create(b, VectorType::get({2}, element), pair);
    for (Value code : b.unpack(codes)) {
      Value value =
          b.fmul(arith::ExtFOp::create(b, b.getF32Type(), code), scale);
      values.push_back(minimum ? b.fadd(value, minimum) : value);
    }
    words.push_back(b.roundPair(values[0], values[1], element));
  }
  b.store(b.pack(words), output.at(b, {b.widen(row), b.widen(column)}), 8);
}

void UnpackWriter::unpackStretch(Value panel, Value stretch, Value lane) {
  BlockDecoder decoder(b, options, format, output.type.getElementType(), lane);
  int64_t inBlock = shape.stretches(), inHalf = kStretch / 2;
  Value record = weight.at(
      b, {b.widen(panel), b.widen(b.div(stretch, inBlock)), b.i64(0)});
  auto load = [&](Type type, Value offset) {
    return b.load(type, b.at(record, b.widen(offset)),
                  type.getIntOrFloatBitWidth() / 8);
  };
  Value place = b.rem(stretch, inBlock);
  SmallVector<Value, 4> pairs = decoder.codes(place, load);
  Value row = b.add(b.mul(panel, kMatrixPanel), b.shiftRight(lane, 2));
  Value column =
      b.add(b.mul(stretch, kStretch), b.shiftLeft(b.bitAnd(lane, 3), 2));
  b.ifThen(b.lessThan(row, output.type.getDimSize(0)), [&] {
    for (int64_t half : {0, 1}) {
      Value element = b.add(b.mul(place, kStretch), half * inHalf);
      Value group = b.div(element, shape.group);
      storeRun(row, b.add(column, half * inHalf),
               ArrayRef(pairs).slice(2 * half, 2), decoder.scale(group, load),
               shape.hasMinima ? decoder.minimum(group, load) : Value());
    }
  });
}

void UnpackWriter::write(Value item, Value lane) {
  int64_t runs = runsOf(output.type);
  Value panel = b.div(item, runs);
  Value first = b.mul(b.rem(item, runs), kStretches);
  for (int64_t i = 0; i < kStretches; ++i) {
    Value stretch = b.add(first, i);
    b.ifThen(b.lessThan(stretch, output.type.getDimSize(1) / kStretch),
             [&] { unpackStretch(panel, stretch, lane); });
  }
}

DenseLaunch kvrm::writeUnpackKernel(UnpackBlocksOp op, StringRef name,
                                    gpu::GPUModuleOp module,
                                    const DeviceOptions &options) {
  auto weight = cast<MemRefType>(op.getWeight().getType());
  int64_t items =
      weight.getDimSize(0) * runsOf(cast<MemRefType>(op.getOutput().getType()));
  DeviceKernel kernel(module, op.getLoc(), name, DenseBuffers::of(op).size(),
                      kThreads, /*sharedBytes=*/0);
  DeviceBuilder &b = kernel.b;
  waitForInputs(b, options);
  Value lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  Value item = b.add(b.mul(b.blockId(), kWarps), b.shiftRight(b.threadId(), 5));
  b.ifThen(b.lessThan(item, items),
           [&] { UnpackWriter(op, kernel, options).write(item, lane); });
  kernel.finish();
  int64_t blocks = llvm::divideCeil(items, kWarps);
  return {{blocks, 1, 1}, /*perProcessor=*/false};
}
