//===- SessionTest.cpp - Sessions end to end against float64 --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Over every backend, see SessionPair.h.
//
//===----------------------------------------------------------------------===//

#include "SessionPair.h"

#include "kvrm/runtime/session/TokenChoice.h"

#include <atomic>
#include <random>

using namespace kvrm;
using namespace kvrm::test;

/// Calls of operator new so far; see CountingAllocator.cpp.
extern std::atomic<int64_t> allocations;

namespace {

class Sessions : public Machine, public testing::WithParamInterface<Case> {};
class MixedSessions : public Sessions {};
class PagedSession : public Machine {};

} // namespace

static std::string caseName(const testing::TestParamInfo<Case> &info) {
  return info.param.mode + "_" + info.param.schedule + "_" +
         info.param.transport + "_" + std::to_string(info.param.threads) +
         (info.param.mixes ? "_mixed" : "");
}

static std::vector<Case> mixedCases() {
  std::vector<Case> cases = allCases();
  std::erase_if(cases, [](const Case &one) { return !one.mixes; });
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, Sessions, testing::ValuesIn(allCases()),
                         caseName);
INSTANTIATE_TEST_SUITE_P(All, MixedSessions, testing::ValuesIn(mixedCases()),
                         caseName);

TEST_P(Sessions, RandomUseMatchesFloat64) {
  Pair pair(GetParam());
  std::mt19937 random(11);
  auto below = [&](int bound) {
    return static_cast<int>(random() % static_cast<uint32_t>(bound));
  };
  for (int step = 0; step < 250; ++step) {
    int slot = below(toy::slots);
    int length = pair.session->length(slot);
    switch (below(GetParam().mixes ? 12 : 8)) {
    case 0:
      pair.release(slot);
      break;
    case 1:
      pair.trim(slot, below(length + 1));
      break;
    case 2: {
      int source = below(toy::slots);
      if (source == slot)
        break;
      pair.release(slot);
      pair.alias(slot, source, below(pair.session->length(source) + 1));
      break;
    }
    case 3: {
      int count = 1 + below(25);
      if (length + count > toy::capacity)
        break;
      std::vector<int32_t> tokens(static_cast<size_t>(count));
      for (int32_t &token : tokens)
        token = below(50);
      pair.prefill(slot, tokens);
      break;
    }
    default: {
      std::vector<int32_t> tokens(toy::slots, -1);
      for (int i = 0; i < toy::slots; ++i)
        if (below(4) != 0 && pair.session->length(i) < toy::capacity)
          tokens[size_t(i)] = below(50);
      int count = 1 + below(toy::prefillQueries);
      if (!GetParam().mixes || length + count > toy::capacity) {
        pair.decode(tokens);
        break;
      }
      tokens[size_t(slot)] = -1;
      if (std::ranges::count(tokens, -1) == toy::slots)
        break;
      std::vector<int32_t> prompt(static_cast<size_t>(count));
      for (int32_t &token : prompt)
        token = below(50);
      pair.mixedStep(tokens, slot, prompt);
      break;
    }
    }
    pair.checkLengths();
    if (HasFatalFailure())
      FAIL() << "step " << step;
  }
}

TEST_P(Sessions, SharedHistoriesPartWhenWritten) {
  Pair pair(GetParam());
  // Ends in the middle of a page, so that whoever writes first needs a copy.
  pair.prefill(0, {1, 2, 3, 4, 5, 6, 7});
  pair.alias(1, 0, 7);
  pair.alias(2, 0, 5);
  bool isPaged = pair.paged;
  pair.decode({8, -1, -1, -1});
  EXPECT_EQ(pair.session->lastStep().pageCopies, isPaged ? 1 : 0);
  pair.decode({9, 10, 11, -1});
  EXPECT_EQ(pair.session->lastStep().pageCopies, isPaged ? 1 : 0)
      << "1 and 2 share the page; the second to write has it alone";
  pair.alias(3, 1, 6);
  pair.prefill(3, {12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22});
  EXPECT_EQ(pair.session->lastStep().pageCopies, isPaged ? 1 : 0);
  pair.decode({23, 24, 25, 26});
  pair.release(0);
  pair.decode({27, 28, 29, 30});
  pair.checkLengths();
}

TEST_P(Sessions, AFullSlotSurvivesTheOthersSteps) {
  Pair pair(GetParam());
  std::vector<int32_t> tokens(toy::capacity, 3);
  pair.prefill(1, tokens);
  pair.prefill(0, {4, 5});
  for (int i = 0; i < 5; ++i)
    pair.decode({6, -1, 9, -1});
  pair.trim(1, toy::capacity - 1);
  pair.decode({-1, 8, -1, -1});
  Status status = pair.session->decode(std::vector<int32_t>{-1, 8, -1, -1},
                                       pair.out.data());
  EXPECT_EQ(status.message(),
            "slot 1: its history of 50 tokens fills the capacity 50");
  pair.checkLengths();
}

TEST_P(Sessions, BadArgumentsAreAnswersAndChangeNothing) {
  Pair pair(GetParam());
  pair.prefill(0, {1, 2, 3});
  Decoder &session = *pair.session;
  float *out = pair.out.data();
  auto prefill = [&](int slot, std::vector<int32_t> tokens) {
    return session.prefill(slot, tokens, out).message();
  };
  EXPECT_EQ(prefill(4, {1}), "slot 4 is outside 0..3");
  EXPECT_EQ(prefill(-1, {1}), "slot -1 is outside 0..3");
  EXPECT_EQ(prefill(0, {}), "slot 0: a prompt has at least one token");
  EXPECT_EQ(prefill(0, {1, 61}), "slot 0: token 61 is outside 0..60");
  EXPECT_EQ(prefill(0, {-1}), "slot 0: token -1 is outside 0..60");
  EXPECT_EQ(prefill(1, std::vector<int32_t>(51, 1)),
            "prompt of 51 tokens exceeds the capacity 50");
  EXPECT_EQ(prefill(0, std::vector<int32_t>(48, 1)),
            "slot 0: 48 tokens after 3 exceed the capacity 50");
  auto decode = [&](std::vector<int32_t> tokens, float *logits) {
    return session.decode(tokens, logits).message();
  };
  EXPECT_EQ(decode({1}, out), "decode: 1 tokens for 4 slots");
  EXPECT_EQ(decode({1, -2, -1, -1}, out), "slot 1: token -2 is outside 0..60");
  EXPECT_EQ(decode({1, -1, -1, -1}, nullptr),
            "decode: neither logits nor tokens are wanted");
  EXPECT_EQ(decode({-1, -1, -1, -1}, out), "");
  EXPECT_FALSE(session.release(9).isOk());
  EXPECT_FALSE(session.trim(0, 4).isOk());
  EXPECT_FALSE(session.trim(0, -1).isOk());
  EXPECT_FALSE(session.alias(0, 0, 1).isOk());
  EXPECT_FALSE(session.alias(0, 1, 0).isOk());
  EXPECT_FALSE(session.alias(1, 0, 4).isOk());
  pair.checkLengths();
  pair.decode({5, 6, -1, -1});
}

TEST_P(MixedSessions, SharedHistoriesPartWhenWritten) {
  Pair pair(GetParam());
  pair.prefill(0, {1, 2, 3, 4, 5, 6, 7});
  pair.alias(1, 0, 7);
  pair.alias(2, 0, 6);
  pair.mixedStep({8, -1, 9, -1}, 1, {10, 11, 12});
  EXPECT_EQ(pair.session->lastStep().pageCopies, 2)
      << "the last to write has the page alone";
  EXPECT_EQ(pair.session->lastStep().activeRows, 3);
  EXPECT_EQ(pair.session->lastStep().steps, 1);
  pair.mixedStep({-1, 13, -1, -1}, 3, {14});
  pair.decode({15, 16, 17, 18});
  pair.checkLengths();
}

TEST_P(Sessions, BadMixedStepsAreAnswersAndChangeNothing) {
  Pair pair(GetParam());
  pair.prefill(0, {1, 2, 3});
  auto mixedStep = [&](std::vector<int32_t> tokens, int slot, size_t count) {
    std::vector<int32_t> prompt(count, 1);
    return pair.session->mixedStep(tokens, slot, prompt, pair.out.data())
        .message();
  };
  if (!pair.session->shape().mixes) {
    EXPECT_EQ(mixedStep({1, -1, -1, -1}, 1, 1),
              "the decoder has no mixed step; compile it with --mixed");
    return;
  }
  EXPECT_EQ(mixedStep({1}, 1, 1), "decode: 1 tokens for 4 slots");
  EXPECT_EQ(mixedStep({61, -1, -1, -1}, 1, 1),
            "slot 0: token 61 is outside 0..60");
  EXPECT_EQ(mixedStep({1, -1, -1, -1}, 4, 1), "slot 4 is outside 0..3");
  EXPECT_EQ(mixedStep({1, -1, -1, -1}, 1, 0),
            "slot 1: a prompt has at least one token");
  EXPECT_EQ(mixedStep({1, -1, -1, -1}, 1, 11),
            "slot 1: 11 tokens of a prompt are more than the 10 of one step");
  EXPECT_EQ(mixedStep({1, -1, -1, -1}, 0, 1),
            "slot 0 cannot decode while its prompt is computed");
  EXPECT_EQ(mixedStep({-1, -1, -1, -1}, 1, 1), "mixed step: no slot decodes");
  pair.checkLengths();
  pair.mixedStep({5, -1, -1, -1}, 1, {6});
  pair.checkLengths();
}

/// Tokens are chosen where the backend chooses them, from the logits of the
/// same step; with logits or without.
TEST_P(Sessions, NextTokensAreChosenFromTheLogits) {
  std::unique_ptr<Decoder> session = makeDecoder(GetParam());
  std::unique_ptr<Decoder> other = makeDecoder(GetParam());
  std::mt19937 random(5);
  std::vector<kvrm_sampling> sampling(toy::slots);
  auto redraw = [&] {
    for (kvrm_sampling &one : sampling)
      one = {.scale = static_cast<float>(random() % 4),
             .top_p = random() % 2 ? 0 : static_cast<uint32_t>(random()),
             .top_k = static_cast<int32_t>(random() % 9),
             .random = static_cast<uint32_t>(random())};
  };
  auto logitsOf = [](const std::vector<float> &all, int row) {
    return std::span(all).subspan(size_t(row) * toy::vocabulary,
                                  toy::vocabulary);
  };
  std::vector<float> logits(size_t(toy::slots) * toy::vocabulary);
  std::vector<int32_t> next(toy::slots), alone(toy::slots);
  for (int slot = 0; slot < toy::slots; ++slot) {
    redraw();
    std::vector<int32_t> prompt(static_cast<size_t>(1 + 7 * slot), slot);
    StepOutputs both(sampling.data(), next.data());
    both.logits = logits.data();
    ASSERT_TRUE(session->prefill(slot, prompt, both).isOk());
    EXPECT_EQ(next[0], chooseToken(logitsOf(logits, 0), sampling[0]));
    ASSERT_TRUE(
        other->prefill(slot, prompt, {sampling.data(), alone.data()}).isOk());
    EXPECT_EQ(alone[0], next[0]);
  }
  for (int step = 0; step < 20; ++step) {
    redraw();
    std::vector<int32_t> tokens(toy::slots);
    for (int32_t &token : tokens)
      token = random() % 4 ? static_cast<int32_t>(random() % 50) : -1;
    StepOutputs both(sampling.data(), next.data());
    both.logits = logits.data();
    ASSERT_TRUE(session->decode(tokens, both).isOk());
    ASSERT_TRUE(other->decode(tokens, {sampling.data(), alone.data()}).isOk());
    for (int slot = 0; slot < toy::slots; ++slot)
      if (auto row = size_t(slot); tokens[row] != -1) {
        EXPECT_EQ(next[row],
                  chooseToken(logitsOf(logits, slot), sampling[row]));
        EXPECT_EQ(alone[row], next[row]);
      }
  }
  StepOutputs unsaid;
  unsaid.next = next.data();
  EXPECT_EQ(session->prefill(0, std::vector<int32_t>{1}, unsaid).message(),
            "next tokens are wanted, and it is not said how they are chosen");
}

TEST_P(Sessions, StepsDoNotAllocate) {
  std::unique_ptr<Decoder> session = makeDecoder(GetParam());
  std::vector<float> out(size_t(toy::slots) * toy::vocabulary);
  std::vector<int32_t> prompt(5, 5);
  std::vector<int32_t> tokens = {1, -1, 2, 3};
  std::vector<kvrm_sampling> sampling(toy::slots + 1, {1.0f, 1u << 31, 7, 99});
  std::vector<int32_t> next(toy::slots + 1);
  stopAllocating();
  int64_t before = allocations.load();
  for (int round = 0; round < 3; ++round) {
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_TRUE(session->prefill(slot, prompt, nullptr).isOk());
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(session->decode(tokens, out.data()).isOk());
      ASSERT_TRUE(
          session->decode(tokens, {sampling.data(), next.data()}).isOk());
    }
    if (GetParam().mixes) {
      Status status =
          session->mixedStep(tokens, 1, prompt, {sampling.data(), next.data()});
      ASSERT_TRUE(status.isOk());
    }
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_TRUE(session->release(slot).isOk());
  }
  EXPECT_EQ(allocations.load(), before);
}

TEST_F(PagedSession, ExhaustionLeavesItAsItWas) {
  // Seven pages for four slots.
  constexpr size_t page = toy::pageTokens;
  Pair pair({}, {.poolPages = 7});
  pair.prefill(0, std::vector<int32_t>(3 * page, 1));
  pair.prefill(1, std::vector<int32_t>(2 * page, 2));
  pair.prefill(2, std::vector<int32_t>(page, 3));
  Decoder &session = *pair.session;
  EXPECT_EQ(session.freePages(), 1);
  Status status =
      session.decode(std::vector<int32_t>{1, 2, 3, -1}, pair.out.data());
  EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(status.message(), "the step needs 3 KV pages, 1 of 7 are free");
  status =
      session.prefill(3, std::vector<int32_t>(page + 1, 1), pair.out.data());
  EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
  pair.checkLengths();
  EXPECT_EQ(session.freePages(), 1);
  pair.decode({7, -1, -1, -1});
  pair.release(1);
  pair.decode({7, -1, 8, 9});
  pair.checkLengths();
}

TEST_F(PagedSession, MixedStepsTakeAllTheirPagesOrNone) {
  constexpr size_t page = toy::pageTokens;
  Pair pair({.mixes = true}, {.poolPages = 5});
  pair.prefill(0, std::vector<int32_t>(2 * page, 1));
  pair.prefill(1, std::vector<int32_t>(page, 2));
  std::vector<int32_t> prompt(std::min<size_t>(page + 1, toy::prefillQueries),
                              3);
  Decoder &session = *pair.session;
  int32_t needed = 2 + static_cast<int32_t>((prompt.size() + page - 1) / page);
  Status status = session.mixedStep(std::vector<int32_t>{1, 2, -1, -1}, 2,
                                    prompt, pair.out.data());
  EXPECT_EQ(status.message(), needed > 2
                                  ? "the step needs " + std::to_string(needed) +
                                        " KV pages, 2 of 5 are free"
                                  : "");
  pair.checkLengths();
  EXPECT_EQ(session.freePages(), 2);
  pair.mixedStep({-1, 2, -1, -1}, 2, {4});
  pair.checkLengths();
}

TEST_F(PagedSession, RefusesConfigurationsOutOfRange) {
  auto message = [&](const SessionConfig &config) {
    return createDecoder(packageOf({}), configOf({}, config))
        .status()
        .message();
  };
  EXPECT_EQ(message({.poolPages = -1}),
            "pool_pages: -1 is outside 1..16777216");
  EXPECT_EQ(message({.threads = 257}), "threads: 257 is outside 0..256");
  EXPECT_EQ(message({.threads = -1}), "threads: -1 is outside 0..256");
  EXPECT_EQ(message({.shares = -1}), "shares: -1 is outside 0..4096");
  EXPECT_EQ(message({.keptHistories = -1}),
            "kept histories: -1 is outside 0..1020");
  EXPECT_EQ(message({.parkingPlaces = 1025}),
            "parking places: 1025 is outside 0..1024");
  EXPECT_EQ(message({.parkingPlaces = 1}),
            "parking pages: 0 is outside 1..16777216");
}

/// A parked history comes back to any slot, also when it was shared, and when
/// its pages are elsewhere then.
TEST_F(PagedSession, ParkedHistoriesComeBack) {
  // Of a whole history all but one page fit.
  constexpr int32_t whole = toy::pagesPerSlot;
  constexpr int32_t parkable = whole - 1;
  SessionConfig config;
  config.poolPages = 2 * whole;
  config.keptHistories = 1;
  config.parkingPlaces = 2;
  config.parkingPages = parkable;
  std::unique_ptr<Decoder> session = makeDecoder({}, config);
  auto vocabulary = static_cast<size_t>(session->vocabulary());
  std::vector<float> expected(vocabulary);
  std::vector<float> logits(vocabulary);
  for (int32_t length : {1, 4, 5, 17, 33}) {
    std::vector<int32_t> prompt(static_cast<size_t>(length));
    for (int32_t i = 0; i < length; ++i)
      prompt[static_cast<size_t>(i)] = (7 * i + length) % 50;
    std::vector<int32_t> next = {9};
    ASSERT_TRUE(session->prefill(0, prompt, nullptr).isOk());
    ASSERT_TRUE(session->alias(4, 0, length).isOk()); // a kept history
    ASSERT_TRUE(session->alias(3, 0, length).isOk());
    ASSERT_TRUE(session->prefill(3, next, expected.data()).isOk());
    ASSERT_TRUE(session->release(3).isOk());
    Status status = session->park(0, 1);
    ASSERT_TRUE(status.isOk()) << status.message();
    EXPECT_EQ(session->length(0), 0);
    ASSERT_TRUE(session->release(4).isOk());
    EXPECT_EQ(session->freePages(), 2 * whole);
    // Others take the pages that it had.
    ASSERT_TRUE(session->prefill(1, prompt, nullptr).isOk());
    ASSERT_TRUE(session->unpark(1, 2).isOk());
    EXPECT_EQ(session->length(2), length);
    ASSERT_TRUE(session->prefill(2, next, logits.data()).isOk());
    EXPECT_EQ(logits, expected) << length << " tokens";
    ASSERT_TRUE(session->release(1).isOk());
    ASSERT_TRUE(session->release(2).isOk());
  }

  auto message = [](const Status &status) { return status.message(); };
  std::vector<int32_t> prompt(toy::capacity, 3);
  const std::string all = std::to_string(whole);
  const std::string some = std::to_string(parkable);
  EXPECT_EQ(message(session->park(0, 0)), "slot 0 is empty");
  ASSERT_TRUE(session->prefill(0, prompt, nullptr).isOk());
  EXPECT_EQ(message(session->park(4, 0)), "slot 4 is outside 0..3");
  EXPECT_EQ(message(session->park(0, 2)), "parking place 2 is outside 0..1");
  EXPECT_EQ(message(session->park(0, 0)),
            "slot 0: its " + all + " pages cannot be parked, " + some + " of " +
                some + " are free");
  EXPECT_EQ(session->length(0), toy::capacity);
  EXPECT_EQ(message(session->unpark(0, 1)), "parking place 0 is empty");
  EXPECT_EQ(message(session->discard(0)), "parking place 0 is empty");
  ASSERT_TRUE(session->trim(0, parkable * toy::pageTokens).isOk());
  ASSERT_TRUE(session->park(0, 0).isOk());
  for (int32_t slot : {1, 2})
    ASSERT_TRUE(session->prefill(slot, prompt, nullptr).isOk());
  EXPECT_EQ(message(session->park(1, 0)), "parking place 0 is taken");
  EXPECT_EQ(message(session->unpark(0, 1)), "slot 1 is not empty");
  EXPECT_EQ(message(session->unpark(0, 0)),
            "the step needs " + some + " KV pages, 0 of " +
                std::to_string(2 * whole) + " are free");
  ASSERT_TRUE(session->discard(0).isOk());
}
