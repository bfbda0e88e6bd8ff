//===- EngineSimulation.cpp - A whole engine by seed ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "EngineSimulation.h"
#include "LogprobsReference.h"
#include "SimulatedDecoder.h"
#include "kvrm/runtime/serving/Engine.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

using namespace kvrm;
using namespace simulation;

namespace {

class Simulation : public EngineObserver {
public:
  Simulation(uint64_t seed, bool isTelling)
      : random(seed), isTelling(isTelling) {}

  Outcome run();

private:
  struct Expectation {
    std::vector<int32_t> tokens; ///< that it gets alone
    FinishReason finish = FinishReason::MaxTokens;
    RequestSpec spec;
    std::vector<int32_t> seen;
    bool isCancelled = false;
  };

  void onToken(RequestId id, int32_t token,
               const TokenLogprobs *logprobs) override;
  void onFinish(RequestResult &result) override;

  void makeShape();
  EngineConfig makeConfig();
  RequestSpec makeRequest();
  Expectation alone(const RequestSpec &spec) const;
  void verifyLogprobs(RequestId id, int32_t token,
                      const TokenLogprobs *logprobs);
  void act();
  void submit();
  void cancel();
  void step();
  void verify();
  void note(const char *what, int64_t value);
  template <typename... Parts> void fail(const Parts &...parts) {
    if (outcome.failure.empty())
      outcome.failure = makeError(StatusCode::Internal, parts...).message();
  }

  Random random;
  bool isTelling;
  Outcome outcome;
  VirtualClock clock;
  DecoderShape shape;
  int32_t parkingPages = 0;
  int32_t askingPercent = 0; ///< requests that ask for log probabilities
  std::unique_ptr<SimulatedDecoder> decoder;
  std::unique_ptr<Engine> engine;
  std::vector<std::vector<int32_t>> prefixes; ///< that prompts start with
  std::map<RequestId, Expectation> live;
};

} // namespace

void Simulation::note(const char *what, int64_t value) {
  outcome.digest =
      Random(outcome.digest ^ static_cast<uint64_t>(value) ^
             (static_cast<uint64_t>(static_cast<unsigned char>(what[0])) << 56))
          .next();
  if (isTelling)
    std::fprintf(stderr, "%12lld %s %lld\n",
                 static_cast<long long>(clock.now()), what,
                 static_cast<long long>(value));
}

void Simulation::makeShape() {
  shape.slots = random.between(1, 8);
  shape.pageTokens = random.between(1, 8);
  shape.capacity = random.between(1, 60);
  shape.histories = shape.slots + random.below(4);
  shape.vocabulary = random.between(2, 40);
  shape.prefillChunk = random.between(1, 16);
  shape.mixes = random.percent(50);
  shape.stepsAhead = random.below(3);
  askingPercent = random.percent(50) ? 0 : random.below(60);
  int32_t pages = (shape.capacity + shape.pageTokens - 1) / shape.pageTokens;
  // From hardly one request to more than enough for all.
  shape.poolPages =
      random.between(std::max(1, pages / 2), pages * (shape.histories + 1));
  shape.parkingPlaces = random.below(4);
  parkingPages = shape.parkingPlaces > 0 ? random.between(1, 2 * pages + 1) : 0;
}

EngineConfig Simulation::makeConfig() {
  EngineConfig config;
  config.queueLimit = random.between(1, 12);
  config.stallFactor = random.below(4);
  config.overtakeLimit = random.below(4);
  config.preemption = static_cast<PreemptionPolicy>(random.below(3));
  config.sharesPrefixes = random.percent(60);
  return config;
}

RequestSpec Simulation::makeRequest() {
  RequestSpec spec;
  if (random.percent(50))
    spec.prompt = prefixes[static_cast<size_t>(
        random.below(static_cast<int32_t>(prefixes.size())))];
  int32_t more = random.between(spec.prompt.empty() ? 1 : 0, 12);
  for (int32_t i = 0; i < more; ++i)
    spec.prompt.push_back(random.below(shape.vocabulary));
  if (random.percent(3))
    spec.prompt.resize(static_cast<size_t>(shape.capacity), 0);
  spec.maxTokens = random.percent(5) ? 1000 : random.between(1, 30);
  if (random.percent(20))
    spec.stopTokens = {random.below(shape.vocabulary)};
  if (random.percent(askingPercent))
    spec.topLogprobs = random.between(0, mostTopLogprobs);
  return spec;
}

/// What a request comes to, by the definition.
Simulation::Expectation Simulation::alone(const RequestSpec &spec) const {
  Expectation expected;
  expected.spec = spec;
  std::vector<int32_t> history = spec.prompt;
  while (true) {
    int32_t token = SimulatedDecoder::follows(history, shape.vocabulary);
    if (std::ranges::find(spec.stopTokens, token) != spec.stopTokens.end()) {
      expected.finish = FinishReason::Stop;
      return expected;
    }
    expected.tokens.push_back(token);
    if (static_cast<int32_t>(expected.tokens.size()) == spec.maxTokens)
      return expected;
    if (static_cast<int32_t>(history.size()) == shape.capacity) {
      expected.finish = FinishReason::Capacity;
      return expected;
    }
    history.push_back(token);
  }
}

void Simulation::onToken(RequestId id, int32_t token,
                         const TokenLogprobs *logprobs) {
  auto at = live.find(id);
  if (at == live.end())
    return fail("a token for request ", id, ", which is not there");
  verifyLogprobs(id, token, logprobs);
  at->second.seen.push_back(token);
}

void Simulation::verifyLogprobs(RequestId id, int32_t token,
                                const TokenLogprobs *logprobs) {
  const auto &[tokens, finish, spec, seen, isCancelled] = live.at(id);
  if ((logprobs != nullptr) != spec.topLogprobs.has_value())
    return fail("request ", id, logprobs ? " did not ask" : " asked",
                " for log probabilities");
  if (!logprobs)
    return;
  ++outcome.logprobs;
  std::vector<int32_t> history = spec.prompt;
  history.insert(history.end(), seen.begin(), seen.end());
  std::string wrong = reference::difference(
      *logprobs,
      reference::logprobsOf(
          SimulatedDecoder::logitsAfter(history, shape.vocabulary), token,
          *spec.topLogprobs),
      1e-12);
  if (!wrong.empty())
    fail("request ", id, ": ", wrong);
}

void Simulation::onFinish(RequestResult &result) {
  note("finish", result.id);
  auto at = live.find(result.id);
  if (at == live.end())
    return fail("request ", result.id, " ends twice");
  const Expectation &expected = at->second;
  ++outcome.finished;
  if (result.tokens != expected.seen)
    fail("request ", result.id, ": its result is not what was streamed");
  if (expected.isCancelled) {
    if (result.finish != FinishReason::Cancelled)
      fail("request ", result.id, ": cancelled, but ends with ",
           finishReasonName(result.finish));
    if (result.tokens.size() > expected.tokens.size() ||
        !std::equal(result.tokens.begin(), result.tokens.end(),
                    expected.tokens.begin()))
      fail("request ", result.id, ": wrong tokens before it was cancelled");
  } else if (result.tokens != expected.tokens ||
             result.finish != expected.finish) {
    fail("request ", result.id, ": ", result.tokens.size(), " tokens, ",
         finishReasonName(result.finish), "; alone ", expected.tokens.size(),
         ", ", finishReasonName(expected.finish));
  }
  if (result.arrival < 0 || result.end < result.arrival ||
      (!result.tokens.empty() &&
       (result.start < result.arrival || result.firstToken < result.start ||
        result.end < result.firstToken)))
    fail("request ", result.id, ": its times are out of order");
  live.erase(at);
}

void Simulation::submit() {
  RequestSpec spec = makeRequest();
  int64_t tokens = std::min<int64_t>(static_cast<int64_t>(spec.prompt.size()) +
                                         spec.maxTokens - 1,
                                     shape.capacity);
  bool fits =
      spec.prompt.size() <= static_cast<size_t>(shape.capacity) &&
      (tokens + shape.pageTokens - 1) / shape.pageTokens <= shape.poolPages;
  bool hasRoom = engine->canSubmit();
  Expectation expected;
  if (fits)
    expected = alone(spec);
  Expected<RequestId> id = engine->submit(std::move(spec));
  if (id) {
    note("submit", *id);
    if (!fits || !hasRoom)
      fail("request ", *id, " should have been refused");
    live[*id] = std::move(expected);
    ++outcome.submitted;
    return;
  }
  note("refuse", static_cast<int64_t>(id.status().code()));
  StatusCode code =
      !fits ? StatusCode::InvalidArgument : StatusCode::ResourceExhausted;
  if ((fits && hasRoom) || id.status().code() != code)
    fail("refused: ", id.status().message());
  outcome.refused += fits;
}

void Simulation::cancel() {
  if (live.empty() || random.percent(5)) {
    if (engine->cancel(1000000).code() != StatusCode::NotFound)
      fail("cancelled a request that is not there");
    return;
  }
  auto at = live.begin();
  std::advance(at, random.below(static_cast<int32_t>(live.size())));
  RequestId id = at->first;
  note("cancel", id);
  at->second.isCancelled = true;
  Status status = engine->cancel(id);
  ++outcome.cancelled;
  if (!status.isOk())
    fail("request ", id, " cannot be cancelled: ", status.message());
}

void Simulation::step() {
  int64_t before = decoder->faultsMade();
  Status status = engine->step();
  if (!status.isOk()) {
    note("error", static_cast<int64_t>(status.code()));
    if (decoder->faultsMade() == before)
      fail("a step failed by itself: ", status.message());
  }
}

void Simulation::verify() {
  ++outcome.calls;
  for (const Status &status :
       {engine->checkInvariants(), decoder->checkInvariants()})
    if (!status.isOk())
      fail(status.message());
  const EngineStats &stats = engine->stats();
  if (stats.waiting + stats.preempted + stats.running !=
      static_cast<int32_t>(live.size()))
    fail(live.size(), " requests are in the engine, it counts ",
         stats.waiting + stats.preempted + stats.running);
}

void Simulation::act() {
  int32_t what = random.below(100);
  if (what < 18)
    submit();
  else if (what < 21)
    cancel();
  else if (what < 23)
    clock.advance(random.below(1000000));
  else
    step();
  verify();
}

Outcome Simulation::run() {
  makeShape();
  EngineConfig config = makeConfig();
  decoder = std::make_unique<SimulatedDecoder>(shape, parkingPages, clock,
                                               random.next());
  Faults faults;
  if (random.percent(70))
    faults = {random.below(8), random.below(8), random.below(40),
              random.below(5)};
  decoder->setFaults(faults);
  for (int i = 0; i < 3; ++i) {
    prefixes.emplace_back();
    int32_t tokens = random.below(shape.capacity);
    for (int32_t t = 0; t < tokens; ++t)
      prefixes.back().push_back(random.below(shape.vocabulary));
  }
  Expected<std::unique_ptr<Engine>> made =
      Engine::create(*decoder, clock, config, this);
  if (!made) {
    fail("no engine: ", made.status().message());
    return outcome;
  }
  engine = made.take();

  int32_t actions = random.between(20, 400);
  for (int32_t i = 0; i < actions && outcome.failure.empty(); ++i)
    act();
  // Without faults everything comes to its end.
  decoder->setFaults({});
  int64_t bound = 20000;
  while (!engine->isIdle() && outcome.failure.empty()) {
    step();
    verify();
    if (--bound == 0)
      fail("requests do not come to their end");
  }
  if (!live.empty())
    fail(live.size(), " requests were lost");
  const EngineStats &stats = engine->stats();
  outcome.faults = decoder->faultsMade();
  outcome.mixedSteps = stats.mixedSteps;
  outcome.parked = stats.parked;
  outcome.recomputed = stats.recomputed;
  outcome.evicted = stats.evicted;
  outcome.sharedTokens = stats.sharedTokens;
  engine.reset();
  if (decoder->freePages() != shape.poolPages || decoder->parkedPages() != 0)
    fail("pages are left behind: ", shape.poolPages - decoder->freePages(),
         " in the pool, ", decoder->parkedPages(), " parked");
  note("end", clock.now());
  return outcome;
}

Outcome simulation::simulate(uint64_t seed, bool isTelling) {
  return Simulation(seed, isTelling).run();
}
