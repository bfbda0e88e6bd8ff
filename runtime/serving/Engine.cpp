//===- Engine.cpp - Requests through a decoder's slots ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Engine.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;

const char *kvrm::finishReasonName(FinishReason reason) {
  switch (reason) {
  case FinishReason::Stop:
    return "stop";
  case FinishReason::MaxTokens:
    return "max-tokens";
  case FinishReason::Capacity:
    return "capacity";
  case FinishReason::Cancelled:
    return "cancelled";
  case FinishReason::Failed:
    return "failed";
  }
  return "?";
}

/// Moves a running mean by an eighth towards a new value; the first one counts
/// in full.
void Engine::learn(double &mean, double value) {
  mean = mean == 0 ? value : mean + (value - mean) / 8;
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

Engine::Engine(Decoder &decoder, const Clock &clock, const EngineConfig &config,
               EngineObserver *observer)
    : decoder(decoder), clock(clock), config(config), observer(observer) {
  const DecoderShape &shape = decoder.shape();
  auto slots = static_cast<size_t>(shape.slots);
  slotOwner.assign(slots, -1);
  placeOwner.assign(static_cast<size_t>(shape.parkingPlaces), -1);
  stepTokens.resize(slots);
  stepSampling.resize(slots + 1);
  flights.resize(static_cast<size_t>(shape.stepsAhead) + 1);
  for (Flight &flight : flights) {
    flight.rows.resize(slots);
    flight.next.resize(slots + 1);
  }
  scratchTokens.reserve(static_cast<size_t>(shape.capacity));
  scratchPassed.reserve(static_cast<size_t>(config.overtakeLimit) + 1);
  scratchLogprobs.likeliest.reserve(mostTopLogprobs);
  if (config.sharesPrefixes) {
    kept.resize(static_cast<size_t>(shape.histories - shape.slots));
    prefixes = PrefixIndex(shape.histories,
                           static_cast<int32_t>(pagesFor(shape.capacity)),
                           shape.pageTokens);
  }
}

Expected<std::unique_ptr<Engine>> Engine::create(Decoder &decoder,
                                                 const Clock &clock,
                                                 const EngineConfig &config,
                                                 EngineObserver *observer) {
  if (config.queueLimit < 1 || config.queueLimit > 65536)
    return invalidArgument("queue limit: ", config.queueLimit,
                           " is outside 1..65536");
  if (!(config.stallFactor >= 0 && config.stallFactor <= 1000))
    return invalidArgument("stall factor is outside 0..1000");
  if (config.overtakeLimit < 0 || config.overtakeLimit > 65536)
    return invalidArgument("overtake limit: ", config.overtakeLimit,
                           " is outside 0..65536");
  if (config.sharesPrefixes && !decoder.isPaged())
    return invalidArgument("prefixes are shared by pages, which a static "
                           "decoder does not have");
  for (int32_t i = 0; i < decoder.shape().histories; ++i)
    if (decoder.length(i) != 0)
      return invalidArgument("history ", i, " is in use");
  return std::unique_ptr<Engine>(new Engine(decoder, clock, config, observer));
}

Engine::~Engine() {
  while (underWay > 0 && collect().isOk()) {
  }
  for (int32_t i = 0; i < decoder.shape().histories; ++i) {
    Status released = decoder.release(i);
    KVRM_CHECK(released.isOk(), "a history can be forgotten");
  }
  for (size_t i = 0; i < placeOwner.size(); ++i)
    if (placeOwner[i] >= 0) {
      Status discarded = decoder.discard(static_cast<int32_t>(i));
      KVRM_CHECK(discarded.isOk(), "a parked history can be forgotten");
    }
}

int64_t Engine::pagesFor(int64_t tokens) const {
  int64_t page = decoder.shape().pageTokens;
  return page == 0 ? 0 : (tokens + page - 1) / page;
}

//===----------------------------------------------------------------------===//
// Requests
//===----------------------------------------------------------------------===//

Status Engine::check(const RequestSpec &spec) const {
  const DecoderShape &shape = decoder.shape();
  if (spec.prompt.empty())
    return invalidArgument("the prompt has no tokens");
  if (spec.prompt.size() > static_cast<size_t>(shape.capacity))
    return invalidArgument("prompt of ", spec.prompt.size(),
                           " tokens exceeds the capacity ", shape.capacity);
  for (int32_t token : spec.prompt)
    if (token < 0 || token >= shape.vocabulary)
      return invalidArgument("token ", token, " is outside 0..",
                             shape.vocabulary - 1);
  if (spec.maxTokens < 1)
    return invalidArgument("cannot generate ", spec.maxTokens, " tokens");
  if (spec.topLogprobs &&
      (*spec.topLogprobs < 0 || *spec.topLogprobs > mostTopLogprobs))
    return invalidArgument("top logprobs: ", *spec.topLogprobs,
                           " is outside 0..", mostTopLogprobs);
  if (decoder.isPaged()) {
    // Its last token is not appended.
    int64_t tokens = std::min<int64_t>(
        static_cast<int64_t>(spec.prompt.size()) + spec.maxTokens - 1,
        shape.capacity);
    int64_t pages = shape.window > 0 && tokens > shape.window
                        ? shape.historyPages
                        : pagesFor(tokens);
    if (pages > shape.poolPages)
      return invalidArgument(spec.prompt.size(), " prompt tokens and up to ",
                             spec.maxTokens, " new ones need ", pages,
                             " KV pages, the pool has ", shape.poolPages);
  }
  return Sampler::create(spec.sampling).status();
}

Expected<RequestId> Engine::submit(RequestSpec spec) {
  KVRM_TRY(check(spec));
  if (!canSubmit()) {
    ++sums.refused;
    return makeError(StatusCode::ResourceExhausted,
                     "queue full: ", sums.waiting,
                     " requests wait, the limit is ", config.queueLimit);
  }
  if (spec.topLogprobs)
    stepLogits.resize(stepSampling.size() *
                      static_cast<size_t>(decoder.vocabulary()));
  RequestId id = nextId++;
  Request &request = requests[id];
  request.target = static_cast<int32_t>(spec.prompt.size());
  request.result.id = id;
  request.result.promptTokens = request.target;
  request.result.arrival = clock.now();
  request.result.tokens.reserve(
      static_cast<size_t>(std::min(spec.maxTokens, decoder.shape().capacity)));
  Expected<Sampler> sampler = Sampler::create(spec.sampling);
  KVRM_CHECK(sampler.status().isOk(), "settings were checked");
  request.sampler.emplace(sampler.take());
  request.spec = std::move(spec);
  ++sums.submitted;
  ++sums.waiting;
  return id;
}

Status Engine::cancel(RequestId id) {
  auto at = requests.find(id);
  if (at == requests.end())
    return makeError(StatusCode::NotFound, "request ", id, " is not here");
  finish(at, FinishReason::Cancelled, {});
  return Status::ok();
}

int64_t Engine::runningTokens() const {
  int64_t tokens = 0;
  for (size_t slot = 0; slot < slotOwner.size(); ++slot)
    if (slotOwner[slot] >= 0)
      tokens += decoder.length(static_cast<int32_t>(slot));
  return tokens;
}

/// Token of prompt and result.
int32_t Engine::tokenAt(const Request &request, int32_t position) const {
  auto index = static_cast<size_t>(position);
  const std::vector<int32_t> &prompt = request.spec.prompt;
  return index < prompt.size() ? prompt[index]
                               : request.result.tokens[index - prompt.size()];
}

/// `count` tokens of prompt and result, valid until the next call.
std::span<const int32_t> Engine::tokensOf(const Request &request, int32_t first,
                                          int32_t count) {
  scratchTokens.resize(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i)
    scratchTokens[static_cast<size_t>(i)] = tokenAt(request, first + i);
  return scratchTokens;
}

/// Token of a history in the pool.
int32_t Engine::historyToken(int32_t history, int32_t position) const {
  if (auto slot = static_cast<size_t>(history); slot < slotOwner.size())
    return tokenAt(requests.at(slotOwner[slot]), position);
  return kept[static_cast<size_t>(history) - slotOwner.size()]
      .tokens[static_cast<size_t>(position)];
}

//===----------------------------------------------------------------------===//
// Rounds
//===----------------------------------------------------------------------===//

Status Engine::step() {
  int64_t start = clock.now();
  round = RoundStats();
  bool leavesChunk = false;
  Status status = prefillSome(leavesChunk);
  if (status.isOk())
    status = leavesChunk ? decodeWithChunk() : decodeAll();
  // Nobody calls again.
  if (status.isOk() && requests.empty())
    status = collectDownTo(0);
  round.nanoseconds = clock.now() - start;
  return status;
}

/// Computes the chunks of a round. `leavesChunk` is set if the last of them is
/// left to the decode step.
Status Engine::prefillSome(bool &leavesChunk) {
  double budget = config.stallFactor * decodeCost;
  double spent = 0;
  do {
    // One that is unparked decodes at once, and the next may start too.
    while (prefilling < 0)
      if (!startNext())
        return Status::ok();
    bool isLast = spent + 2 * chunkCost > budget;
    leavesChunk = isLast && decoder.shape().mixes && sums.running > 1;
    if (leavesChunk)
      return Status::ok();
    // Tokens that are there are not to wait for a prompt.
    KVRM_TRY(collectDownTo(0));
    int32_t chunks = round.prefillChunks;
    int64_t start = clock.now();
    KVRM_TRY(prefillChunk(requests.at(prefilling)));
    if (round.prefillChunks == chunks)
      return Status::ok(); // it waits for pages
    int64_t cost = clock.now() - start;
    round.prefillNanoseconds += cost;
    learn(chunkCost, static_cast<double>(cost));
    spent += static_cast<double>(cost);
  } while (spent + chunkCost <= budget);
  return Status::ok();
}

/// Gives a slot to the oldest request that has none, or to one of the next if
/// the pool has no room for it, and it has not been overtaken too often. False
/// if nobody waits or nobody can start yet.
bool Engine::startNext() {
  auto free = std::ranges::find(slotOwner, RequestId(-1));
  if (free == slotOwner.end())
    return false;
  auto slot = static_cast<int32_t>(free - slotOwner.begin());
  scratchPassed.clear();
  for (auto &[id, request] : requests) {
    if (request.phase == Phase::Prefilling || request.phase == Phase::Decoding)
      continue;
    if (start(request, slot)) {
      for (Request *passed : scratchPassed)
        ++passed->overtaken;
      sums.overtakes += !scratchPassed.empty();
      return true;
    }
    scratchPassed.push_back(&request);
    // As far as one looks, so often is the first of them passed.
    if (request.phase != Phase::Waiting ||
        request.overtaken >= config.overtakeLimit ||
        scratchPassed.size() > static_cast<size_t>(config.overtakeLimit))
      return false;
  }
  return false;
}

/// Gives `slot`, which is free, to a request that has none. False if it cannot
/// start yet: nothing has changed then.
bool Engine::start(Request &request, int32_t slot) {
  return request.phase == Phase::Parked ? unpark(request, slot)
                                        : startPrefill(request, slot);
}

/// A parked request goes on as it was, if its pages are there.
bool Engine::unpark(Request &request, int32_t slot) {
  if (!makeRoom(slot, request.target + 1))
    return false;
  int64_t start = clock.now();
  if (!decoder.unpark(request.place, slot).isOk())
    return false; // nothing has changed; the next round tries again
  learn(parkTokenCost,
        static_cast<double>(clock.now() - start) / request.target);
  placeOwner[static_cast<size_t>(request.place)] = -1;
  request.place = -1;
  request.slot = slot;
  request.phase = Phase::Decoding;
  slotOwner[static_cast<size_t>(slot)] = request.result.id;
  if (config.sharesPrefixes)
    addPages(request);
  --sums.preempted;
  ++sums.running;
  ++sums.unparked;
  return true;
}

bool Engine::startPrefill(Request &request, int32_t slot) {
  int32_t shared = config.sharesPrefixes ? sharePrefix(request, slot) : 0;
  if (!makeRoom(slot, request.target - shared)) {
    Status released = decoder.release(slot);
    KVRM_CHECK(released.isOk(), "a slot can be emptied");
    return false;
  }
  int64_t tokens = int64_t(request.target) + 1;
  decoder.expect(slot, static_cast<int32_t>(std::min<int64_t>(
                           tokens, decoder.shape().capacity)));
  slotOwner[static_cast<size_t>(slot)] = request.result.id;
  request.slot = slot;
  prefilling = request.result.id;
  if (request.phase == Phase::Waiting) {
    --sums.waiting;
    request.result.start = clock.now();
    request.result.sharedTokens = shared;
    sums.sharedTokens += shared;
    sums.sharedPages += pagesFor(shared);
  } else {
    --sums.preempted;
  }
  request.phase = Phase::Prefilling;
  ++sums.running;
  return true;
}

/// Valid until the next call.
Engine::Chunk Engine::nextChunk(const Request &request) {
  int32_t done = decoder.length(request.slot);
  int32_t count = std::min(decoder.shape().prefillChunk, request.target - done);
  Chunk chunk;
  chunk.tokens = tokensOf(request, done, count);
  chunk.isLast = done + count == request.target;
  // One that was preempted has its next token already.
  chunk.choosesFirst = chunk.isLast && request.result.tokens.empty();
  return chunk;
}

/// Computes one chunk of the request that prefills.
Status Engine::prefillChunk(Request &request) {
  Chunk chunk = nextChunk(request);
  int32_t next = -1;
  StepOutputs outputs;
  if (chunk.choosesFirst) {
    outputs = {&request.sampler->next(), &next};
    if (request.spec.topLogprobs)
      outputs.logits = logitsOf(slotOwner.size());
  }
  int64_t start = clock.now();
  while (true) {
    Status status = decoder.prefill(request.slot, chunk.tokens, outputs);
    if (status.isOk())
      break;
    if (status.code() != StatusCode::ResourceExhausted)
      return status;
    if (reclaim(&request))
      continue;
    // Those that are older and decode will end or take the pages from it.
    return sums.running > 1 ? Status::ok() : status;
  }
  learn(prefillTokenCost, static_cast<double>(clock.now() - start) /
                              static_cast<double>(chunk.tokens.size()));
  if (chunk.isLast) {
    prefilling = -1;
    request.phase = Phase::Decoding;
  }
  if (chunk.choosesFirst)
    request.sampler->advance();
  finishChunk(request, static_cast<int32_t>(chunk.tokens.size()),
              chunk.choosesFirst, next);
  return Status::ok();
}

/// Notes that `tokens` tokens of a prompt are computed; `next` is the token
/// that follows, if it was to be chosen.
void Engine::finishChunk(Request &request, int32_t tokens, bool choosesFirst,
                         int32_t next) {
  round.prefillTokens += tokens;
  ++round.prefillChunks;
  sums.prefillTokens += tokens;
  if (config.sharesPrefixes)
    addPages(request);
  if (!choosesFirst)
    return;
  request.result.firstToken = clock.now();
  emit(request, next, slotOwner.size());
}

/// Gives a request its next token, which row `row` of a step chose, and ends it
/// if that is due.
void Engine::emit(Request &request, int32_t token, size_t row) {
  auto at = requests.find(request.result.id);
  if (token < 0) {
    finish(at, FinishReason::Failed,
           "the model's logits are not numbers at position " +
               std::to_string(known(request) - 1));
    return;
  }
  if (std::ranges::find(request.spec.stopTokens, token) !=
      request.spec.stopTokens.end()) {
    finish(at, FinishReason::Stop, {});
    return;
  }
  request.result.tokens.push_back(token);
  if (observer)
    tell(request, token, row);
  if (request.result.tokens.size() >=
      static_cast<size_t>(request.spec.maxTokens))
    finish(at, FinishReason::MaxTokens, {});
  else if (known(request) >= decoder.shape().capacity)
    finish(at, FinishReason::Capacity, {});
}

/// Tells the observer of a token, and how likely it was if that was asked for:
/// the row's logits are those of the step collected last.
void Engine::tell(const Request &request, int32_t token, size_t row) {
  const TokenLogprobs *logprobs = nullptr;
  if (request.spec.topLogprobs) {
    LogSoftmax softmax(
        {logitsOf(row), static_cast<size_t>(decoder.vocabulary())});
    softmax.likeliest(*request.spec.topLogprobs, scratchLogprobs.likeliest);
    scratchLogprobs.logprob = softmax.of(token);
    logprobs = &scratchLogprobs;
  }
  observer->onToken(request.result.id, token, logprobs);
}

float *Engine::logitsOf(size_t row) {
  return stepLogits.data() + row * static_cast<size_t>(decoder.vocabulary());
}

/// Empties the slot of a request.
void Engine::leaveSlot(Request &request) {
  if (config.sharesPrefixes)
    prefixes.remove(request.slot);
  Status released = decoder.release(request.slot);
  KVRM_CHECK(released.isOk(), "a slot can be emptied");
  slotOwner[static_cast<size_t>(request.slot)] = -1;
  if (prefilling == request.result.id)
    prefilling = -1;
  request.slot = -1;
  request.tokensAhead = 0;
  request.choicesAhead = 0;
  --sums.running;
}

void Engine::finish(Requests::iterator at, FinishReason reason,
                    std::string error) {
  Request &request = at->second;
  switch (request.phase) {
  case Phase::Waiting:
    --sums.waiting;
    break;
  case Phase::Dropped:
    --sums.preempted;
    break;
  case Phase::Parked: {
    --sums.preempted;
    Status discarded = decoder.discard(request.place);
    KVRM_CHECK(discarded.isOk(), "a parked history can be forgotten");
    placeOwner[static_cast<size_t>(request.place)] = -1;
    break;
  }
  case Phase::Prefilling:
  case Phase::Decoding:
    if (reason != FinishReason::Failed)
      keep(request);
    leaveSlot(request);
    break;
  }
  sums.cancelled += reason == FinishReason::Cancelled;
  sums.failed += reason == FinishReason::Failed;
  ++sums.finished;
  request.result.finish = reason;
  request.result.end = clock.now();
  request.result.error = std::move(error);
  RequestResult result = std::move(request.result);
  requests.erase(at);
  if (observer)
    observer->onFinish(result);
}
