//===- WorkloadTest.cpp - Tests of requests made from a trace -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Simulated.h"

#include <cmath>

using namespace kvrm;
using namespace kvrm::replay;

static Options optionsOf(const std::string &keys) {
  Options options;
  options.trace = "synthetic:" + keys;
  return options;
}

TEST(Workload, ASliceIsTheStartOfTheTrace) {
  Options options = optionsOf("requests=100,rate=10");
  const Workload all = makeWork(options);
  options.duration = 3;
  const Workload first = makeWork(options);
  ASSERT_LT(first.items.size(), all.items.size());
  EXPECT_LT(first.items.back().arrival, 3'000'000'000);
  EXPECT_GE(all.items[first.items.size()].arrival, 3'000'000'000);
  options.requests = 7;
  const Workload few = makeWork(options);
  ASSERT_EQ(few.items.size(), 7u);
  for (size_t i = 0; i < few.items.size(); ++i) {
    EXPECT_EQ(few.items[i].arrival, all.items[i].arrival);
    EXPECT_EQ(few.promptOf(i), all.promptOf(i));
  }
}

TEST(Workload, ClippedRequestsFitAndAreCounted) {
  Options options = optionsOf("requests=300,prompt=40,output=30,family=zipf");
  options.lengthScale = 1.5;
  options.maxPrompt = 25;
  const Workload work = makeWork(options);
  Expected<Trace> trace = makeSyntheticTrace(options.trace);
  ASSERT_TRUE(trace);
  int64_t clipped = 0;
  int64_t cut = 0;
  int64_t prompts = 0;
  int64_t outputs = 0;
  for (size_t i = 0; i < work.items.size(); ++i) {
    const WorkItem &item = work.items[i];
    auto prompt =
        static_cast<int32_t>(std::ceil(trace->requests[i].promptTokens * 1.5));
    auto output =
        static_cast<int32_t>(std::ceil(trace->requests[i].outputTokens * 1.5));
    EXPECT_EQ(item.outputTokens, std::min(output, 63));
    EXPECT_EQ(item.promptTokens,
              std::min({prompt, 64 - item.outputTokens, 25}));
    int64_t lost = prompt - item.promptTokens + output - item.outputTokens;
    clipped += lost > 0;
    cut += lost;
    prompts += item.promptTokens;
    outputs += item.outputTokens;
  }
  EXPECT_GT(clipped, 0);
  EXPECT_EQ(work.clipped, clipped);
  EXPECT_EQ(work.clippedTokens, cut);
  EXPECT_EQ(work.promptTokens, prompts);
  EXPECT_EQ(work.outputTokens, outputs);
}

TEST(Workload, TokensFollowFromSeedAndRequest) {
  Options options = optionsOf("requests=20,prompt=30");
  const Workload work = makeWork(options);
  const Workload same = makeWork(options);
  options.seed = 2;
  const Workload other = makeWork(options);
  EXPECT_EQ(work.promptOf(3), same.promptOf(3));
  EXPECT_NE(work.promptOf(3), other.promptOf(3));
  EXPECT_NE(work.promptOf(3), work.promptOf(4));
  for (int32_t token : work.promptOf(3)) {
    EXPECT_GE(token, 0);
    EXPECT_LT(token, 50);
  }
}

TEST(Workload, EqualBlocksHaveEqualTokens) {
  Options options = optionsOf(
      "requests=40,prompt=900,output=10,family=shared-prefix,prefixes=2");
  options.lengthScale = 1.0 / 32; // blocks of 16 tokens
  const Workload work = makeWork(options, {1000, 50});
  const Trace &trace = work.source();
  int equal = 0;
  int different = 0;
  for (size_t a = 0; a < work.items.size(); ++a)
    for (size_t b = 0; b < a; ++b) {
      auto first = trace.hashesOf(trace.requests[a]);
      auto second = trace.hashesOf(trace.requests[b]);
      std::vector<int32_t> left = work.promptOf(a);
      std::vector<int32_t> right = work.promptOf(b);
      ASSERT_GE(left.size(), 16u);
      ASSERT_GE(right.size(), 16u);
      bool isEqual = std::equal(left.begin(), left.begin() + 16, right.begin());
      EXPECT_EQ(isEqual, first[0] == second[0]);
      ++(isEqual ? equal : different);
    }
  EXPECT_GT(equal, 0);
  EXPECT_GT(different, 0);
}

TEST(Workload, TimeIsScaled) {
  Workload work = makeWork("requests=50,rate=5");
  work.schedule(0.25, 0, 0);
  for (const WorkItem &item : work.items)
    EXPECT_NEAR(double(item.due), double(item.arrival) / 4, 1);
  EXPECT_EQ(work.overloadBegin, work.overloadEnd);
}

TEST(Workload, AnOverloadIsAsDenseAsAsked) {
  Workload work = makeWork("requests=3000,rate=100");
  work.schedule(1, 4, 2);
  EXPECT_NEAR(work.overloadEnd - work.overloadBegin, 2, 1e-9);
  int64_t before = 0;
  int64_t during = 0;
  int64_t last = 0;
  for (const WorkItem &item : work.items) {
    EXPECT_GE(item.due, last);
    last = item.due;
    double time = double(item.due) / 1e9;
    before += time > work.overloadBegin - 2 && time <= work.overloadBegin;
    during += time > work.overloadBegin && time <= work.overloadEnd;
  }
  EXPECT_NEAR(double(during) / double(before), 4, 0.8);
}

TEST(Options, MustGoTogether) {
  auto messageOf = [](auto change) {
    Options options = optionsOf("");
    change(options);
    return checkOptions(options).message();
  };
  EXPECT_EQ(messageOf([](Options &) {}), "");
  EXPECT_EQ(messageOf([](Options &o) { o.trace.clear(); }),
            "nothing to replay: give --trace");
  EXPECT_EQ(messageOf([](Options &o) { o.lengthScale = 200; }),
            "--length-scale: 200 is outside 0.0001..100");
  EXPECT_EQ(messageOf([](Options &o) { o.limitSeconds = NAN; }),
            "--limit-seconds: nan is outside 0..3.16224e+07");
  EXPECT_EQ(messageOf([](Options &o) { o.load = o.timeScale = 2; }),
            "--load sets the time scale: leave out --time-scale");
  EXPECT_EQ(messageOf([](Options &o) { o.overload = o.overloadSeconds = 0.5; }),
            "--overload: less than 1 is no overload");
  EXPECT_EQ(messageOf([](Options &o) { o.session.parkingPages = 1; }),
            "--parking-pages needs --parking-places");
}
