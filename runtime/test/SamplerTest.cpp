//===- SamplerTest.cpp - Which token comes next -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Sampler.h"

#include <cmath>
#include <gtest/gtest.h>
#include <map>

using namespace kvrm;

static Sampler makeSampler(int32_t vocabulary, SamplingSettings settings) {
  Expected<Sampler> sampler = Sampler::create(vocabulary, settings);
  EXPECT_TRUE(sampler) << sampler.status().message();
  return sampler.take();
}

TEST(Sampler, RefusesSettingsOutOfRange) {
  auto message = [](float temperature, float topP) {
    return Sampler::create(4, {temperature, topP, 0}).status().message();
  };
  EXPECT_EQ(message(-1, 1), "temperature: -1.000000 is outside 0..100");
  EXPECT_EQ(message(NAN, 1), "temperature: nan is outside 0..100");
  EXPECT_EQ(message(1, 1.5), "top-p: 1.500000 is outside 0..1");
  EXPECT_EQ(message(1, NAN), "top-p: nan is outside 0..1");
}

TEST(Sampler, GreedyTakesTheFirstOfTheGreatest) {
  Sampler sampler = makeSampler(5, {});
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 3, -2, 0}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{NAN, -3, INFINITY, -4, NAN}), 1)
      << "what is not finite is not a candidate";
  EXPECT_EQ(sampler.sample(std::vector<float>{NAN, NAN, NAN, NAN, NAN}), -1);
  EXPECT_EQ(sampler.sample(std::vector<float>(5, -INFINITY)), -1);
}

TEST(Sampler, EqualSeedsGiveEqualTokens) {
  std::vector<float> logits = {0.1f, 0.7f, -0.3f, 0.4f, 0.2f};
  auto draw = [&](uint64_t seed) {
    Sampler sampler = makeSampler(5, {1.0f, 0.95f, seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 64; ++i)
      tokens.push_back(sampler.sample(logits));
    return tokens;
  };
  EXPECT_EQ(draw(7), draw(7));
  EXPECT_NE(draw(7), draw(8));
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  // Weights 1, 2, 4, 8 at temperature 2.
  std::vector<float> logits;
  for (int i = 0; i < 4; ++i)
    logits.push_back(2 * std::log(static_cast<float>(1 << i)));
  auto count = [&](float topP) {
    Sampler sampler = makeSampler(4, {2.0f, topP, 1});
    std::map<int32_t, int> counts;
    for (int i = 0; i < 30000; ++i)
      ++counts[sampler.sample(logits)];
    return counts;
  };
  std::map<int32_t, int> all = count(1);
  for (int i = 0; i < 4; ++i)
    EXPECT_NEAR(all[i] / 30000.0, (1 << i) / 15.0, 0.015);
  // 8/15 is more than half, so that top-p 0.5 keeps one token.
  EXPECT_EQ(count(0.5f).size(), 1u);
  std::map<int32_t, int> two = count(0.75f);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NEAR(two[3] / 30000.0, 8 / 12.0, 0.015);
  EXPECT_EQ(count(0).size(), 1u);
}

TEST(Sampler, LargeLogitsDoNotOverflow) {
  std::vector<float> logits = {3e38f, -3e38f, 2.9e38f};
  EXPECT_EQ(makeSampler(3, {0.01f, 0.9f, 1}).sample(logits), 0);
}
