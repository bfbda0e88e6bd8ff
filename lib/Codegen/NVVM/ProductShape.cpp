//===- ProductShape.cpp - How a product is cut on a GPU -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ProductShape.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvrm;

bool kvrm::fitsMatrixUnits(const ProductOperands &operands) {
  MemRefType input = operands.input.type;
  Type element = operands.element;
  Type inputElement = input.getElementType();
  auto [strides, offset] = input.getStridesAndOffset();
  int64_t chunk = 128 / inputElement.getIntOrFloatBitWidth();
  return (element.isF16() || element.isBF16()) &&
         (operands.gain ? inputElement.isF32() : inputElement == element) &&
         (operands.format ||
          operands.weight.type.getElementType() == element) &&
         operands.depth() % kSliceDepth == 0 && strides[1] == 1 &&
         strides[0] % chunk == 0 && offset % chunk == 0 &&
         operands.weight.type.getLayout().isIdentity();
}

/// Of more than 32 rows sums and input take all registers that 8 warps have.
int64_t ProductShape::chooseWarps() const {
  return format && columnTiles() <= 4 ? kBlockWarps : kWarps;
}

int64_t ProductShape::mostRows(int64_t tileRows) const {
  int64_t tiles = llvm::divideCeil(columns * parts, tileRows);
  return llvm::divideCeil(tiles, kProcessors) * tileRows;
}

static int64_t inFlightBytes(const ProductShape &shape) {
  if (!shape.format)
    return kInFlightBytes;
  return shape.block.codeBits == 8 ? kByteCodesInFlight : kCodesInFlight;
}

int64_t ProductShape::chunksInFlight() const {
  return std::clamp<int64_t>(inFlightBytes(*this) / chunkBytes(), 1, stages);
}

/// With up to 16 rows of activations a chunk of a tile of 16 rows has copies of
/// 2 KB, and there are registers for the sums of many tiles. With more it would
/// be shorter, and tiles of 32 rows read the input half as often. Of blocks,
/// which are fewer bytes, they also wait half as often for a chunk on sm_90:
/// 1.81 ms a step in Q4_0 for 1.88. Two have to be in flight.
int64_t ProductShape::chooseTileRows(const DeviceOptions &options) const {
  constexpr int64_t narrow = kMatrixRows, wide = 2 * kMatrixRows;
  if (!format)
    return columnTiles() > 2 ? wide : narrow;
  if (columnTiles() > 1)
    return columnTiles() == 3 || columnTiles() == 4 ? wide : narrow;
  int64_t wideChunk =
      wide / kMatrixPanel * chooseChunkDepth() / block.elements * recordBytes();
  bool isWide = options.isHopper() && 2 * wideChunk <= inFlightBytes(*this) &&
                mostRows(wide) <= mostRows(narrow);
  return isWide ? wide : narrow;
}

/// As long as there are registers for the input of; of elements, chunks are
/// 32 KB. That of blocks does not depend on the rows of a tile.
int64_t ProductShape::chooseChunkDepth() const {
  int64_t slices = format ? kMaxSlices : kMaxSlices * kMatrixRows / tileRows;
  return std::min(slices, kInputTiles / columnTiles()) * kWarps * kSliceDepth;
}

/// As many as there are registers for, in passes of about the same length.
int64_t ProductShape::chooseTilesAtOnce() const {
  int64_t registers = hasNorm ? kNormedSumRegisters : kSumRegisters;
  if (format)
    registers = hasNorm ? kNormedBlockSumRegisters : kBlockSumRegisters;
  int64_t most =
      std::clamp<int64_t>(registers / sumsOfTile(), 1, kMaxTilesAtOnce);
  int64_t ofBlock = llvm::divideCeil(tiles(), kProcessors);
  return llvm::divideCeil(ofBlock, llvm::divideCeil(ofBlock, most));
}

ProductShape::ProductShape(const ProductOperands &operands, int64_t columns,
                           int64_t parts, const DeviceOptions &options)
    : rows(operands.rows()), depth(operands.depth()), columns(columns),
      parts(parts), element(operands.element), format(operands.format),
      hasNorm(operands.gain.has_value()),
      blockRows(std::min(rows, kMaxBlockRows)) {
  if (format)
    block = getShape(*format);
  warps = chooseWarps();
  tileRows = chooseTileRows(options);
  chunkDepth = chooseChunkDepth();
  assert((!format || block.elements % (slices() * kSliceDepth) == 0 ||
          slices() * kSliceDepth % block.elements == 0) &&
         "a warp's slices are of one block, or are whole ones");
  stages = 0;
  tilesAtOnce = 1;
  if (options.isHopper()) {
    stages =
        std::min(kMaxStages, (options.sharedBytes() - ringAt()) / stageBytes());
    tilesAtOnce = chooseTilesAtOnce();
  }
}

ProductLaunch kvrm::planProduct(const ProductOperands &operands,
                                int64_t columns, int64_t parts,
                                const DeviceOptions &options) {
  ProductShape shape(operands, columns, parts, options);
  int64_t rowBlocks = llvm::divideCeil(shape.rows, kMaxBlockRows);
  // sm_80 keeps no weights in shared memory, and has no warp to copy them.
  return {shape.sharedBytes(),
          shape.threads() + (options.isHopper() ? kWarpLanes : 0),
          {{1, rowBlocks, 1}, /*perProcessor=*/true},
          shape.tiles()};
}
