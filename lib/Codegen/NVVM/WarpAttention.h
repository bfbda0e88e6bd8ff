//===- WarpAttention.h - What a warp makes of a strip ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The inner part of attention on a GPU, the same in all its kernels: a warp has
// some query rows of an item and their softmax state in registers, and takes in
// one strip of the history at a time from shared memory.
//
// Products are S^T = K Q^T and O^T = V^T P^T on m16n8k16: tokens, then
// head_dim, along m, and eight query rows along n. The result of the first
// product is the second's operand B after one movmatrix.
//
// A matrix load moves units of two bytes, which is two elements of a cache of
// bytes. Of a chunk of 16 bytes it brings lane 4g + t, of K, four neighbours of
// token g, which are the pairs of two products' operands if queries lie in the
// same order; of V, transposed, a pair of neighbours of token 2t and one of
// token 2t + 1, and after a permutation of the bytes what is even, and what is
// odd, of both tokens. So one load serves two products, and the order of
// head_dim in sums and accumulators is another.
//
// Of a cache with scales operands are its codes. Scores are multiplied with the
// scales of their tokens' keys, and weights, once they are added up, with those
// of values (ScaledCodes.h).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_WARPATTENTION_H
#define KVRM_CODEGEN_NVVM_WARPATTENTION_H

#include "F8Codes.h"
#include "ScaledCodes.h"
#include "WorkItems.h"

namespace mlir::kvrm {

/// Element offset of query row `row`, i32, of an item in q and out.
Value queryElement(DeviceBuilder &b, KernelOp kernel,
                   const WorkItemVariables &item, Value row);

/// A running softmax state in registers, for query rows 8n + 2t and 8n + 2t + 1
/// of lane 4g + t; accumulators of two columns of head_dim, the lower first.
struct StateRegisters {
  SmallVector<std::array<Variable, 2>> maximum, sum;     ///< [n]
  SmallVector<SmallVector<std::array<Variable, 4>>> acc; ///< [n][i]
};

class WarpAttention {
public:
  /// A warp with `rows` query rows, which attends to strips of a shape.
  WarpAttention(DeviceKernel &device, KernelOp kernel,
                const DeviceOptions &options, const StripShape &strip,
                int64_t rows);

  /// Whether the cache is of bytes. Accumulators of block i are then of
  /// head_dim 16i + 2g and the next, else of 16i + g and 16i + g + 8.
  bool isOfBytes() const { return strip.elementBytes == 1; }

  int64_t queryColumns() const { return llvm::divideCeil(rows, 8); }
  int64_t tokenBlocks() const { return strip.tokens / 16; }
  int64_t dimBlocks() const { return headDim / 16; }

  /// `firstRow` is the warp's first row of the item's, null for 0.
  void start(Value lane, Value firstRow, const TileProgram &program);
  void makeState();
  /// Loads the rows of an item.
  void loadQuery(const WorkItemVariables &item);
  /// To before any token.
  void initSoftmax();
  /// Takes in strip `index` of the history, of tiles of a loop, which lies at a
  /// shared address. In masked ones rows see what `range` and causality let
  /// them see; in ones that may hold summaries those have biases.
  void attend(const StripRange &range, Value address, Value index,
              const TileLoop &tiles);

  /// Makes of accumulators the sums of weighted values, behind the last strip.
  void finish();

  /// The sum of weights of row 8n + 2t + half, of all lanes together.
  Value sumOfRow(int64_t n, int64_t half);

  Value laneRow, laneColumn; ///< g and t of the matrix layouts
  StateRegisters state;

private:
  /// Row `row` of the warp's in the item.
  Value rowOf(Value row) { return firstRow ? b.add(firstRow, row) : row; }
  Value rescale(Value from, Value to) { return b.exp2(b.fsub(from, to)); }
  Value swizzledRow(int64_t half, Value token, Value chunk);
  Value blockOfRow(Value row, int64_t block);
  std::array<Value, 2> widen(Value word);
  /// The place of token g of a block of a strip, or of token g + 8.
  Value tokenOf(Value index, int64_t block, int64_t half) {
    return b.add(b.add(b.mul(index, strip.tokens), laneRow),
                 16 * block + 8 * half);
  }
  Value loadScale(bool isValue, int64_t block, int64_t half);
  SmallVector<Quad> loadKeys(Value row, int64_t block);
  SmallVector<Quad> loadValues(Value row, int64_t block,
                               const std::array<Value, 2> &keep);
  void score(const StripRange &range, Value index, const TileLoop &tiles);
  Value capped(Value score);
  Value addBias(const StripRange &range, Value score, Value place);
  void updateSoftmax(const StripRange &range, Value index, bool masked);
  /// What weights of tokens g and g + 8 of each block are multiplied with, and
  /// the accumulators so far.
  struct ValueScales {
    SmallVector<std::array<Value, 2>> parts;
    Value change;
  };
  ValueScales readValueScales(const StripRange &range, Value index,
                              bool masked);
  void accumulate(const StripRange &range, Value index, bool masked);

  int64_t rows;
  DeviceKernel &device;
  DeviceBuilder &b;
  KernelOp kernel;
  Type io;
  StripShape strip;
  int64_t headDim, group;
  F8Codes codes;
  Value lane, firstRow;
  float scoreScale = 0; ///< to base 2, or to the softcap
  float softcap = 0;    ///< to base 2; 0: none
  Value biases;         ///< of the row's summaries, if the session keeps such
  std::optional<ScaleUnit> unit; ///< of accumulators, over a cache with scales

  SmallVector<SmallVector<std::array<Value, 2>>> query; ///< [n][k]
  // The strip being attended to.
  Value stage;                           ///< shared address of its keys
  SmallVector<SmallVector<Quad>> scores; ///< [token block][n], then weights
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_WARPATTENTION_H
