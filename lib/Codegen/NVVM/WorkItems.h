//===- WorkItems.h - Finding a block's work ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// How a block reads work items and rows of the descriptor, and which strips of
// a history an item covers.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_WORKITEMS_H
#define KVRM_CODEGEN_NVVM_WORKITEMS_H

#include "DeviceKernel.h"

#include "llvm/Support/MathExtras.h"

namespace mlir::kvrm {

/// Bytes of an element of q, k, v and out: f16 or bf16.
inline constexpr int64_t kIoBytes = 2;

/// The tokens that one warp attends to at once: K and V, 4 to 16 KiB, and their
/// scales behind them, if the pool has some.
struct StripShape {
  explicit StripShape(PoolType pool) : StripShape(pool, tokensOf(pool)) {}
  StripShape(PoolType pool, int64_t tokens)
      : tokens(tokens), headDim(pool.getHeadDim()), page(pool.getPage()),
        elementBytes(pool.getElement().getIntOrFloatBitWidth() / 8),
        scaleBytes(pool.getScaleBytes()), pageLayout(pool.getPageLayout()) {}
  static int64_t tokensOf(PoolType pool) {
    return kvrm_strip_tokens(kvrm_head_shape_of(pool.getHeadDim()),
                             pool.getElement().getIntOrFloatBitWidth() / 8);
  }
  int64_t rowBytes() const { return headDim * elementBytes; }
  int64_t halfBytes() const { return tokens * rowBytes(); } ///< K, or V
  bool hasScales() const { return scaleBytes > 0; }
  /// Rows begin at multiples of the largest power of two that they are.
  int64_t rowAlignment() const { return rowBytes() & -rowBytes(); }
  int64_t stageBytes() const {
    return static_cast<int64_t>(
        llvm::alignTo(2 * (halfBytes() + tokens * scaleBytes),
                      static_cast<uint64_t>(rowAlignment())));
  }
  /// Where a stage has the scales of K, or of V.
  int64_t scalesAt(bool isValue) const {
    return 2 * halfBytes() + (isValue ? tokens * scaleBytes : 0);
  }
  /// Where a page of K, or of V, has the scale of its token `inPage`.
  Value scaleInPage(DeviceBuilder &b, Value inPage) const {
    return b.add(b.mul(inPage, scaleBytes), pageLayout.scales);
  }
  int64_t pageBytes() const { return pageLayout.bytes; }
  /// Pages that a strip touches; a page may hold several strips.
  int64_t pages() const { return std::max<int64_t>(1, tokens / page); }
  /// What the chunks of a token with these lowest bits are XORed with.
  Value swizzle(DeviceBuilder &b, Value token) const {
    return b.shiftRight(b.bitAnd(token, 7), kvrm_swizzle_shift(rowBytes()));
  }

  int64_t tokens;
  int64_t headDim;
  int64_t page;
  int64_t elementBytes; ///< of the pool
  int64_t scaleBytes;   ///< of a token; 0 without scales
  kvrm_page_layout pageLayout;
};

/// Where the token of a row goes that this step appends.
class PageSlot {
public:
  /// kvrm_row[], the block tables, and the pages of each (i64).
  struct Tables {
    Value rows, tables, pagesPerSlot;
  };
  /// Token `token` of row `row`, both i32.
  PageSlot(DeviceBuilder &b, PoolType pool, const Tables &tables, Value row,
           Value token);

  /// Whether the row has such a token in this step.
  Value isThere() const { return active; }
  /// Bytes from the first page of a KV head to element `index`, i32, of the
  /// token. Reads the block table: only where the token is there.
  Value offsetOf(Value index);
  /// The same of chunk `chunk` of 16 bytes.
  Value offsetOfChunk(Value chunk);
  /// The same of the token's scale.
  Value offsetOfScale();

private:
  Value loadPage();
  DeviceBuilder &b;
  PoolType pool;
  StripShape strip;
  Tables tables;
  Value row, place, active;
};

/// A work item and what its row says.
struct WorkItemVariables {
  WorkItemVariables() = default;
  explicit WorkItemVariables(DeviceBuilder &b);
  void copy(const WorkItemVariables &other) const;

  Variable row, kvHead, queryTile, tileBegin, tileEnd, partial, segment;
  Variable count, length;
  Variable place; ///< of the row's first new token
  Variable summaries;
};

/// Strips [begin, end) of a history; all query rows see those below fullEnd
/// whole, but for those below windowEdge, of which those below summaryEnd hold
/// summaries, and earlier steps wrote those below historyEnd. Tokens are said
/// by their places.
struct StripRange {
  Value begin, windowEdge, summaryEnd, fullEnd, end, historyEnd;
  Value summaryPlaces; ///< that the row's summaries take; none without them
  Value firstPlace;    ///< of the item's first query token
  Value visibleEnd;    ///< one past the last token that any query row sees
  Value readEnd; ///< the same of those that are read: in a padded session all

  /// Where a loop over tiles begins or ends.
  Value boundOf(TileBound bound) const;
};

class ItemReader {
public:
  /// Ranges are in strips of that shape.
  ItemReader(DeviceKernel &device, KernelOp kernel, const StripShape &strip);

  /// Reads the share of block `index`; returns its items' begin and end.
  std::pair<Value, Value> setFromShare(const WorkItemVariables &item,
                                       Value index);
  void setFromItem(const WorkItemVariables &item, Value index);
  /// The whole of output tile `index`: row, then KV head, then query tile.
  void setFromOutput(const WorkItemVariables &item, Value index);

  StripRange rangeOf(const WorkItemVariables &item);

private:
  void setFields(const WorkItemVariables &item, Value address);
  void setRow(const WorkItemVariables &item);

  DeviceKernel &device;
  DeviceBuilder &b;
  KernelOp kernel;
  StripShape strip;
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_WORKITEMS_H
