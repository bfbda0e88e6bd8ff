//===- CudaAheadTest.cpp - Steps that are started before others end -------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// On the driver that lies, whose work is done when it is waited for and no
// sooner: a buffer that is used again too early is seen. Tokens have to be
// those of the same decoder whose steps are waited for one by one.
//
//===----------------------------------------------------------------------===//

#include "AheadTwins.h"
#include "FakeMachine.h"
#include "SessionPair.h"
#include "kvrm/runtime/serving/Engine.h"

#include <array>
#include <map>
#include <utility>

using namespace kvrm;
using namespace kvrm::test;

namespace {

constexpr std::array<kvrm_sampling, toy::slots + 1> sampling{};

class CudaAhead : public Machine {};

} // namespace

TEST_F(CudaAhead, TokensAreThoseOfPatientSteps) {
  for (uint32_t seed = 1; seed <= 4; ++seed)
    for (const Case &on : allCases()) {
      const SessionConfig config = on.isPaged()
                                       ? SessionConfig{.keptHistories = 1,
                                                       .parkingPlaces = 2,
                                                       .parkingPages = 6}
                                       : SessionConfig();
      Twins twins(makeDecoder(on, config), makeDecoder(on, config));
      poisonPool(twins.patient());
      poisonPool(twins.hasty());
      twins.wander({.steps = 200, .longestPrompt = 7, .seed = seed});
    }
}

TEST_F(CudaAhead, RefusesWhatCannotBe) {
  std::unique_ptr<Decoder> decoder = makeDecoder({});
  EXPECT_EQ(decoder->shape().stepsAhead, 1);
  StepOutputs later = StepOutputs::later(sampling.data());
  Tokens next(toy::slots + 1);
  auto expectError = [](const Status &status, const char *want) {
    EXPECT_EQ(status.code(), StatusCode::InvalidArgument);
    EXPECT_EQ(status.message(), want);
  };
  expectError(decoder->awaitStep(next), "no step is under way");
  expectError(decoder->prefill(0, Tokens{1}, later),
              "prefill: its token is to be had at once");
  expectError(decoder->decode(Tokens{followingToken, -1, -1, -1}, later),
              "slot 0: token -2 is outside 0..60");
  EXPECT_TRUE(decoder->decode(Tokens{-1, -1, -1, -1}, later).isOk());
  expectError(decoder->awaitStep(next), "no step is under way");

  EXPECT_TRUE(decoder->decode(Tokens{1, 2, -1, -1}, later).isOk());
  expectError(decoder->decode(Tokens{1, -1, followingToken, -1}, later),
              "slot 2: token -2 is outside 0..60");
  EXPECT_TRUE(decoder->release(1).isOk());
  expectError(decoder->decode(Tokens{1, followingToken, -1, -1}, later),
              "slot 1: token -2 is outside 0..60");
  EXPECT_TRUE(
      decoder->decode(Tokens{followingToken, -1, -1, -1}, later).isOk());
  expectError(decoder->decode(Tokens{followingToken, -1, -1, -1}, later),
              "2 steps are under way: one is to be awaited first");
  expectError(decoder->awaitStep(std::span(next).first(toy::slots)),
              "tokens: room for 4, not for 5");
  EXPECT_TRUE(decoder->awaitStep(next).isOk());
  EXPECT_TRUE(decoder->awaitStep(next).isOk());
  expectError(decoder->awaitStep(next), "no step is under way");
  std::vector<float> logits(toy::slots * toy::vocabulary);
  StepOutputs both = later;
  both.logits = logits.data();
  expectError(decoder->decode(Tokens{1, -1, -1, -1}, both),
              "tokens are wanted for later, and others at once");
}

TEST_F(CudaAhead, WhatIsOverwrittenFollowsNobody) {
  std::unique_ptr<Decoder> decoder = makeDecoder({.mixes = true});
  StepOutputs later = StepOutputs::later(sampling.data());
  Tokens next(toy::slots + 1);
  auto isFollowing = [&](int32_t slot) {
    Tokens tokens(toy::slots, -1);
    tokens[size_t(slot)] = followingToken;
    Status status = decoder->decode(tokens, later);
    if (!status.isOk())
      return false;
    expectOk(decoder->awaitStep(next));
    return true;
  };
  // The prompt's row, by another prompt.
  expectOk(decoder->mixedStep(Tokens{1, -1, -1, -1}, 1, Tokens{2, 3}, later));
  expectOk(decoder->prefill(2, Tokens{4, 5}, {sampling.data(), next.data()}));
  EXPECT_FALSE(isFollowing(1));
  EXPECT_TRUE(isFollowing(0));
  expectOk(decoder->awaitStep(next));
  // Any row, by a step that failed, and may have run.
  expectOk(decoder->decode(Tokens{1, 2, -1, -1}, later));
  control().failCall = "cuGraphLaunch";
  EXPECT_FALSE(
      decoder->decode(Tokens{followingToken, 2, -1, -1}, later).isOk());
  control().failCall = "";
  EXPECT_FALSE(isFollowing(0));
  expectOk(decoder->awaitStep(next));
}

//===----------------------------------------------------------------------===//
// An engine
//===----------------------------------------------------------------------===//

namespace {

struct Recorder : EngineObserver {
  void onToken(RequestId id, int32_t, const TokenLogprobs *told) override {
    if (!told)
      return;
    logprobs[id].push_back(told->logprob);
    for (const TokenLogprob &each : told->likeliest) {
      logprobs[id].push_back(each.token);
      logprobs[id].push_back(each.logprob);
    }
  }
  void onFinish(RequestResult &result) override {
    tokens[result.id] = result.tokens;
    reasons[result.id] = result.finish;
  }

  std::map<RequestId, Tokens> tokens;
  std::map<RequestId, std::vector<double>> logprobs; ///< in a row
  std::map<RequestId, FinishReason> reasons;
};

/// Eight requests of unlike lengths, more than there are slots. `errors` counts
/// rounds that failed. Of those that ask for log probabilities some run beside
/// others, and some are left alone.
Recorder serve(Decoder &decoder, int32_t &errors, bool someAsk = false) {
  Recorder recorder;
  VirtualClock clock;
  EngineConfig config;
  config.sharesPrefixes = decoder.isPaged();
  std::unique_ptr<Engine> engine =
      Engine::create(decoder, clock, config, &recorder).take();
  for (int32_t i = 0; i < 8; ++i) {
    RequestSpec spec;
    spec.prompt = {i, 7, 3};
    spec.prompt.resize(size_t(3 + 2 * (i % 4)), 11);
    spec.maxTokens = 1 + 3 * (i % 5);
    spec.sampling = {.temperature = i % 2 ? 0.7F : 0.F, .seed = uint64_t(i)};
    spec.stopTokens = {5, 17};
    if (someAsk && i % 3 == 1)
      spec.topLogprobs = i;
    EXPECT_TRUE(engine->submit(std::move(spec)));
  }
  for (int i = 0; i < 400 && !engine->isIdle(); ++i) {
    errors += !engine->step().isOk();
    Status status = engine->checkInvariants();
    EXPECT_TRUE(status.isOk()) << status.message();
  }
  EXPECT_TRUE(engine->isIdle());
  return recorder;
}

/// The same decoder, whose steps are all waited for.
class Patient final : public Decoder {
public:
  explicit Patient(std::unique_ptr<Decoder> decoder)
      : inner(std::move(decoder)), bounds(inner->shape()) {
    bounds.stepsAhead = 0;
  }

  const DecoderShape &shape() const override { return bounds; }
  Status prefill(int32_t slot, std::span<const int32_t> tokens,
                 const StepOutputs &outputs) override {
    return inner->prefill(slot, tokens, outputs);
  }
  Status decode(std::span<const int32_t> tokens,
                const StepOutputs &outputs) override {
    return inner->decode(tokens, outputs);
  }
  Status mixedStep(std::span<const int32_t> tokens, int32_t slot,
                   std::span<const int32_t> prompt,
                   const StepOutputs &outputs) override {
    return inner->mixedStep(tokens, slot, prompt, outputs);
  }
  void expect(int32_t slot, int32_t tokens) override {
    inner->expect(slot, tokens);
  }
  Status release(int32_t history) override { return inner->release(history); }
  Status trim(int32_t history, int32_t length) override {
    return inner->trim(history, length);
  }
  Status alias(int32_t target, int32_t source, int32_t tokens) override {
    return inner->alias(target, source, tokens);
  }
  Status park(int32_t slot, int32_t place) override {
    return inner->park(slot, place);
  }
  Status unpark(int32_t place, int32_t slot) override {
    return inner->unpark(place, slot);
  }
  Status discard(int32_t place) override { return inner->discard(place); }
  int32_t length(int32_t history) const override {
    return inner->length(history);
  }
  int32_t pagesNeeded(int32_t slot, int32_t tokens) const override {
    return inner->pagesNeeded(slot, tokens);
  }
  int32_t freePages() const override { return inner->freePages(); }
  int64_t reservedKvBytes() const override { return inner->reservedKvBytes(); }
  int64_t liveKvBytes() const override { return inner->liveKvBytes(); }
  int64_t tokenKvBytes() const override { return inner->tokenKvBytes(); }
  const StepStats &lastStep() const override { return inner->lastStep(); }

private:
  std::unique_ptr<Decoder> inner;
  DecoderShape bounds;
};

} // namespace

TEST_F(CudaAhead, AnEngineGivesTheSameTokens) {
  for (const Case &on : allCases()) {
    int32_t errors = 0;
    Patient patient(makeDecoder(on));
    Recorder want = serve(patient, errors);
    std::unique_ptr<Decoder> hasty = makeDecoder(on);
    Recorder got = serve(*hasty, errors);
    EXPECT_EQ(errors, 0);
    EXPECT_EQ(want.tokens.size(), 8u);
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_EQ(got.reasons, want.reasons);
    if (on.isPaged()) {
      EXPECT_EQ(hasty->freePages(), hasty->poolPages());
    }
  }
}

/// They come with logits of a step that is waited for, whoever went ahead
/// before.
TEST_F(CudaAhead, AnEngineGivesTheSameLogprobs) {
  for (const Case &on : allCases()) {
    int32_t errors = 0;
    std::unique_ptr<Decoder> unasked = makeDecoder(on);
    const Recorder plain = serve(*unasked, errors);
    Patient patient(makeDecoder(on));
    const Recorder want = serve(patient, errors, /*someAsk=*/true);
    std::unique_ptr<Decoder> hasty = makeDecoder(on);
    const Recorder got = serve(*hasty, errors, /*someAsk=*/true);
    EXPECT_EQ(errors, 0);
    EXPECT_EQ(want.tokens, plain.tokens);
    EXPECT_EQ(got.tokens, plain.tokens);
    EXPECT_EQ(got.logprobs.size(), 3u);
    EXPECT_EQ(got.logprobs, want.logprobs);
    for (const auto &[id, told] : got.logprobs)
      EXPECT_EQ(told.size(), got.tokens.at(id).size() * size_t(1 + 2 * id));
  }
}

TEST_F(CudaAhead, AnyDriverCallMayFailWhileAnEngineRuns) {
  int32_t errors = 0;
  const Case on{.mixes = true};
  Recorder want;
  int64_t calls = 0;
  {
    std::unique_ptr<Decoder> decoder = makeDecoder(on);
    int64_t before = control().calls;
    want = serve(*decoder, errors);
    calls = control().calls - before;
  }
  EXPECT_EQ(errors, 0);
  EXPECT_GT(calls, 200);
  for (int64_t n = 1; n <= calls && !HasFailure(); ++n) {
    control().reset();
    std::unique_ptr<Decoder> decoder = makeDecoder(on);
    control().failAt = control().calls + n;
    int32_t failed = 0;
    Recorder got = serve(*decoder, failed);
    EXPECT_LE(failed, 1);
    errors += failed;
    EXPECT_EQ(got.tokens, want.tokens)
        << "call " << n << ", " << control().lastFailed;
    EXPECT_EQ(got.reasons, want.reasons);
    EXPECT_EQ(decoder->freePages(), decoder->poolPages());
  }
  EXPECT_GT(errors, 150);
}
