//===- BlockPagerTest.cpp - The pager against a naive model ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/BlockPager.h"

#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <set>

using namespace kvrm;

static BlockPager makePager(PagerLimits limits) {
  Expected<BlockPager> pager = BlockPager::create(limits);
  EXPECT_TRUE(pager) << pager.status().message();
  return pager.take();
}

static void append(BlockPager &pager, int32_t slot, int32_t tokens) {
  PageCopy copy;
  Status status = pager.append(slot, tokens, copy);
  ASSERT_TRUE(status.isOk()) << status.message();
}

static std::vector<int32_t> pagesOf(const BlockPager &pager, int32_t slot) {
  std::span<const int32_t> pages = pager.pages(slot);
  return {pages.begin(), pages.end()};
}

TEST(BlockPager, RefusesLimitsOutOfRange) {
  auto message = [](PagerLimits limits) {
    Expected<BlockPager> pager = BlockPager::create(limits);
    EXPECT_FALSE(pager);
    return pager.status().message();
  };
  EXPECT_EQ(message({0, 1, 1, 16}), "pager: pages: 0 is outside 1..16777216");
  EXPECT_EQ(message({1, 1025, 1, 16}), "pager: slots: 1025 is outside 1..1024");
  EXPECT_EQ(message({1, 1, 0, 16}),
            "pager: pagesPerSlot: 0 is outside 1..65536");
  EXPECT_EQ(message({1, 1, 1, 257}),
            "pager: pageTokens: 257 is outside 1..256");
}

TEST(BlockPager, TakesGivenPages) {
  BlockPager pager = makePager({64, 3, 32, 16});
  append(pager, 0, 20);
  std::vector<int32_t> own = pagesOf(pager, 0);
  std::vector<int32_t> given = {40, 63, 17, 41, 30};
  ASSERT_TRUE(pager.reservePages(1, given).isOk());
  EXPECT_EQ(pagesOf(pager, 1), given);
  EXPECT_EQ(pager.freePages(), 64 - 2 - 5);
  EXPECT_TRUE(pager.checkInvariants().isOk());
  auto message = [&](std::vector<int32_t> pages) {
    Status status = pager.reservePages(2, pages);
    EXPECT_EQ(pager.freePages(), 64 - 2 - 5);
    return status.message();
  };
  EXPECT_EQ(message({3, 64}), "page 64 is outside 0..63");
  EXPECT_EQ(message({-1}), "page -1 is outside 0..63");
  EXPECT_EQ(message({3, 40}), "page 40 is not free");
  EXPECT_EQ(message({3, own[0]}),
            "page " + std::to_string(own[0]) + " is not free");
  EXPECT_EQ(message({3, 4, 3}), "page 3 is not free");
  EXPECT_EQ(message(std::vector<int32_t>(33)),
            "slot 2: 33 pages after 0 exceed the block table's 32");
  EXPECT_TRUE(pager.checkInvariants().isOk());
  // What is reserved is filled first; then the pager chooses.
  append(pager, 1, 80);
  EXPECT_EQ(pagesOf(pager, 1), given);
  append(pager, 1, 1);
  EXPECT_EQ(pagesOf(pager, 1).back(), 31);
  EXPECT_TRUE(pager.release(1).isOk());
  EXPECT_TRUE(pager.checkInvariants().isOk());
  EXPECT_EQ(pager.freePages(), 62);
}

TEST(BlockPager, KeepsInterleavedHistoriesInLongRuns) {
  BlockPager pager = makePager({1024, 8, 128, 16});
  for (int32_t token = 0; token < 2048; ++token)
    for (int32_t slot = 0; slot < 8; ++slot)
      append(pager, slot, 1);
  EXPECT_EQ(pager.freePages(), 0);
  int runs = 0;
  for (int32_t slot = 0; slot < 8; ++slot) {
    std::vector<int32_t> pages = pagesOf(pager, slot);
    ++runs;
    for (size_t i = 1; i < pages.size(); ++i)
      runs += pages[i] != pages[i - 1] + 1;
  }
  EXPECT_LE(runs, 16);
  EXPECT_TRUE(pager.checkInvariants().isOk());
}

TEST(BlockPager, PutsAKnownLengthInOneRun) {
  BlockPager pager = makePager({64, 4, 64, 16});
  append(pager, 0, 16);
  ASSERT_TRUE(pager.reserve(1, 60 * 16).isOk());
  std::vector<int32_t> pages = pagesOf(pager, 1);
  for (size_t i = 1; i < pages.size(); ++i)
    EXPECT_EQ(pages[i], pages[i - 1] + 1);
}

TEST(BlockPager, ExhaustionIsAnAnswerAndChangesNothing) {
  BlockPager pager = makePager({4, 2, 8, 4});
  append(pager, 0, 13);
  PageCopy copy;
  Status status = pager.append(1, 1, copy);
  EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(pager.length(1), 0);
  append(pager, 0, 3);
  EXPECT_EQ(pager.append(0, 1, copy).code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(pager.length(0), 16);
  EXPECT_EQ(pager.reserve(0, 17).code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(pager.append(0, 17, copy).code(), StatusCode::InvalidArgument);
  EXPECT_TRUE(pager.checkInvariants().isOk());
  ASSERT_TRUE(pager.trim(0, 12).isOk());
  append(pager, 1, 4);
  EXPECT_TRUE(pager.checkInvariants().isOk());
}

TEST(BlockPager, BadArgumentsAreAnswers) {
  BlockPager pager = makePager({4, 2, 4, 4});
  PageCopy copy;
  EXPECT_EQ(pager.append(-1, 1, copy).message(), "slot -1 is outside 0..1");
  EXPECT_EQ(pager.append(2, 1, copy).message(), "slot 2 is outside 0..1");
  EXPECT_EQ(pager.append(0, -1, copy).message(),
            "slot 0: cannot append -1 tokens");
  EXPECT_EQ(pager.append(0, INT32_MAX, copy).code(),
            StatusCode::InvalidArgument);
  EXPECT_EQ(pager.trim(0, 1).code(), StatusCode::InvalidArgument);
  EXPECT_EQ(pager.alias(0, 0, 0).code(), StatusCode::InvalidArgument);
  EXPECT_EQ(pager.alias(1, 0, 1).code(), StatusCode::InvalidArgument);
  append(pager, 0, 2);
  append(pager, 1, 2);
  EXPECT_EQ(pager.alias(1, 0, 1).message(), "slot 1 is not empty");
  EXPECT_EQ(pager.release(7).code(), StatusCode::InvalidArgument);
}

TEST(BlockPager, CopiesASharedPageBeforeTheFirstWrite) {
  BlockPager pager = makePager({8, 3, 4, 4});
  append(pager, 0, 6);
  ASSERT_TRUE(pager.alias(1, 0, 6).isOk());
  ASSERT_TRUE(pager.alias(2, 0, 4).isOk());
  EXPECT_EQ(pager.usedPages(), 2);
  int32_t shared = pager.pages(0)[1];
  EXPECT_EQ(pager.references(pager.pages(0)[0]), 3);
  EXPECT_EQ(pager.references(shared), 2);

  PageCopy copy;
  ASSERT_TRUE(pager.append(1, 1, copy).isOk());
  ASSERT_TRUE(copy.isNeeded());
  EXPECT_EQ(copy.source, shared);
  EXPECT_EQ(copy.target, pager.pages(1)[1]);
  ASSERT_TRUE(pager.append(0, 1, copy).isOk());
  EXPECT_FALSE(copy.isNeeded()) << "the page is slot 0's alone now";
  ASSERT_TRUE(pager.append(2, 1, copy).isOk());
  EXPECT_FALSE(copy.isNeeded()) << "the prefix ends with a full page";
  EXPECT_TRUE(pager.checkInvariants().isOk());
  ASSERT_TRUE(pager.release(0).isOk());
  EXPECT_EQ(pager.usedPages(), 3) << "page 0 is still shared by 1 and 2";
}

TEST(BlockPager, CountsTheWritersOfOnePageExactly) {
  BlockPager pager = makePager({2, 2, 4, 4});
  append(pager, 0, 2);
  ASSERT_TRUE(pager.alias(1, 0, 2).isOk());
  AppendRequest requests[] = {{0, 1}, {1, 1}};
  PageCopy copies[2];
  int32_t count = -1;
  ASSERT_TRUE(pager.appendAll(requests, copies, count).isOk());
  EXPECT_EQ(count, 1) << "the second writer has the page alone";
  EXPECT_EQ(pager.freePages(), 0);
  AppendRequest twice[] = {{0, 1}, {0, 1}};
  EXPECT_EQ(pager.appendAll(twice, copies, count).message(),
            "slot 0 is appended to twice");
  AppendRequest tooMany[] = {{0, 1}, {1, 2}};
  EXPECT_EQ(pager.appendAll(tooMany, copies, count).code(),
            StatusCode::ResourceExhausted);
  EXPECT_EQ(pager.length(0), 3);
  EXPECT_TRUE(pager.checkInvariants().isOk());
}

TEST(BlockPager, TheFrontOfAHistoryCanBeReplaced) {
  BlockPager pager = makePager({16, 2, 8, 4});
  append(pager, 0, 18);
  std::vector<int32_t> before = pagesOf(pager, 0);
  ASSERT_TRUE(pager.alias(1, 0, 18).isOk());
  ASSERT_TRUE(pager.insertFront(0, 2).isOk());
  EXPECT_EQ(pager.length(0), 26);
  ASSERT_TRUE(pager.dropPages(0, 2, 3).isOk());
  EXPECT_EQ(pager.length(0), 14);
  std::vector<int32_t> after = pagesOf(pager, 0);
  EXPECT_EQ(after[1], after[0] + 1) << "new pages are a run";
  EXPECT_EQ(after[2], before[3]);
  EXPECT_EQ(after[3], before[4]);
  EXPECT_EQ(pager.references(before[0]), 1) << "the other slot has it still";
  EXPECT_TRUE(pager.isCopyNeeded(0)) << "the last page is shared still";
  EXPECT_EQ(pager.insertFront(0, 5).message(),
            "slot 0: cannot put 5 pages before 4, the block table has 8");
  EXPECT_EQ(pager.dropPages(0, 2, 2).message(),
            "slot 0: cannot drop 2 pages from 2 on, 3 are full");
  EXPECT_TRUE(pager.checkInvariants().isOk());
  ASSERT_TRUE(pager.release(1).isOk());
  EXPECT_EQ(pager.usedPages(), 4);
}

TEST(BlockPager, GenerationTellsGrowthFromOtherChange) {
  BlockPager pager = makePager({8, 2, 4, 4});
  uint64_t before = pager.generation(0);
  append(pager, 0, 9);
  EXPECT_EQ(pager.generation(0), before);
  ASSERT_TRUE(pager.trim(0, 8).isOk());
  EXPECT_NE(pager.generation(0), before);
  before = pager.generation(0);
  ASSERT_TRUE(pager.trim(0, 7).isOk());
  EXPECT_EQ(pager.generation(0), before) << "no page went";
}

namespace {

/// What the pager means, without regard to cost: a history is a list of token
/// identities; pages are content that copies must carry over.
class Model {
public:
  explicit Model(PagerLimits limits)
      : limits(limits), histories(limits.slots) {}

  PagerLimits limits;
  std::vector<std::vector<int64_t>> histories;
  /// Content of physical pages, as the backend would hold it.
  std::map<int32_t, std::vector<int64_t>> memory;
  int64_t nextToken = 1;

  /// Writes `count` new tokens through the pager's table, as a step would.
  void write(const BlockPager &pager, int32_t slot, int32_t count) {
    for (int32_t i = 0; i < count; ++i) {
      int64_t token = nextToken++;
      auto position = static_cast<int32_t>(histories[slot].size());
      histories[slot].push_back(token);
      int32_t page = pager.pages(slot)[position / limits.pageTokens];
      content(page)[position % limits.pageTokens] = token;
    }
  }
  /// Puts pages of new tokens before the history.
  void insertFront(const BlockPager &pager, int32_t slot, int32_t pages) {
    std::vector<int64_t> &history = histories[slot];
    for (int32_t i = 0; i < pages * limits.pageTokens; ++i) {
      int64_t token = nextToken++;
      history.insert(history.begin() + i, token);
      int32_t page = pager.pages(slot)[i / limits.pageTokens];
      content(page)[i % limits.pageTokens] = token;
    }
  }
  void dropPages(int32_t slot, int32_t first, int32_t count) {
    auto begin = histories[slot].begin() + first * limits.pageTokens;
    histories[slot].erase(begin, begin + count * limits.pageTokens);
  }
  void copy(PageCopy copy) {
    if (copy.isNeeded())
      content(copy.target) = content(copy.source);
  }
  std::vector<int64_t> &content(int32_t page) {
    std::vector<int64_t> &tokens = memory[page];
    tokens.resize(limits.pageTokens);
    return tokens;
  }
  bool matches(const BlockPager &pager, int32_t slot) {
    const std::vector<int64_t> &history = histories[slot];
    if (pager.length(slot) != static_cast<int32_t>(history.size()))
      return false;
    for (size_t i = 0; i < history.size(); ++i)
      if (content(pager.pages(
              slot)[i / limits.pageTokens])[i % limits.pageTokens] !=
          history[i])
        return false;
    return true;
  }
};

} // namespace

/// What random operations met.
struct Met {
  int64_t refused = 0;
  int64_t copied = 0;
};

/// Invariants are verified after every `interval` operations.
static void runRandom(uint32_t seed, PagerLimits limits, int operations,
                      int interval, Met &met) {
  BlockPager pager = makePager(limits);
  Model model(limits);
  std::mt19937 random(seed);
  auto below = [&](int32_t bound) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(bound));
  };
  int32_t capacity = limits.pagesPerSlot * limits.pageTokens;
  int refused = 0;
  int copied = 0;
  for (int step = 0; step < operations; ++step) {
    int32_t slot = below(limits.slots);
    switch (below(18)) {
    case 16: {
      int32_t pages = below(4);
      int32_t free = pager.freePages();
      std::vector<int32_t> before = pagesOf(pager, slot);
      bool hasRoom =
          static_cast<int32_t>(before.size()) + pages <= limits.pagesPerSlot;
      Status status = pager.insertFront(slot, pages);
      ASSERT_EQ(status.isOk(), hasRoom && pages <= free) << status.message();
      if (!status.isOk()) {
        ASSERT_EQ(pagesOf(pager, slot), before);
        ASSERT_EQ(pager.freePages(), free);
        break;
      }
      ASSERT_EQ(pager.freePages(), free - pages);
      model.insertFront(pager, slot, pages);
      break;
    }
    case 17: {
      int32_t full = pager.length(slot) / limits.pageTokens;
      int32_t first = below(limits.pagesPerSlot);
      int32_t count = below(limits.pagesPerSlot);
      uint64_t generation = pager.generation(slot);
      Status status = pager.dropPages(slot, first, count);
      ASSERT_EQ(status.isOk(), first + count <= full) << status.message();
      ASSERT_EQ(pager.generation(slot) != generation,
                status.isOk() && count > 0);
      if (status.isOk())
        model.dropPages(slot, first, count);
      break;
    }
    case 0: {
      int32_t other = below(limits.slots);
      int32_t tokens = below(capacity + 1);
      bool legal = other != slot && pager.pages(slot).empty() &&
                   tokens <= pager.length(other);
      Status status = pager.alias(slot, other, tokens);
      ASSERT_EQ(status.isOk(), legal) << status.message();
      if (legal)
        model.histories[slot].assign(model.histories[other].begin(),
                                     model.histories[other].begin() + tokens);
      break;
    }
    case 1: {
      int32_t length = below(capacity + 1);
      bool legal = length <= pager.length(slot);
      ASSERT_EQ(pager.trim(slot, length).isOk(), legal);
      if (legal)
        model.histories[slot].resize(length);
      break;
    }
    case 2:
      ASSERT_TRUE(pager.release(slot).isOk());
      model.histories[slot].clear();
      break;
    case 3: {
      int32_t tokens = below(capacity + 1);
      std::vector<int32_t> before = pagesOf(pager, slot);
      int32_t grown = (tokens + limits.pageTokens - 1) / limits.pageTokens -
                      static_cast<int32_t>(before.size());
      bool legal = grown <= pager.freePages();
      Status status = pager.reserve(slot, tokens);
      ASSERT_EQ(status.isOk(), legal);
      if (!legal) {
        ASSERT_EQ(pagesOf(pager, slot), before);
      }
      break;
    }
    case 4:
    case 5:
    case 6:
    case 7: {
      // A decode step of a random set of slots.
      std::vector<AppendRequest> requests;
      for (int32_t i = 0; i < limits.slots; ++i)
        if (below(4) != 0 && pager.length(i) < capacity)
          requests.push_back({i, 1});
      std::vector<PageCopy> copies(requests.size());
      int32_t free = pager.freePages();
      int32_t count = 0;
      Status status = pager.appendAll(requests, copies, count);
      if (!status.isOk()) {
        ASSERT_EQ(status.code(), StatusCode::ResourceExhausted);
        ASSERT_EQ(pager.freePages(), free);
        ++refused;
        break;
      }
      copied += count;
      for (int32_t i = 0; i < count; ++i)
        model.copy(copies[i]);
      for (const AppendRequest &request : requests)
        model.write(pager, request.slot, 1);
      break;
    }
    case 8:
      pager.expect(slot, below(capacity + 1));
      break;
    default: {
      int32_t tokens = below(limits.pageTokens * 3);
      int32_t needed = pager.length(slot) + tokens <= capacity
                           ? pager.pagesNeeded(slot, tokens)
                           : -1;
      int32_t free = pager.freePages();
      PageCopy copy;
      Status status = pager.append(slot, tokens, copy);
      ASSERT_EQ(status.isOk(), needed >= 0 && needed <= free);
      if (!status.isOk()) {
        ASSERT_EQ(pager.freePages(), free);
        ++refused;
        break;
      }
      ASSERT_EQ(free - pager.freePages(), needed);
      copied += copy.isNeeded();
      model.copy(copy);
      model.write(pager, slot, tokens);
      break;
    }
    }
    ASSERT_TRUE(model.matches(pager, slot)) << "after step " << step;
    if (step % interval == 0 || operations - step < interval) {
      Status status = pager.checkInvariants();
      ASSERT_TRUE(status.isOk()) << status.message() << " at step " << step;
      for (int32_t i = 0; i < limits.slots; ++i)
        ASSERT_TRUE(model.matches(pager, i)) << "slot " << i;
    }
  }
  met.refused += refused;
  met.copied += copied;
  for (int32_t i = 0; i < limits.slots; ++i)
    ASSERT_TRUE(pager.release(i).isOk());
  EXPECT_EQ(pager.freePages(), limits.pages);
  EXPECT_TRUE(pager.checkInvariants().isOk());
}

TEST(BlockPager, RandomOperationsMatchTheModel) {
  auto run = [](uint32_t seed, PagerLimits limits, int operations) {
    Met met;
    runRandom(seed, limits, operations, 64, met);
    EXPECT_GT(met.refused, 0);
    EXPECT_EQ(met.copied > 0, limits.pageTokens > 1 && limits.pages > 1);
  };
  run(1, {24, 6, 8, 4}, 60000);
  run(2, {64, 8, 16, 16}, 30000);
  run(3, {7, 5, 7, 1}, 30000);
  run(4, {1, 2, 1, 4}, 5000);
}

/// As many operations as KVRM_PAGER_OPERATIONS says, every invariant after
/// each.
TEST(BlockPager, EveryInvariantAfterEveryOperation) {
  const char *wanted = std::getenv("KVRM_PAGER_OPERATIONS");
  int64_t operations = wanted ? std::strtoll(wanted, nullptr, 10) : 40000;
  constexpr int piece = 10000;
  Met met;
  std::mt19937 random(9);
  auto between = [&](uint32_t low, uint32_t high) {
    return static_cast<int32_t>(low + random() % (high - low + 1));
  };
  for (uint32_t seed = 1; operations > 0; ++seed, operations -= piece) {
    int32_t pagesPerSlot = between(2, 10);
    int32_t slots = between(2, 6);
    runRandom(seed,
              {between(2, static_cast<uint32_t>(pagesPerSlot * slots / 2)),
               slots, pagesPerSlot, between(2, 16)},
              piece, 1, met);
    if (HasFatalFailure())
      FAIL() << "seed " << seed;
  }
  EXPECT_GT(met.refused, 0);
  EXPECT_GT(met.copied, 0);
}
