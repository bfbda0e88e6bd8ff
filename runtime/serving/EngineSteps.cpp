//===- EngineSteps.cpp - The decode steps of an engine ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A decoder that does not run ahead is one whose steps are collected in the
// round that starts them, and so is a step that brings logits; nothing else
// here depends on it.
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Engine.h"

#include <algorithm>

using namespace kvrm;

/// Tokens of a running request's history that no step under way appends.
int32_t Engine::known(const Request &request) const {
  return decoder.length(request.slot) - request.tokensAhead;
}

//===----------------------------------------------------------------------===//
// Starting
//===----------------------------------------------------------------------===//

/// Whether a request that decodes needs another step, whatever token it gets
/// from those under way.
bool Engine::goesOn(const Request &request) const {
  auto chosen = static_cast<int64_t>(request.result.tokens.size());
  return chosen + request.choicesAhead < request.spec.maxTokens &&
         decoder.length(request.slot) < decoder.shape().capacity;
}

/// Whether the next step chooses a token for a request that asked for log
/// probabilities; `withChunk` if it is mixed.
bool Engine::wantsLogits(bool withChunk) {
  if (stepLogits.empty())
    return false; // nobody has ever asked
  return std::ranges::any_of(slotOwner, [&](RequestId id) {
    if (id < 0)
      return false;
    const Request &request = requests.at(id);
    return request.spec.topLogprobs.has_value() &&
           (id == prefilling ? withChunk && nextChunk(request).choosesFirst
                             : goesOn(request));
  });
}

/// Waits for what is under way before a step that brings logits: those are had
/// at once or not at all, and an engine gives out tokens in the order of steps.
Status Engine::awaitForLogits(bool withChunk) {
  return wantsLogits(withChunk) ? collectDownTo(0) : Status::ok();
}

/// Collects what the requests that decode put into a step.
Engine::Flight &Engine::gatherDecoding(bool withChunk) {
  Flight &flight = flights[(firstFlight + underWay) % flights.size()];
  flight.bringsLogits = wantsLogits(withChunk);
  flight.active = 0;
  flight.prompt = -1;
  for (size_t slot = 0; slot < slotOwner.size(); ++slot) {
    stepTokens[slot] = -1;
    flight.rows[slot] = -1;
    if (slotOwner[slot] < 0 || slotOwner[slot] == prefilling)
      continue;
    const Request &request = requests.at(slotOwner[slot]);
    if (!goesOn(request))
      continue;
    stepTokens[slot] = request.choicesAhead > 0 ? followingToken
                                                : request.result.tokens.back();
    stepSampling[slot] = request.sampler->next();
    flight.rows[slot] = slotOwner[slot];
    ++flight.active;
  }
  return flight;
}

StepOutputs Engine::outputsOf(Flight &flight) {
  flight.start = clock.now();
  flight.isLater = decoder.shape().stepsAhead > 0 && !flight.bringsLogits;
  if (flight.isLater)
    return StepOutputs::later(stepSampling.data());
  StepOutputs outputs(stepSampling.data(), flight.next.data());
  if (flight.bringsLogits)
    outputs.logits = stepLogits.data();
  return outputs;
}

/// Notes that a step is under way.
void Engine::started(const Flight &flight) {
  ++underWay;
  for (RequestId id : flight.rows) {
    if (id < 0)
      continue;
    Request &request = requests.at(id);
    request.sampler->advance();
    ++request.tokensAhead;
    ++request.choicesAhead;
  }
}

/// Notes that a chunk of `request` is computed in it.
void Engine::startedChunk(Flight &flight, Request &request,
                          const Chunk &chunk) {
  flight.prompt = request.result.id;
  flight.chunkTokens = static_cast<int32_t>(chunk.tokens.size());
  flight.choosesFirst = chunk.choosesFirst;
  request.tokensAhead += flight.chunkTokens;
  if (chunk.choosesFirst) {
    request.sampler->advance();
    ++request.choicesAhead;
  }
  if (chunk.isLast) {
    prefilling = -1;
    request.phase = Phase::Decoding;
  }
}

/// Steps that are under way are collected before anybody is preempted for
/// another: they may end requests, and their tokens are of histories that stay.
Status Engine::decodeAll() {
  while (true) {
    KVRM_TRY(awaitForLogits(/*withChunk=*/false));
    Flight &flight = gatherDecoding(/*withChunk=*/false);
    if (flight.active == 0)
      return collectDownTo(0);
    Status status = decoder.decode(stepTokens, outputsOf(flight));
    if (status.isOk()) {
      started(flight);
      return collectStarted(flight);
    }
    bool collects = underWay > 0;
    KVRM_TRY(collectDownTo(0));
    if (status.code() != StatusCode::ResourceExhausted ||
        (!collects && !reclaim(nullptr)))
      return status;
  }
}

/// Decodes, and computes a chunk of the request that prefills in the same step;
/// in two steps if the pool has no pages for both, or nobody else goes on.
Status Engine::decodeWithChunk() {
  KVRM_TRY(awaitForLogits(/*withChunk=*/true));
  Request &request = requests.at(prefilling);
  Flight &flight = gatherDecoding(/*withChunk=*/true);
  Status status = Status::ok();
  if (flight.active > 0) {
    Chunk chunk = nextChunk(request);
    stepSampling[slotOwner.size()] =
        chunk.choosesFirst ? request.sampler->next() : kvrm_sampling{};
    status = decoder.mixedStep(stepTokens, request.slot, chunk.tokens,
                               outputsOf(flight));
    if (status.isOk()) {
      started(flight);
      startedChunk(flight, request, chunk);
      return collectStarted(flight);
    }
  }
  KVRM_TRY(collectDownTo(0));
  if (!status.isOk() && status.code() != StatusCode::ResourceExhausted)
    return status;
  int64_t start = clock.now();
  KVRM_TRY(prefillChunk(request));
  round.prefillNanoseconds += clock.now() - start;
  return decodeAll();
}

//===----------------------------------------------------------------------===//
// Collecting
//===----------------------------------------------------------------------===//

Status Engine::collectDownTo(size_t most) {
  while (underWay > most)
    KVRM_TRY(collect());
  return Status::ok();
}

/// Collects what has to be, now that `flight` was started.
Status Engine::collectStarted(const Flight &flight) {
  return collectDownTo(flight.isLater ? flights.size() - 1 : 0);
}

/// Waits for the oldest step, and gives its requests their tokens. What things
/// cost is learnt from steps that do one of them, from where the decoder was
/// free for them.
Status Engine::collect() {
  Flight &flight = flights[firstFlight];
  if (flight.isLater) {
    Status status = decoder.awaitStep(flight.next);
    if (!status.isOk()) {
      loseFlights();
      return status;
    }
  }
  firstFlight = (firstFlight + 1) % flights.size();
  --underWay;
  int64_t now = clock.now();
  int64_t cost = now - std::max(flight.start, lastCollected);
  lastCollected = now;
  round.decodeNanoseconds += cost;
  if (flight.prompt < 0)
    learn(decodeCost, static_cast<double>(cost));
  finishFlight(flight);
  return Status::ok();
}

/// Requests that have ended since the step was started have left their slots.
void Engine::finishFlight(const Flight &flight) {
  ++sums.steps;
  for (size_t slot = 0; slot < slotOwner.size(); ++slot) {
    RequestId id = flight.rows[slot];
    if (id < 0 || slotOwner[slot] != id)
      continue;
    ++round.decodeTokens;
    ++sums.decodeTokens;
    Request &request = requests.at(id);
    --request.tokensAhead;
    --request.choicesAhead;
    request.target = known(request);
    if (config.sharesPrefixes)
      addPages(request);
    emit(request, flight.next[slot], slot);
  }
  if (flight.prompt < 0)
    return;
  ++sums.mixedSteps;
  auto at = requests.find(flight.prompt);
  if (at == requests.end())
    return;
  round.mixedTokens += flight.chunkTokens;
  sums.mixedTokens += flight.chunkTokens;
  at->second.tokensAhead -= flight.chunkTokens;
  at->second.choicesAhead -= flight.choosesFirst;
  finishChunk(at->second, flight.chunkTokens, flight.choosesFirst,
              flight.next.back());
}

//===----------------------------------------------------------------------===//
// Losing
//===----------------------------------------------------------------------===//

/// Cuts off what steps under way append. False if the decoder cannot.
bool Engine::cutAhead(Request &request) {
  bool isCut = request.tokensAhead == 0 ||
               decoder.trim(request.slot, known(request)).isOk();
  request.tokensAhead = 0;
  return isCut;
}

/// Steps under way have failed: requests are as if these were never started.
void Engine::loseFlights() {
  underWay = 0;
  for (RequestId &owner : slotOwner)
    if (owner >= 0 && requests.at(owner).tokensAhead > 0)
      loseSteps(requests.at(owner));
}

void Engine::loseSteps(Request &request) {
  Expected<Sampler> sampler = Sampler::create(request.spec.sampling);
  KVRM_CHECK(sampler.status().isOk(), "settings were checked");
  request.sampler.emplace(sampler.take());
  for (size_t i = 0; i < request.result.tokens.size(); ++i)
    request.sampler->advance();
  request.choicesAhead = 0;
  // One that was to decode and has no whole prompt starts again.
  bool isWhole = cutAhead(request) && (request.phase == Phase::Prefilling ||
                                       known(request) == request.target);
  if (!isWhole)
    drop(request);
}
