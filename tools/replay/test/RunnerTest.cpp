//===- RunnerTest.cpp - Tests of a mode that serves -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Simulated.h"
#include "replay/Verification.h"

#include <map>

using namespace kvrm;
using namespace kvrm::replay;

/// The tokens that a request gets from the simulated model.
static std::vector<int32_t> tokensOf(const Workload &work, size_t item) {
  std::vector<int32_t> history = work.promptOf(item);
  size_t prompt = history.size();
  for (int32_t i = 0; i < work.items[item].outputTokens; ++i)
    history.push_back(simulation::SimulatedDecoder::follows(history, 50));
  return {history.begin() + static_cast<int64_t>(prompt), history.end()};
}

/// Every request ended once, in one way, and was measured as often.
static void expectWhole(const ModeResult &result, const Workload &work) {
  EXPECT_EQ(result.done + result.refused + result.failed + result.unfinished,
            static_cast<int64_t>(work.items.size()));
  if (result.isCut)
    return;
  EXPECT_EQ(result.unfinished, 0);
  EXPECT_EQ(static_cast<int64_t>(result.ttft.size()), result.done);
  EXPECT_EQ(static_cast<int64_t>(result.queueWait.size()), result.done);
  EXPECT_EQ(static_cast<int64_t>(result.itl.size()),
            result.doneTokens - result.done);
  EXPECT_EQ(
      result.stats.waiting + result.stats.running + result.stats.preempted, 0);
  EXPECT_EQ(static_cast<int64_t>(result.steps.size()), result.stats.steps);
}

static ModeResult runWhole(Simulated &mode, const Workload &work) {
  Expected<ModeResult> result = mode.run(work);
  EXPECT_TRUE(result) << result.status().message();
  expectWhole(*result, work);
  return result.take();
}

TEST(Runner, EveryRequestEndsOnceWithItsTokens) {
  const Workload work = makeWork("requests=60,rate=2000,prompt=20,output=12");
  Simulated mode;
  mode.settings.keepsTokens = true;
  ModeResult result = runWhole(mode, work);
  EXPECT_EQ(result.done, 60);
  EXPECT_EQ(result.doneTokens, work.outputTokens);
  EXPECT_EQ(result.promptTokens, work.promptTokens);
  for (size_t i = 0; i < work.items.size(); ++i)
    EXPECT_EQ(result.tokens[i], tokensOf(work, i)) << "request " << i;
  EXPECT_LE(result.worstHeld, 1);
  EXPECT_LE(result.peakLiveBytes, result.peakHeldBytes);
  EXPECT_LE(result.peakHeldBytes, result.budgetBytes);
}

TEST(Runner, TheSameOnTheSameClock) {
  const Workload work = makeWork("requests=40,rate=1000,prompt=20,output=12");
  Simulated one;
  Simulated two;
  ModeResult a = runWhole(one, work);
  ModeResult b = runWhole(two, work);
  EXPECT_EQ(a.seconds, b.seconds);
  ASSERT_EQ(a.itl.size(), b.itl.size());
  for (size_t i = 0; i < a.itl.size(); ++i) {
    EXPECT_EQ(a.itl[i].time, b.itl[i].time);
    EXPECT_EQ(a.itl[i].value, b.itl[i].value);
  }
}

TEST(Runner, ARequestIsNotEarlyAndLatencyCountsFromWhenItIsDue) {
  Workload work = makeWork("requests=3,rate=1,prompt=10,output=4");
  // The second is due while the first runs, the third long after.
  work.items[0].due = 0;
  work.items[1].due = 1;
  work.items[2].due = 5'000'000'000;
  Simulated mode;
  ModeResult result = runWhole(mode, work);
  ASSERT_EQ(result.ttft.size(), 3u);
  EXPECT_EQ(result.ttft[2].time, 5.0f);
  for (const Sample &first : result.ttft) {
    EXPECT_GT(first.value, 0);
    EXPECT_LT(first.value, 1); // ms; the simulated steps are short
  }
  EXPECT_NEAR(result.idleSeconds, 5, 0.01);
  EXPECT_GT(result.seconds, 5);
}

TEST(Runner, SaturatedEverythingIsTakenAtOnce) {
  const Workload work = makeWork("requests=50,rate=0.01,prompt=20,output=12");
  Simulated mode;
  mode.settings.isSaturated = true;
  mode.settings.engine.queueLimit = 3;
  ModeResult result = runWhole(mode, work);
  EXPECT_EQ(result.done, 50);
  EXPECT_EQ(result.refused, 0);
  EXPECT_EQ(result.idleSeconds, 0);
  for (const StatePoint &point : result.series.points())
    EXPECT_LE(point.waiting, 3);
}

TEST(Runner, WhatAFullQueueRefusesIsCounted) {
  const Workload work =
      makeWork("requests=80,rate=1000000,prompt=20,output=12");
  Simulated mode;
  mode.settings.engine.queueLimit = 2;
  ModeResult result = runWhole(mode, work);
  EXPECT_GT(result.refused, 0);
  EXPECT_EQ(result.refused, result.stats.refused);
}

TEST(Runner, TheLimitCuts) {
  const Workload work = makeWork("requests=100,rate=10,prompt=20,output=12");
  Simulated mode;
  mode.settings.limitSeconds = 4;
  ModeResult result = runWhole(mode, work);
  EXPECT_TRUE(result.isCut);
  EXPECT_GT(result.done, 0);
  EXPECT_GT(result.unfinished, 0);
  EXPECT_GE(result.seconds, 4);
  EXPECT_LT(result.seconds, 4.1);
}

TEST(Runner, PreemptedRequestsHaveTheSameTokens) {
  const Workload work =
      makeWork("requests=40,rate=100000,prompt=20,output=20,family=uniform");
  for (PreemptionPolicy policy :
       {PreemptionPolicy::Park, PreemptionPolicy::Recompute}) {
    Simulated mode(/*poolPages=*/10);
    mode.shape.parkingPlaces = 4;
    mode.parkingPages = 32;
    mode.settings.engine.preemption = policy;
    mode.settings.keepsTokens = true;
    ModeResult result = runWhole(mode, work);
    EXPECT_GT(policy == PreemptionPolicy::Park ? result.stats.parked
                                               : result.stats.recomputed,
              0);
    for (size_t i = 0; i < work.items.size(); ++i)
      EXPECT_EQ(result.tokens[i], tokensOf(work, i)) << "request " << i;
  }
}

TEST(Runner, SharedPagesAreCountedOnce) {
  Options options;
  options.trace = "synthetic:requests=40,rate=100000,prompt=400,output=200,"
                  "family=shared-prefix,prefixes=1";
  options.lengthScale = 1.0 / 32;
  const Workload work = makeWork(options);
  Simulated mode(/*poolPages=*/40);
  mode.shape.histories = 6;
  mode.settings.engine.sharesPrefixes = true;
  mode.settings.keepsTokens = true;
  ModeResult result = runWhole(mode, work);
  EXPECT_GT(result.stats.sharedTokens, 0);
  EXPECT_LE(result.worstHeld, 1);
  for (size_t i = 0; i < work.items.size(); ++i)
    EXPECT_EQ(result.tokens[i], tokensOf(work, i)) << "request " << i;
}

TEST(Runner, AnErrorNamesTheMode) {
  const Workload work = makeWork("requests=4");
  Simulated mode;
  mode.faults.launch = 100;
  Expected<ModeResult> result = mode.run(work);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.status().message(), "kvrm: injected: prefill failed");
}

TEST(ModeDecoder, CountsEachPageByItsFullestUser) {
  Simulated mode;
  mode.shape.histories = 6;
  std::unique_ptr<ModeDecoder> opened = mode.open();
  Decoder &decoder = opened->decoder();
  const std::vector<int32_t> tokens(16, 7);
  auto fill = [&](int32_t slot, size_t count) {
    Status status =
        decoder.prefill(slot, std::span(tokens).first(count), nullptr);
    ASSERT_TRUE(status.isOk()) << status.message();
  };
  fill(0, 16);
  fill(0, 4);                                  // 20 tokens, 3 pages
  ASSERT_TRUE(decoder.alias(1, 0, 18).isOk()); // the same pages, 18 tokens
  fill(2, 5);                                  // one page
  ASSERT_TRUE(decoder.alias(5, 2, 5).isOk());  // kept: the same page
  KvUse use = opened->use(3);
  EXPECT_EQ(use.held, 4 * 8);
  EXPECT_EQ(use.kept, 0);
  EXPECT_EQ(use.live, 20 + 5);
  EXPECT_EQ(use.sharedTokens, 18);
  ASSERT_TRUE(decoder.release(2).isOk());
  use = opened->use(2);
  EXPECT_EQ(use.kept, 8);
  EXPECT_EQ(use.live, 20);
}

TEST(Verification, FindsTheFirstTokenThatDiffers) {
  const Workload work = makeWork("requests=20,rate=1000,prompt=20,output=12");
  Simulated mode;
  mode.settings.keepsTokens = true;
  ModeResult result = runWhole(mode, work);
  std::unique_ptr<ModeDecoder> fresh = mode.open();
  auto verify = [&](int64_t count) {
    Expected<Verification> done =
        verifyTokens(fresh->decoder(), work, result.tokens, count, nullptr);
    EXPECT_TRUE(done) << done.status().message();
    return *done;
  };
  EXPECT_EQ(verify(1000).requests, 20);
  EXPECT_EQ(verify(1000).mismatches, 0);
  EXPECT_EQ(verify(3).requests, 3);

  // What is empty was refused or not finished.
  result.tokens[2].clear();
  EXPECT_EQ(verify(1000).requests, 19);
  result.tokens[7].back() ^= 1;
  result.tokens[9].front() ^= 1;
  Verification done = verify(1000);
  EXPECT_EQ(done.mismatches, 2);
  EXPECT_EQ(done.first, "request 7 differs at token " +
                            std::to_string(result.tokens[7].size() - 1) +
                            " of " + std::to_string(result.tokens[7].size()));
}
