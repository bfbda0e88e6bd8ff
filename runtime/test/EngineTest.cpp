//===- EngineTest.cpp - Requests through a decoder's slots ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Engine.h"
#include "EngineSimulation.h"
#include "LogprobsReference.h"
#include "SimulatedDecoder.h"
#include "ToyModel.h"
#include "ToyPackage.h"
#include "kvrm/runtime/session/CreateDecoder.h"

#include <algorithm>
#include <filesystem>
#include <gtest/gtest.h>
#include <map>
#include <numeric>

using namespace kvrm;

namespace {

/// Keeps all that it is told.
class Recorder : public EngineObserver {
public:
  void onToken(RequestId id, int32_t,
               const TokenLogprobs *likelihood) override {
    ++tokens;
    if (likelihood)
      logprobs[id].push_back(*likelihood);
  }
  void onFinish(RequestResult &result) override {
    results[result.id] = std::move(result);
  }
  std::map<RequestId, RequestResult> results;
  std::map<RequestId, std::vector<TokenLogprobs>> logprobs;
  int tokens = 0;
};

Status runAll(Engine &engine) {
  for (int rounds = 0; !engine.isIdle(); ++rounds) {
    KVRM_TRY(engine.step());
    KVRM_TRY(engine.checkInvariants());
    if (rounds == 10000)
      return {StatusCode::Internal, "no end"};
  }
  return Status::ok();
}

RequestSpec makeSpec(std::vector<int32_t> prompt, int32_t maxTokens) {
  RequestSpec spec;
  spec.prompt = std::move(prompt);
  spec.maxTokens = maxTokens;
  return spec;
}

} // namespace

//===----------------------------------------------------------------------===//
// Over a session that runs the toy decoder
//===----------------------------------------------------------------------===//

namespace {

class EngineOnSession : public testing::TestWithParam<const char *> {
protected:
  void SetUp() override {
    toy::PackageOptions options;
    options.mode = GetParam();
    path = toy::makePackage(options);
  }
  void TearDown() override { std::filesystem::remove_all(path); }

  std::unique_ptr<Decoder> makeDecoder(SessionConfig config = {}) {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    EXPECT_TRUE(package) << package.status().message();
    config.threads = 2;
    Expected<std::unique_ptr<Decoder>> session =
        createDecoder(package.take(), config);
    EXPECT_TRUE(session) << session.status().message();
    return session.take();
  }

  std::unique_ptr<Engine> makeEngine(Decoder &session,
                                     const EngineConfig &config = {}) {
    Expected<std::unique_ptr<Engine>> engine =
        Engine::create(session, clock, config, &recorder);
    EXPECT_TRUE(engine) << engine.status().message();
    return engine.take();
  }

  std::string path;
  SteadyClock clock;
  Recorder recorder;
};

} // namespace

INSTANTIATE_TEST_SUITE_P(All, EngineOnSession,
                         testing::Values("paged", "static"));

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
static std::vector<int32_t> tamePrompt(int index, int32_t tokens,
                                       size_t length = 0) {
  for (int32_t first = 0; first < 50; ++first) {
    std::vector<int32_t> prompt = {first, index % 50, 7};
    prompt.resize(length > 0 ? length : static_cast<size_t>(3 + index % 5), 11);
    std::vector<int32_t> out = expected(prompt, tokens);
    if (std::ranges::all_of(
            out, [](int32_t t) { return t < toy::tokenCommitsTwice; }))
      return prompt;
  }
  ADD_FAILURE() << "no tame prompt";
  return {1};
}

TEST_P(EngineOnSession, MoreRequestsThanSlotsReuseThem) {
  std::unique_ptr<Decoder> session = makeDecoder();
  std::unique_ptr<Engine> engine = makeEngine(*session);
  std::vector<RequestSpec> specs;
  int total = 0;
  for (int i = 0; i < 11; ++i) {
    int32_t tokens = 1 + i % 7;
    specs.push_back(makeSpec(tamePrompt(i, tokens), tokens));
    total += tokens;
    Expected<RequestId> id = engine->submit(specs.back());
    ASSERT_TRUE(id) << id.status().message();
    EXPECT_EQ(*id, i);
  }
  Status status = runAll(*engine);
  ASSERT_TRUE(status.isOk()) << status.message();
  for (int i = 0; i < 11; ++i) {
    const RequestSpec &spec = specs[static_cast<size_t>(i)];
    EXPECT_EQ(recorder.results[i].tokens, expected(spec.prompt, spec.maxTokens))
        << "request " << i;
    EXPECT_EQ(recorder.results[i].finish, FinishReason::MaxTokens);
  }
  EXPECT_EQ(recorder.tokens, total);
  for (int slot = 0; slot < toy::slots; ++slot)
    EXPECT_EQ(session->length(slot), 0);
  EXPECT_EQ(session->freePages(), session->poolPages());
}

TEST_P(EngineOnSession, RequestsEndAtStopTokensAndAtTheCapacity) {
  std::unique_ptr<Decoder> session = makeDecoder();
  std::unique_ptr<Engine> engine = makeEngine(*session);
  RequestSpec stop = makeSpec(tamePrompt(2, 6), 6);
  std::vector<int32_t> tokens = expected(stop.prompt, 6);
  stop.stopTokens = {tokens[3]};
  auto first = std::ranges::find(tokens, tokens[3]) - tokens.begin();
  ASSERT_TRUE(engine->submit(stop));
  ASSERT_TRUE(
      engine->submit(makeSpec(std::vector<int32_t>(toy::capacity, 3), 10)));
  ASSERT_TRUE(runAll(*engine).isOk());
  EXPECT_EQ(recorder.results[0].finish, FinishReason::Stop);
  EXPECT_EQ(int64_t(recorder.results[0].tokens.size()), first);
  EXPECT_EQ(recorder.results[1].finish, FinishReason::Capacity);
  EXPECT_EQ(recorder.results[1].tokens.size(), 1u);
}

TEST_P(EngineOnSession, RefusesWhatCanNeverRun) {
  std::unique_ptr<Decoder> session = makeDecoder();
  std::unique_ptr<Engine> engine = makeEngine(*session);
  auto message = [&](std::vector<int32_t> prompt, int32_t maxTokens) {
    return engine->submit(makeSpec(std::move(prompt), maxTokens))
        .status()
        .message();
  };
  EXPECT_EQ(message({}, 1), "the prompt has no tokens");
  EXPECT_EQ(message({61}, 1), "token 61 is outside 0..60");
  EXPECT_EQ(message({1}, 0), "cannot generate 0 tokens");
  EXPECT_EQ(message(std::vector<int32_t>(51, 1), 1),
            "prompt of 51 tokens exceeds the capacity 50");
  EXPECT_EQ(message({1}, INT32_MAX), "");
  EXPECT_EQ(engine->stats().submitted, 1);
  for (int32_t count : {-1, 21}) {
    RequestSpec spec = makeSpec({1}, 1);
    spec.topLogprobs = count;
    EXPECT_EQ(engine->submit(spec).status().message(),
              "top logprobs: " + std::to_string(count) + " is outside 0..20");
  }
}

/// Preempted requests go on as if nothing had been, however they are kept.
TEST_P(EngineOnSession, ASmallPoolOnlyDelays) {
  if (std::string(GetParam()) == "static")
    GTEST_SKIP() << "a static package has no pool";
  for (PreemptionPolicy policy :
       {PreemptionPolicy::Park, PreemptionPolicy::Recompute}) {
    SessionConfig config;
    config.poolPages = 7;
    config.parkingPlaces = 2;
    config.parkingPages = 9;
    std::unique_ptr<Decoder> session = makeDecoder(config);
    EngineConfig engineConfig;
    engineConfig.preemption = policy;
    recorder = Recorder();
    std::unique_ptr<Engine> engine = makeEngine(*session, engineConfig);
    std::vector<RequestSpec> specs;
    for (int i = 0; i < 6; ++i) {
      specs.push_back(makeSpec(tamePrompt(i, 20), 20));
      ASSERT_TRUE(engine->submit(specs.back()));
    }
    EXPECT_EQ(engine->submit(makeSpec({1}, 29)).status().message(),
              "1 prompt tokens and up to 29 new ones need 8 KV pages, the pool "
              "has 7");
    Status status = runAll(*engine);
    ASSERT_TRUE(status.isOk()) << status.message();
    for (int i = 0; i < 6; ++i)
      EXPECT_EQ(recorder.results[i].tokens,
                expected(specs[static_cast<size_t>(i)].prompt, 20))
          << "request " << i;
    EXPECT_EQ(engine->stats().parked > 0, policy == PreemptionPolicy::Park);
    EXPECT_EQ(engine->stats().unparked, engine->stats().parked);
    if (policy == PreemptionPolicy::Recompute) {
      EXPECT_GT(engine->stats().recomputed, 0);
    }
  }
}

/// Those of the model in float64, whose logits differ by what f32 rounds.
TEST_P(EngineOnSession, LogprobsAreThoseOfTheModel) {
  std::unique_ptr<Decoder> session = makeDecoder();
  std::unique_ptr<Engine> engine = makeEngine(*session);
  std::vector<RequestSpec> specs;
  for (int i = 0; i < 7; ++i) {
    RequestSpec spec = makeSpec(tamePrompt(i, 6), 6);
    if (i % 3 > 0) // no two are likely enough to change places
      spec.topLogprobs = i % 3 - 1;
    spec.sampling = {.temperature = 0, .topK = 1};
    specs.push_back(spec);
    ASSERT_TRUE(engine->submit(spec));
  }
  ASSERT_TRUE(runAll(*engine).isOk());
  for (int i = 0; i < 7; ++i) {
    const RequestSpec &spec = specs[static_cast<size_t>(i)];
    const std::vector<TokenLogprobs> &got = recorder.logprobs[i];
    ASSERT_EQ(got.size(), spec.topLogprobs ? 6u : 0u);
    toy::Reference model;
    std::vector<double> logits;
    for (int32_t token : spec.prompt)
      logits = model.append(token);
    for (size_t at = 0; at < got.size(); ++at) {
      int32_t token = recorder.results[i].tokens[at];
      EXPECT_EQ(reference::difference(
                    got[at],
                    reference::logprobsOf(logits, token, *spec.topLogprobs),
                    1e-2),
                "")
          << "request " << i << ", token " << at;
      logits = model.append(token);
    }
  }
}

TEST_P(EngineOnSession, EqualPrefixesShareTheirPages) {
  if (std::string(GetParam()) == "static") {
    std::unique_ptr<Decoder> session = makeDecoder();
    EngineConfig config;
    config.sharesPrefixes = true;
    EXPECT_EQ(
        Engine::create(*session, clock, config, nullptr).status().message(),
        "prefixes are shared by pages, which a static decoder does not "
        "have");
    return;
  }
  SessionConfig config;
  config.keptHistories = 2;
  std::unique_ptr<Decoder> session = makeDecoder(config);
  EngineConfig engineConfig;
  engineConfig.sharesPrefixes = true;
  std::unique_ptr<Engine> engine = makeEngine(*session, engineConfig);
  // One while it runs, one after all have ended, one that ends inside a page.
  RequestSpec spec = makeSpec(tamePrompt(1, 8, 18), 8);
  ASSERT_TRUE(engine->submit(spec));
  ASSERT_TRUE(engine->submit(spec));
  ASSERT_TRUE(runAll(*engine).isOk());
  EXPECT_EQ(engine->stats().kept, 1);
  ASSERT_TRUE(engine->submit(spec));
  RequestSpec shorter = spec;
  shorter.prompt.resize(14);
  std::vector<int32_t> tokens = expected(shorter.prompt, 8);
  if (std::ranges::all_of(tokens, [](int32_t t) { return t < 58; })) {
    ASSERT_TRUE(engine->submit(shorter));
  }
  ASSERT_TRUE(runAll(*engine).isOk());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(recorder.results[i].tokens, expected(spec.prompt, 8));
    EXPECT_EQ(recorder.results[i].sharedTokens, i == 0 ? 0 : 17);
  }
  if (recorder.results.contains(3)) {
    EXPECT_EQ(recorder.results[3].tokens, tokens);
    EXPECT_EQ(recorder.results[3].sharedTokens, 13);
  }
  EXPECT_GE(engine->stats().sharedPages, 10);
  engine.reset();
  EXPECT_EQ(session->freePages(), session->poolPages());
}

//===----------------------------------------------------------------------===//
// Over the simulated decoder
//===----------------------------------------------------------------------===//

namespace {

class EngineOnSimulation : public testing::Test {
protected:
  void make(DecoderShape shape, const EngineConfig &config,
            int32_t parkingPages = 0) {
    decoder = std::make_unique<simulation::SimulatedDecoder>(
        shape, parkingPages, clock, 1);
    Expected<std::unique_ptr<Engine>> made =
        Engine::create(*decoder, clock, config, &recorder);
    ASSERT_TRUE(made) << made.status().message();
    engine = made.take();
  }
  static DecoderShape shapeOf(int32_t slots, int32_t poolPages) {
    DecoderShape shape;
    shape.slots = shape.histories = slots;
    shape.capacity = 64;
    shape.vocabulary = 50;
    shape.pageTokens = 4;
    shape.poolPages = poolPages;
    shape.prefillChunk = 8;
    return shape;
  }
  static std::vector<int32_t> promptOf(int32_t tokens, int32_t first) {
    std::vector<int32_t> prompt(static_cast<size_t>(tokens));
    std::iota(prompt.begin(), prompt.end(), first);
    for (int32_t &token : prompt)
      token %= 50;
    return prompt;
  }

  VirtualClock clock;
  Recorder recorder;
  std::unique_ptr<simulation::SimulatedDecoder> decoder;
  std::unique_ptr<Engine> engine;
};

} // namespace

TEST_F(EngineOnSimulation, BadSettingsAreAnswers) {
  make(shapeOf(2, 8), {});
  auto message = [&](int32_t queueLimit, double stallFactor) {
    EngineConfig config;
    config.queueLimit = queueLimit;
    config.stallFactor = stallFactor;
    return Engine::create(*decoder, clock, config, nullptr).status().message();
  };
  EXPECT_EQ(message(0, 1), "queue limit: 0 is outside 1..65536");
  EXPECT_EQ(message(65537, 1), "queue limit: 65537 is outside 1..65536");
  EXPECT_EQ(message(1, -1), "stall factor is outside 0..1000");
  EXPECT_EQ(message(1, std::nan("")), "stall factor is outside 0..1000");
  for (int32_t limit : {-1, 65537}) {
    EngineConfig config;
    config.overtakeLimit = limit;
    EXPECT_EQ(
        Engine::create(*decoder, clock, config, nullptr).status().message(),
        "overtake limit: " + std::to_string(limit) + " is outside 0..65536");
  }
}

TEST_F(EngineOnSimulation, AFullQueueRefuses) {
  EngineConfig config;
  config.queueLimit = 3;
  make(shapeOf(1, 16), config);
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(engine->submit(makeSpec(promptOf(9, i), 5)));
  Status refused = engine->submit(makeSpec({1}, 1)).status();
  EXPECT_EQ(refused.code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(refused.message(), "queue full: 3 requests wait, the limit is 3");
  EXPECT_EQ(engine->stats().refused, 1);
  // It recovers at once: the first has left the queue.
  ASSERT_TRUE(engine->step().isOk());
  EXPECT_TRUE(engine->submit(makeSpec({1}, 1)));
}

/// A prompt that the pool has no pages for is passed by those that fit, but not
/// for ever.
TEST_F(EngineOnSimulation, AFewRequestsOvertakeAPromptWithoutPages) {
  for (int32_t limit : {0, 2, 5}) {
    EngineConfig config;
    config.overtakeLimit = limit;
    engine.reset(); // before its decoder
    recorder.results.clear();
    make(shapeOf(4, 20), config);
    // Takes half of the pool for 20 rounds.
    ASSERT_TRUE(engine->submit(makeSpec(promptOf(40, 0), 20)));
    ASSERT_TRUE(engine->step().isOk());
    RequestId large = *engine->submit(makeSpec(promptOf(44, 1), 2));
    for (int32_t i = 0; i < 7; ++i)
      ASSERT_TRUE(engine->submit(makeSpec({i}, 1)));
    ASSERT_TRUE(runAll(*engine).isOk());
    ASSERT_EQ(recorder.results.size(), 9U);
    EXPECT_EQ(engine->stats().overtakes, limit);
    int32_t earlier = 0;
    for (const auto &[id, result] : recorder.results)
      earlier += id > large && result.start < recorder.results[large].start;
    EXPECT_EQ(earlier, limit);
    EXPECT_EQ(recorder.results[large].finish, FinishReason::MaxTokens);
  }
}

/// A long prompt holds the others up by one chunk a round.
TEST_F(EngineOnSimulation, PrefillStallsDecodingByOneChunk) {
  EngineConfig config;
  config.stallFactor = 0;
  make(shapeOf(2, 64), config);
  ASSERT_TRUE(engine->submit(makeSpec(promptOf(4, 0), 40)));
  ASSERT_TRUE(engine->step().isOk());
  ASSERT_TRUE(engine->submit(makeSpec(promptOf(60, 1), 2)));
  for (int round = 0; round < 7; ++round) {
    ASSERT_TRUE(engine->step().isOk());
    EXPECT_EQ(engine->lastRound().prefillChunks, 1);
    EXPECT_EQ(engine->lastRound().prefillTokens, 8);
    EXPECT_EQ(engine->lastRound().decodeTokens, 1);
  }
  ASSERT_TRUE(engine->step().isOk());
  EXPECT_EQ(engine->lastRound().prefillTokens, 4);
  EXPECT_EQ(engine->lastRound().decodeTokens, 2);
}

/// With a mixed step a chunk costs the others no step of its own, and the
/// tokens are the same.
TEST_F(EngineOnSimulation, MixedStepsTakeTheLastChunkAlong) {
  EngineConfig config;
  config.stallFactor = 0;
  DecoderShape shape = shapeOf(2, 64);
  shape.mixes = true;
  make(shape, config);
  ASSERT_TRUE(engine->submit(makeSpec(promptOf(4, 0), 40)));
  ASSERT_TRUE(engine->step().isOk());
  EXPECT_EQ(engine->lastRound().mixedTokens, 0) << "nobody decodes yet";
  ASSERT_TRUE(engine->submit(makeSpec(promptOf(60, 1), 2)));
  for (int round = 0; round < 8; ++round) {
    ASSERT_TRUE(engine->step().isOk());
    EXPECT_EQ(engine->lastRound().mixedTokens, round < 7 ? 8 : 4);
    EXPECT_EQ(engine->lastRound().prefillTokens, round < 7 ? 8 : 4);
    EXPECT_EQ(engine->lastRound().prefillNanoseconds, 0);
    EXPECT_EQ(engine->lastRound().decodeTokens, 1);
  }
  ASSERT_TRUE(engine->step().isOk());
  EXPECT_EQ(engine->lastRound().decodeTokens, 2);
  EXPECT_EQ(engine->stats().mixedSteps, 8);
  EXPECT_EQ(engine->stats().mixedTokens, 60);
  while (!engine->isIdle())
    ASSERT_TRUE(engine->step().isOk());
  for (size_t i = 0; i < 2; ++i) {
    std::vector<int32_t> history = i == 0 ? promptOf(4, 0) : promptOf(60, 1);
    for (int32_t token : recorder.results[i].tokens) {
      EXPECT_EQ(token, simulation::SimulatedDecoder::follows(history,
                                                             shape.vocabulary));
      history.push_back(token);
    }
  }
}

/// The factor is in decode steps: one takes 10 us, a chunk 8 us.
TEST_F(EngineOnSimulation, TheStallFactorAllowsMoreChunks) {
  EngineConfig config;
  config.stallFactor = 2.5;
  make(shapeOf(2, 64), config);
  ASSERT_TRUE(engine->submit(makeSpec(promptOf(4, 0), 40)));
  ASSERT_TRUE(engine->step().isOk());
  ASSERT_TRUE(engine->submit(makeSpec(promptOf(60, 1), 2)));
  ASSERT_TRUE(engine->step().isOk());
  EXPECT_EQ(engine->lastRound().prefillChunks, 3);
}

TEST_F(EngineOnSimulation, CancelledRequestsLeaveFromAnywhere) {
  DecoderShape shape = shapeOf(2, 12);
  shape.parkingPlaces = 1;
  EngineConfig config;
  config.preemption = PreemptionPolicy::Park;
  make(shape, config, 16);
  for (int i = 0; i < 4; ++i)
    ASSERT_TRUE(engine->submit(makeSpec(promptOf(14, i), 30)));
  for (int i = 0; i < 1000 && engine->stats().parked == 0; ++i)
    ASSERT_TRUE(engine->step().isOk());
  ASSERT_EQ(engine->stats().parked, 1);
  EXPECT_GT(decoder->parkedPages(), 0);
  EXPECT_TRUE(engine->cancel(1).isOk()); // parked
  EXPECT_EQ(decoder->parkedPages(), 0);
  EXPECT_TRUE(engine->cancel(0).isOk()); // decoding
  EXPECT_TRUE(engine->cancel(3).isOk()); // waiting
  EXPECT_EQ(engine->cancel(3).message(), "request 3 is not here");
  ASSERT_TRUE(runAll(*engine).isOk());
  EXPECT_EQ(recorder.results[2].finish, FinishReason::MaxTokens);
  EXPECT_EQ(engine->stats().cancelled, 3);
  EXPECT_EQ(decoder->freePages(), shape.poolPages);
}

/// What is fetched back takes no chunk from the one behind it.
TEST_F(EngineOnSimulation, ARoundThatUnparksPrefillsToo) {
  DecoderShape shape = shapeOf(2, 12);
  shape.parkingPlaces = 1;
  EngineConfig config;
  config.preemption = PreemptionPolicy::Park;
  config.stallFactor = 0;
  make(shape, config, 16);
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(engine->submit(makeSpec(promptOf(14, i), 30)));
  for (int i = 0; i < 1000 && engine->stats().parked == 0; ++i)
    ASSERT_TRUE(engine->step().isOk());
  ASSERT_EQ(engine->stats().parked, 1);
  ASSERT_TRUE(engine->cancel(0).isOk());
  ASSERT_TRUE(engine->step().isOk());
  EXPECT_EQ(engine->stats().unparked, 1);
  EXPECT_EQ(engine->lastRound().prefillChunks, 1);
  EXPECT_EQ(engine->lastRound().decodeTokens, 1);
}

/// What requests of an engine under churn are told is of the logits by which
/// their tokens were chosen; it costs others nothing but going ahead.
TEST_F(EngineOnSimulation, LogprobsAreThoseOfTheLogits) {
  struct Case {
    bool mixes;
    int32_t stepsAhead;
    PreemptionPolicy preemption;
  };
  for (const auto &[mixes, stepsAhead, preemption] :
       {Case{false, 0, PreemptionPolicy::Park},
        Case{true, 0, PreemptionPolicy::Recompute},
        Case{false, 2, PreemptionPolicy::Recompute},
        Case{true, 1, PreemptionPolicy::Park},
        Case{true, 2, PreemptionPolicy::Recompute}}) {
    DecoderShape shape = shapeOf(4, 20);
    shape.mixes = mixes;
    shape.stepsAhead = stepsAhead;
    shape.parkingPlaces = 2;
    EngineConfig config;
    config.preemption = preemption;
    recorder = Recorder();
    engine.reset(); // before its decoder
    make(shape, config, 32);
    for (int i = 0; i < 12; ++i) {
      RequestSpec spec = makeSpec(promptOf(5 + 2 * i, i), 20);
      if (i % 3 == 1)
        spec.topLogprobs = 2 * i;
      ASSERT_TRUE(engine->submit(spec));
    }
    ASSERT_TRUE(runAll(*engine).isOk());
    EXPECT_GT(engine->stats().parked + engine->stats().recomputed, 0);
    EXPECT_EQ(engine->stats().mixedSteps > 0, mixes);
    EXPECT_GT(decoder->stepsWithLogits(), 0);
    EXPECT_EQ(decoder->stepsForLater() > 0, stepsAhead > 0);
    for (int i = 0; i < 12; ++i) {
      std::vector<int32_t> history = promptOf(5 + 2 * i, i);
      const std::vector<int32_t> &tokens = recorder.results[i].tokens;
      const std::vector<TokenLogprobs> &got = recorder.logprobs[i];
      ASSERT_EQ(got.size(), i % 3 == 1 ? tokens.size() : 0u);
      for (size_t at = 0; at < tokens.size(); ++at) {
        std::vector<float> logits =
            simulation::SimulatedDecoder::logitsAfter(history, 50);
        EXPECT_EQ(tokens[at],
                  simulation::SimulatedDecoder::follows(history, 50));
        if (i % 3 == 1) {
          EXPECT_EQ(reference::difference(
                        got[at],
                        reference::logprobsOf(logits, tokens[at], 2 * i),
                        1e-12),
                    "")
              << "request " << i << ", token " << at;
        }
        history.push_back(tokens[at]);
      }
    }
  }
}

/// Logits are of the unscaled ones, and of tokens that sampling never takes.
TEST_F(EngineOnSimulation, LogprobsDoNotDependOnSampling) {
  make(shapeOf(1, 32), {});
  RequestSpec spec = makeSpec(promptOf(3, 1), 8);
  spec.topLogprobs = 3;
  spec.sampling = {.temperature = 5, .topP = 0.9F, .topK = 20, .seed = 3};
  ASSERT_TRUE(engine->submit(spec));
  ASSERT_TRUE(runAll(*engine).isOk());
  std::vector<int32_t> history = spec.prompt;
  for (size_t at = 0; at < 8; ++at) {
    int32_t token = recorder.results[0].tokens[at];
    EXPECT_EQ(reference::difference(
                  recorder.logprobs[0][at],
                  reference::logprobsOf(
                      simulation::SimulatedDecoder::logitsAfter(history, 50),
                      token, 3),
                  1e-12),
              "");
    history.push_back(token);
  }
}

/// Steps bring logits only for tokens whose requests asked: not while a prompt
/// is computed, nor once all have ended that did.
TEST_F(EngineOnSimulation, OtherStepsBringNoLogits) {
  EngineConfig config;
  config.stallFactor = 0;
  DecoderShape shape = shapeOf(2, 64);
  shape.mixes = true;
  shape.stepsAhead = 1;
  make(shape, config);
  ASSERT_TRUE(engine->submit(makeSpec(promptOf(4, 0), 40)));
  for (int round = 0; round < 5; ++round)
    ASSERT_TRUE(engine->step().isOk());
  EXPECT_EQ(decoder->stepsWithLogits(), 0);
  RequestSpec asking = makeSpec(promptOf(24, 1), 4);
  asking.topLogprobs = 0;
  ASSERT_TRUE(engine->submit(asking));
  for (int chunk = 0; chunk < 2; ++chunk)
    ASSERT_TRUE(engine->step().isOk());
  EXPECT_EQ(engine->stats().mixedSteps, 1) << "one of them is under way";
  EXPECT_EQ(decoder->stepsWithLogits(), 0);
  int64_t before = decoder->stepsForLater();
  ASSERT_TRUE(runAll(*engine).isOk());
  EXPECT_EQ(decoder->stepsWithLogits(), 4);
  EXPECT_EQ(recorder.logprobs[1].size(), 4u);
  EXPECT_EQ(recorder.results[0].tokens.size(), 40u);
  EXPECT_GT(decoder->stepsForLater(), before) << "others go ahead again";
}

TEST_F(EngineOnSimulation, AFailedStepLosesNothing) {
  make(shapeOf(2, 32), {});
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(engine->submit(makeSpec(promptOf(9, i), 5)));
  decoder->setFaults({.launch = 100});
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(engine->step().message(), "injected: prefill failed");
  decoder->setFaults({});
  ASSERT_TRUE(runAll(*engine).isOk());
  for (int i = 0; i < 3; ++i) {
    std::vector<int32_t> history = promptOf(9, i);
    for (int32_t token : recorder.results[i].tokens) {
      EXPECT_EQ(token, simulation::SimulatedDecoder::follows(history, 50));
      history.push_back(token);
    }
    EXPECT_EQ(history.size(), 14u);
  }
}

/// Many engines by seed; kvrm-simulate runs more, and one again.
TEST(EngineSimulation, SeedsWithFaults) {
  int64_t faults = 0;
  int64_t mixedSteps = 0;
  int64_t logprobs = 0;
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    simulation::Outcome outcome = simulation::simulate(seed, false);
    ASSERT_EQ(outcome.failure, "") << "kvrm-simulate --replay " << seed;
    faults += outcome.faults;
    mixedSteps += outcome.mixedSteps;
    logprobs += outcome.logprobs;
  }
  EXPECT_GT(faults, 10000);
  EXPECT_GT(mixedSteps, 10000);
  EXPECT_GT(logprobs, 10000);
}

TEST(EngineSimulation, ASeedReplaysExactly) {
  for (uint64_t seed : {11, 222, 3333}) {
    simulation::Outcome first = simulation::simulate(seed, false);
    EXPECT_EQ(first.digest, simulation::simulate(seed, false).digest);
    EXPECT_NE(first.digest, simulation::simulate(seed + 1, false).digest);
  }
}
