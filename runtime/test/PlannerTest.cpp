//===- PlannerTest.cpp - Plans of every schedule, and what commit moves ---===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/Planner.h"

#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <tuple>

using namespace kvrm;

namespace {

/// A pager, a planner and a descriptor of one shape, driven together.
class Bench {
public:
  Bench(PlanShape planShape, int32_t slots, int32_t pages)
      : shape(planShape),
        pager(take(BlockPager::create(
            {pages, slots, planShape.pagesPerSlot, planShape.pageTokens}))),
        planner(take(Planner::create(planShape))),
        descriptor(take(StepDescriptor::create(planner.capacity().limits))) {}

  template <typename T> static T take(Expected<T> value) {
    EXPECT_TRUE(value) << value.status().message();
    return value.take();
  }

  /// Appends and plans one step; slot -1 is an idle row.
  void step(const std::vector<std::pair<int32_t, int32_t>> &slotsAndCounts) {
    rows.assign(static_cast<size_t>(shape.rows), PlanRow());
    for (size_t i = 0; i < slotsAndCounts.size(); ++i) {
      auto [slot, count] = slotsAndCounts[i];
      if (slot < 0)
        continue;
      rows[i] = {slot, pager.length(slot), count};
      PageCopy copy;
      Status status = pager.append(slot, count, copy);
      ASSERT_TRUE(status.isOk()) << status.message();
    }
    planner.plan(rows, pager, descriptor);
    if (usesDelta)
      commitDelta();
    else
      bytes = descriptor.commit();
    check();
  }

  /// Commits by words, and keeps `mirror` as a device would.
  void commitDelta() {
    const kvrm_descriptor_layout &layout = descriptor.layout();
    auto size = static_cast<size_t>(layout.bytes);
    if (mirror.empty())
      mirror.assign(descriptor.committed(), descriptor.committed() + size);
    std::vector<uint8_t> before = mirror;
    delta.resize(static_cast<size_t>(descriptor.deltaCapacity()));
    words = descriptor.collectDelta(delta, options);
    int64_t last = -1;
    for (int32_t i = 0; i < words; ++i) {
      auto [index, value] = delta[size_t(i)];
      ASSERT_GT(int64_t(index), last) << "each word once, in order";
      last = index;
      int64_t offset = int64_t(index) * 4;
      ASSERT_LT(offset, layout.bytes);
      EXPECT_FALSE(!options.hasGroups && offset >= layout.groups &&
                   offset < layout.items);
      uint32_t old = 0;
      std::memcpy(&old, before.data() + offset, 4);
      EXPECT_TRUE(options.isWhole || old != value) << "only what changed";
      std::memcpy(mirror.data() + offset, &value, 4);
    }
    auto same = [&](int64_t begin, int64_t end) {
      return std::memcmp(mirror.data() + begin, descriptor.committed() + begin,
                         static_cast<size_t>(end - begin)) == 0;
    };
    EXPECT_TRUE(same(0, layout.groups));
    EXPECT_TRUE(!options.hasGroups || same(layout.groups, layout.items));
    EXPECT_TRUE(same(layout.items, layout.bytes));
  }

  /// Checks everything that a committed descriptor promises.
  void check() {
    ASSERT_EQ(std::memcmp(descriptor.committed(), descriptor.plannedBytes(),
                          sizeof(kvrm_descriptor_header)),
              0);
    const kvrm_descriptor_header &header = descriptor.committedHeader();
    EXPECT_EQ(header.magic, KVRM_DESCRIPTOR_MAGIC);
    EXPECT_EQ(header.abi_version, uint32_t(KVRM_ABI_VERSION));
    // Sections in use are equal in both copies.
    const kvrm_descriptor_layout &layout = descriptor.layout();
    auto same = [&](int64_t offset, size_t length) {
      return std::memcmp(descriptor.committed() + offset,
                         descriptor.plannedBytes() + offset, length) == 0;
    };
    EXPECT_TRUE(same(layout.rows, shape.rows * sizeof(kvrm_row)));
    EXPECT_TRUE(same(layout.tables, size_t(shape.rows) * shape.pagesPerSlot *
                                        sizeof(int32_t)));
    bool hasGroups = !usesDelta || options.hasGroups;
    EXPECT_TRUE(!hasGroups ||
                same(layout.groups, header.groups * sizeof(kvrm_group)));
    EXPECT_TRUE(same(layout.items, header.items * sizeof(kvrm_work_item)));
    EXPECT_TRUE(
        same(layout.segments, header.segments * sizeof(kvrm_merge_segment)));
    EXPECT_TRUE(same(layout.shares, shape.shares * sizeof(kvrm_share)));
    checkRows();
    if (hasGroups)
      checkGroups();
    checkItems();
  }

  void checkRows() {
    int32_t active = 0;
    for (int32_t i = 0; i < shape.rows; ++i) {
      const kvrm_row &row = descriptor.committedRows()[size_t(i)];
      const PlanRow &want = rows[size_t(i)];
      EXPECT_EQ(row.slot, want.slot);
      EXPECT_EQ(row.count, want.count);
      if (want.count == 0) {
        EXPECT_EQ(row.length, 0);
        continue;
      }
      ++active;
      EXPECT_EQ(row.position, want.position);
      EXPECT_EQ(row.length, want.position + want.count);
      EXPECT_EQ(
          row.write_page,
          pager.pages(want.slot)[size_t(want.position / shape.pageTokens)]);
      EXPECT_EQ(row.write_offset, want.position % shape.pageTokens);
      std::span<const int32_t> table = descriptor.committedTable(i);
      int32_t filled = pager.filledPages(want.slot);
      for (int32_t p = 0; p < shape.pagesPerSlot; ++p)
        EXPECT_EQ(table[size_t(p)],
                  p < filled ? pager.pages(want.slot)[size_t(p)] : -1);
    }
    EXPECT_EQ(descriptor.committedHeader().active_rows, active);
  }

  /// Groups are exactly the maximal runs, in order.
  void checkGroups() {
    std::vector<std::tuple<int, int, int, int>> want;
    for (int32_t i = 0; i < shape.rows; ++i) {
      if (rows[size_t(i)].count == 0)
        continue;
      int32_t slot = rows[size_t(i)].slot;
      int32_t filled = pager.filledPages(slot);
      for (int32_t p = 0; p < filled; ++p) {
        int32_t page = pager.pages(slot)[size_t(p)];
        if (p > 0) {
          auto &[row, logical, physical, count] = want.back();
          if (count < KVRM_MAX_GROUP_PAGES && physical + count == page) {
            ++count;
            continue;
          }
        }
        want.emplace_back(i, p, page, 1);
      }
    }
    std::vector<std::tuple<int, int, int, int>> got;
    for (const kvrm_group &group : descriptor.committedGroups())
      got.emplace_back(group.row, group.logical_page, group.physical_page,
                       group.pages);
    EXPECT_EQ(got, want);
  }

  /// Items of each output tile partition its tiles; partials and segments are
  /// consistent; shares are contiguous and balanced.
  void checkItems() {
    using Output = std::tuple<int, int, int>;
    std::map<Output, std::vector<kvrm_work_item>> outputs;
    std::vector<int> partialSeen(size_t(descriptor.committedHeader().partials),
                                 0);
    std::span<const kvrm_work_item> items = descriptor.committedItems();
    for (const kvrm_work_item &item : items)
      outputs[{item.row, item.kv_head, item.query_tile}].push_back(item);
    int64_t total = 0;
    size_t expected = 0;
    size_t segments = 0;
    for (int32_t r = 0; r < shape.rows; ++r) {
      const PlanRow &row = rows[size_t(r)];
      int32_t queryTiles = (row.count + shape.qTile - 1) / shape.qTile;
      for (int32_t head = 0; head < shape.kvHeads; ++head)
        for (int32_t t = 0; t < queryTiles; ++t) {
          ++expected;
          int32_t tokens = std::min(row.position + row.count,
                                    row.position + (t + 1) * shape.qTile);
          int32_t tiles = (tokens + shape.kvTile - 1) / shape.kvTile;
          total += tiles;
          auto found = outputs.find({r, head, t});
          ASSERT_NE(found, outputs.end());
          int32_t next = 0;
          for (const kvrm_work_item &item : found->second) {
            EXPECT_EQ(item.tile_begin, next);
            EXPECT_LT(item.tile_begin, item.tile_end);
            next = item.tile_end;
            if (found->second.size() == 1) {
              EXPECT_EQ(item.partial, -1);
              EXPECT_EQ(item.segment, -1);
            } else {
              ASSERT_GE(item.partial, 0);
              ASSERT_LT(size_t(item.partial), partialSeen.size());
              ++partialSeen[size_t(item.partial)];
              const kvrm_merge_segment &segment =
                  descriptor.committedSegments()[size_t(item.segment)];
              EXPECT_EQ(std::make_tuple(segment.row, segment.kv_head,
                                        segment.query_tile),
                        std::make_tuple(r, head, t));
              EXPECT_EQ(size_t(segment.partials), found->second.size());
              EXPECT_GE(item.partial, segment.first_partial);
              EXPECT_LT(item.partial, segment.first_partial + segment.partials);
            }
          }
          EXPECT_EQ(next, tiles);
          segments += found->second.size() > 1;
          if (shape.schedule == KVRM_SCHEDULE_ROWS) {
            EXPECT_EQ(found->second.size(), 1u);
          }
          if (shape.schedule == KVRM_SCHEDULE_SPLIT) {
            EXPECT_EQ(found->second.size(),
                      size_t(std::min(tiles, shape.splits)));
          }
        }
    }
    EXPECT_EQ(outputs.size(), expected);
    EXPECT_EQ(segments, size_t(descriptor.committedHeader().segments));
    for (int seen : partialSeen)
      EXPECT_EQ(seen, 1);
    EXPECT_EQ(planner.stats().tiles, total);
    EXPECT_LE(descriptor.committedHeader().partials,
              planner.capacity().partials);

    std::span<const kvrm_share> shares = descriptor.committedShares();
    ASSERT_EQ(shares.size(), size_t(shape.shares));
    EXPECT_EQ(descriptor.committedHeader().shares, shape.shares);
    int32_t nextItem = 0;
    for (const kvrm_share &share : shares) {
      kvrm_share want{};
      if (share.item_begin < share.item_end) {
        ASSERT_EQ(share.item_begin, nextItem);
        ASSERT_LE(size_t(share.item_end), items.size());
        nextItem = share.item_end;
        want.first = items[size_t(share.item_begin)];
        want.item_begin = share.item_begin;
        want.item_end = share.item_end;
      }
      EXPECT_EQ(std::memcmp(&share, &want, sizeof(want)), 0)
          << "an empty share is zero, another repeats its first item";
    }
    EXPECT_EQ(nextItem, int32_t(items.size()));
    if (shape.schedule == KVRM_SCHEDULE_WORKQUEUE) {
      checkBalance();
      checkMergeRule();
    }
  }

  /// Shares cost the same, as far as whole tiles allow it.
  void checkBalance() {
    std::span<const kvrm_work_item> items = descriptor.committedItems();
    constexpr int64_t tile = PlanShape::tileCost;
    int64_t total =
        planner.stats().tiles * tile + int64_t(items.size()) * shape.itemCost;
    // Shares may grow by 1/16 before they are made anew.
    int64_t even = total / shape.shares, growth = even / 16;
    for (const kvrm_share &share : descriptor.committedShares()) {
      int64_t count = share.item_end - share.item_begin, tiles = 0;
      for (int32_t i = share.item_begin; i < share.item_end; ++i)
        tiles += items[size_t(i)].tile_end - items[size_t(i)].tile_begin;
      if (shape.itemCost == 0) {
        EXPECT_LT(tiles * tile, even + tile + growth);
        EXPECT_GT(tiles * tile, even - tile - growth);
        continue;
      }
      EXPECT_LE(tiles * tile + count * shape.itemCost,
                even + growth + tile + shape.itemCost);
    }
  }

  /// What waiting for mailboxes rests on (abi/partial.h).
  void checkMergeRule() {
    std::span<const kvrm_work_item> items = descriptor.committedItems();
    std::span<const kvrm_share> shares = descriptor.committedShares();
    std::vector<int32_t> lastShare(
        size_t(descriptor.committedHeader().segments), -1);
    for (int32_t s = 0; s < shape.shares; ++s)
      for (int32_t i = shares[size_t(s)].item_begin;
           i < shares[size_t(s)].item_end; ++i) {
        const kvrm_work_item &item = items[size_t(i)];
        if (item.segment < 0)
          continue;
        int32_t &before = lastShare[size_t(item.segment)];
        bool isFirst =
            item.partial ==
            descriptor.committedSegments()[size_t(item.segment)].first_partial;
        EXPECT_EQ(isFirst, item.tile_begin == 0);
        EXPECT_EQ(isFirst, before < 0);
        if (!isFirst) {
          EXPECT_EQ(s, before + 1) << "parts lie in successive shares";
          EXPECT_EQ(i, shares[size_t(s)].item_begin) << "first of its share";
        }
        before = s;
      }
  }

  PlanShape shape;
  BlockPager pager;
  Planner planner;
  StepDescriptor descriptor;
  std::vector<PlanRow> rows;
  int64_t bytes = 0;
  bool usesDelta = false;
  StepDescriptor::DeltaOptions options;
  int32_t words = 0;
  std::vector<kvrm_delta_word> delta;
  std::vector<uint8_t> mirror;
};

class Schedules : public testing::TestWithParam<kvrm_schedule> {};

} // namespace

static PlanShape decodeShape(kvrm_schedule schedule) {
  PlanShape shape;
  shape.rows = 8;
  shape.queries = 1;
  shape.kvHeads = 3;
  shape.qTile = 1;
  shape.kvTile = 64;
  shape.pageTokens = 16;
  shape.pagesPerSlot = 128;
  shape.schedule = schedule;
  shape.splits = 4;
  shape.shares = 5;
  return shape;
}

TEST_P(Schedules, DecodeRaggedRowsWithEmptyOnes) {
  Bench bench(decodeShape(GetParam()), 8, 1024);
  // Histories of length 0, one past a page, full but one, one short of a tile.
  const int32_t lengths[] = {0, 16, 2047, 63, 64, 1000, 5, 0};
  for (int32_t slot = 0; slot < 8; ++slot) {
    PageCopy copy;
    ASSERT_TRUE(bench.pager.append(slot, lengths[slot], copy).isOk());
  }
  bench.step(
      {{0, 1}, {-1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {6, 1}, {-1, 0}});
  bench.step(
      {{0, 1}, {1, 1}, {-1, 0}, {3, 1}, {4, 1}, {5, 1}, {6, 1}, {-1, 0}});
  EXPECT_EQ(bench.descriptor.committedHeader().epoch, 2u);
}

TEST_P(Schedules, AllRowsIdleIsAnEmptyPlan) {
  Bench bench(decodeShape(GetParam()), 8, 1024);
  bench.step({});
  EXPECT_EQ(bench.descriptor.committedHeader().items, 0);
  EXPECT_EQ(bench.descriptor.committedHeader().groups, 0);
}

/// Every active row has its whole table in items, groups and the descriptor,
/// and from step to step nothing but rows changes.
TEST_P(Schedules, PaddedRowsAreAllOfTheirTables) {
  PlanShape shape = decodeShape(GetParam());
  shape.isPadded = true;
  Bench bench(shape, 8, 1024);
  PageCopy copy;
  for (int32_t slot = 0; slot < 8; ++slot)
    ASSERT_TRUE(bench.pager.append(slot, 2048, copy).isOk());
  int64_t later = 0;
  for (int32_t step = 0; step < 4; ++step) {
    std::vector<PlanRow> rows(8);
    for (int32_t row = 0; row < 7; ++row)
      rows[size_t(row)] = {row, 100 * row + step, 1};
    const PlanStats &stats =
        bench.planner.plan(rows, bench.pager, bench.descriptor);
    EXPECT_EQ(stats.tiles, 7 * 3 * 2048 / 64);
    EXPECT_EQ(stats.pages, 7 * 128);
    later = bench.descriptor.commit();
    int64_t covered = 0;
    for (const kvrm_work_item &item : bench.descriptor.committedItems().first(
             static_cast<size_t>(stats.items)))
      covered += item.tile_end - item.tile_begin;
    EXPECT_EQ(covered, stats.tiles);
    for (int32_t row = 0; row < 7; ++row) {
      const kvrm_row &told = bench.descriptor.committedRows()[size_t(row)];
      EXPECT_EQ(told.length, 100 * row + step + 1);
      EXPECT_EQ(bench.descriptor.committedTable(row)[127],
                bench.pager.pages(row)[127]);
    }
  }
  EXPECT_LE(later, int64_t(sizeof(kvrm_descriptor_header)) +
                       8 * int64_t(sizeof(kvrm_row)));
}

TEST_P(Schedules, PrefillChunksAreCausal) {
  PlanShape shape = decodeShape(GetParam());
  shape.rows = 1;
  shape.queries = 64;
  shape.qTile = 4;
  shape.kvTile = 32;
  Bench bench(shape, 4, 512);
  bench.step({{2, 64}});
  bench.step({{2, 64}});
  bench.step({{2, 7}});
  bench.step({{3, 1}});
  bench.step({{2, 64}});
}

TEST_P(Schedules, RandomStepsKeepEveryPromise) {
  std::mt19937 random(7);
  auto below = [&](int32_t bound) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(bound));
  };
  int64_t groups = 0;
  int64_t segments = 0;
  for (int round = 0; round < 24; ++round) {
    PlanShape shape = decodeShape(GetParam());
    shape.rows = 1 + below(8);
    shape.kvHeads = 1 + below(4);
    shape.queries = below(2) ? 1 : 1 + below(40);
    shape.qTile = 1 + below(shape.queries);
    shape.pageTokens = 1 << below(5);
    shape.kvTile = shape.pageTokens * (1 + below(4));
    if (below(4) == 0)
      shape.kvTile = std::max(1, shape.pageTokens >> (1 + below(3)));
    shape.pagesPerSlot = 8 + below(100);
    shape.shares = 1 + below(12);
    shape.splits = 1 + below(6);
    // Nothing, part of a tile, or several.
    shape.itemCost = below(2) ? 0 : 1 + below(round % 3 ? 24 : 100);
    Bench bench(shape, shape.rows, shape.rows * shape.pagesPerSlot);
    bench.usesDelta = round % 2 == 1;
    bench.options.hasGroups = round % 4 == 1;
    int32_t capacity = shape.pagesPerSlot * shape.pageTokens;
    for (int step = 0; step < 300; ++step) {
      std::vector<std::pair<int32_t, int32_t>> rows;
      std::vector<int32_t> order(size_t(shape.rows));
      for (int32_t i = 0; i < shape.rows; ++i)
        order[size_t(i)] = i;
      if (below(8) == 0)
        std::shuffle(order.begin(), order.end(), random);
      for (int32_t slot : order) {
        if (below(40) == 0) {
          ASSERT_TRUE(bench.pager.release(slot).isOk());
        } else if (below(40) == 0) {
          ASSERT_TRUE(
              bench.pager.trim(slot, below(bench.pager.length(slot) + 1))
                  .isOk());
        } else if (below(40) == 0 && bench.pager.pages(slot).empty()) {
          int32_t source = below(shape.rows);
          if (source != slot) {
            ASSERT_TRUE(
                bench.pager
                    .alias(slot, source, below(bench.pager.length(source) + 1))
                    .isOk());
          }
        }
        int32_t count = 1 + below(shape.queries);
        if (below(5) == 0 || bench.pager.length(slot) + count > capacity)
          rows.emplace_back(-1, 0);
        else
          rows.emplace_back(slot, count);
      }
      bench.options.isWhole = below(16) == 0;
      bench.step(rows);
      if (HasFailure())
        FAIL() << "round " << round << " step " << step;
      groups += bench.planner.stats().groups;
      segments += bench.planner.stats().segments;
    }
  }
  EXPECT_GT(groups, 3000);
  if (GetParam() != KVRM_SCHEDULE_ROWS) {
    EXPECT_GT(segments, 1000);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Schedules,
                         testing::Values(KVRM_SCHEDULE_ROWS,
                                         KVRM_SCHEDULE_SPLIT,
                                         KVRM_SCHEDULE_WORKQUEUE));

TEST(Planner, RefusesShapesOutOfRange) {
  PlanShape shape = decodeShape(KVRM_SCHEDULE_ROWS);
  shape.kvTile = 40;
  EXPECT_EQ(Planner::create(shape).status().message(),
            "plan: kv_tile 40 is neither a multiple nor a divisor of "
            "page_tokens 16");
  shape = decodeShape(KVRM_SCHEDULE_ROWS);
  shape.rows = 0;
  EXPECT_EQ(Planner::create(shape).status().message(),
            "plan: rows: 0 is outside 1..1024");
  shape = decodeShape(KVRM_SCHEDULE_WORKQUEUE);
  shape.itemCost = -1;
  EXPECT_EQ(Planner::create(shape).status().message(),
            "plan: item_cost: -1 is outside 0..65536");
}

/// Items and tiles of each share.
static std::vector<std::pair<int, int>> loadsOf(const Bench &bench) {
  std::vector<std::pair<int, int>> loads;
  for (const kvrm_share &share : bench.descriptor.committedShares()) {
    loads.emplace_back(share.item_end - share.item_begin, 0);
    for (int32_t i = share.item_begin; i < share.item_end; ++i) {
      const kvrm_work_item &item = bench.descriptor.committedItems()[size_t(i)];
      loads.back().second += item.tile_end - item.tile_begin;
    }
  }
  return loads;
}

TEST(Planner, ItemsCostBesideTheirTiles) {
  using Loads = std::vector<std::pair<int, int>>;
  // 30 tiles, then eight times one.
  auto loads = [](int32_t itemCost) {
    PlanShape shape = decodeShape(KVRM_SCHEDULE_WORKQUEUE);
    shape.rows = 9;
    shape.kvHeads = 1;
    shape.shares = 4;
    shape.itemCost = itemCost;
    Bench bench(shape, 9, 1024);
    std::vector<std::pair<int32_t, int32_t>> rows;
    for (int32_t slot = 0; slot < 9; ++slot) {
      PageCopy copy;
      EXPECT_TRUE(bench.pager.append(slot, slot == 0 ? 1900 : 20, copy).isOk());
      rows.emplace_back(slot, 1);
    }
    bench.step(rows);
    return loadsOf(bench);
  };
  EXPECT_EQ(loads(0), (Loads{{1, 10}, {1, 9}, {1, 10}, {9, 9}}))
      << "in the order of rows";
  EXPECT_EQ(loads(PlanShape::tileCost),
            (Loads{{6, 6}, {3, 9}, {1, 12}, {1, 11}}))
      << "short rows first; six items cost six tiles";
}

/// What a prompt's chunk is for a GPU: a thousand query tiles a KV head, and
/// memory that does not grow with them but for items.
TEST(Planner, ChunksOfThousandsOfTokensFit) {
  PlanShape shape;
  shape.rows = 1;
  shape.queries = KVRM_MAX_QUERIES;
  shape.kvHeads = 8;
  shape.qTile = 4;
  shape.kvTile = 64;
  shape.pageTokens = 16;
  shape.pagesPerSlot = 1024;
  shape.schedule = KVRM_SCHEDULE_WORKQUEUE;
  shape.shares = 132;
  Bench bench(shape, /*slots=*/1, /*pages=*/1024);
  bench.usesDelta = true;
  const PlanCapacity &room = bench.planner.capacity();
  EXPECT_EQ(room.limits.max_items, 8 * 1024 + 131);
  EXPECT_EQ(room.partials, 2 * 131);
  EXPECT_LT(bench.descriptor.layout().bytes, 1 << 20);
  for (int32_t count :
       {int32_t(KVRM_MAX_QUERIES), 1, 2048, 77, int32_t(KVRM_MAX_QUERIES)})
    bench.step({{0, count}});
}

TEST(Planner, FewTilesFillTheFirstShares) {
  PlanShape shape = decodeShape(KVRM_SCHEDULE_WORKQUEUE);
  shape.kvHeads = 1;
  for (int32_t itemCost : {0, 5, 50}) {
    shape.itemCost = itemCost;
    Bench bench(shape, 8, 1024);
    PageCopy copy;
    ASSERT_TRUE(bench.pager.append(0, 3 * 64 - 1, copy).isOk());
    bench.step({{0, 1}});
    EXPECT_EQ(loadsOf(bench), (std::vector<std::pair<int, int>>{
                                  {1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}}));
  }
}

TEST(Planner, KeepsItemsWhileNoTileIsCrossed) {
  Bench bench(decodeShape(KVRM_SCHEDULE_WORKQUEUE), 8, 1024);
  bench.step({{0, 1}, {1, 1}});
  bench.step({{0, 1}, {1, 1}});
  EXPECT_TRUE(bench.planner.stats().itemsKept);
  for (int i = 0; i < 62; ++i)
    bench.step({{0, 1}, {1, 1}});
  EXPECT_TRUE(bench.planner.stats().itemsKept);
  bench.step({{0, 1}, {1, 1}});
  EXPECT_FALSE(bench.planner.stats().itemsKept) << "token 65 opens a tile";
}

TEST(Planner, LargeBatchesGrowIntoTheirItems) {
  // 64 tiles a share: one row and KV head more is nothing to rebuild for.
  for (int32_t itemCost : {0, 40}) {
    PlanShape shape = decodeShape(KVRM_SCHEDULE_WORKQUEUE);
    shape.shares = 12;
    shape.itemCost = itemCost;
    Bench bench(shape, 8, 1024);
    std::vector<std::pair<int32_t, int32_t>> rows;
    for (int32_t slot = 0; slot < 8; ++slot) {
      PageCopy copy;
      ASSERT_TRUE(bench.pager.append(slot, 1912 + 8 * slot, copy).isOk());
      rows.emplace_back(slot, 1);
    }
    bench.step(rows);
    int kept = 0, rebuilt = 0;
    for (int i = 0; i < 64; ++i) {
      bench.step(rows); // checks coverage and balance of what was kept
      ++(bench.planner.stats().itemsKept ? kept : rebuilt);
    }
    EXPECT_GE(kept, 56) << "eight rows cross a tile";
    EXPECT_LE(rebuilt, 4) << "most of them without new items";
  }
}

TEST(Descriptor, CommitBytesFollowTheChange) {
  Bench bench(decodeShape(KVRM_SCHEDULE_WORKQUEUE), 8, 1024);
  std::vector<std::pair<int32_t, int32_t>> all;
  for (int32_t slot = 0; slot < 8; ++slot) {
    PageCopy copy;
    ASSERT_TRUE(bench.pager.append(slot, 1025, copy).isOk());
    all.emplace_back(slot, 1);
  }
  bench.step(all);
  EXPECT_GE(bench.bytes, 8 * 65 * 4);
  bench.step(all);
  EXPECT_EQ(bench.bytes, 64 + 8 * 32) << "header and rows, nothing else";
  bench.step({{0, 1}});
  bench.step({{0, 1}});
  EXPECT_EQ(bench.bytes, 64 + 32) << "one active row costs one row";
  // A page more is a table entry and a group more.
  bench.step(all);
  while (bench.pager.length(0) % 16 != 0)
    bench.step({{0, 1}});
  bench.step({{0, 1}});
  EXPECT_EQ(bench.bytes, 64 + 32 + 4 + 16);
}

TEST(Descriptor, DeltaIsTheWordsThatChanged) {
  Bench bench(decodeShape(KVRM_SCHEDULE_WORKQUEUE), 8, 1024);
  bench.usesDelta = true;
  std::vector<std::pair<int32_t, int32_t>> all;
  for (int32_t slot = 0; slot < 8; ++slot) {
    PageCopy copy;
    ASSERT_TRUE(bench.pager.append(slot, 1025, copy).isOk());
    all.emplace_back(slot, 1);
  }
  bench.step(all);
  bench.step(all);
  EXPECT_EQ(bench.words, 1 + 8 * 3) << "epoch; position, length, offset";
  bench.options.isWhole = true;
  bench.step(all);
  EXPECT_EQ(bench.words, bench.descriptor.deltaCapacity());
  bench.options.hasGroups = false;
  bench.step(all);
  const kvrm_descriptor_layout &layout = bench.descriptor.layout();
  EXPECT_EQ(bench.words, (layout.bytes - (layout.items - layout.groups)) / 4);
  bench.options.isWhole = false;
  bench.step(all);
  EXPECT_EQ(bench.words, 1 + 8 * 3);
}

TEST(Descriptor, SharesFollowTheItems) {
  Bench bench(decodeShape(KVRM_SCHEDULE_WORKQUEUE), 8, 1024);
  bench.step({{0, 1}});
  // Three heads of one tile: two of five shares are empty.
  int32_t used = 0;
  for (const kvrm_share &share : bench.descriptor.committedShares())
    used += share.item_begin < share.item_end;
  EXPECT_EQ(used, 3);
  bench.step({});
  for (const kvrm_share &share : bench.descriptor.committedShares())
    EXPECT_EQ(share.item_end, 0);
}

TEST(Descriptor, RefusesLimitsOutOfRange) {
  EXPECT_EQ(StepDescriptor::create({0, 1, 1, 1, 1, 1, 1, 0}).status().message(),
            "descriptor: rows: 0 is outside 1..1024");
  EXPECT_EQ(
      StepDescriptor::create({1, 4097, 1, 1, 1, 1, 1, 0}).status().message(),
      "descriptor: queries: 4097 is outside 1..4096");
  EXPECT_EQ(StepDescriptor::create({1, 1, 0, 1, 1, 1, 1, 0}).status().message(),
            "descriptor: pages_per_slot: 0 is outside 1..65536");
  EXPECT_EQ(StepDescriptor::create({1, 1, 1, 1, 1, 1, 0, 0}).status().message(),
            "descriptor: max_shares: 0 is outside 1..2147483647");
  EXPECT_EQ(
      StepDescriptor::create({1, 1, 1, 1, 1, 1, 1, 4097}).status().message(),
      "descriptor: max_summaries: 4097 is outside 0..4096");
}

TEST(Descriptor, HasNotAByteOfSummariesWithoutThem) {
  kvrm_descriptor_limits limits = {8, 1, 128, 64, 32, 16, 4, 0};
  kvrm_descriptor_layout off = kvrm_descriptor_layout_of(limits);
  EXPECT_EQ(off.summary_biases, off.sampling);
  limits.max_summaries = 64;
  kvrm_descriptor_layout on = kvrm_descriptor_layout_of(limits);
  EXPECT_EQ(on.rows, off.rows);
  EXPECT_EQ(on.tables, off.tables);
  EXPECT_EQ(on.bytes - off.bytes, 8 * 64 * 4);
}

TEST(Descriptor, CommitsTokensThatChanged) {
  StepDescriptor descriptor =
      StepDescriptor::create({3, 4, 2, 1, 1, 0, 1, 0}).take();
  constexpr int64_t header = sizeof(kvrm_descriptor_header);
  auto set = [&](int32_t row, std::vector<int32_t> tokens) {
    descriptor.setTokens(row, tokens);
  };
  auto committed = [&] {
    std::span<const int32_t> tokens = descriptor.committedTokens();
    return std::vector<int32_t>(tokens.begin(), tokens.end());
  };
  const std::vector<int32_t> zeros(12, 0);
  EXPECT_EQ(committed(), zeros);
  set(1, {7, 8, 9});
  EXPECT_EQ(committed(), zeros) << "planned, not committed";
  EXPECT_EQ(descriptor.commit(), header + 3 * 4);
  EXPECT_EQ(committed(),
            (std::vector<int32_t>{0, 0, 0, 0, 7, 8, 9, 0, 0, 0, 0, 0}));
  set(1, {7, 8, 9});
  EXPECT_EQ(descriptor.commit(), header) << "nothing changed";
  set(1, {7});
  set(2, {1, 2, 3, 4});
  EXPECT_EQ(descriptor.commit(), header + 7 * 4)
      << "from the first to the last";
  EXPECT_EQ(committed(),
            (std::vector<int32_t>{0, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4}));

  set(1, {7, 0, 5});
  set(2, {1, 2, 6});
  std::vector<kvrm_delta_word> delta(size_t(descriptor.deltaCapacity()));
  ASSERT_EQ(descriptor.collectDelta(delta), 4) << "epoch; 5; 6 and 0";
  auto first = static_cast<uint32_t>(descriptor.layout().tokens / 4);
  EXPECT_EQ(delta[1].index, first + 6);
  EXPECT_EQ(delta[1].value, 5u);
  EXPECT_EQ(delta[2].index, first + 10);
  EXPECT_EQ(delta[3].index, first + 11);
  EXPECT_EQ(delta[3].value, 0u);
}

TEST(Descriptor, FedTokensGoEachTimeAndLeaveNothingStale) {
  StepDescriptor descriptor =
      StepDescriptor::create({3, 1, 2, 1, 1, 0, 1, 0}).take();
  std::vector<kvrm_delta_word> words(size_t(descriptor.deltaCapacity()));
  auto first = static_cast<uint32_t>(descriptor.layout().tokens / 4);
  using Word = std::pair<uint32_t, uint32_t>;
  // What a commit says of tokens: words, then what is fed.
  auto commit = [&](bool isWhole = false) {
    std::pair<std::vector<Word>, std::vector<Word>> said;
    int32_t count = descriptor.collectDelta(words, {.isWhole = isWhole});
    for (int32_t i = 0; i < count; ++i)
      if (uint32_t at = words[size_t(i)].index - first; at < 3)
        said.first.emplace_back(at, words[size_t(i)].value);
    std::span rest = std::span(words).subspan(size_t(count));
    int32_t fed = descriptor.collectFed(rest);
    for (int32_t i = 0; i < fed; ++i)
      said.second.emplace_back(rest[size_t(i)].index - first,
                               rest[size_t(i)].value);
    return said;
  };
  auto activate = [&](int32_t row, int32_t count) {
    kvrm_row value = descriptor.row(row);
    value.count = count;
    descriptor.setRow(row, value);
  };
  auto set = [&](int32_t row, int32_t token) {
    descriptor.setTokens(row, {&token, 1});
  };
  using Said = std::pair<std::vector<Word>, std::vector<Word>>;
  for (int32_t row : {0, 1, 2})
    activate(row, 1);
  set(0, 7);
  set(1, 8);
  EXPECT_EQ(commit(), (Said{{{0, 7}, {1, 8}}, {}}));
  descriptor.setFed(0, 0);
  descriptor.setFed(2, 3);
  EXPECT_EQ(commit(), (Said{{}, {{0, 0}, {2, 3}}}));
  descriptor.setFed(0, 0);
  descriptor.setFed(2, 2);
  EXPECT_EQ(commit(), (Said{{}, {{0, 0}, {2, 2}}})) << "again";
  set(0, 7);
  EXPECT_EQ(commit(), (Said{{{0, 7}}, {{2, 2}}}))
      << "what was there before it was fed is to be sent again";
  activate(2, 0);
  EXPECT_EQ(commit(), (Said{{}, {}})) << "idle";
  EXPECT_EQ(commit(/*isWhole=*/true), (Said{{{0, 7}, {1, 8}}, {}}));
  activate(2, 1);
  set(2, 0);
  EXPECT_EQ(commit(), (Said{{{2, 0}}, {}}));
}

TEST(Descriptor, CommitsBiasesThatChanged) {
  Expected<StepDescriptor> made =
      StepDescriptor::create({2, 1, 4, 1, 1, 0, 1, 32});
  ASSERT_TRUE(made) << made.status().message();
  StepDescriptor descriptor = made.take();
  std::vector<float> biases(32, KVRM_UNUSED_SUMMARY);
  biases[0] = 4;
  descriptor.setSummaryBiases(1, biases);
  constexpr int64_t header = sizeof(kvrm_descriptor_header);
  EXPECT_EQ(descriptor.commit(), header + 32 * 4);
  std::span<const float> committed = descriptor.committedSummaryBiases(1);
  EXPECT_TRUE(std::ranges::equal(committed, biases));
  EXPECT_EQ(descriptor.committedSummaryBiases(0)[0], 0) << "another row";
  descriptor.setSummaryBiases(1, biases);
  EXPECT_EQ(descriptor.commit(), header) << "nothing changed";
  biases[3] = 5;
  biases[5] = 4;
  descriptor.setSummaryBiases(1, biases);
  EXPECT_EQ(descriptor.commit(), header + 3 * 4)
      << "from the first to the last";
  EXPECT_TRUE(std::ranges::equal(descriptor.committedSummaryBiases(1), biases));
}
