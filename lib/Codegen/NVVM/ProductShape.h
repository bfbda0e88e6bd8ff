//===- ProductShape.h - How a product is cut on a GPU -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What decides how fast a product's kernel is: how much of the weight and of
// the activations a block takes at once, and what of its shared memory is what.
// ProductKernel.cpp says why it is cut so.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_PRODUCTSHAPE_H
#define KVRM_CODEGEN_NVVM_PRODUCTSHAPE_H

#include "BlockDecoder.h"
#include "ProductKernel.h"

namespace mlir::kvrm {

/// Warps that multiply. More of them hide how long the codes of a weight in
/// blocks take to become operands; each has fewer registers then.
inline constexpr int64_t kWarps = 8;
inline constexpr int64_t kBlockWarps = 16;
inline constexpr int64_t kMatrixRows = 16;   ///< of an operation: weight rows
inline constexpr int64_t kMatrixColumns = 8; ///< activation rows
inline constexpr int64_t kSliceDepth = 32;   ///< of two operations
inline constexpr int64_t kMaxBlockRows = 64; ///< activation rows of a block
inline constexpr int64_t kElementBytes = 2;  ///< f16 or bf16
/// Registers of input that a thread keeps for a chunk: slices of depth times
/// tiles of 8 activation rows, of 4 words each.
inline constexpr int64_t kInputTiles = 8;
inline constexpr int64_t kMaxSlices = 4;
/// Registers of sums that a thread keeps for the tiles that it takes at once;
/// with a norm in front input and gain take more of what there is.
inline constexpr int64_t kSumRegisters = 64;
inline constexpr int64_t kNormedSumRegisters = 56;
inline constexpr int64_t kBlockSumRegisters = 32;
inline constexpr int64_t kNormedBlockSumRegisters = 16;
inline constexpr int64_t kMaxTilesAtOnce = 8;
/// Bytes in flight: enough for the latency of the memory at its full speed. The
/// input of the warps that multiply waits behind them, which it does more often
/// a byte of weights in blocks: in Q4_0 with 37 KB 1.81 ms a step of an 8B
/// shape for 1.91 with 55 at 1 row, 2.04 for 2.17 at 8.
inline constexpr int64_t kInFlightBytes = 64 * 1024;
inline constexpr int64_t kByteCodesInFlight = 52 * 1024;
inline constexpr int64_t kCodesInFlight = 40 * 1024;
inline constexpr int64_t kMaxStages = 12;
/// Multiprocessors of an H100 or H200 (SXM), for which shares are evened out.
inline constexpr int64_t kProcessors = 132;
/// Elements of the depth that a lane has of a slice.
inline constexpr int64_t kLaneDepth = 8;

/// Sizes of a product and of how it is cut.
struct ProductShape {
  int64_t rows, depth, columns, parts;
  Type element;
  std::optional<BlockFormat> format; ///< of a weight in blocks
  kvrmblocks::BlockShape block = {}; ///< of it
  bool hasNorm;
  int64_t blockRows;   ///< activation rows of a block
  int64_t warps;       ///< that multiply
  int64_t tileRows;    ///< weight rows of a tile, all parts
  int64_t chunkDepth;  ///< elements along the depth of a chunk
  int64_t stages;      ///< of the ring
  int64_t tilesAtOnce; ///< that share what is loaded of the activations

  ProductShape(const ProductOperands &operands, int64_t columns, int64_t parts,
               const DeviceOptions &options);

  int64_t chooseWarps() const;
  int64_t chooseTileRows(const DeviceOptions &options) const;
  int64_t chooseChunkDepth() const;
  int64_t chooseTilesAtOnce() const;
  /// Rows of the weight of the block that has most, in tiles of so many.
  int64_t mostRows(int64_t tileRows) const;
  /// Chunks that are copied at a time.
  int64_t chunksInFlight() const;
  /// Of many activation rows, the first of the next tile are loaded before this
  /// one is done: 6.33 ms a step for 6.49 at 32 rows of an 8B shape, but 5.53
  /// for 5.47 at 8 (each of a call of its own). Ahead of a norm they are on
  /// their way while the scales of the rows are made.
  bool loadsAcrossTiles() const { return hasNorm || columnTiles() > 2; }

  /// Whether what is loaded of the input goes past the L1 cache, without which
  /// 16 rows had wrong results now and then (docs/gpu-dense.md). Blocks read it
  /// several times, and were never seen to.
  bool loadsFromL2() const { return columnTiles() > 1 && !format; }

  int64_t matrices() const { return tileRows / kMatrixRows; }
  int64_t columnTiles() const {
    return llvm::divideCeil(blockRows, kMatrixColumns);
  }
  int64_t tileColumns() const { return tileRows / parts; } ///< of the output
  int64_t tiles() const { return llvm::divideCeil(columns, tileColumns()); }
  int64_t chunks() const { return llvm::divideCeil(depth, chunkDepth); }
  bool hasWholeChunks() const { return depth % chunkDepth == 0; }
  int64_t slices() const { return chunkDepth / warps / kSliceDepth; }
  /// What a lane has of a slice follows one another; in blocks it is as much of
  /// each half.
  int64_t runs() const { return format ? 2 : 1; }
  int64_t runLength() const { return kLaneDepth / runs(); }
  int64_t threads() const { return warps * kWarpLanes; }
  /// Sums of a thread of one tile: those of four elements a matrix operation.
  int64_t sumsOfTile() const { return matrices() * columnTiles() * 4; }

  // A weight in blocks: records of panels of 8 rows, one behind the other along
  // the depth.

  int64_t panels() const { return tileRows / kMatrixPanel; } ///< of a tile
  int64_t recordBytes() const { return block.recordBytes(kMatrixPanel); }
  int64_t recordsOfRow() const { return depth / block.elements; }
  int64_t recordsOfChunk() const { return chunkDepth / block.elements; }
  int64_t panelBytes() const { return recordsOfChunk() * recordBytes(); }
  /// Slices of a warp's chunk that share scales.
  int64_t slicesOfGroup() const {
    return std::clamp<int64_t>(block.group / kSliceDepth, 1, slices());
  }
  /// Parts of a slice that have scales of their own: of the two operations
  /// each.
  int64_t groupsOfSlice() const {
    return block.group < kSliceDepth ? kSliceDepth / block.group : 1;
  }

  // Shared memory: barriers, sums, what rows are scaled with, ring.

  /// Bytes from a row of a chunk to the next: rows alternate between the halves
  /// of the banks, so that 8 lanes that read 16 bytes of two rows meet none.
  int64_t pitch() const { return chunkDepth * kElementBytes + 64; }
  int64_t stageBytes() const {
    return format ? panels() * panelBytes() : tileRows * pitch();
  }
  /// Bytes of the weight in a chunk.
  int64_t chunkBytes() const {
    return format ? stageBytes() : tileRows * chunkDepth * kElementBytes;
  }
  /// Floats from an activation row's sums to the next's: 4 modulo 16 keeps the
  /// stores of a result's 8 rows and 4 column pairs apart.
  int64_t sumPitch() const { return tileRows + 4; }
  int64_t sumBytes() const {
    return warps * columnTiles() * kMatrixColumns * sumPitch() * 4;
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

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_PRODUCTSHAPE_H
