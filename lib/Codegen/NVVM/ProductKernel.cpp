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
// in flight at a time, for the input of the other warps comes the same way and
// would stand behind them. A copy is one of a row of a chunk, so rows are long:
// with copies of 512 bytes a product took 1.7 times as long as with 2048. The
// L2 cache is told to let go of weights first, which nobody reads again in this
// step, and keeps activations, which every block reads.
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
//===----------------------------------------------------------------------===//

#include "ProductKernel.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/Support/MathExtras.h"

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
/// Registers of sums that a thread keeps for the tiles that it takes at once;
/// with a norm in front input and gain take more of what there is.
static constexpr int64_t kSumRegisters = 64;
static constexpr int64_t kNormedSumRegisters = 56;
static constexpr int64_t kMaxTilesAtOnce = 8;
/// Bytes in flight: enough for the latency of the memory at its full speed.
static constexpr int64_t kInFlightBytes = 64 * 1024;
static constexpr int64_t kMaxStages = 12;
/// Multiprocessors of an H100 or H200 (SXM), for which shares are evened out.
static constexpr int64_t kProcessors = 132;
/// Elements of the depth that a lane has of a slice.
static constexpr int64_t kLaneDepth = 8;
/// Barrier of the warps that multiply.
static constexpr int64_t kSumsBarrier = 1;

namespace {

/// Sizes of a product and of how it is cut.
struct ProductShape {
  int64_t rows, depth, columns, parts;
  Type element;
  bool hasNorm;
  int64_t blockRows;   ///< activation rows of a block
  int64_t tileRows;    ///< weight rows of a tile, all parts
  int64_t chunkDepth;  ///< elements along the depth of a chunk
  int64_t stages;      ///< of the ring
  int64_t tilesAtOnce; ///< that share what is loaded of the activations

  ProductShape(const ProductOperands &operands, int64_t columns, int64_t parts,
               const DeviceOptions &options);

  int64_t chooseTileRows() const;
  int64_t chooseTilesAtOnce() const;
  /// Of many activation rows, the first of the next tile are loaded before this
  /// one is done: 6.33 ms a step for 6.49 at 32 rows of an 8B shape, but 5.53
  /// for 5.47 at 8 (each of a call of its own). Ahead of a norm they are on
  /// their way while the scales of the rows are made.
  bool loadsAcrossTiles() const { return hasNorm || columnTiles() > 2; }

  int64_t matrices() const { return tileRows / kMatrixRows; }
  int64_t columnTiles() const {
    return llvm::divideCeil(blockRows, kMatrixColumns);
  }
  int64_t tileColumns() const { return tileRows / parts; } ///< of the output
  int64_t tiles() const { return llvm::divideCeil(columns, tileColumns()); }
  int64_t chunks() const { return llvm::divideCeil(depth, chunkDepth); }
  int64_t slices() const { return chunkDepth / kWarps / kSliceDepth; }
  /// Sums of a thread of one tile: those of four elements a matrix operation.
  int64_t sumsOfTile() const { return matrices() * columnTiles() * 4; }

  // Shared memory: barriers, sums, what rows are scaled with, ring.

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
  int64_t scalesAt() const { return sumsAt() + sumBuffers() * sumBytes(); }
  int64_t ringAt() const {
    int64_t bytes = hasNorm ? kMaxBlockRows * 4 : 0;
    return llvm::alignTo(scalesAt() + bytes, 128);
  }
  int64_t sharedBytes() const { return ringAt() + stages * stageBytes(); }
};

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

  void startRegisters();
  void multiply();
  void multiplyPass(Value pass);
  Value weightRow(Value tile, Value tileRow);
  Value depthOf(Value chunk, int64_t slice);
  SmallVector<Value> loadElements(const StridedBuffer &buffer,
                                  ValueRange index);
  void loadInput(Value chunk);
  void takeInput();
  void loadWeights(Value tile, Value chunk);
  SmallVector<Value> weightWords(int64_t matrix, int64_t half, int64_t slice);
  void multiplySlice(int64_t slice, MutableArrayRef<Sum> sums);
  void multiplyChunk(Value chunk, MutableArrayRef<Sum> sums);
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
  Value firstRow; ///< activation row of the block
  Variable stage, parity, sumBuffer;
  SmallVector<Variable> scales;   ///< [column tile], of the norm
  SmallVector<Words> inputNext;   ///< [slice][column tile], of the next chunk
  SmallVector<Words> gainNext;    ///< [slice]
  SmallVector<Words> weightsNext; ///< [slice][matrix][half], sm_80
  SmallVector<Words> inputNow, weightsNow;
  /// [tile of the pass][matrix][column tile]
  SmallVector<SmallVector<Sum>> sums;
};

} // namespace

//===----------------------------------------------------------------------===//
// Shape
//===----------------------------------------------------------------------===//

bool kvrm::fitsMatrixUnits(const ProductOperands &operands) {
  MemRefType input = operands.input.type;
  Type element = operands.element();
  Type inputElement = input.getElementType();
  auto [strides, offset] = input.getStridesAndOffset();
  int64_t chunk = 128 / inputElement.getIntOrFloatBitWidth();
  return (element.isF16() || element.isBF16()) &&
         (operands.gain ? inputElement.isF32() : inputElement == element) &&
         operands.depth() % kSliceDepth == 0 && strides[1] == 1 &&
         strides[0] % chunk == 0 && offset % chunk == 0 &&
         operands.weight.type.getLayout().isIdentity();
}

/// With up to 16 rows of activations a chunk of a tile of 16 rows has copies of
/// 2 KB, and there are registers for the sums of many tiles. With more it would
/// be shorter, and tiles of 32 rows read the input half as often.
int64_t ProductShape::chooseTileRows() const {
  return columnTiles() > 2 ? 2 * kMatrixRows : kMatrixRows;
}

/// As many as there are registers for, in passes of about the same length.
int64_t ProductShape::chooseTilesAtOnce() const {
  int64_t registers = hasNorm ? kNormedSumRegisters : kSumRegisters;
  int64_t most =
      std::clamp<int64_t>(registers / sumsOfTile(), 1, kMaxTilesAtOnce);
  int64_t ofBlock = llvm::divideCeil(tiles(), kProcessors);
  return llvm::divideCeil(ofBlock, llvm::divideCeil(ofBlock, most));
}

ProductShape::ProductShape(const ProductOperands &operands, int64_t columns,
                           int64_t parts, const DeviceOptions &options)
    : rows(operands.rows()), depth(operands.depth()), columns(columns),
      parts(parts), element(operands.element()),
      hasNorm(operands.gain.has_value()),
      blockRows(std::min(rows, kMaxBlockRows)) {
  tileRows = chooseTileRows();
  chunkDepth = std::min(kMaxSlices * kMatrixRows / tileRows,
                        kInputTiles / columnTiles()) *
               kWarps * kSliceDepth;
  stages = 0;
  tilesAtOnce = 1;
  if (options.isHopper()) {
    stages =
        std::min(kMaxStages, (options.sharedBytes() - ringAt()) / stageBytes());
    tilesAtOnce = chooseTilesAtOnce();
  }
}

//===----------------------------------------------------------------------===//
// The kernel
//===----------------------------------------------------------------------===//

void ProductWriter::initBarriers() {
  b.ifThen(b.equal(b.threadId(), 0), [&] {
    for (int64_t i = 0; i < shape.stages; ++i) {
      b.initBarrier(fullBarrier(b.i32(i)), 1);
      b.initBarrier(emptyBarrier(b.i32(i)), kWarps);
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
  b.forLoop(warp, b.i32(shape.blockRows), b.i32(kWarps), [&](Value row) {
    Value source = b.min(b.add(firstRow, row), b.i32(shape.rows - 1));
    Value mean = b.fmul(sumOfSquares(source),
                        b.f32(1.0f / static_cast<float>(shape.depth)));
    Value root = math::SqrtOp::create(b, b.fadd(mean, b.f32(operands.epsilon)));
    Value scale = arith::DivFOp::create(b, b.f32(1.0f), root);
    b.ifThen(b.equal(lane, 0), [&] { b.storeShared(scale, at(row), 4); });
  });
  b.syncThreads(kSumsBarrier, kThreads);
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

/// Copies one chunk, a row a lane.
void ProductWriter::copyChunk(Value tile, Value chunk, Value stage) {
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
    // Blocks of other rows read the same weights.
    auto reuse = shape.rows > kMaxBlockRows ? DeviceBuilder::Reuse::Some
                                            : DeviceBuilder::Reuse::None;
    b.bulkCopy(target, source, bytes, fullBarrier(stage), reuse);
  });
}

/// The work of the copying warp: chunk after chunk, as the ring has room and
/// few enough are in flight.
void ProductWriter::copyWeights() {
  Variable stage = b.variable(b.i32(0)), parity = b.variable(b.i32(1));
  Variable landed = b.variable(b.i32(0)), landedParity = b.variable(b.i32(0));
  Variable issued = b.variable(b.i32(0));
  int64_t inFlight = std::clamp<int64_t>(
      kInFlightBytes / (shape.tileRows * shape.chunkDepth * kElementBytes), 1,
      shape.stages);
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
  Value depth = b.add(b.mul(chunk, shape.chunkDepth),
                      b.mul(warp, shape.slices() * kSliceDepth));
  return b.min(b.add(depth, slice * kSliceDepth),
               b.i32(shape.depth - kSliceDepth));
}

/// What a lane has of a slice, as it is in the buffer: words of 16-bit
/// elements, or f32.
SmallVector<Value> ProductWriter::loadElements(const StridedBuffer &buffer,
                                               ValueRange index) {
  Value pointer = buffer.at(b, index);
  if (!buffer.type.getElementType().isF32())
    return b.loadWords(pointer, kLaneDepth * kElementBytes / 4);
  auto quad = VectorType::get({4}, b.getF32Type());
  SmallVector<Value> values = b.unpack(b.load(quad, pointer, 16));
  llvm::append_range(values, b.unpack(b.load(quad, b.at(pointer, 16), 16)));
  return values;
}

/// Loads what this lane needs of the input for a chunk. The input is the same
/// for every pass: past the last chunk come those of the next pass.
void ProductWriter::loadInput(Value chunk) {
  chunk = shape.loadsAcrossTiles() ? b.rem(chunk, shape.chunks())
                                   : b.min(chunk, b.i32(shape.chunks() - 1));
  auto set = [](Words &target, ArrayRef<Value> values) {
    for (auto [variable, value] : llvm::zip_equal(target, values))
      variable.set(value);
  };
  Value column = b.shiftRight(lane, 2), quarter = b.bitAnd(lane, 3);
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    Value depth =
        b.widen(b.add(depthOf(chunk, slice), b.mul(quarter, kLaneDepth)));
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      Value row = b.add(b.add(firstRow, tile * kMatrixColumns), column);
      row = b.min(row, b.i32(shape.rows - 1));
      set(inputNext[slice * shape.columnTiles() + tile],
          loadElements(operands.input, {b.widen(row), depth}));
    }
    if (shape.hasNorm)
      set(gainNext[slice], loadElements(*operands.gain, {depth}));
  }
}

/// Takes what was loaded for the chunk that is next, normalized if there is a
/// norm in front.
void ProductWriter::takeInput() {
  if (!shape.hasNorm)
    return copyWords(inputNow, inputNext);
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
}

/// sm_80: loads what this lane needs of the weights for a chunk.
void ProductWriter::loadWeights(Value tile, Value chunk) {
  if (options.isHopper())
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

void ProductWriter::multiplyChunk(Value chunk, MutableArrayRef<Sum> sums) {
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    if (shape.depth % shape.chunkDepth == 0) {
      multiplySlice(slice, sums);
      continue;
    }
    // The last chunk may end before this warp's slice.
    Value depth = b.add(b.mul(chunk, shape.chunkDepth),
                        b.mul(warp, shape.slices() * kSliceDepth));
    Value isThere = b.lessThan(b.add(depth, slice * kSliceDepth), shape.depth);
    b.ifThen(isThere, [&] { multiplySlice(slice, sums); });
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
    forEachTileOf(pass, [&](int64_t i, Value) {
      if (options.isHopper())
        b.waitBarrier(fullBarrier(stage.get()), parity.get());
      multiplyChunk(chunk, sums[i]);
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
  if (!options.isHopper()) {
    int64_t halves = shape.slices() * 2 * shape.matrices();
    weightsNext = variables(halves, words, b.getI32Type());
    weightsNow = variables(halves, words, b.getI32Type());
  }
  sums.resize(shape.tilesAtOnce);
  for (auto &ofTile : sums) {
    ofTile.resize(shape.matrices() * shape.columnTiles());
    for (Sum &sum : ofTile)
      for (Variable &value : sum)
        value = b.variable(b.getF32Type());
  }
}

/// The work of the warps that multiply.
void ProductWriter::multiply() {
  stage = b.variable(b.i32(0));
  parity = b.variable(b.i32(0));
  sumBuffer = b.variable(b.i32(0));
  startRegisters();
  if (shape.loadsAcrossTiles())
    loadInput(b.i32(0));
  if (shape.hasNorm)
    makeScales();
  forEachPass([&](Value pass) {
    multiplyPass(pass);
    forEachTileOf(pass, [&](int64_t i, Value tile) {
      storeSums(sums[i]);
      b.syncThreads(kSumsBarrier, kThreads);
      runEpilogue(tile);
      if (shape.sumBuffers() == 1)
        b.syncThreads(kSumsBarrier, kThreads);
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
    for (int64_t from = 0; from < kWarps; ++from) {
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
  b.forLoop(b.threadId(), b.i32(elements), b.i32(kThreads), [&](Value element) {
    Value row = b.div(element, shape.tileColumns());
    Value column = b.rem(element, shape.tileColumns());
    Value isThere = b.lessThan(b.add(b.mul(tile, shape.tileColumns()), column),
                               shape.columns);
    isThere = b.bitAnd(isThere, b.lessThan(row, shape.blockRows));
    isThere = b.bitAnd(isThere, b.lessThan(b.add(firstRow, row), shape.rows));
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

ProductLaunch kvrm::planProduct(const ProductOperands &operands,
                                int64_t columns, int64_t parts,
                                const DeviceOptions &options) {
  ProductShape shape(operands, columns, parts, options);
  int64_t rowBlocks = llvm::divideCeil(shape.rows, kMaxBlockRows);
  // sm_80 keeps no weights in shared memory, and has no warp to copy them.
  return {shape.sharedBytes(),
          kThreads + (options.isHopper() ? kWarpLanes : 0),
          {{1, rowBlocks, 1}, /*perProcessor=*/true},
          shape.tiles()};
}

void kvrm::writeProduct(const ProductOperands &operands,
                        ProductEpilogue &epilogue, DeviceKernel &kernel,
                        const DeviceOptions &options) {
  ProductWriter(operands, epilogue, kernel, options).write();
}
