//===- Planner.h - Block tables and lengths to groups and work --*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The planner turns the rows of a step into a planned step descriptor. Two
// things are decided here and nowhere else:
//
// Transfer groups (KV-RM, arXiv 2605.09735): maximal runs of physically
// adjacent pages of one row, cut at KVRM_MAX_GROUP_PAGES. Groups of one row are
// adjacent in the list and in order of its history; rows are in order.
//
// Work items (PersistentKV, arXiv 2606.26666): attention of query tile t of a
// row over its history is ceil(tokens / kv_tile) tiles, where causality bounds
// tokens by min(length, place + (t + 1) * q_tile). `rows` makes one item of
// them, `split` up to `splits` equal ones, and `workqueue` lays the tiles of
// all active rows in one line and cuts it into `shares` shares. An item costs
// `itemCost` beside its tiles, those that cuts make too, and shares are equal
// in the sum. Idle rows add nothing. An output tile that several items make has
// partials, adjacent and in order, and one merge segment (online softmax, arXiv
// 1805.02867); in which shares they lie, abi/partial.h says.
//
// A padded shape is a static graph's: an active row has its whole block table,
// which the pager holds from the start, and each of its query tiles covers all
// of it. Only positions and lengths change from step to step.
//
// What an item costs passes while no bytes do, so that it is best had early: a
// block that is behind then can still catch up, as the others leave it their
// bandwidth when they end. With an item cost, rows shorter than a share
// therefore come first in the line, whatever their place in the batch.
//
// Both are incremental. A step in which no history crosses a page boundary
// leaves tables and groups as they were; one in which none crosses a tile
// boundary leaves the items. While no share grows by more than 1/16, growth
// goes to the items that end the rows' histories, and nothing else changes: of
// large batches some row crosses a boundary in every step. No call of plan()
// allocates.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PAGING_PLANNER_H
#define KVRM_RUNTIME_PAGING_PLANNER_H

#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

/// What fixes the work of an entry at compile time, and how it is shared out.
struct PlanShape {
  int32_t rows = 0;    ///< rows of a step
  int32_t queries = 0; ///< query tokens of a row
  int32_t kvHeads = 0;
  int32_t qTile = 0;      ///< query tokens of a query tile
  int32_t kvTile = 0;     ///< history tokens of a tile
  int32_t pageTokens = 0; ///< a multiple or a divisor of kvTile
  int32_t pagesPerSlot = 0;
  kvrm_schedule schedule = KVRM_SCHEDULE_ROWS;
  int32_t splits = 1;    ///< of `split`
  int32_t summaries = 0; ///< far-history entries of a row; 0 = none
  int32_t shares = 1; ///< parts that workers, or blocks of a grid, start from
  /// Of an item of `workqueue` beside its tiles, each of which costs tileCost.
  int32_t itemCost = 0;
  /// Work and groups are of whole block tables, whatever a history's length, as
  /// in a static graph; see above.
  bool isPadded = false;

  static constexpr int32_t tileCost = 16;
  static constexpr int32_t maxItemCost = 1 << 16;
};

/// Capacities that hold every plan of a shape.
struct PlanCapacity {
  kvrm_descriptor_limits limits{};
  int32_t partials = 0;
};

/// One row of a step to plan. An idle row has slot -1 and count 0.
struct PlanRow {
  int32_t slot = -1;
  int32_t position = 0; ///< of the first new token
  int32_t count = 0;    ///< new tokens, already appended in the pager
  /// Of the first new token in the row's table (see abi.h); -1 = its position,
  /// which it is unless the far history is collapsed.
  int32_t place = -1;
  int32_t summaries = 0; ///< far-history entries in use
  /// Of all entries, if any is in use. Set, so that aggregates may leave it
  /// out.
  // NOLINTNEXTLINE(readability-redundant-member-init)
  std::span<const float> biases = {};
};

/// What one plan came to.
struct PlanStats {
  int32_t activeRows = 0;
  int64_t pages = 0; ///< pages of the active rows' histories
  int32_t groups = 0;
  int32_t items = 0;
  int32_t segments = 0;
  int32_t partials = 0;
  int64_t tiles = 0;      ///< KV tiles that the items cover
  bool itemsKept = false; ///< the items of the last plan still held
  int64_t nanoseconds = 0;
};

class Planner {
public:
  /// Errors: InvalidArgument for a field out of range, ResourceExhausted.
  static Expected<Planner> create(const PlanShape &shape);

  /// Errors: InvalidArgument when the shape needs more than a descriptor holds.
  static Expected<PlanCapacity> capacityOf(const PlanShape &shape);

  /// Fills the planned copy of `descriptor`, which must be of this shape's
  /// capacity and planned by this planner alone. `rows` has one entry a row of
  /// the shape; the pager already holds the new tokens.
  const PlanStats &plan(std::span<const PlanRow> rows, const BlockPager &pager,
                        StepDescriptor &descriptor);

  const PlanShape &shape() const { return work; }
  const PlanCapacity &capacity() const { return room; }
  const PlanStats &stats() const { return last; }

private:
  /// What the descriptor holds of a row, from earlier plans.
  struct RowState {
    int32_t slot = -1;
    uint64_t generation = 0;
    int32_t tablePages = 0; ///< table entries that are not -1
    int32_t groupPages = 0; ///< pages that the row's groups cover
    int32_t groupBegin = 0;
    int32_t groupCount = 0;
    int32_t place = 0;
    int32_t count = 0;
    int32_t length = 0;   ///< in places
    bool isStale = false; ///< groups need rebuilding in this plan
  };

  /// Where the history of a row ends: the last item of a KV head, its share.
  struct RowEnd {
    int32_t item = 0;
    int32_t share = 0;
  };

  /// A share may grow by one part in so many before shares are made anew.
  static constexpr int64_t growth = 16;

  /// Lays out the items of planItems().
  class WorkLine;

  Planner() = default;

  bool syncRow(int32_t index, const PlanRow &row, const BlockPager &pager,
               StepDescriptor &descriptor);
  void rebuildGroups(int32_t first, const BlockPager &pager,
                     StepDescriptor &descriptor);
  bool canGrowItems();
  void growItems(StepDescriptor &descriptor);
  RowEnd &endOf(int32_t row, int32_t head) {
    return ends[static_cast<size_t>(row) * static_cast<size_t>(work.kvHeads) +
                static_cast<size_t>(head)];
  }
  void planItems(StepDescriptor &descriptor);
  void addRow(WorkLine &line, int32_t row);
  int32_t tilesOf(const RowState &row, int32_t queryTile) const;
  /// Of the first query tile; 0 in an idle row.
  int32_t tilesOf(const RowState &row) const {
    return row.count > 0 ? tilesOf(row, 0) : 0;
  }

  PlanShape work;
  PlanCapacity room;
  PlanStats last;
  std::vector<RowState> states;
  std::vector<int32_t> plannedTiles; ///< a row, of the items in place
  std::vector<RowEnd> ends;          ///< of a (row, KV head), one query tile
  int64_t shareGrowth = 0;           ///< tiles that a share may grow by
  std::vector<int32_t> grownTiles;   ///< of a share, since it was made
  std::vector<int32_t> shareBegin;   ///< of planItems: item it starts at
  AlignedBuffer groupScratch;
  bool itemsValid = false;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PAGING_PLANNER_H
