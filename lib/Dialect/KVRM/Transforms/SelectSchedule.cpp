//===- SelectSchedule.cpp - Tiles and schedules of attend ops -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/runtime/abi/pool.h"

#include "llvm/Support/MathExtras.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_SELECTSCHEDULEPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {
class SelectSchedulePass
    : public kvrm::impl::SelectSchedulePassBase<SelectSchedulePass> {
public:
  using SelectSchedulePassBase::SelectSchedulePassBase;

  void runOnOperation() override {
    std::optional<ScheduleKind> kind = symbolizeScheduleKind(schedule);
    if (!kind && schedule != "auto") {
      getOperation()->emitError("schedule is '")
          << schedule << "', none of auto, rows, split, workqueue and cluster";
      return signalPassFailure();
    }
    if (kvTile < 1 || !llvm::isPowerOf2_64(kvTile)) {
      getOperation()->emitError("kv-tile is ")
          << kvTile.getValue() << ", not a power of two";
      return signalPassFailure();
    }
    if (splits < 1 || splits > 64) {
      getOperation()->emitError("splits is ")
          << splits.getValue() << ", outside 1..64";
      return signalPassFailure();
    }
    if (promptWarps < 1 || promptWarps > KVRM_MAX_PROMPT_WARPS) {
      getOperation()->emitError("prompt-warps is ")
          << promptWarps.getValue() << ", outside 1.." << KVRM_MAX_PROMPT_WARPS;
      return signalPassFailure();
    }
    if (blocks < 1 || blocks > 8 || !llvm::isPowerOf2_64(blocks)) {
      getOperation()->emitError("blocks is ")
          << blocks.getValue() << ", not a power of two up to 8";
      return signalPassFailure();
    }
    getOperation()->walk([&](AttendOp op) {
      if (!op.getTileAttr())
        op.setTileAttr(selectTile(op));
      if (op.getScheduleAttr())
        return;
      ScheduleKind chosen =
          kind.value_or(op.getDescriptor().getType().getQueries() == 1
                            ? ScheduleKind::Workqueue
                            : ScheduleKind::Rows);
      op.setScheduleAttr(ScheduleAttr::get(
          op.getContext(), chosen, chosen == ScheduleKind::Split ? splits : 1,
          chosen == ScheduleKind::Cluster ? blocks : 1));
      ++numScheduled;
    });
  }

private:
  int64_t queryRowsOver(PoolType pool) {
    if (maxQueryRows > 0)
      return maxQueryRows;
    return pool.getLayout() == Layout::Swizzled
               ? kvrm_head_shape_of(pool.getHeadDim())->query_rows
               : 12;
  }

  /// Whether a tile of so many query rows, of which there are so many, can be
  /// left to several warps that have `rowsOfWarp` each.
  bool isSharedTile(int64_t rows, int64_t rowsOfWarp, int64_t tiles) {
    return rows % rowsOfWarp == 0 && rows <= promptWarps * rowsOfWarp &&
           tiles >= promptBlocks;
  }

  TileAttr selectTile(AttendOp op) {
    PoolType pool = op.getSession().getType().getPool();
    int64_t queries = op.getDescriptor().getType().getQueries();
    int64_t heads = cast<ShapedType>(op.getQuery().getType()).getDimSize(2);
    int64_t groupSize = heads / pool.getKvHeads();
    int64_t most = queryRowsOver(pool), q = 1;
    for (int64_t candidate = 1; candidate <= queries; ++candidate)
      if (queries % candidate == 0 &&
          (candidate * groupSize <= most ||
           isSharedTile(candidate * groupSize, most,
                        pool.getKvHeads() * queries / candidate)))
        q = candidate;
    return TileAttr::get(op.getContext(), q,
                         std::max<int64_t>(kvTile, pool.getPage()));
  }
};
} // namespace
