//===- SamplerTest.cpp - Sampling, and requests through slots ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ToyModel.h"
#include "ToyPackage.h"
#include "kvrm/runtime/BatchRunner.h"

#include <cmath>
#include <filesystem>
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

namespace {

class Batches : public testing::TestWithParam<const char *> {
protected:
  void SetUp() override {
    toy::PackageOptions options;
    options.mode = GetParam();
    path = toy::makePackage(options);
  }
  void TearDown() override { std::filesystem::remove_all(path); }

  std::unique_ptr<Session> makeSession(int64_t poolPages = 0) {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    EXPECT_TRUE(package) << package.status().message();
    SessionConfig config;
    config.poolPages = poolPages;
    config.threads = 2;
    Expected<std::unique_ptr<Session>> session =
        Session::create(package.take(), config);
    EXPECT_TRUE(session) << session.status().message();
    return session.take();
  }

  std::string path;
};

} // namespace

INSTANTIATE_TEST_SUITE_P(All, Batches, testing::Values("paged", "static"));

/// Greedy tokens of a prompt, in float64.
static std::vector<int32_t> expected(const std::vector<int32_t> &prompt,
                                     int32_t tokens) {
  toy::Reference reference;
  std::vector<double> logits;
  for (int32_t token : prompt)
    logits = reference.append(token);
  std::vector<int32_t> out;
  while (true) {
    out.push_back(static_cast<int32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin()));
    if (static_cast<int32_t>(out.size()) == tokens)
      return out;
    logits = reference.append(out.back());
  }
}

/// A prompt whose greedy tokens are none of those that break the protocol.
static std::vector<int32_t> tamePrompt(int index, int32_t tokens) {
  for (int32_t first = 0; first < 50; ++first) {
    std::vector<int32_t> prompt = {first, index % 50, 7};
    prompt.resize(static_cast<size_t>(3 + index % 5), 11);
    std::vector<int32_t> out = expected(prompt, tokens);
    if (std::ranges::all_of(
            out, [](int32_t t) { return t < toy::tokenCommitsTwice; }))
      return prompt;
  }
  ADD_FAILURE() << "no tame prompt";
  return {1};
}

TEST_P(Batches, MoreRequestsThanSlotsReuseThem) {
  std::unique_ptr<Session> session = makeSession();
  BatchRunner runner(*session);
  int streamed = 0;
  int finished = 0;
  runner.observe([&](int32_t, int32_t) { ++streamed; },
                 [&](int32_t) { ++finished; });
  int total = 0;
  for (int i = 0; i < 11; ++i) {
    GenerationRequest request;
    request.maxTokens = 1 + i % 7;
    request.prompt = tamePrompt(i, request.maxTokens);
    total += request.maxTokens;
    Expected<int32_t> index = runner.add(request);
    ASSERT_TRUE(index) << index.status().message();
  }
  Status status = runner.run();
  ASSERT_TRUE(status.isOk()) << status.message();
  for (int i = 0; i < runner.size(); ++i) {
    EXPECT_EQ(runner.result(i).tokens,
              expected(runner.request(i).prompt, runner.request(i).maxTokens))
        << "request " << i;
    EXPECT_EQ(runner.result(i).finish, FinishReason::MaxTokens);
  }
  EXPECT_EQ(streamed, total);
  EXPECT_EQ(finished, 11);
  for (int slot = 0; slot < toy::slots; ++slot)
    EXPECT_EQ(session->length(slot), 0);
  EXPECT_EQ(session->freePages(), session->poolPages());
}

TEST_P(Batches, ASmallPoolOnlyDelays) {
  if (std::string(GetParam()) == "static")
    GTEST_SKIP() << "a static package has no pool";
  // Room for one request at a time.
  std::unique_ptr<Session> session = makeSession(3);
  BatchRunner runner(*session);
  for (int i = 0; i < 5; ++i) {
    GenerationRequest request;
    request.maxTokens = 5;
    request.prompt = tamePrompt(i, 5);
    Expected<int32_t> index = runner.add(request);
    ASSERT_TRUE(index) << index.status().message();
  }
  GenerationRequest tooLarge;
  tooLarge.prompt = {1};
  tooLarge.maxTokens = 13;
  EXPECT_EQ(runner.add(tooLarge).status().message(),
            "request 5: its 1 prompt tokens and up to 13 new ones need 4 KV "
            "pages, the pool has 3");
  Status status = runner.run();
  ASSERT_TRUE(status.isOk()) << status.message();
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(runner.result(i).tokens, expected(runner.request(i).prompt, 5));
}

TEST_P(Batches, RequestsEndAtStopTokensAndAtTheCapacity) {
  std::unique_ptr<Session> session = makeSession();
  BatchRunner runner(*session);
  GenerationRequest stop;
  stop.prompt = tamePrompt(2, 6);
  stop.maxTokens = 6;
  std::vector<int32_t> tokens = expected(stop.prompt, 6);
  stop.stopTokens = {tokens[3]};
  auto first = std::ranges::find(tokens, tokens[3]) - tokens.begin();
  ASSERT_TRUE(runner.add(stop));
  GenerationRequest full;
  full.prompt.assign(toy::capacity, 3);
  full.maxTokens = 10;
  ASSERT_TRUE(runner.add(full));
  ASSERT_TRUE(runner.run().isOk());
  EXPECT_EQ(runner.result(0).finish, FinishReason::Stop);
  EXPECT_EQ(int64_t(runner.result(0).tokens.size()), first);
  EXPECT_EQ(runner.result(1).finish, FinishReason::Capacity);
  EXPECT_EQ(runner.result(1).tokens.size(), 1u);
}

TEST_P(Batches, RefusesWhatCanNeverRun) {
  std::unique_ptr<Session> session = makeSession();
  BatchRunner runner(*session);
  auto message = [&](std::vector<int32_t> prompt, int32_t maxTokens) {
    GenerationRequest request;
    request.prompt = std::move(prompt);
    request.maxTokens = maxTokens;
    return runner.add(request).status().message();
  };
  EXPECT_EQ(message({}, 1), "request 0: its prompt has no tokens");
  EXPECT_EQ(message({61}, 1), "request 0: token 61 is outside 0..60");
  EXPECT_EQ(message({1}, 0), "request 0: cannot generate 0 tokens");
  EXPECT_EQ(message(std::vector<int32_t>(51, 1), 1),
            "request 0: prompt of 51 tokens exceeds the capacity 50");
  EXPECT_EQ(message({1}, INT32_MAX), "");
  EXPECT_EQ(runner.size(), 1);
}
