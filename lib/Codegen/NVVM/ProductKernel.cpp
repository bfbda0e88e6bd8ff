//===- ProductKernel.cpp - A product with a weight on a GPU ---------------===//
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
// in flight at a time, of blocks less, for the input of the other warps comes
// the same way and would stand behind them. A copy is one of a row of a chunk,
// so rows are long: with copies of 512 bytes a product took 1.7 times as long
// as with 2048. The L2 cache is told to let go of weights first, which nobody
// reads again in this step, and keeps activations, which every block reads.
//
// Activations come from the L2 cache, for each tile again: at 32 rows, and
// tiles of 32, as many bytes as of weights, which is all that the cache can
// give. So a block takes several of its tiles at once, as many as registers
// have room for the sums of, and goes through the depth once for all of them.
//
// Eight warps multiply, each a slice of a chunk's depth, with mma.sync of 16 x
// 8 x 16; their sums meet in shared memory, where the epilogue, a thread an
// output element, takes them. On sm_80 the eight warps load weights to
// registers, one chunk ahead.
//
// A norm in front is the lanes' own work: each normalizes what it has loaded of
// the input, a chunk ahead. What that takes of a whole row, the sum of its
// squares, comes from the product that stored the row, whose epilogue has added
// up the squares of each tile (RowSquares.h).
//
// Both operands take 8 consecutive elements of depth a lane, 16 bytes, for two
// matrix operations: the order within a sum is free as long as both agree.
//
// A weight in blocks goes to the ring as it is stored, and lanes make operands
// of its codes (BlockDecoder.h), in the order of depth that these come in.
// Codes are small integers, which f16 and bf16 have exactly; scales are f32,
// and multiply the sums of a group. A minimum is multiplied with the sum of the
// activations of its group, which is made once a chunk, as the product with an
// operand of ones.
//
//===----------------------------------------------------------------------===//

#include "ProductShape.h"

#include "BlockDecoder.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvrm;

/// Barrier of the warps that multiply.
static constexpr int64_t kSumsBarrier = 1;

namespace {

/// Writes one kernel.
class ProductWriter {
public:
  ProductWriter(const ProductOperands &operands, ProductEpilogue &epilogue,
                DeviceKernel &kernel, const DeviceOptions &options)
      : operands(operands), epilogue(epilogue), kernel(kernel),
        options(options),
        shape(operands, epilogue.columns, epilogue.parts, options),
        b(kernel.b) {}
  void write();

private:
  using Words = SmallVector<Variable, 4>; ///< 8 elements of a lane
  using Sum = std::array<Variable, 4>;    ///< a lane's, of a matrix operation

  Value fullBarrier(Value stage) {
    return b.add(shared, b.shiftLeft(stage, 3));
  }
  Value emptyBarrier(Value stage) {
    return b.add(fullBarrier(stage), kMaxStages * 8);
  }
  void initBarriers();
  void advance(Variable &stage, Variable &parity);
  void forEachPass(function_ref<void(Value)> body);
  void forEachTileOf(Value pass, function_ref<void(int64_t, Value)> body);

  Value sumOfSquares(Value row);
  void makeScales();

  void copyWeights();
  void copyChunk(Value tile, Value chunk, Value stage);
  void copyRows(Value tile, Value chunk, Value stage);
  void copyRecords(Value tile, Value chunk, Value stage);

  void startRegisters();
  void multiply();
  void multiplyPass(Value pass);
  Value weightRow(Value tile, Value tileRow);
  Value depthOf(Value chunk, int64_t slice);
  SmallVector<Value> slicesOf(const StridedBuffer &buffer,
                              SmallVector<Value> index, Value chunk);
  SmallVector<Value> loadElements(Type element, Value pointer);
  void loadInput(Value chunk);
  void takeInput();
  void loadWeights(Value tile, Value chunk);
  SmallVector<Value> weightWords(int64_t matrix, int64_t half, int64_t slice);
  void multiplySlice(int64_t slice, MutableArrayRef<Sum> sums);
  void multiplyChunk(Value tile, Value chunk, MutableArrayRef<Sum> sums);

  void sumInput();
  /// Where this warp's slice of the records of half a matrix is: its record's
  /// start, and the place in it.
  struct RecordPlace {
    Value start;   ///< shared address, or pointer on sm_80
    Value element; ///< first of the slice
  };
  RecordPlace recordOf(Value tile, Value chunk, int64_t slice, int64_t panel);
  Value loadOfRecord(const RecordPlace &place, Type type, Value offset);
  void multiplyBlocks(Value tile, Value chunk, int64_t slice,
                      MutableArrayRef<Sum> sums);
  void scaleGroup(ArrayRef<RecordPlace> halves, int64_t slice, int64_t part,
                  ArrayRef<Quad> products, MutableArrayRef<Sum> sums);
  void releaseChunk();
  Value sumAt(Value buffer, Value warp, Value row, Value tileRow);
  void storeSums(MutableArrayRef<Sum> sums);
  void runEpilogue(Value tile);
  Value storeElement(Value tile, Value row, Value column);
  void storeSquares(Value tile, Value row, Value column, Value stored);

  const ProductOperands &operands;
  ProductEpilogue &epilogue;
  DeviceKernel &kernel;
  const DeviceOptions &options;
  ProductShape shape;
  DeviceBuilder &b;
  Value shared, warp, lane;
  Value firstRow;   ///< activation row of the block
  Value warpDepth;  ///< where a warp's share of a chunk starts
  Value warpRecord; ///< sm_90: shared address of its record in the first stage
  Variable stage, parity, sumBuffer;
  SmallVector<Variable> scales;   ///< [column tile], of the norm
  SmallVector<Words> inputNext;   ///< [slice][column tile], of the next chunk
  SmallVector<Words> gainNext;    ///< [slice]
  SmallVector<Words> weightsNext; ///< [slice][matrix][half], sm_80
  SmallVector<Words> inputNow, weightsNow;
  /// Of the input, of columns 2t and 2t + 1: [slice][column tile]; for minima.
  SmallVector<std::array<Variable, 2>> inputSums;
  /// Of a group of slices so far: [matrix][column tile].
  SmallVector<Sum> groupSums;
  /// [tile of the pass][matrix][column tile]
  SmallVector<SmallVector<Sum>> sums;
};

} // namespace

//===----------------------------------------------------------------------===//
// The kernel
//===----------------------------------------------------------------------===//

void ProductWriter::initBarriers() {
  b.ifThen(b.equal(b.threadId(), 0), [&] {
    for (int64_t i = 0; i < shape.stages; ++i) {
      b.initBarrier(fullBarrier(b.i32(i)), 1);
      b.initBarrier(emptyBarrier(b.i32(i)), shape.warps);
    }
    b.fenceBarrierInit();
  });
  b.syncBlock();
}

void ProductWriter::advance(Variable &stage, Variable &parity) {
  Value next = b.add(stage.get(), 1);
  Value wraps = b.equal(next, shape.stages);
  parity.set(b.select(wraps, b.bitXor(parity.get(), 1), parity.get()));
  stage.set(b.select(wraps, b.i32(0), next));
}

/// The passes of this block over the depth, each by its first tile.
void ProductWriter::forEachPass(function_ref<void(Value)> body) {
  b.forLoop(b.blockId(), b.i32(shape.tiles()),
            b.mul(b.gridSize(), shape.tilesAtOnce), body);
}

/// The tiles of a pass, and their numbers in it. The last pass may have fewer.
void ProductWriter::forEachTileOf(Value pass,
                                  function_ref<void(int64_t, Value)> body) {
  body(0, pass);
  for (int64_t i = 1; i < shape.tilesAtOnce; ++i) {
    Value tile = b.add(pass, b.mul(b.gridSize(), i));
    b.ifThen(b.lessThan(tile, shape.tiles()), [&] { body(i, tile); });
  }
}

void ProductWriter::write() {
  shared = kernel.sharedMemory();
  lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  // From one lane, so that ptxas knows it to be the same in all.
  warp = b.shuffle(b.shiftRight(b.threadId(), 5), b.i32(0));
  firstRow = b.mul(b.blockIdY(), kMaxBlockRows);
  if (!options.isHopper()) {
    multiply();
  } else {
    initBarriers();
    // What follows a product whose weight the step makes starts behind it.
    if (!operands.isWeightMade)
      b.launchDependents();
    b.ifThenElse(
        b.equal(warp, shape.warps),
        [&] {
          // Nothing is known ahead of a weight that the step makes.
          if (operands.isWeightMade)
            b.waitForPrerequisites();
          copyWeights();
        },
        [&] {
          b.waitForPrerequisites();
          multiply();
        });
  }
  kernel.finish();
}

//===----------------------------------------------------------------------===//
// The norm in front
//===----------------------------------------------------------------------===//

/// The sum of the squares of a row, from those of its parts, in all lanes.
Value ProductWriter::sumOfSquares(Value row) {
  const StridedBuffer &squares = *operands.squares;
  Variable sum = b.variable(b.f32(0.0f));
  b.forLoop(lane, b.i32(squares.type.getDimSize(1)), b.i32(kWarpLanes),
            [&](Value part) {
              Value value = squares.load(b, {b.widen(row), b.widen(part)});
              sum.set(b.fadd(sum.get(), value));
            });
  return b.sumOverWarp(sum.get());
}

/// Makes what the elements of each row are scaled with, a warp a row and turn,
/// and takes those of the rows of this lane.
void ProductWriter::makeScales() {
  auto at = [&](Value row) {
    return b.add(b.add(shared, shape.scalesAt()), b.shiftLeft(row, 2));
  };
  b.forLoop(warp, b.i32(shape.blockRows), b.i32(shape.warps), [&](Value row) {
    Value source = b.min(b.add(firstRow, row), b.i32(shape.rows - 1));
    Value mean = b.fmul(sumOfSquares(source),
                        b.f32(1.0f / static_cast<float>(shape.depth)));
    Value root = math::SqrtOp::create(b, b.fadd(mean, b.f32(operands.epsilon)));
    Value scale = arith::DivFOp::create(b, b.f32(1.0f), root);
    b.ifThen(b.equal(lane, 0), [&] { b.storeShared(scale, at(row), 4); });
  });
  b.syncThreads(kSumsBarrier, shape.threads());
  for (auto [tile, scale] : llvm::enumerate(scales)) {
    Value row = b.add(b.shiftRight(lane, 2),
                      static_cast<int64_t>(tile) * kMatrixColumns);
    row = b.min(row, b.i32(shape.blockRows - 1));
    scale.set(b.loadShared(b.getF32Type(), at(row), 4));
  }
}

//===----------------------------------------------------------------------===//
// Weights to the ring
//===----------------------------------------------------------------------===//

/// The row of the weight that row `tileRow` of a tile is; columns past the last
/// repeat it, and nothing is stored for them.
Value ProductWriter::weightRow(Value tile, Value tileRow) {
  Value part = b.div(tileRow, shape.tileColumns());
  Value column = b.add(b.mul(tile, shape.tileColumns()),
                       b.rem(tileRow, shape.tileColumns()));
  return epilogue.weightRow(part, b.min(column, b.i32(shape.columns - 1)));
}

void ProductWriter::copyChunk(Value tile, Value chunk, Value stage) {
  if (shape.format)
    copyRecords(tile, chunk, stage);
  else
    copyRows(tile, chunk, stage);
}

/// Whether blocks of other rows read the same weights.
static DeviceBuilder::Reuse reuseOf(const ProductShape &shape) {
  return shape.rows > kMaxBlockRows ? DeviceBuilder::Reuse::Some
                                    : DeviceBuilder::Reuse::None;
}

/// Copies one chunk, a row a lane.
void ProductWriter::copyRows(Value tile, Value chunk, Value stage) {
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
        operands.weight.at(b, {b.widen(weightRow(tile, lane)), b.widen(depth)});
    Value target = b.add(
        b.add(shared, shape.ringAt()),
        b.add(b.mul(stage, shape.stageBytes()), b.mul(lane, shape.pitch())));
    b.bulkCopy(target, source, bytes, fullBarrier(stage), reuseOf(shape));
  });
}

/// Copies one chunk of a weight in blocks, a panel a lane.
void ProductWriter::copyRecords(Value tile, Value chunk, Value stage) {
  Value first = b.mul(chunk, shape.recordsOfChunk());
  Value records = b.min(b.i32(shape.recordsOfChunk()),
                        b.sub(b.i32(shape.recordsOfRow()), first));
  Value bytes = b.mul(records, shape.recordBytes());
  b.ifThen(b.equal(lane, 0), [&] {
    b.expectBytes(fullBarrier(stage), b.mul(bytes, shape.panels()));
  });
  b.syncWarp();
  b.ifThen(b.lessThan(lane, shape.panels()), [&] {
    Value panel =
        b.div(weightRow(tile, b.mul(lane, kMatrixPanel)), kMatrixPanel);
    Value source =
        operands.weight.at(b, {b.widen(panel), b.widen(first), b.i64(0)});
    Value target = b.add(b.add(shared, shape.ringAt()),
                         b.add(b.mul(stage, shape.stageBytes()),
                               b.mul(lane, shape.panelBytes())));
    b.bulkCopy(target, source, bytes, fullBarrier(stage), reuseOf(shape));
  });
}

/// The work of the copying warp: chunk after chunk, as the ring has room and
/// few enough are in flight.
void ProductWriter::copyWeights() {
  Variable stage = b.variable(b.i32(0)), parity = b.variable(b.i32(1));
  Variable landed = b.variable(b.i32(0)), landedParity = b.variable(b.i32(0));
  Variable issued = b.variable(b.i32(0));
  int64_t inFlight = shape.chunksInFlight();
  auto copyNext = [&](Value tile, Value chunk) {
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
  };
  forEachPass([&](Value pass) {
    b.forLoop(b.i32(0), b.i32(shape.chunks()), b.i32(1), [&](Value chunk) {
      forEachTileOf(pass, [&](int64_t, Value tile) { copyNext(tile, chunk); });
    });
  });
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

static void copyWords(SmallVector<SmallVector<Variable, 4>> &to,
                      SmallVector<SmallVector<Variable, 4>> &from) {
  for (auto [targets, sources] : llvm::zip_equal(to, from))
    for (auto [target, source] : llvm::zip_equal(targets, sources))
      target.set(source.get());
}

/// Where this warp's slice of a chunk starts along the depth. Past the end it
/// repeats the last slice.
Value ProductWriter::depthOf(Value chunk, int64_t slice) {
  Value depth = b.add(b.mul(chunk, shape.chunkDepth), warpDepth);
  return b.min(b.add(depth, slice * kSliceDepth),
               b.i32(shape.depth - kSliceDepth));
}

/// Where a lane's elements of the slices of a chunk start in `buffer`, whose
/// last index is the depth; `index` are those before it.
SmallVector<Value> ProductWriter::slicesOf(const StridedBuffer &buffer,
                                           SmallVector<Value> index,
                                           Value chunk) {
  int64_t bytes = buffer.type.getElementTypeBitWidth() / 8;
  Value ofLane = b.mul(b.bitAnd(lane, 3), shape.runLength());
  index.push_back(Value());
  SmallVector<Value> pointers;
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    // Whole chunks have all slices at fixed places from the first.
    if (slice > 0 && shape.hasWholeChunks()) {
      pointers.push_back(b.at(pointers.front(), slice * kSliceDepth * bytes));
      continue;
    }
    index.back() = b.widen(b.add(depthOf(chunk, slice), ofLane));
    pointers.push_back(buffer.at(b, index));
  }
  return pointers;
}

/// What a lane has of a slice, as it is in the buffer, where `pointer` is its
/// first element: words of 16-bit elements, or f32.
SmallVector<Value> ProductWriter::loadElements(Type element, Value pointer) {
  int64_t length = shape.runLength();
  auto quad = VectorType::get({4}, b.getF32Type());
  SmallVector<Value> values;
  for (int64_t run = 0; run < shape.runs(); ++run) {
    int64_t bytes = element.getIntOrFloatBitWidth() / 8;
    Value source = b.at(pointer, run * kSliceDepth / shape.runs() * bytes);
    if (!element.isF32()) {
      int64_t words = length * kElementBytes / 4;
      llvm::append_range(values, shape.loadsFromL2()
                                     ? b.loadWordsFromL2(source, words)
                                     : b.loadWords(source, words));
      continue;
    }
    for (int64_t i = 0; i < length / 4; ++i)
      llvm::append_range(values,
                         b.unpack(b.load(quad, b.at(source, 16 * i), 16)));
  }
  return values;
}

/// Loads what this lane needs of the input for a chunk. The input is the same
/// for every pass: past the last chunk come those of the next pass.
void ProductWriter::loadInput(Value chunk) {
  chunk = shape.loadsAcrossTiles() ? b.rem(chunk, shape.chunks())
                                   : b.min(chunk, b.i32(shape.chunks() - 1));
  auto load = [&](Words &targets, const StridedBuffer &buffer, Value pointer) {
    SmallVector<Value> values =
        loadElements(buffer.type.getElementType(), pointer);
    for (auto [variable, value] : llvm::zip_equal(targets, values))
      variable.set(value);
  };
  Value column = b.shiftRight(lane, 2);
  for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
    Value row = b.add(b.add(firstRow, tile * kMatrixColumns), column);
    row = b.min(row, b.i32(shape.rows - 1));
    for (auto [slice, pointer] :
         llvm::enumerate(slicesOf(operands.input, {b.widen(row)}, chunk)))
      load(inputNext[slice * shape.columnTiles() + tile], operands.input,
           pointer);
  }
  if (shape.hasNorm)
    for (auto [slice, pointer] :
         llvm::enumerate(slicesOf(*operands.gain, {}, chunk)))
      load(gainNext[slice], *operands.gain, pointer);
}

/// Takes what was loaded for the chunk that is next, normalized if there is a
/// norm in front.
void ProductWriter::takeInput() {
  if (!shape.hasNorm) {
    copyWords(inputNow, inputNext);
    return sumInput();
  }
  for (int64_t i = 0; i < shape.slices() * shape.columnTiles(); ++i) {
    Value scale = scales[i % shape.columnTiles()].get();
    auto normalized = [&](int64_t element) {
      Value scaled = b.fmul(inputNext[i][element].get(), scale);
      return b.fmul(scaled, gainNext[i / shape.columnTiles()][element].get());
    };
    for (auto [word, variable] : llvm::enumerate(inputNow[i])) {
      auto first = 2 * static_cast<int64_t>(word);
      variable.set(
          b.roundPair(normalized(first), normalized(first + 1), shape.element));
    }
  }
  sumInput();
}

/// What minima are multiplied with: sums of the input over each slice.
void ProductWriter::sumInput() {
  if (inputSums.empty())
    return;
  constexpr int64_t f16Ones = 0x3c003c00, bf16Ones = 0x3f803f80;
  Value ones = b.i32(shape.element.isBF16() ? bf16Ones : f16Ones);
  Value zero = b.f32(0.0f);
  for (auto [x, sums] : llvm::zip_equal(inputNow, inputSums)) {
    Quad result = {zero, zero, zero, zero};
    for (int64_t step = 0; step < 2; ++step)
      result = b.multiply({ones, ones, ones, ones}, x[2 * step].get(),
                          x[2 * step + 1].get(), result, shape.element);
    sums[0].set(result[0]);
    sums[1].set(result[1]);
  }
}

/// sm_80: loads what this lane needs of the weights for a chunk.
void ProductWriter::loadWeights(Value tile, Value chunk) {
  if (options.isHopper() || shape.format)
    return;
  chunk = b.min(chunk, b.i32(shape.chunks() - 1));
  Value row = b.shiftRight(lane, 2), quarter = b.bitAnd(lane, 3);
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    Value depth = b.add(depthOf(chunk, slice), b.shiftLeft(quarter, 3));
    for (int64_t half = 0; half < 2 * shape.matrices(); ++half) {
      Value tileRow = b.add(row, half * kMatrixRows / 2);
      SmallVector<Value> words =
          b.loadWords(operands.weight.at(b, {b.widen(weightRow(tile, tileRow)),
                                             b.widen(depth)}),
                      4);
      Words &target = weightsNext[slice * 2 * shape.matrices() + half];
      for (auto [variable, word] : llvm::zip_equal(target, words))
        variable.set(word);
    }
  }
}

/// 16 bytes of one of the 8-row halves of a matrix.
SmallVector<Value> ProductWriter::weightWords(int64_t matrix, int64_t half,
                                              int64_t slice) {
  if (!options.isHopper()) {
    Words &words = weightsNow[(slice * shape.matrices() + matrix) * 2 + half];
    return llvm::map_to_vector(words,
                               [](Variable &word) { return word.get(); });
  }
  Value row = b.add(b.shiftRight(lane, 2),
                    matrix * kMatrixRows + half * kMatrixRows / 2);
  Value depth = b.add(warpDepth, slice * kSliceDepth);
  depth = b.add(depth, b.shiftLeft(b.bitAnd(lane, 3), 3));
  Value address = b.add(b.add(shared, shape.ringAt()),
                        b.mul(stage.get(), shape.stageBytes()));
  address = b.add(
      address, b.add(b.mul(row, shape.pitch()), b.mul(depth, kElementBytes)));
  return b.unpack(
      b.loadShared(VectorType::get({4}, b.getI32Type()), address, 16));
}

/// 32 elements of depth: two operations for each matrix and column tile.
void ProductWriter::multiplySlice(int64_t slice, MutableArrayRef<Sum> sums) {
  for (int64_t matrix = 0; matrix < shape.matrices(); ++matrix) {
    SmallVector<Value> upper = weightWords(matrix, 0, slice);
    SmallVector<Value> lower = weightWords(matrix, 1, slice);
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      Words &x = inputNow[slice * shape.columnTiles() + tile];
      Sum &sum = sums[matrix * shape.columnTiles() + tile];
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

void ProductWriter::multiplyChunk(Value tile, Value chunk,
                                  MutableArrayRef<Sum> sums) {
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    auto multiply = [&] {
      if (shape.format)
        multiplyBlocks(tile, chunk, slice, sums);
      else
        multiplySlice(slice, sums);
    };
    if (shape.hasWholeChunks()) {
      multiply();
      continue;
    }
    // The last chunk may end before this warp's slice.
    Value depth = b.add(b.mul(chunk, shape.chunkDepth), warpDepth);
    Value isThere = b.lessThan(b.add(depth, slice * kSliceDepth), shape.depth);
    b.ifThen(isThere, multiply);
  }
}

//===----------------------------------------------------------------------===//
// Products with blocks
//===----------------------------------------------------------------------===//

ProductWriter::RecordPlace
ProductWriter::recordOf(Value tile, Value chunk, int64_t slice, int64_t panel) {
  // Slices of one block, or of whole ones, are at fixed places from the first.
  int64_t depth = slice * kSliceDepth;
  int64_t record = depth / shape.block.elements;
  Value element = b.add(b.rem(warpDepth, shape.block.elements),
                        depth % shape.block.elements);
  if (options.isHopper()) {
    Value start = b.add(warpRecord, b.mul(stage.get(), shape.stageBytes()));
    return {
        b.add(start, panel * shape.panelBytes() + record * shape.recordBytes()),
        element};
  }
  Value row = weightRow(tile, b.i32(panel * kMatrixPanel));
  Value first = b.add(b.div(warpDepth, shape.block.elements),
                      b.mul(chunk, shape.recordsOfChunk()));
  return {operands.weight.at(b, {b.widen(b.div(row, kMatrixPanel)),
                                 b.widen(b.add(first, record)), b.i64(0)}),
          element};
}

Value ProductWriter::loadOfRecord(const RecordPlace &place, Type type,
                                  Value offset) {
  unsigned bytes = type.getIntOrFloatBitWidth() / 8;
  if (options.isHopper())
    return b.loadShared(type, b.add(place.start, offset), bytes);
  return b.load(type, b.at(place.start, b.widen(offset)), bytes);
}

/// Adds the products of a group of codes and activations, one a column tile, to
/// the sums of their matrix, scaled. `part` is the group's, of those of a
/// slice.
void ProductWriter::scaleGroup(ArrayRef<RecordPlace> halves, int64_t slice,
                               int64_t part, ArrayRef<Quad> products,
                               MutableArrayRef<Sum> sums) {
  BlockDecoder decoder(b, options, *shape.format, shape.element, lane);
  SmallVector<Value> scales, minima;
  for (const RecordPlace &half : halves) {
    auto load = [&](Type type, Value offset) {
      return loadOfRecord(half, type, offset);
    };
    Value group = b.add(b.div(half.element, shape.block.group), part);
    scales.push_back(decoder.scale(group, load));
    if (shape.block.hasMinima)
      minima.push_back(decoder.minimum(group, load));
  }
  int64_t first = slice - slice % shape.slicesOfGroup();
  for (int64_t tile = 0; tile < shape.columnTiles(); ++tile)
    for (int64_t i = 0; i < 4; ++i) {
      Value sum = b.fma(products[tile][i], scales[i / 2], sums[tile][i].get());
      for (int64_t of = first; of <= slice && !minima.empty(); ++of)
        sum = b.fma(inputSums[of * shape.columnTiles() + tile][i % 2].get(),
                    minima[i / 2], sum);
      sums[tile][i].set(sum);
    }
}

/// The same as multiplySlice, of a weight in blocks.
void ProductWriter::multiplyBlocks(Value tile, Value chunk, int64_t slice,
                                   MutableArrayRef<Sum> sums) {
  BlockDecoder decoder(b, options, *shape.format, shape.element, lane);
  int64_t columnTiles = shape.columnTiles(),
          inGroup = slice % shape.slicesOfGroup();
  bool isLast = inGroup + 1 == shape.slicesOfGroup();
  Value zero = b.f32(0.0f);
  for (int64_t matrix = 0; matrix < shape.matrices(); ++matrix) {
    SmallVector<RecordPlace> halves;
    SmallVector<SmallVector<Value, 4>> codes;
    for (int64_t half : {0, 1}) {
      halves.push_back(recordOf(tile, chunk, slice, 2 * matrix + half));
      codes.push_back(decoder.codes(b.div(halves.back().element, kSliceDepth),
                                    [&](Type type, Value offset) {
                                      return loadOfRecord(halves.back(), type,
                                                          offset);
                                    }));
    }
    MutableArrayRef<Sum> ofMatrix =
        sums.slice(matrix * columnTiles, columnTiles);
    MutableArrayRef<Sum> ofGroup(groupSums);
    if (!ofGroup.empty())
      ofGroup = ofGroup.slice(matrix * columnTiles, columnTiles);
    SmallVector<Quad> products(columnTiles, Quad{zero, zero, zero, zero});
    if (inGroup > 0)
      for (auto [product, sum] : llvm::zip_equal(products, ofGroup))
        for (int64_t i = 0; i < 4; ++i)
          product[i] = sum[i].get();
    for (int64_t step = 0; step < 2; ++step) {
      for (int64_t column = 0; column < columnTiles; ++column) {
        Words &x = inputNow[slice * columnTiles + column];
        products[column] =
            b.multiply({codes[0][2 * step], codes[1][2 * step],
                        codes[0][2 * step + 1], codes[1][2 * step + 1]},
                       x[2 * step].get(), x[2 * step + 1].get(),
                       products[column], shape.element);
      }
      if (step == 1 ? isLast : shape.groupsOfSlice() == 2) {
        scaleGroup(halves, slice, step * (shape.groupsOfSlice() - 1), products,
                   ofMatrix);
        products.assign(columnTiles, Quad{zero, zero, zero, zero});
      }
    }
    if (!isLast)
      for (auto [product, sum] : llvm::zip_equal(products, ofGroup))
        for (int64_t i = 0; i < 4; ++i)
          sum[i].set(product[i]);
  }
}

void ProductWriter::releaseChunk() {
  b.syncWarp();
  b.ifThen(b.equal(lane, 0),
           [&] { b.arriveBarrier(emptyBarrier(stage.get())); });
  advance(stage, parity);
}

/// The products of the tiles of a pass. Those of sm_80 are single, and weights
/// come a chunk ahead.
void ProductWriter::multiplyPass(Value pass) {
  for (auto &ofTile : sums)
    for (Sum &sum : ofTile)
      for (Variable &value : sum)
        value.set(b.f32(0.0f));
  if (!shape.loadsAcrossTiles())
    loadInput(b.i32(0));
  loadWeights(pass, b.i32(0));
  b.forLoop(b.i32(0), b.i32(shape.chunks()), b.i32(1), [&](Value chunk) {
    takeInput();
    loadInput(b.add(chunk, 1));
    copyWords(weightsNow, weightsNext);
    loadWeights(pass, b.add(chunk, 1));
    forEachTileOf(pass, [&](int64_t i, Value tile) {
      if (options.isHopper())
        b.waitBarrier(fullBarrier(stage.get()), parity.get());
      multiplyChunk(tile, chunk, sums[i]);
      if (options.isHopper())
        releaseChunk();
    });
  });
}

/// Registers of what is loaded and added up.
void ProductWriter::startRegisters() {
  auto variables = [&](int64_t count, int64_t ofEach, Type type) {
    SmallVector<Words> result(count);
    for (Words &lane : result)
      for (int64_t i = 0; i < ofEach; ++i)
        lane.push_back(b.variable(type));
    return result;
  };
  constexpr int64_t words = kLaneDepth * kElementBytes / 4;
  int64_t inputs = shape.slices() * shape.columnTiles();
  inputNow = variables(inputs, words, b.getI32Type());
  if (shape.hasNorm) {
    inputNext = variables(inputs, kLaneDepth, b.getF32Type());
    gainNext = variables(shape.slices(), kLaneDepth, b.getF32Type());
    for (int64_t i = 0; i < shape.columnTiles(); ++i)
      scales.push_back(b.variable(b.getF32Type()));
  } else {
    inputNext = variables(inputs, words, b.getI32Type());
  }
  auto sumOf = [&](auto &registers) {
    for (Variable &value : registers)
      value = b.variable(b.getF32Type());
  };
  if (shape.format && shape.block.hasMinima) {
    inputSums.resize(inputs);
    llvm::for_each(inputSums, sumOf);
  }
  if (shape.format && shape.slicesOfGroup() > 1) {
    groupSums.resize(shape.matrices() * shape.columnTiles());
    llvm::for_each(groupSums, sumOf);
  }
  if (!options.isHopper() && !shape.format) {
    int64_t halves = shape.slices() * 2 * shape.matrices();
    weightsNext = variables(halves, words, b.getI32Type());
    weightsNow = variables(halves, words, b.getI32Type());
  }
  sums.resize(shape.tilesAtOnce);
  for (auto &ofTile : sums) {
    ofTile.resize(shape.matrices() * shape.columnTiles());
    llvm::for_each(ofTile, sumOf);
  }
}

/// The work of the warps that multiply.
void ProductWriter::multiply() {
  stage = b.variable(b.i32(0));
  parity = b.variable(b.i32(0));
  sumBuffer = b.variable(b.i32(0));
  warpDepth = b.mul(warp, shape.slices() * kSliceDepth);
  if (shape.format)
    warpRecord = b.add(
        b.add(shared, shape.ringAt()),
        b.mul(b.div(warpDepth, shape.block.elements), shape.recordBytes()));
  startRegisters();
  if (shape.loadsAcrossTiles())
    loadInput(b.i32(0));
  if (shape.hasNorm)
    makeScales();
  forEachPass([&](Value pass) {
    multiplyPass(pass);
    forEachTileOf(pass, [&](int64_t i, Value tile) {
      storeSums(sums[i]);
      b.syncThreads(kSumsBarrier, shape.threads());
      runEpilogue(tile);
      if (shape.sumBuffers() == 1)
        b.syncThreads(kSumsBarrier, shape.threads());
      else
        sumBuffer.set(b.bitXor(sumBuffer.get(), 1));
    });
  });
}

//===----------------------------------------------------------------------===//
// Epilogue
//===----------------------------------------------------------------------===//

/// Where a warp's sum of an activation row and a tile's row lies.
Value ProductWriter::sumAt(Value buffer, Value warp, Value row, Value tileRow) {
  Value line = b.add(b.mul(warp, shape.columnTiles() * kMatrixColumns), row);
  Value element = b.add(b.mul(line, shape.sumPitch()), tileRow);
  return b.add(
      b.add(b.add(shared, shape.sumsAt()), b.mul(buffer, shape.sumBytes())),
      b.shiftLeft(element, 2));
}

void ProductWriter::storeSums(MutableArrayRef<Sum> sums) {
  Value group = b.shiftRight(lane, 2);
  Value pair = b.shiftLeft(b.bitAnd(lane, 3), 1);
  for (int64_t matrix = 0; matrix < shape.matrices(); ++matrix)
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      Sum &sum = sums[matrix * shape.columnTiles() + tile];
      for (int64_t i = 0; i < 4; ++i) {
        Value tileRow =
            b.add(group, matrix * kMatrixRows + (i / 2) * kMatrixRows / 2);
        Value row = b.add(pair, tile * kMatrixColumns + i % 2);
        b.storeShared(sum[i].get(), sumAt(sumBuffer.get(), warp, row, tileRow),
                      4);
      }
    }
}

/// Adds up what the warps have for one column of an activation row, and has it
/// stored. Returns what the epilogue does.
Value ProductWriter::storeElement(Value tile, Value row, Value column) {
  SmallVector<Value> partSums;
  for (int64_t part = 0; part < shape.parts; ++part) {
    Value sum;
    for (int64_t from = 0; from < shape.warps; ++from) {
      Value value =
          b.loadShared(b.getF32Type(),
                       sumAt(sumBuffer.get(), b.i32(from), row,
                             b.add(column, part * shape.tileColumns())),
                       4);
      sum = sum ? b.fadd(sum, value) : value;
    }
    partSums.push_back(sum);
  }
  return epilogue.store(b.add(firstRow, row),
                        b.add(b.mul(tile, shape.tileColumns()), column),
                        partSums);
}

/// Adds up the squares of what the lanes of a tile's row have stored.
void ProductWriter::storeSquares(Value tile, Value row, Value column,
                                 Value stored) {
  Value sum = b.fmul(stored, stored);
  for (int64_t mask = shape.tileColumns() / 2; mask > 0; mask /= 2)
    sum = b.fadd(sum, b.shuffleXor(sum, mask));
  Value isFirst = b.bitAnd(b.equal(column, 0), b.lessThan(row, shape.rows));
  b.ifThen(isFirst, [&] {
    epilogue.squares->store(b, sum, {b.widen(row), b.widen(tile)});
  });
}

/// Whole warps take part, as sums of squares need them.
void ProductWriter::runEpilogue(Value tile) {
  int64_t elements = llvm::alignTo(shape.blockRows * shape.tileColumns(),
                                   uint64_t(kWarpLanes));
  Variable stored;
  if (epilogue.squares)
    stored = b.variable(b.getF32Type());
  b.forLoop(
      b.threadId(), b.i32(elements), b.i32(shape.threads()),
      [&](Value element) {
        Value row = b.div(element, shape.tileColumns());
        Value column = b.rem(element, shape.tileColumns());
        Value isThere = b.lessThan(
            b.add(b.mul(tile, shape.tileColumns()), column), shape.columns);
        isThere = b.bitAnd(isThere, b.lessThan(row, shape.blockRows));
        isThere =
            b.bitAnd(isThere, b.lessThan(b.add(firstRow, row), shape.rows));
        if (!epilogue.squares)
          return b.ifThen(isThere, [&] { storeElement(tile, row, column); });
        stored.set(b.f32(0.0f));
        b.ifThen(isThere, [&] { stored.set(storeElement(tile, row, column)); });
        storeSquares(tile, b.add(firstRow, row), column, stored.get());
      });
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

void kvrm::writeProduct(const ProductOperands &operands,
                        ProductEpilogue &epilogue, DeviceKernel &kernel,
                        const DeviceOptions &options) {
  ProductWriter(operands, epilogue, kernel, options).write();
}
