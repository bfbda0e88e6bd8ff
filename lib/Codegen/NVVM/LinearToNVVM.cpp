//===- LinearToNVVM.cpp - Products with weights on a GPU ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A decode step's products read each weight once for a few rows of activations:
// at M rows and 2-byte weights M operations a byte, against the 300 and more a
// byte that an H100 can do. So the memory is the limit, and what counts is that
// it never waits.
//
// A block takes tiles of 16 or 32 rows of the weight in turn. On sm_90 a warp
// of its own copies chunks of them, about 32 KB, into a ring of shared memory.
// What it copies is known when the step is compiled: it starts before the
// kernel waits for its input, while the kernels ahead still run. Only 64 KB are
// in flight at a time, for the input of the other warps comes the same way and
// would stand behind them. A copy is one of a row of a chunk, so rows are long:
// with copies of 512 bytes a product took 1.7 times as long as with 2048.
//
// Eight warps multiply, each a slice of a chunk's depth, with mma.sync of 16 x
// 8 x 16; their sums meet in shared memory, where the epilogue, a thread an
// output element, takes them. On sm_80 the eight warps load weights to
// registers, one chunk ahead.
//
// Both operands take 8 consecutive elements of depth a lane, 16 bytes, for two
// matrix operations: the order within a sum is free as long as both agree.
//
//===----------------------------------------------------------------------===//

#include "DenseKernels.h"

using namespace mlir;
using namespace mlir::kvrm;

static constexpr int64_t kWarps = 8; ///< that multiply
static constexpr int64_t kThreads = kWarps * kWarpLanes;
static constexpr int64_t kMatrixRows = 16;   ///< of an operation: weight rows
static constexpr int64_t kMatrixColumns = 8; ///< activation rows
static constexpr int64_t kSliceDepth = 32;   ///< of two operations
static constexpr int64_t kMaxBlockRows = 64; ///< activation rows of a block
static constexpr int64_t kElementBytes = 2;  ///< f16 or bf16
/// Registers of input that a thread keeps for a chunk: slices of depth times
/// tiles of 8 activation rows, of 4 words each.
static constexpr int64_t kInputTiles = 8;
static constexpr int64_t kMaxSlices = 4;
/// Bytes in flight: enough for the latency of the memory at its full speed.
static constexpr int64_t kInFlightBytes = 64 * 1024;
static constexpr int64_t kMaxStages = 12;
/// Barrier of the warps that multiply.
static constexpr int64_t kSumsBarrier = 1;

DenseBuffers DenseBuffers::of(LinearOp op) {
  DenseBuffers buffers{{op.getInput(), op.getWeight()}, {op.getOutput()}};
  llvm::append_range(buffers.inputs, op.getExtras());
  return buffers;
}

namespace {

/// Sizes of a product and of how it is cut.
struct LinearShape {
  int64_t rows, depth, columns, parts;
  Type element;
  int64_t blockRows;  ///< activation rows of a block
  int64_t tileRows;   ///< weight rows of a tile, all parts
  int64_t chunkDepth; ///< elements along the depth of a chunk
  int64_t stages;     ///< of the ring

  LinearShape(LinearOp op, const DeviceOptions &options);

  int64_t matrices() const { return tileRows / kMatrixRows; }
  int64_t columnTiles() const {
    return llvm::divideCeil(blockRows, kMatrixColumns);
  }
  int64_t tileColumns() const { return tileRows / parts; } ///< of the output
  int64_t tiles() const { return llvm::divideCeil(columns, tileColumns()); }
  int64_t chunks() const { return llvm::divideCeil(depth, chunkDepth); }
  int64_t slices() const { return chunkDepth / kWarps / kSliceDepth; }

  // Shared memory: barriers, sums, ring.

  /// Bytes from a row of a chunk to the next: rows alternate between the halves
  /// of the banks, so that 8 lanes that read 16 bytes of two rows meet none.
  int64_t pitch() const { return chunkDepth * kElementBytes + 64; }
  int64_t stageBytes() const { return tileRows * pitch(); }
  /// Floats from an activation row's sums to the next's: 4 modulo 16 keeps the
  /// stores of a result's 8 rows and 4 column pairs apart.
  int64_t sumPitch() const { return tileRows + 4; }
  int64_t sumBytes() const {
    return kWarps * columnTiles() * kMatrixColumns * sumPitch() * 4;
  }
  /// With two, the next tile's sums do not wait for this one's epilogue.
  int64_t sumBuffers() const { return columnTiles() <= 2 ? 2 : 1; }
  static int64_t barrierBytes() { return 2 * kMaxStages * 8; }
  int64_t sumsAt() const { return llvm::alignTo(barrierBytes(), 64); }
  int64_t ringAt() const {
    return llvm::alignTo(sumsAt() + sumBuffers() * sumBytes(), 128);
  }
  int64_t sharedBytes() const { return ringAt() + stages * stageBytes(); }
};

/// Writes one kernel.
class LinearKernel {
public:
  LinearKernel(LinearOp op, const LinearShape &shape, DeviceKernel &kernel,
               const DeviceOptions &options);
  void write();

private:
  struct Ring {
    Value memory;
    Variable stage, parity;
  };
  using Words = SmallVector<Variable, 4>; ///< 16 bytes of a lane

  Value fullBarrier(Value stage) {
    return b.add(shared, b.shiftLeft(stage, 3));
  }
  Value emptyBarrier(Value stage) {
    return b.add(fullBarrier(stage), kMaxStages * 8);
  }
  void initBarriers();
  void advance(Variable &stage, Variable &parity);
  void forEachTile(function_ref<void(Value)> body);

  void copyWeights();
  void copyChunk(Value tile, Value chunk, Value stage);

  void multiply();
  void multiplyTile(Value tile);
  Value weightRow(Value tile, Value tileRow);
  Value depthOf(Value chunk, int64_t slice);
  void loadInput(Value chunk);
  void loadWeights(Value tile, Value chunk);
  SmallVector<Value> weightWords(int64_t matrix, int64_t half, int64_t slice);
  void multiplySlice(int64_t slice);
  void multiplyChunk(Value chunk);
  void releaseChunk();
  Value sumAt(Value buffer, Value warp, Value row, Value tileRow);
  void storeSums();
  void runEpilogue(Value tile);
  void storeElement(Value tile, Value row, Value column);

  LinearOp op;
  const LinearShape &shape;
  DeviceKernel &kernel;
  const DeviceOptions &options;
  DeviceBuilder &b;
  StridedBuffer input, weight, output;
  SmallVector<StridedBuffer> extras;
  Value shared, warp, lane;
  Value firstRow; ///< activation row of the block
  Variable stage, parity, sumBuffer;
  SmallVector<Words> inputWords;  ///< [slice][column tile], of the next chunk
  SmallVector<Words> weightsNext; ///< [slice][matrix][half], sm_80
  SmallVector<Words> inputNow, weightsNow;
  SmallVector<std::array<Variable, 4>> sums; ///< [matrix][column tile]
};

} // namespace

//===----------------------------------------------------------------------===//
// Shape
//===----------------------------------------------------------------------===//

/// Whether matrix units take the product: 2-byte elements of one kind, rows
/// that start at 16 bytes, whole slices of depth.
static bool fitsMatrixUnits(LinearOp op) {
  auto input = cast<MemRefType>(op.getInput().getType());
  auto weight = cast<MemRefType>(op.getWeight().getType());
  Type element = weight.getElementType();
  auto [strides, offset] = input.getStridesAndOffset();
  constexpr int64_t chunk = 16 / kElementBytes;
  return (element.isF16() || element.isBF16()) &&
         input.getElementType() == element &&
         input.getDimSize(1) % kSliceDepth == 0 && strides[1] == 1 &&
         strides[0] % chunk == 0 && offset % chunk == 0 && op.getParts() <= 2 &&
         weight.getLayout().isIdentity();
}

LinearShape::LinearShape(LinearOp op, const DeviceOptions &options) {
  auto inputType = cast<MemRefType>(op.getInput().getType());
  auto outputType = cast<MemRefType>(op.getOutput().getType());
  rows = inputType.getDimSize(0);
  depth = inputType.getDimSize(1);
  columns = outputType.getDimSize(1);
  parts = op.getParts();
  element = inputType.getElementType();
  blockRows = std::min(rows, kMaxBlockRows);
  // Of many activation rows, two matrices a tile halve the reads; of few, one
  // leaves longer rows to a chunk and evener shares to the blocks.
  tileRows = (columnTiles() > 2 ? 2 : 1) * kMatrixRows;
  chunkDepth =
      std::min(kMaxSlices, kInputTiles / columnTiles()) * kWarps * kSliceDepth;
  stages = 0;
  if (options.isHopper())
    stages =
        std::min(kMaxStages, (options.sharedBytes() - ringAt()) / stageBytes());
}

//===----------------------------------------------------------------------===//
// The kernel
//===----------------------------------------------------------------------===//

LinearKernel::LinearKernel(LinearOp op, const LinearShape &shape,
                           DeviceKernel &kernel, const DeviceOptions &options)
    : op(op), shape(shape), kernel(kernel), options(options), b(kernel.b) {
  size_t index = 0;
  auto bind = [&](Value value) {
    return StridedBuffer{kernel.pointer(index++),
                         cast<MemRefType>(value.getType())};
  };
  input = bind(op.getInput());
  weight = bind(op.getWeight());
  for (Value extra : op.getExtras())
    extras.push_back(bind(extra));
  output = bind(op.getOutput());
}

void LinearKernel::initBarriers() {
  b.ifThen(b.equal(b.threadId(), 0), [&] {
    for (int64_t i = 0; i < shape.stages; ++i) {
      b.initBarrier(fullBarrier(b.i32(i)), 1);
      b.initBarrier(emptyBarrier(b.i32(i)), kWarps);
    }
    b.fenceBarrierInit();
  });
  b.syncBlock();
}

void LinearKernel::advance(Variable &stage, Variable &parity) {
  Value next = b.add(stage.get(), 1);
  Value wraps = b.equal(next, shape.stages);
  parity.set(b.select(wraps, b.bitXor(parity.get(), 1), parity.get()));
  stage.set(b.select(wraps, b.i32(0), next));
}

/// The tiles of this block.
void LinearKernel::forEachTile(function_ref<void(Value)> body) {
  b.forLoop(b.blockId(), b.i32(shape.tiles()), b.gridSize(), body);
}

void LinearKernel::write() {
  shared = kernel.sharedMemory();
  lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  warp = b.shiftRight(b.threadId(), 5);
  firstRow = b.mul(b.blockIdY(), kMaxBlockRows);
  if (!options.isHopper()) {
    multiply();
  } else {
    initBarriers();
    b.launchDependents();
    b.ifThenElse(
        b.equal(warp, kWarps), [&] { copyWeights(); },
        [&] {
          b.waitForPrerequisites();
          multiply();
        });
  }
  kernel.finish();
}

//===----------------------------------------------------------------------===//
// Weights to the ring
//===----------------------------------------------------------------------===//

/// The row of the weight that row `tileRow` of a tile is; rows past the last
/// repeat it, and nothing is stored for them.
Value LinearKernel::weightRow(Value tile, Value tileRow) {
  Value part = b.div(tileRow, shape.tileColumns());
  Value column = b.add(b.mul(tile, shape.tileColumns()),
                       b.rem(tileRow, shape.tileColumns()));
  column = b.min(column, b.i32(shape.columns - 1));
  return b.add(b.mul(part, shape.columns), column);
}

/// Copies one chunk, a row a lane.
void LinearKernel::copyChunk(Value tile, Value chunk, Value stage) {
  Value depth = b.mul(chunk, shape.chunkDepth);
  Value bytes =
      b.mul(b.min(b.i32(shape.chunkDepth), b.sub(b.i32(shape.depth), depth)),
            kElementBytes);
  b.ifThen(b.equal(lane, 0), [&] {
    b.expectBytes(fullBarrier(stage), b.mul(bytes, shape.tileRows));
  });
  b.syncWarp();
  b.ifThen(b.lessThan(lane, shape.tileRows), [&] {
    Value source =
        weight.at(b, {b.widen(weightRow(tile, lane)), b.widen(depth)});
    Value target = b.add(
        b.add(shared, shape.ringAt()),
        b.add(b.mul(stage, shape.stageBytes()), b.mul(lane, shape.pitch())));
    b.bulkCopy(target, source, bytes, fullBarrier(stage));
  });
}

/// The work of the copying warp: chunk after chunk, as the ring has room and
/// few enough are in flight.
void LinearKernel::copyWeights() {
  Variable stage = b.variable(b.i32(0)), parity = b.variable(b.i32(1));
  Variable landed = b.variable(b.i32(0)), landedParity = b.variable(b.i32(0));
  Variable issued = b.variable(b.i32(0));
  int64_t inFlight = std::clamp<int64_t>(
      kInFlightBytes / (shape.tileRows * shape.chunkDepth * kElementBytes), 1,
      shape.stages);
  forEachTile([&](Value tile) {
    b.forLoop(b.i32(0), b.i32(shape.chunks()), b.i32(1), [&](Value chunk) {
      b.waitBarrier(emptyBarrier(stage.get()), parity.get());
      b.ifThenElse(
          b.lessThan(issued.get(), inFlight),
          [&] { issued.set(b.add(issued.get(), 1)); },
          [&] {
            b.waitBarrier(fullBarrier(landed.get()), landedParity.get());
            advance(landed, landedParity);
          });
      copyChunk(tile, chunk, stage.get());
      advance(stage, parity);
    });
  });
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

/// Where this warp's slice of a chunk starts along the depth. Past the end it
/// repeats the last slice.
Value LinearKernel::depthOf(Value chunk, int64_t slice) {
  Value depth = b.add(b.mul(chunk, shape.chunkDepth),
                      b.mul(warp, shape.slices() * kSliceDepth));
  return b.min(b.add(depth, slice * kSliceDepth),
               b.i32(shape.depth - kSliceDepth));
}

/// Loads what this lane needs of the input for a chunk.
void LinearKernel::loadInput(Value chunk) {
  chunk = b.min(chunk, b.i32(shape.chunks() - 1));
  Value column = b.shiftRight(lane, 2), quarter = b.bitAnd(lane, 3);
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    Value depth = b.add(depthOf(chunk, slice), b.shiftLeft(quarter, 3));
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      Value row = b.add(b.add(firstRow, tile * kMatrixColumns), column);
      row = b.min(row, b.i32(shape.rows - 1));
      SmallVector<Value> words =
          b.loadWords(input.at(b, {b.widen(row), b.widen(depth)}), 4);
      Words &target = inputWords[slice * shape.columnTiles() + tile];
      for (auto [variable, word] : llvm::zip_equal(target, words))
        variable.set(word);
    }
  }
}

/// sm_80: loads what this lane needs of the weights for a chunk.
void LinearKernel::loadWeights(Value tile, Value chunk) {
  if (options.isHopper())
    return;
  chunk = b.min(chunk, b.i32(shape.chunks() - 1));
  Value row = b.shiftRight(lane, 2), quarter = b.bitAnd(lane, 3);
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    Value depth = b.add(depthOf(chunk, slice), b.shiftLeft(quarter, 3));
    for (int64_t half = 0; half < 2 * shape.matrices(); ++half) {
      Value tileRow = b.add(row, half * kMatrixRows / 2);
      SmallVector<Value> words = b.loadWords(
          weight.at(b, {b.widen(weightRow(tile, tileRow)), b.widen(depth)}), 4);
      Words &target = weightsNext[slice * 2 * shape.matrices() + half];
      for (auto [variable, word] : llvm::zip_equal(target, words))
        variable.set(word);
    }
  }
}

/// 16 bytes of one of the 8-row halves of a matrix.
SmallVector<Value> LinearKernel::weightWords(int64_t matrix, int64_t half,
                                             int64_t slice) {
  if (!options.isHopper()) {
    Words &words = weightsNow[(slice * shape.matrices() + matrix) * 2 + half];
    return llvm::map_to_vector(words,
                               [](Variable &word) { return word.get(); });
  }
  Value row = b.add(b.shiftRight(lane, 2),
                    matrix * kMatrixRows + half * kMatrixRows / 2);
  Value depth =
      b.add(b.mul(warp, shape.slices() * kSliceDepth), slice * kSliceDepth);
  depth = b.add(depth, b.shiftLeft(b.bitAnd(lane, 3), 3));
  Value address = b.add(b.add(shared, shape.ringAt()),
                        b.mul(stage.get(), shape.stageBytes()));
  address = b.add(
      address, b.add(b.mul(row, shape.pitch()), b.mul(depth, kElementBytes)));
  return b.unpack(
      b.loadShared(VectorType::get({4}, b.getI32Type()), address, 16));
}

/// 32 elements of depth: two operations for each matrix and column tile.
void LinearKernel::multiplySlice(int64_t slice) {
  for (int64_t matrix = 0; matrix < shape.matrices(); ++matrix) {
    SmallVector<Value> upper = weightWords(matrix, 0, slice);
    SmallVector<Value> lower = weightWords(matrix, 1, slice);
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      Words &x = inputNow[slice * shape.columnTiles() + tile];
      auto &sum = sums[matrix * shape.columnTiles() + tile];
      Quad result;
      for (size_t i = 0; i < 4; ++i)
        result[i] = sum[i].get();
      for (int64_t step = 0; step < 2; ++step)
        result = b.multiply({upper[2 * step], lower[2 * step],
                             upper[2 * step + 1], lower[2 * step + 1]},
                            x[2 * step].get(), x[2 * step + 1].get(), result,
                            shape.element);
      for (size_t i = 0; i < 4; ++i)
        sum[i].set(result[i]);
    }
  }
}

void LinearKernel::multiplyChunk(Value chunk) {
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    if (shape.depth % shape.chunkDepth == 0) {
      multiplySlice(slice);
      continue;
    }
    // The last chunk may end before this warp's slice.
    Value depth = b.add(b.mul(chunk, shape.chunkDepth),
                        b.mul(warp, shape.slices() * kSliceDepth));
    Value isThere = b.lessThan(b.add(depth, slice * kSliceDepth), shape.depth);
    b.ifThen(isThere, [&] { multiplySlice(slice); });
  }
}

void LinearKernel::releaseChunk() {
  b.syncWarp();
  b.ifThen(b.equal(lane, 0),
           [&] { b.arriveBarrier(emptyBarrier(stage.get())); });
  advance(stage, parity);
}

void LinearKernel::multiplyTile(Value tile) {
  for (auto &sum : sums)
    for (Variable &value : sum)
      value.set(b.f32(0.0f));
  loadInput(b.i32(0));
  loadWeights(tile, b.i32(0));
  b.forLoop(b.i32(0), b.i32(shape.chunks()), b.i32(1), [&](Value chunk) {
    auto take = [](SmallVector<Words> &now, SmallVector<Words> &next) {
      for (auto [to, from] : llvm::zip_equal(now, next))
        for (auto [target, source] : llvm::zip_equal(to, from))
          target.set(source.get());
    };
    take(inputNow, inputWords);
    take(weightsNow, weightsNext);
    loadInput(b.add(chunk, 1));
    loadWeights(tile, b.add(chunk, 1));
    if (options.isHopper())
      b.waitBarrier(fullBarrier(stage.get()), parity.get());
    multiplyChunk(chunk);
    if (options.isHopper())
      releaseChunk();
  });
}

/// The work of the warps that multiply.
void LinearKernel::multiply() {
  stage = b.variable(b.i32(0));
  parity = b.variable(b.i32(0));
  sumBuffer = b.variable(b.i32(0));
  auto words = [&](int64_t count) {
    SmallVector<Words> result(count);
    for (Words &lane : result)
      for (int64_t i = 0; i < 4; ++i)
        lane.push_back(b.variable(b.getI32Type()));
    return result;
  };
  inputWords = words(shape.slices() * shape.columnTiles());
  inputNow = words(shape.slices() * shape.columnTiles());
  if (!options.isHopper()) {
    weightsNext = words(shape.slices() * 2 * shape.matrices());
    weightsNow = words(shape.slices() * 2 * shape.matrices());
  }
  sums.resize(shape.matrices() * shape.columnTiles());
  for (auto &sum : sums)
    for (Variable &value : sum)
      value = b.variable(b.getF32Type());
  forEachTile([&](Value tile) {
    multiplyTile(tile);
    storeSums();
    b.syncThreads(kSumsBarrier, kThreads);
    runEpilogue(tile);
    if (shape.sumBuffers() == 1)
      b.syncThreads(kSumsBarrier, kThreads);
    else
      sumBuffer.set(b.bitXor(sumBuffer.get(), 1));
  });
}

//===----------------------------------------------------------------------===//
// Epilogue
//===----------------------------------------------------------------------===//

/// Where a warp's sum of an activation row and a tile's row lies.
Value LinearKernel::sumAt(Value buffer, Value warp, Value row, Value tileRow) {
  Value line = b.add(b.mul(warp, shape.columnTiles() * kMatrixColumns), row);
  Value element = b.add(b.mul(line, shape.sumPitch()), tileRow);
  return b.add(
      b.add(b.add(shared, shape.sumsAt()), b.mul(buffer, shape.sumBytes())),
      b.shiftLeft(element, 2));
}

void LinearKernel::storeSums() {
  Value group = b.shiftRight(lane, 2);
  Value pair = b.shiftLeft(b.bitAnd(lane, 3), 1);
  for (int64_t matrix = 0; matrix < shape.matrices(); ++matrix)
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      auto &sum = sums[matrix * shape.columnTiles() + tile];
      for (int64_t i = 0; i < 4; ++i) {
        Value tileRow =
            b.add(group, matrix * kMatrixRows + (i / 2) * kMatrixRows / 2);
        Value row = b.add(pair, tile * kMatrixColumns + i % 2);
        b.storeShared(sum[i].get(), sumAt(sumBuffer.get(), warp, row, tileRow),
                      4);
      }
    }
}

/// Adds up what the warps have for one output element and stores what the op's
/// body makes of it.
void LinearKernel::storeElement(Value tile, Value row, Value column) {
  Value outputRow = b.widen(b.add(firstRow, row));
  Value outputColumn = b.widen(b.add(b.mul(tile, shape.tileColumns()), column));
  SmallVector<Value> arguments;
  for (int64_t part = 0; part < shape.parts; ++part) {
    Value sum;
    for (int64_t from = 0; from < kWarps; ++from) {
      Value value =
          b.loadShared(b.getF32Type(),
                       sumAt(sumBuffer.get(), b.i32(from), row,
                             b.add(column, part * shape.tileColumns())),
                       4);
      sum = sum ? b.fadd(sum, value) : value;
    }
    arguments.push_back(sum);
  }
  for (const StridedBuffer &extra : extras)
    arguments.push_back(extra.type.getRank() == 1
                            ? extra.load(b, {outputColumn})
                            : extra.load(b, {outputRow, outputColumn}));
  SmallVector<Value> results =
      cloneScalars(b, op.getBody().front(), arguments,
                   [](Operation &, IRMapping &) { return Value(); });
  output.store(b, results.front(), {outputRow, outputColumn});
}

void LinearKernel::runEpilogue(Value tile) {
  int64_t elements = shape.blockRows * shape.tileColumns();
  b.forLoop(b.threadId(), b.i32(elements), b.i32(kThreads), [&](Value element) {
    Value row = b.div(element, shape.tileColumns());
    Value column = b.rem(element, shape.tileColumns());
    Value isThere = b.lessThan(b.add(b.mul(tile, shape.tileColumns()), column),
                               shape.columns);
    isThere = b.bitAnd(isThere, b.lessThan(b.add(firstRow, row), shape.rows));
    b.ifThen(isThere, [&] { storeElement(tile, row, column); });
  });
}

//===----------------------------------------------------------------------===//
// Products that matrix units do not take
//===----------------------------------------------------------------------===//

/// A thread an output element, in f32.
static DenseLaunch writePlainProduct(LinearOp op, StringRef name,
                                     gpu::GPUModuleOp module,
                                     const DeviceOptions &options) {
  DenseBuffers buffers = DenseBuffers::of(op);
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

DenseLaunch kvrm::writeLinearKernel(LinearOp op, StringRef name,
                                    gpu::GPUModuleOp module,
                                    const DeviceOptions &options) {
  if (!fitsMatrixUnits(op))
    return writePlainProduct(op, name, module, options);
  LinearShape shape(op, options);
  // sm_80 keeps sums alone in shared memory.
  int64_t threads = kThreads + (options.isHopper() ? kWarpLanes : 0);
  DeviceKernel kernel(module, op.getLoc(), name, DenseBuffers::of(op).size(),
                      threads, shape.sharedBytes());
  LinearKernel(op, shape, kernel, options).write();
  int64_t rowBlocks = llvm::divideCeil(shape.rows, kMaxBlockRows);
  return {{1, rowBlocks, 1}, /*perProcessor=*/true};
}
