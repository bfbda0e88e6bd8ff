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
// with copies of 512 bytes a product took 1.7 times as long as with 2048.
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
// A norm in front is the block's own work: it normalizes its activation rows,
// whole, to shared memory while the ring fills, and reads them from there for
// all its tiles. A kernel for the norm would be a pass over the rows for every
// block to wait for.
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
/// Registers of sums that a thread keeps for the tiles that it takes at once.
static constexpr int64_t kSumRegisters = 64;
static constexpr int64_t kMaxTilesAtOnce = 8;
/// Bytes in flight: enough for the latency of the memory at its full speed.
static constexpr int64_t kInFlightBytes = 64 * 1024;
static constexpr int64_t kMaxStages = 12;
/// Multiprocessors of an H100 or H200 (SXM), for which shares are evened out.
static constexpr int64_t kProcessors = 132;
/// Elements of a row that a lane normalizes at once.
static constexpr int64_t kPieceWidth = 4;
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
  /// Rows of the weight that the busiest of the blocks has.
  int64_t mostRows(int64_t tileRows) const {
    int64_t tiles = llvm::divideCeil(columns * parts, tileRows);
    return llvm::divideCeil(tiles, kProcessors) * tileRows;
  }
  /// Of many activation rows, the first of the next tile are loaded before this
  /// one is done: 6.33 ms a step for 6.49 at 32 rows of an 8B shape, but 5.53
  /// for 5.47 at 8 (each of a call of its own).
  bool loadsAcrossTiles() const { return columnTiles() > 2; }

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

  // Shared memory: barriers, sums, normalized input, ring.

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
  int64_t normalizedAt() const {
    return llvm::alignTo(sumsAt() + sumBuffers() * sumBytes(), 128);
  }
  /// From a normalized row to the next: alternating as rows of a chunk do.
  int64_t normalizedPitch() const {
    return llvm::alignTo(depth * kElementBytes, 128) + 64;
  }
  int64_t ringAt() const {
    int64_t bytes = hasNorm ? blockRows * normalizedPitch() : 0;
    return llvm::alignTo(normalizedAt() + bytes, 128);
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
  using Words = SmallVector<Variable, 4>; ///< 16 bytes of a lane
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

  Value sumOverRow(Value value, int64_t warps);
  struct RowPieces;
  Value loadPiece(const StridedBuffer &buffer, ValueRange index);
  Value addSquares(ArrayRef<SmallVector<Value>> values,
                   const RowPieces &pieces);
  void storePiece(ArrayRef<Value> values, Value scale, Value column,
                  Value target);
  void normalizeRow(Value row, Value last, Value share, int64_t warps);
  void normalizeRows();

  void copyWeights();
  void copyChunk(Value tile, Value chunk, Value stage);

  void multiply();
  void multiplyPass(Value pass);
  Value weightRow(Value tile, Value tileRow);
  Value depthOf(Value chunk, int64_t slice);
  void loadInput(Value chunk);
  void takeNormalized(Value chunk);
  void loadWeights(Value tile, Value chunk);
  SmallVector<Value> weightWords(int64_t matrix, int64_t half, int64_t slice);
  void multiplySlice(int64_t slice, MutableArrayRef<Sum> sums);
  void multiplyChunk(Value chunk, MutableArrayRef<Sum> sums);
  void releaseChunk();
  Value sumAt(Value buffer, Value warp, Value row, Value tileRow);
  void storeSums(MutableArrayRef<Sum> sums);
  void runEpilogue(Value tile);
  void storeElement(Value tile, Value row, Value column);

  const ProductOperands &operands;
  ProductEpilogue &epilogue;
  DeviceKernel &kernel;
  const DeviceOptions &options;
  ProductShape shape;
  DeviceBuilder &b;
  Value shared, warp, lane;
  Value firstRow; ///< activation row of the block
  Variable stage, parity, sumBuffer;
  SmallVector<Words> inputNext;   ///< [slice][column tile], of the next chunk
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

/// A tile of 32 rows reads the input half as often as two of 16, and longer
/// rows of a chunk are what is good about 16. With more than a few activation
/// rows the former counts, unless it leaves the blocks less even shares.
int64_t ProductShape::chooseTileRows() const {
  constexpr int64_t fewRows = 4;
  if (rows <= fewRows)
    return kMatrixRows;
  bool isEven = mostRows(2 * kMatrixRows) <= mostRows(kMatrixRows);
  return columnTiles() > 2 || isEven ? 2 * kMatrixRows : kMatrixRows;
}

/// As many as there are registers for, in passes of about the same length.
int64_t ProductShape::chooseTilesAtOnce() const {
  int64_t most =
      std::clamp<int64_t>(kSumRegisters / sumsOfTile(), 1, kMaxTilesAtOnce);
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

/// Adds up over the lanes of `warps` neighbouring warps, which share a row.
Value ProductWriter::sumOverRow(Value value, int64_t warps) {
  value = b.sumOverWarp(value);
  if (warps == 1)
    return value;
  // Where sums of products will be.
  Value memory = b.add(shared, shape.sumsAt());
  b.ifThen(b.equal(lane, 0), [&] {
    b.storeShared(value, b.add(memory, b.shiftLeft(warp, 2)), 4);
  });
  b.syncThreads(kSumsBarrier, kThreads);
  Value first = b.bitAnd(warp, -warps);
  Value sum = b.f32(0.0f);
  for (int64_t i = 0; i < warps; ++i)
    sum = b.fadd(
        sum, b.loadShared(b.getF32Type(),
                          b.add(memory, b.shiftLeft(b.add(first, i), 2)), 4));
  return sum;
}

/// The pieces of a row, four elements each, that a lane has: every `step`-th
/// from `first` on.
struct ProductWriter::RowPieces {
  Value first;
  int64_t step, count;

  /// Most that a lane has.
  int64_t perLane() const { return llvm::divideCeil(count, step); }
  /// Whether the lane has an `i`-th; null if all lanes have it.
  Value has(DeviceBuilder &b, int64_t i) const {
    if ((i + 1) * step <= count)
      return {};
    return b.lessThan(b.add(first, i * step), count);
  }
  /// The first column of the `i`-th; past the last the last's.
  Value column(DeviceBuilder &b, int64_t i) const {
    Value piece = b.min(b.add(first, i * step), b.i32(count - 1));
    return b.mul(piece, kPieceWidth);
  }
};

Value ProductWriter::loadPiece(const StridedBuffer &buffer, ValueRange index) {
  return b.load(VectorType::get({kPieceWidth}, b.getF32Type()),
                buffer.at(b, index), 4 * kPieceWidth);
}

/// The sum of the squares of what this lane has of a row.
Value ProductWriter::addSquares(ArrayRef<SmallVector<Value>> values,
                                const RowPieces &pieces) {
  Value squares = b.f32(0.0f);
  for (auto [i, piece] : llvm::enumerate(values)) {
    Value sum = squares;
    for (Value value : piece)
      sum = b.fma(value, value, sum);
    Value isThere = pieces.has(b, static_cast<int64_t>(i));
    squares = isThere ? b.select(isThere, sum, squares) : sum;
  }
  return squares;
}

/// Stores one piece of a row to shared memory, scaled and rounded.
void ProductWriter::storePiece(ArrayRef<Value> values, Value scale,
                               Value column, Value target) {
  SmallVector<Value> gains =
      b.unpack(loadPiece(*operands.gain, {b.widen(column)}));
  SmallVector<Value> scaled;
  for (auto [value, gain] : llvm::zip_equal(values, gains))
    scaled.push_back(b.fmul(b.fmul(value, scale), gain));
  Value words = b.pack({b.roundPair(scaled[0], scaled[1], shape.element),
                        b.roundPair(scaled[2], scaled[3], shape.element)});
  b.storeShared(words, b.add(target, b.mul(column, kElementBytes)),
                kPieceWidth * kElementBytes);
}

/// Normalizes row `row` of the block, which `warps` warps share; this one is
/// the `share`-th of them. All that a lane has stays in registers. Nothing is
/// stored of a row past `last`, in whose place that one is read.
void ProductWriter::normalizeRow(Value row, Value last, Value share,
                                 int64_t warps) {
  RowPieces pieces{b.add(b.mul(share, kWarpLanes), lane), warps * kWarpLanes,
                   shape.depth / kPieceWidth};
  Value inputRow = b.widen(b.add(firstRow, b.min(row, last)));
  SmallVector<SmallVector<Value>> values;
  for (int64_t i = 0; i < pieces.perLane(); ++i)
    values.push_back(b.unpack(
        loadPiece(operands.input, {inputRow, b.widen(pieces.column(b, i))})));
  Value mean = b.fmul(sumOverRow(addSquares(values, pieces), warps),
                      b.f32(1.0f / static_cast<float>(shape.depth)));
  Value root = math::SqrtOp::create(b, b.fadd(mean, b.f32(operands.epsilon)));
  Value scale = arith::DivFOp::create(b, b.f32(1.0f), root);
  Value target = b.add(b.add(shared, shape.normalizedAt()),
                       b.mul(row, shape.normalizedPitch()));
  b.ifThen(b.lessThan(row, b.add(last, 1)), [&] {
    for (auto [i, piece] : llvm::enumerate(values)) {
      auto index = static_cast<int64_t>(i);
      auto store = [&, &piece = piece] {
        storePiece(piece, scale, pieces.column(b, index), target);
      };
      if (Value isThere = pieces.has(b, index))
        b.ifThen(isThere, store);
      else
        store();
    }
  });
}

/// Normalizes the block's rows to shared memory, several at once.
void ProductWriter::normalizeRows() {
  int64_t atOnce =
      std::min<int64_t>(kWarps, llvm::PowerOf2Ceil(shape.blockRows));
  int64_t warps = kWarps / atOnce;
  Value own = b.div(warp, warps), share = b.bitAnd(warp, warps - 1);
  Value last = b.sub(
      b.min(b.i32(shape.blockRows), b.sub(b.i32(shape.rows), firstRow)), 1);
  // Several warps a row only where all rows are taken at once: none of them
  // writes its part of a sum before the others have read the one ahead.
  for (int64_t first = 0; first < shape.blockRows; first += atOnce)
    normalizeRow(b.add(own, first), last, share, warps);
  b.syncThreads(kSumsBarrier, kThreads);
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
    b.bulkCopy(target, source, bytes, fullBarrier(stage));
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

/// Loads what this lane needs of the input for a chunk. The input is the same
/// for every pass: past the last chunk come those of the next pass.
void ProductWriter::loadInput(Value chunk) {
  if (shape.hasNorm)
    return;
  chunk = shape.loadsAcrossTiles() ? b.rem(chunk, shape.chunks())
                                   : b.min(chunk, b.i32(shape.chunks() - 1));
  Value column = b.shiftRight(lane, 2), quarter = b.bitAnd(lane, 3);
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    Value depth = b.add(depthOf(chunk, slice), b.shiftLeft(quarter, 3));
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      Value row = b.add(b.add(firstRow, tile * kMatrixColumns), column);
      row = b.min(row, b.i32(shape.rows - 1));
      SmallVector<Value> words =
          b.loadWords(operands.input.at(b, {b.widen(row), b.widen(depth)}), 4);
      Words &target = inputNext[slice * shape.columnTiles() + tile];
      for (auto [variable, word] : llvm::zip_equal(target, words))
        variable.set(word);
    }
  }
}

/// What this lane needs of the normalized input for a chunk.
void ProductWriter::takeNormalized(Value chunk) {
  Value column = b.shiftRight(lane, 2), quarter = b.bitAnd(lane, 3);
  auto lanes = VectorType::get({4}, b.getI32Type());
  for (int64_t slice = 0; slice < shape.slices(); ++slice) {
    Value depth = b.add(depthOf(chunk, slice), b.shiftLeft(quarter, 3));
    for (int64_t tile = 0; tile < shape.columnTiles(); ++tile) {
      Value row = b.min(b.add(column, tile * kMatrixColumns),
                        b.i32(shape.blockRows - 1));
      Value address = b.add(b.mul(row, shape.normalizedPitch()),
                            b.mul(depth, kElementBytes));
      address = b.add(address, b.add(shared, shape.normalizedAt()));
      Words &target = inputNow[slice * shape.columnTiles() + tile];
      for (auto [variable, word] :
           llvm::zip_equal(target, b.unpack(b.loadShared(lanes, address, 16))))
        variable.set(word);
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
    if (shape.hasNorm)
      takeNormalized(chunk);
    else
      copyWords(inputNow, inputNext);
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

/// The work of the warps that multiply.
void ProductWriter::multiply() {
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
  if (!shape.hasNorm)
    inputNext = words(shape.slices() * shape.columnTiles());
  inputNow = words(shape.slices() * shape.columnTiles());
  if (!options.isHopper()) {
    weightsNext = words(shape.slices() * 2 * shape.matrices());
    weightsNow = words(shape.slices() * 2 * shape.matrices());
  }
  sums.resize(shape.tilesAtOnce);
  for (auto &ofTile : sums) {
    ofTile.resize(shape.matrices() * shape.columnTiles());
    for (Sum &sum : ofTile)
      for (Variable &value : sum)
        value = b.variable(b.getF32Type());
  }
  if (shape.hasNorm)
    normalizeRows();
  else if (shape.loadsAcrossTiles())
    loadInput(b.i32(0));
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
/// stored.
void ProductWriter::storeElement(Value tile, Value row, Value column) {
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
  epilogue.store(b.add(firstRow, row),
                 b.add(b.mul(tile, shape.tileColumns()), column), partSums);
}

void ProductWriter::runEpilogue(Value tile) {
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
          {{1, rowBlocks, 1}, /*perProcessor=*/true}};
}

void kvrm::writeProduct(const ProductOperands &operands,
                        ProductEpilogue &epilogue, DeviceKernel &kernel,
                        const DeviceOptions &options) {
  ProductWriter(operands, epilogue, kernel, options).write();
}
