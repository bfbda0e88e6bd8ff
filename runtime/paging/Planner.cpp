//===- Planner.cpp - Block tables and lengths to groups and work ----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <cstring>

using namespace kvrm;

static int32_t ceilDivide(int64_t value, int32_t by) {
  return static_cast<int32_t>((value + by - 1) / by);
}

Expected<PlanCapacity> Planner::capacityOf(const PlanShape &shape) {
  KVRM_TRY(checkRange("plan: rows", shape.rows, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkRange("plan: queries", shape.queries, 1, KVRM_MAX_QUERIES));
  KVRM_TRY(checkRange("plan: kv_heads", shape.kvHeads, 1, KVRM_MAX_KV_HEADS));
  KVRM_TRY(checkRange("plan: q_tile", shape.qTile, 1, KVRM_MAX_QUERIES));
  KVRM_TRY(checkRange("plan: page_tokens", shape.pageTokens, 1,
                      KVRM_MAX_PAGE_TOKENS));
  KVRM_TRY(checkRange("plan: kv_tile", shape.kvTile, 1, 1 << 16));
  KVRM_TRY(checkRange("plan: pages_per_slot", shape.pagesPerSlot, 1,
                      KVRM_MAX_PAGES_PER_SLOT));
  KVRM_TRY(checkRange("plan: splits", shape.splits, 1, 1024));
  KVRM_TRY(checkRange("plan: shares", shape.shares, 1, 1 << 16));
  KVRM_TRY(
      checkRange("plan: item_cost", shape.itemCost, 0, PlanShape::maxItemCost));
  KVRM_TRY(
      checkRange("plan: summaries", shape.summaries, 0, KVRM_MAX_SUMMARIES));
  if (shape.kvTile % shape.pageTokens != 0 &&
      shape.pageTokens % shape.kvTile != 0)
    return invalidArgument("plan: kv_tile ", shape.kvTile,
                           " is neither a multiple nor a divisor of "
                           "page_tokens ",
                           shape.pageTokens);

  int64_t outputs = int64_t(shape.rows) * shape.kvHeads *
                    ceilDivide(shape.queries, shape.qTile);
  int64_t items = outputs;
  int64_t segments = 0;
  int64_t partials = 0;
  switch (shape.schedule) {
  case KVRM_SCHEDULE_ROWS:
    break;
  case KVRM_SCHEDULE_SPLIT:
    items = outputs * shape.splits;
    if (shape.splits > 1) {
      segments = outputs;
      partials = items;
    }
    break;
  case KVRM_SCHEDULE_WORKQUEUE:
    // shares - 1 cuts; each adds an item, and at most a segment, whose first
    // partial no cut has counted yet.
    items = outputs + shape.shares - 1;
    segments = std::min<int64_t>(outputs, shape.shares - 1);
    partials = segments + shape.shares - 1;
    break;
  case KVRM_SCHEDULE_CLUSTER:
    return invalidArgument("plan: schedule: cluster has no work items to plan; "
                           "plan a workqueue beside it");
  }
  constexpr int64_t most = 1 << 26;
  if (items > most || int64_t(shape.rows) * shape.pagesPerSlot > most)
    return invalidArgument("plan: ", items, " work items and ",
                           int64_t(shape.rows) * shape.pagesPerSlot,
                           " table entries exceed the limit ", most);
  PlanCapacity capacity;
  capacity.limits.rows = shape.rows;
  capacity.limits.queries = shape.queries;
  capacity.limits.pages_per_slot = shape.pagesPerSlot;
  capacity.limits.max_groups = shape.rows * shape.pagesPerSlot;
  capacity.limits.max_items = static_cast<int32_t>(items);
  capacity.limits.max_segments = static_cast<int32_t>(segments);
  capacity.limits.max_shares = shape.shares;
  capacity.limits.max_summaries = shape.summaries;
  capacity.partials = static_cast<int32_t>(partials);
  return capacity;
}

Expected<Planner> Planner::create(const PlanShape &shape) {
  Expected<PlanCapacity> capacity = capacityOf(shape);
  KVRM_TRY(capacity.status());
  Planner planner;
  planner.work = shape;
  planner.room = *capacity;
  planner.states.resize(static_cast<size_t>(shape.rows));
  planner.plannedTiles.resize(static_cast<size_t>(shape.rows));
  planner.ends.resize(static_cast<size_t>(shape.rows) *
                      static_cast<size_t>(shape.kvHeads));
  planner.grownTiles.resize(static_cast<size_t>(shape.shares));
  planner.shareBegin.resize(static_cast<size_t>(shape.shares) + 1);
  Expected<AlignedBuffer> scratch = AlignedBuffer::create(
      int64_t(capacity->limits.max_groups) * int64_t(sizeof(kvrm_group)),
      "planner");
  KVRM_TRY(scratch.status());
  planner.groupScratch = scratch.take();
  return planner;
}

const PlanStats &Planner::plan(std::span<const PlanRow> rows,
                               const BlockPager &pager,
                               StepDescriptor &descriptor) {
  const Stopwatch watch;
  KVRM_CHECK(rows.size() == states.size(), "one entry a row");
  KVRM_CHECK(
      std::memcmp(&descriptor.limits(), &room.limits, sizeof(room.limits)) == 0,
      "descriptor is of the planner's shape");
  KVRM_CHECK(pager.limits().pageTokens == work.pageTokens &&
                 pager.limits().pagesPerSlot == work.pagesPerSlot,
             "pager is of the planner's shape");

  last = PlanStats();
  int32_t firstStale = work.rows;
  for (int32_t i = 0; i < work.rows; ++i)
    if (syncRow(i, rows[static_cast<size_t>(i)], pager, descriptor))
      firstStale = std::min(firstStale, i);
  if (firstStale < work.rows)
    rebuildGroups(firstStale, pager, descriptor);

  // Items depend on lengths only through numbers of tiles.
  bool keep = itemsValid && work.queries == 1 && canGrowItems();
  if (keep)
    growItems(descriptor);
  else
    planItems(descriptor);

  kvrm_descriptor_header &header = descriptor.header();
  header.active_rows = last.activeRows;
  last.groups = header.groups;
  last.items = header.items;
  last.segments = header.segments;
  last.partials = header.partials;
  last.itemsKept = keep;
  itemsValid = true;
  last.nanoseconds = watch.nanoseconds();
  return last;
}

/// Brings a row, its table and, where they only grow at their end, its groups
/// up to date. Returns whether its groups are left to rebuildGroups().
bool Planner::syncRow(int32_t index, const PlanRow &row,
                      const BlockPager &pager, StepDescriptor &descriptor) {
  RowState &state = states[static_cast<size_t>(index)];
  state.isStale = false;
  state.place = row.place < 0 ? row.position : row.place;
  state.count = row.count;
  state.length = state.place + row.count;
  kvrm_row value{};
  if (row.count == 0) {
    KVRM_CHECK(row.slot == -1, "an idle row has no slot");
    value.slot = -1;
    value.write_page = -1;
    descriptor.setRow(index, value);
    state.place = 0;
    state.length = 0;
    state.isStale = state.groupCount > 0;
    state.groupPages = 0;
    return state.isStale;
  }
  KVRM_CHECK(row.count > 0 && row.count <= work.queries, "count in range");
  int32_t held = pager.length(row.slot);
  KVRM_CHECK(row.position >= 0 &&
                 (work.isPadded ? state.length <= held : state.length == held),
             "the pager holds the step's tokens");
  int32_t filled = pager.filledPages(row.slot);
  std::span<const int32_t> pages =
      pager.pages(row.slot).first(static_cast<size_t>(filled));
  std::span<int32_t> table = descriptor.table(index);

  uint64_t generation = pager.generation(row.slot);
  bool isSame = state.slot == row.slot && state.generation == generation;
  int32_t from = isSame ? state.tablePages : 0;
  KVRM_CHECK(from <= filled, "a history of one generation only grows");
  for (int32_t i = from; i < filled; ++i)
    table[static_cast<size_t>(i)] = pages[static_cast<size_t>(i)];
  for (int32_t i = filled; i < state.tablePages; ++i)
    table[static_cast<size_t>(i)] = -1;
  descriptor.markTable(index, from, std::max(filled, state.tablePages));
  state.slot = row.slot;
  state.generation = generation;
  state.tablePages = filled;

  int32_t writeIndex = state.place / work.pageTokens;
  value.slot = row.slot;
  value.position = row.position;
  value.count = row.count;
  value.length = state.length;
  value.write_page = pages[static_cast<size_t>(writeIndex)];
  value.write_offset = state.place % work.pageTokens;
  value.summaries = row.summaries;
  descriptor.setRow(index, value);
  if (row.summaries > 0)
    descriptor.setSummaryBiases(index, row.biases);
  ++last.activeRows;
  last.pages += filled;

  if (!isSame || state.groupPages == 0) {
    state.groupPages = 0;
    state.isStale = true;
    return true;
  }
  std::span<kvrm_group> groups = descriptor.groups();
  while (state.groupPages < filled) {
    int32_t lastGroup = state.groupBegin + state.groupCount - 1;
    kvrm_group &group = groups[static_cast<size_t>(lastGroup)];
    if (group.pages == KVRM_MAX_GROUP_PAGES ||
        group.physical_page + group.pages !=
            pages[static_cast<size_t>(state.groupPages)]) {
      state.isStale = true;
      return true;
    }
    ++group.pages;
    ++state.groupPages;
    descriptor.markGroups(lastGroup, lastGroup + 1);
  }
  return false;
}

/// Writes the groups of the rows from `first` on anew: kept ones are moved,
/// those of stale rows are completed.
void Planner::rebuildGroups(int32_t first, const BlockPager &pager,
                            StepDescriptor &descriptor) {
  std::span<kvrm_group> groups = descriptor.groups();
  auto *old = reinterpret_cast<kvrm_group *>(groupScratch.data());
  int32_t begin = states[static_cast<size_t>(first)].groupBegin;
  int32_t count = descriptor.header().groups - begin;
  KVRM_CHECK(begin >= 0 && count >= 0, "groups are in row order");
  std::memcpy(old, groups.data() + begin,
              static_cast<size_t>(count) * sizeof(kvrm_group));
  int32_t write = begin;
  for (int32_t i = first; i < work.rows; ++i) {
    RowState &state = states[static_cast<size_t>(i)];
    int32_t kept = state.groupPages > 0 ? state.groupCount : 0;
    if (kept > 0)
      std::memmove(groups.data() + write, old + (state.groupBegin - begin),
                   static_cast<size_t>(kept) * sizeof(kvrm_group));
    state.groupBegin = write;
    state.groupCount = kept;
    write += kept;
    if (!state.isStale || state.count == 0)
      continue;
    std::span<const int32_t> pages = pager.pages(state.slot);
    for (; state.groupPages < state.tablePages; ++state.groupPages) {
      int32_t page = pages[static_cast<size_t>(state.groupPages)];
      if (state.groupCount > 0) {
        kvrm_group &group = groups[static_cast<size_t>(write - 1)];
        if (group.pages < KVRM_MAX_GROUP_PAGES &&
            group.physical_page + group.pages == page) {
          ++group.pages;
          continue;
        }
      }
      groups[static_cast<size_t>(write)] = {i, state.groupPages, page, 1};
      ++write;
      ++state.groupCount;
    }
  }
  descriptor.markGroups(begin, write);
  descriptor.header().groups = write;
}

int32_t Planner::tilesOf(const RowState &row, int32_t queryTile) const {
  int32_t seen = std::min(row.length, row.place + (queryTile + 1) * work.qTile);
  if (work.isPadded)
    seen = work.pagesPerSlot * work.pageTokens;
  return ceilDivide(seen, work.kvTile);
}

/// Whether the items of the last plan will do: rows have the tiles that they
/// had or a few more, so that no share has too much, and none came or went.
bool Planner::canGrowItems() {
  for (int32_t i = 0; i < work.rows; ++i) {
    int32_t tiles = tilesOf(states[static_cast<size_t>(i)]);
    int32_t planned = plannedTiles[static_cast<size_t>(i)];
    last.tiles += int64_t(tiles) * work.kvHeads;
    if (tiles == planned)
      continue;
    int32_t more = tiles - planned;
    if (planned == 0 || more < 0 || more > shareGrowth)
      return false;
    for (int32_t head = 0; head < work.kvHeads; ++head) {
      int32_t &grown = grownTiles[static_cast<size_t>(endOf(i, head).share)];
      grown += more;
      if (grown > shareGrowth)
        return false;
    }
  }
  return true;
}

/// Gives new tiles to the items that end the rows' histories.
void Planner::growItems(StepDescriptor &descriptor) {
  std::span<kvrm_work_item> items = descriptor.items();
  for (int32_t i = 0; i < work.rows; ++i) {
    int32_t tiles = tilesOf(states[static_cast<size_t>(i)]);
    int32_t &planned = plannedTiles[static_cast<size_t>(i)];
    for (int32_t head = 0; tiles != planned && head < work.kvHeads; ++head) {
      const RowEnd &end = endOf(i, head);
      kvrm_work_item &item = items[static_cast<size_t>(end.item)];
      KVRM_CHECK(item.row == i && item.kv_head == head &&
                     item.tile_end == planned,
                 "the item ends its row's history");
      item.tile_end = tiles;
      descriptor.markItems(end.item, end.item + 1);
      if (shareBegin[static_cast<size_t>(end.share)] == end.item) {
        kvrm_share value = descriptor.share(end.share);
        value.first = item;
        descriptor.setShare(end.share, value);
      }
    }
    planned = tiles;
  }
}

//===----------------------------------------------------------------------===//
// Making items
//===----------------------------------------------------------------------===//

/// The line of all items, laid from its begin to its end and cut into shares.
/// Positions in it are costs. A share's limit is an equal part of what is left
/// when the share starts, so that what one share has too much or too little,
/// since tiles are whole, all later ones make up for.
class Planner::WorkLine {
public:
  /// A line of so many output tiles, which have so many tiles of history.
  WorkLine(Planner &planner, StepDescriptor &descriptor, int64_t outputs,
           int64_t tiles);

  /// Output tile `output`, its row, KV head and query tile, in `parts` items.
  void addParts(const kvrm_work_item &output, int32_t tiles, int32_t parts);
  /// The same in as many items as shares have room for. Each but the first is
  /// the first of its share (abi/partial.h).
  void addCut(const kvrm_work_item &output, int32_t tiles);
  /// Completes the descriptor.
  void finish();

private:
  int64_t costOf(int64_t items, int64_t tiles) const {
    return items * itemCost + tiles * PlanShape::tileCost;
  }
  bool isLastShare() const { return share + 1 == planner.work.shares; }
  void beginShare();
  void nextShare();
  int32_t fitting(int32_t tiles) const;
  void emit(int32_t tileBegin, int32_t tileEnd);
  void openSegment();
  void closeSegment();

  Planner &planner;
  StepDescriptor &descriptor;
  int32_t itemCost;
  int32_t items = 0;
  int32_t segments = 0;
  int32_t partials = 0;
  int32_t share = 0;
  int32_t firstItem = 0; ///< of the share
  int64_t at = 0;
  int64_t limit = 0; ///< of the share
  int64_t total; ///< where the line ends, if all later shares start in a cut
  kvrm_work_item item{}; ///< of the output being added
};

Planner::WorkLine::WorkLine(Planner &planner, StepDescriptor &descriptor,
                            int64_t outputs, int64_t tiles)
    : planner(planner), descriptor(descriptor),
      itemCost(planner.work.schedule == KVRM_SCHEDULE_WORKQUEUE
                   ? planner.work.itemCost
                   : 0),
      total(costOf(outputs + planner.work.shares - 1, tiles)) {
  beginShare();
}

void Planner::WorkLine::beginShare() {
  firstItem = items;
  planner.shareBegin[static_cast<size_t>(share)] = firstItem;
  limit = at + (total - at) / (planner.work.shares - share);
}

void Planner::WorkLine::nextShare() {
  ++share;
  beginShare();
}

/// How many of `tiles` the share has room for in one more item. A limit is
/// rounded to the nearest tile. No share stays empty while there are tiles.
int32_t Planner::WorkLine::fitting(int32_t tiles) const {
  if (isLastShare())
    return tiles;
  constexpr int64_t tile = PlanShape::tileCost;
  int64_t room = (limit - at - itemCost + tile / 2) / tile;
  return static_cast<int32_t>(
      std::clamp<int64_t>(room, items == firstItem ? 1 : 0, tiles));
}

void Planner::WorkLine::emit(int32_t tileBegin, int32_t tileEnd) {
  std::span<kvrm_work_item> room = descriptor.items();
  KVRM_CHECK(static_cast<size_t>(items) < room.size(),
             "items fit the descriptor");
  item.tile_begin = tileBegin;
  item.tile_end = tileEnd;
  item.partial = item.segment < 0 ? -1 : partials++;
  planner.endOf(item.row, item.kv_head) = {items, share};
  room[static_cast<size_t>(items++)] = item;
  at += costOf(1, tileEnd - tileBegin);
}

void Planner::WorkLine::openSegment() {
  std::span<kvrm_merge_segment> room = descriptor.segments();
  KVRM_CHECK(static_cast<size_t>(segments) < room.size(),
             "segments fit the descriptor");
  room[static_cast<size_t>(segments)] = {
      item.row, item.kv_head, item.query_tile, partials, 0, {0, 0, 0}};
  item.segment = segments++;
}

void Planner::WorkLine::closeSegment() {
  kvrm_merge_segment &segment =
      descriptor.segments()[static_cast<size_t>(item.segment)];
  segment.partials = partials - segment.first_partial;
}

void Planner::WorkLine::addParts(const kvrm_work_item &output, int32_t tiles,
                                 int32_t parts) {
  item = output;
  item.segment = -1;
  if (parts > 1)
    openSegment();
  for (int64_t part = 0; part < parts; ++part) {
    if (at >= limit && !isLastShare())
      nextShare();
    emit(static_cast<int32_t>(part * tiles / parts),
         static_cast<int32_t>((part + 1) * tiles / parts));
  }
  if (parts > 1)
    closeSegment();
}

void Planner::WorkLine::addCut(const kvrm_work_item &output, int32_t tiles) {
  item = output;
  item.segment = -1;
  int32_t part = fitting(tiles);
  if (part == 0) {
    total -= itemCost; // no cut
    nextShare();
    part = fitting(tiles);
  }
  if (part == tiles)
    return emit(0, tiles);
  openSegment();
  emit(0, part);
  for (int32_t tile = part; tile < tiles; tile += part) {
    nextShare();
    part = fitting(tiles - tile);
    emit(tile, tile + part);
  }
  closeSegment();
}

void Planner::WorkLine::finish() {
  KVRM_CHECK(at == costOf(items, planner.last.tiles),
             "items cover every tile once");
  KVRM_CHECK(partials <= planner.room.partials, "partials fit their memory");
  std::span<int32_t> begins = planner.shareBegin;
  std::ranges::fill(begins.subspan(static_cast<size_t>(share) + 1), items);
  for (int32_t index = 0; index < planner.work.shares; ++index) {
    kvrm_share value{};
    int32_t begin = begins[static_cast<size_t>(index)];
    int32_t end = begins[static_cast<size_t>(index) + 1];
    if (begin < end) {
      value.first = descriptor.items()[static_cast<size_t>(begin)];
      value.item_begin = begin;
      value.item_end = end;
    }
    descriptor.setShare(index, value);
  }
  descriptor.markItems(0, items);
  descriptor.markSegments(0, segments);
  kvrm_descriptor_header &header = descriptor.header();
  header.items = items;
  header.segments = segments;
  header.partials = partials;
  // How often a history is split depends on its tiles.
  planner.shareGrowth =
      planner.work.schedule == KVRM_SCHEDULE_SPLIT
          ? 0
          : at / planner.work.shares / growth / PlanShape::tileCost;
  std::ranges::fill(planner.grownTiles, 0);
}

void Planner::addRow(WorkLine &line, int32_t row) {
  const RowState &state = states[static_cast<size_t>(row)];
  plannedTiles[static_cast<size_t>(row)] = tilesOf(state);
  kvrm_work_item output{};
  output.row = row;
  for (output.kv_head = 0; output.kv_head < work.kvHeads; ++output.kv_head)
    for (output.query_tile = 0; output.query_tile * work.qTile < state.count;
         ++output.query_tile) {
      int32_t tiles = tilesOf(state, output.query_tile);
      KVRM_CHECK(tiles > 0, "an active row has history");
      if (work.schedule == KVRM_SCHEDULE_WORKQUEUE)
        line.addCut(output, tiles);
      else
        line.addParts(output, tiles,
                      work.schedule == KVRM_SCHEDULE_SPLIT
                          ? std::min(work.splits, tiles)
                          : 1);
    }
}

void Planner::planItems(StepDescriptor &descriptor) {
  int64_t outputs = 0;
  last.tiles = 0;
  for (const RowState &state : states)
    for (int32_t t = 0; t * work.qTile < state.count; ++t) {
      outputs += work.kvHeads;
      last.tiles += int64_t(tilesOf(state, t)) * work.kvHeads;
    }
  WorkLine line(*this, descriptor, outputs, last.tiles);
  int64_t share = last.tiles / work.shares;
  auto isShort = [&](int32_t row) {
    return work.itemCost == 0 ||
           tilesOf(states[static_cast<size_t>(row)]) < share;
  };
  for (bool wanted : {true, false})
    for (int32_t row = 0; row < work.rows; ++row)
      if (isShort(row) == wanted)
        addRow(line, row);
  line.finish();
}
