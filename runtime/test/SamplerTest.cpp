//===- SamplerTest.cpp - Which token comes next ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Sampler.h"
#include "kvrm/runtime/session/TokenChoice.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <map>
#include <numbers>
#include <random>

using namespace kvrm;

static Sampler makeSampler(SamplingSettings settings) {
  Expected<Sampler> sampler = Sampler::create(settings);
  EXPECT_TRUE(sampler) << sampler.status().message();
  return sampler.take();
}

static int32_t draw(Sampler &sampler, const std::vector<float> &logits) {
  int32_t token = chooseToken(logits, sampler.next());
  sampler.advance();
  return token;
}

TEST(Sampler, RefusesSettingsOutOfRange) {
  auto message = [](float temperature, float topP, int32_t topK = 0) {
    return Sampler::create({temperature, topP, topK, 0}).status().message();
  };
  EXPECT_EQ(message(-1, 1), "temperature: -1.000000 is outside 0..100");
  EXPECT_EQ(message(NAN, 1), "temperature: nan is outside 0..100");
  EXPECT_EQ(message(1, 1.5), "top-p: 1.500000 is outside 0..1");
  EXPECT_EQ(message(1, NAN), "top-p: nan is outside 0..1");
  EXPECT_EQ(message(1, 1, -1), "top-k: -1 is below 0");
}

TEST(Sampler, GreedyTakesTheFirstOfTheGreatest) {
  Sampler sampler = makeSampler({});
  EXPECT_EQ(draw(sampler, {1, 3, 3, -2, 0}), 1);
  EXPECT_EQ(draw(sampler, {-0.0f, 0.0f}), 0) << "zeros are equal";
  EXPECT_EQ(draw(sampler, {NAN, -3, INFINITY, -4, NAN}), 1)
      << "what is not finite is not a candidate";
  EXPECT_EQ(draw(sampler, std::vector<float>(5, NAN)), -1);
  EXPECT_EQ(draw(sampler, std::vector<float>(5, -INFINITY)), -1);
  EXPECT_EQ(draw(sampler, {-3.4e38f}), 0);
}

TEST(Sampler, EqualSeedsGiveEqualTokens) {
  std::vector<float> logits = {0.1f, 0.7f, -0.3f, 0.4f, 0.2f};
  auto tokensOf = [&](uint64_t seed) {
    Sampler sampler = makeSampler({1.0f, 0.95f, 0, seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 64; ++i)
      tokens.push_back(draw(sampler, logits));
    return tokens;
  };
  EXPECT_EQ(tokensOf(7), tokensOf(7));
  EXPECT_NE(tokensOf(7), tokensOf(8));
}

TEST(Sampler, StaysUntilItAdvances) {
  Sampler sampler = makeSampler({1.0f, 1.0f, 0, 3});
  uint32_t first = sampler.next().random;
  EXPECT_EQ(sampler.next().random, first);
  sampler.advance();
  EXPECT_NE(sampler.next().random, first);
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  // Weights 1, 2, 4, 8 at temperature 2.
  std::vector<float> logits;
  for (int i = 0; i < 4; ++i)
    logits.push_back(2 * std::log(static_cast<float>(1 << i)));
  auto count = [&](float topP, int32_t topK) {
    Sampler sampler = makeSampler({2.0f, topP, topK, 1});
    std::map<int32_t, int> counts;
    for (int i = 0; i < 30000; ++i)
      ++counts[draw(sampler, logits)];
    return counts;
  };
  std::map<int32_t, int> all = count(1, 0);
  for (int i = 0; i < 4; ++i)
    EXPECT_NEAR(all[i] / 30000.0, (1 << i) / 15.0, 0.015);
  // 8/15 is more than half, so that top-p 0.5 keeps one token.
  EXPECT_EQ(count(0.5f, 0).size(), 1u);
  std::map<int32_t, int> two = count(0.75f, 0);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NEAR(two[3] / 30000.0, 8 / 12.0, 0.015);
  EXPECT_EQ(count(0, 0).size(), 1u);
  std::map<int32_t, int> three = count(1, 3);
  EXPECT_EQ(three.size(), 3u);
  EXPECT_NEAR(three[1] / 30000.0, 2 / 14.0, 0.015);
  EXPECT_EQ(count(1, 100).size(), 4u) << "more than there are";
  // Of three, 8/14 is more than half.
  EXPECT_EQ(count(0.55f, 3).size(), 1u);
}

TEST(Sampler, KeepsWhatIsAsGreatAsTheLast) {
  std::vector<float> logits = {1, 2, 1, 1, -5};
  std::map<int32_t, int> counts;
  Sampler sampler = makeSampler({1.0f, 1.0f, 2, 1});
  for (int i = 0; i < 1000; ++i)
    ++counts[draw(sampler, logits)];
  EXPECT_EQ(counts.size(), 4u);
  EXPECT_EQ(counts.count(4), 0u);
}

TEST(Sampler, LargeLogitsDoNotOverflow) {
  std::vector<float> logits = {3e38f, -3e38f, 2.9e38f};
  for (float temperature : {0.01f, 1e-45f, 100.0f}) {
    Sampler sampler = makeSampler({temperature, 0.9f, 0, 1});
    EXPECT_EQ(draw(sampler, logits), 0) << temperature;
  }
}

//===----------------------------------------------------------------------===//
// Against float64
//===----------------------------------------------------------------------===//

namespace {

/// The part of the mass that tokens before each one have, and all of it at the
/// end, in double precision, of tokens sorted and cut the plain way.
class Reference {
public:
  Reference(const std::vector<float> &logits, double temperature, double topP,
            int32_t topK) {
    std::vector<size_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i)
      order[i] = i;
    std::ranges::stable_sort(
        order, [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    double most = logits[order[0]];
    auto weight = [&](size_t token) {
      return std::exp((logits[token] - most) / temperature);
    };
    auto cut = [&](size_t count) {
      while (count < order.size() &&
             logits[order[count]] == logits[order[count - 1]])
        ++count;
      order.resize(std::min(count, order.size()));
    };
    if (topK > 0 && static_cast<size_t>(topK) < order.size())
      cut(static_cast<size_t>(topK));
    double total = 0;
    for (size_t token : order)
      total += weight(token);
    double sum = 0;
    size_t kept = 0;
    while (kept < order.size() && sum < topP * total)
      sum += weight(order[kept++]);
    slack = kept > 0 ? std::abs(sum - topP * total) / total : 0;
    if (topP < 1)
      cut(std::max<size_t>(kept, 1));
    std::vector<double> weights(logits.size());
    total = 0;
    for (size_t token : order)
      total += weights[token] = weight(token);
    before.push_back(0);
    for (double one : weights)
      before.push_back(before.back() + one / total);
  }
  /// Whether `token` may be what `part` of the mass leads to.
  bool allows(int32_t token, double part) const {
    auto i = static_cast<size_t>(token);
    constexpr double error = 1e-5;
    return before[i] - error <= part && part <= before[i + 1] + error &&
           before[i + 1] > before[i];
  }
  /// Of top-p: a draw this close to the edge says nothing.
  double slack = 0;

private:
  std::vector<double> before;
};

} // namespace

TEST(TokenChoice, IsThatOfDoublePrecision) {
  std::mt19937_64 random(20261126);
  int compared = 0;
  for (int round = 0; round < 2000; ++round) {
    size_t size = 1 + random() % 700;
    std::normal_distribution<float> normal(
        0, static_cast<float>(1 + random() % 6));
    std::vector<float> logits(size);
    for (float &logit : logits)
      logit = round % 3 == 0 ? std::round(normal(random)) : normal(random);
    SamplingSettings settings;
    settings.temperature = 0.1f + static_cast<float>(random() % 30) / 10;
    settings.topP =
        random() % 2 ? 1.0f : static_cast<float>(random() % 1000) / 1000;
    settings.topK = random() % 2 ? 0 : static_cast<int32_t>(random() % 50);
    settings.seed = random();
    Sampler sampler = makeSampler(settings);
    Reference reference(logits, double(settings.temperature),
                        double(settings.topP), settings.topK);
    if (settings.topP < 1 && reference.slack < 1e-5)
      continue;
    ++compared;
    double part = sampler.next().random * 0x1p-32;
    int32_t token = chooseToken(logits, sampler.next());
    EXPECT_TRUE(reference.allows(token, part))
        << "round " << round << ", token " << token << " at " << part
        << ", temperature " << settings.temperature << ", top-p "
        << settings.topP << ", top-k " << settings.topK;
  }
  EXPECT_GT(compared, 1500);
}
