//===- LogSoftmaxTest.cpp - How likely tokens are -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/LogSoftmax.h"
#include "LogprobsReference.h"
#include "kvrm/runtime/support/SplitMix64.h"

#include <gtest/gtest.h>

using namespace kvrm;

static TokenLogprobs logprobsOf(const std::vector<float> &logits, int32_t token,
                                int32_t count) {
  LogSoftmax softmax(logits);
  TokenLogprobs out{softmax.of(token), {}};
  softmax.likeliest(count, out.likeliest);
  return out;
}

static std::vector<int32_t> likeliest(const std::vector<float> &logits,
                                      int32_t count) {
  std::vector<int32_t> tokens;
  for (const TokenLogprob &each : logprobsOf(logits, 0, count).likeliest)
    tokens.push_back(each.token);
  return tokens;
}

TEST(LogSoftmax, IsThatOfFloat64) {
  SplitMix64 random(7);
  auto below = [&](uint64_t bound) { return random.next() % bound; };
  for (size_t vocabulary : {1, 2, 19, 20, 21, 1000, 49152}) {
    for (float range : {0.01f, 3.0f, 60.0f}) {
      std::vector<float> logits(vocabulary);
      for (float &logit : logits)
        logit = range * (static_cast<float>(below(2001)) / 1000.0f - 1.0f);
      for (int32_t count : {0, 1, 5, 20}) {
        auto token = static_cast<int32_t>(below(vocabulary));
        EXPECT_EQ(reference::difference(
                      logprobsOf(logits, token, count),
                      reference::logprobsOf(logits, token, count), 1e-11),
                  "")
            << vocabulary << " tokens of +-" << range;
      }
    }
  }
}

/// With sums in f32 the many would come to nothing beside the one.
TEST(LogSoftmax, ManyUnlikelyTokensCount) {
  std::vector<float> logits(1 << 20, -18.0f);
  logits[3] = 0;
  EXPECT_NEAR(LogSoftmax(logits).of(3),
              -std::log1p(((1 << 20) - 1) * std::exp(-18.0)), 1e-9);
}

TEST(LogSoftmax, GreatLogitsDoNotOverflow) {
  for (float shift : {-1e5f, 1e5f}) {
    const std::vector<float> logits = {shift, shift, shift - 64};
    LogSoftmax softmax(logits);
    EXPECT_NEAR(softmax.of(0), -std::log(2 + std::exp(-64.0)), 1e-12);
    EXPECT_NEAR(softmax.of(2), -64 - std::log(2.0), 1e-12);
  }
  const std::vector<float> far = {3.4e38f, -3.4e38f};
  EXPECT_EQ(LogSoftmax(far).of(0), 0);
  EXPECT_EQ(LogSoftmax(far).of(1), double(far[1]) - double(far[0]));
}

TEST(LogSoftmax, TheLikeliestAreInOrder) {
  EXPECT_EQ(likeliest({1, 3, 2, 3, 3, 0}, 4), (std::vector{1, 3, 4, 2}));
  EXPECT_EQ(likeliest({0.0f, -0.0f, 0.0f}, 2), (std::vector{0, 1}));
  EXPECT_EQ(likeliest({5, 4}, 20), (std::vector{0, 1}));
  EXPECT_EQ(likeliest({5, 4}, 0), std::vector<int32_t>{});
  // Their probabilities are equal in double, and their logits are not.
  EXPECT_EQ(likeliest({1e-30f, 2e-30f, 50}, 3), (std::vector{2, 1, 0}));
}

TEST(LogSoftmax, WhatIsNotFiniteHasNoProbability) {
  const std::vector<float> logits = {NAN, 1, INFINITY, 1, -INFINITY};
  LogSoftmax softmax(logits);
  EXPECT_NEAR(softmax.of(1), -std::log(2.0), 1e-15);
  for (int32_t token : {0, 2, 4})
    EXPECT_EQ(softmax.of(token), -INFINITY);
  EXPECT_EQ(likeliest(logits, 5), (std::vector{1, 3}));
}
