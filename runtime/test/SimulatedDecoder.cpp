//===- SimulatedDecoder.cpp - A decoder whose KV can be read ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "SimulatedDecoder.h"

#include "kvrm/runtime/session/TokenChoice.h"

#include <algorithm>

using namespace kvrm;
using namespace simulation;

static BlockPager makePager(const PagerLimits &limits) {
  Expected<BlockPager> pager = BlockPager::create(limits);
  KVRM_CHECK(static_cast<bool>(pager), "a simulation has sound limits");
  return pager.take();
}

SimulatedDecoder::SimulatedDecoder(const DecoderShape &shape,
                                   int32_t parkingPages, VirtualClock &clock,
                                   uint64_t seed)
    : bounds(shape), clock(clock), random(seed),
      following(static_cast<size_t>(shape.slots), -1) {
  int32_t pagesPerSlot =
      (shape.capacity + shape.pageTokens - 1) / shape.pageTokens;
  pager.emplace(makePager(
      {shape.poolPages, shape.histories, pagesPerSlot, shape.pageTokens}));
  if (shape.parkingPlaces > 0)
    parking.emplace(makePager(
        {parkingPages, shape.parkingPlaces, pagesPerSlot, shape.pageTokens}));
  // What nobody has written is no token.
  pool.assign(static_cast<size_t>(shape.poolPages) *
                  static_cast<size_t>(shape.pageTokens),
              -1);
  host.assign(static_cast<size_t>(parkingPages) *
                  static_cast<size_t>(shape.pageTokens),
              -1);
}

static uint64_t hashOf(std::span<const int32_t> history) {
  uint64_t hash = 0;
  for (int32_t token : history)
    hash = Random(hash ^ static_cast<uint32_t>(token)).next();
  return hash;
}

int32_t SimulatedDecoder::follows(std::span<const int32_t> history,
                                  int32_t vocabulary) {
  return static_cast<int32_t>(hashOf(history) %
                              static_cast<uint64_t>(vocabulary));
}

std::vector<float>
SimulatedDecoder::logitsAfter(std::span<const int32_t> history,
                              int32_t vocabulary) {
  uint64_t hash = hashOf(history);
  Random numbers(hash);
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  for (float &logit : logits)
    logit = static_cast<float>(numbers.below(16)) / 4.0F - 3.0F;
  logits[hash % static_cast<uint64_t>(vocabulary)] = 1;
  return logits;
}

bool SimulatedDecoder::strikes(int32_t chance) {
  bool doesStrike = chance > 0 && random.percent(chance);
  made += doesStrike;
  return doesStrike;
}

void SimulatedDecoder::spend(int64_t nanoseconds) {
  clock.advance(strikes(faults.slowStep) ? 100 * nanoseconds : nanoseconds);
}

int32_t &SimulatedDecoder::cell(int32_t slot, int32_t position) {
  int32_t page =
      pager->pages(slot)[static_cast<size_t>(position / bounds.pageTokens)];
  return pool[static_cast<size_t>(page) *
                  static_cast<size_t>(bounds.pageTokens) +
              static_cast<size_t>(position % bounds.pageTokens)];
}

void SimulatedDecoder::copy(const PageCopy &copy) {
  std::copy_n(&pool[static_cast<size_t>(copy.source) *
                    static_cast<size_t>(bounds.pageTokens)],
              bounds.pageTokens,
              &pool[static_cast<size_t>(copy.target) *
                    static_cast<size_t>(bounds.pageTokens)]);
}

/// Writes the last tokens of a history that was extended.
void SimulatedDecoder::write(int32_t slot, std::span<const int32_t> tokens) {
  int32_t first = length(slot) - static_cast<int32_t>(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i)
    cell(slot, first + static_cast<int32_t>(i)) = tokens[i];
}

/// The outputs of the last token of `slot`, which is row `row` of the step.
void SimulatedDecoder::compute(int32_t slot, int32_t row,
                               const StepOutputs &outputs) {
  std::vector<int32_t> history;
  for (int32_t i = 0; i < length(slot); ++i)
    history.push_back(cell(slot, i));
  std::vector<float> logits = logitsAfter(history, bounds.vocabulary);
  if (outputs.logits)
    std::ranges::copy(logits, outputs.logits + row * bounds.vocabulary);
  if (outputs.next)
    outputs.next[row] = chooseToken(logits, outputs.sampling[row]);
}

Status SimulatedDecoder::prefill(int32_t slot, std::span<const int32_t> tokens,
                                 const StepOutputs &outputs) {
  KVRM_CHECK(slot < bounds.slots, "only slots are stepped");
  KVRM_CHECK(static_cast<int32_t>(tokens.size()) <= bounds.prefillChunk,
             "the engine prefills by chunks");
  forget(slot);
  if (strikes(faults.allocation))
    return {StatusCode::ResourceExhausted, "injected: no page"};
  PageCopy copied;
  int32_t before = length(slot);
  KVRM_TRY(pager->append(slot, static_cast<int32_t>(tokens.size()), copied));
  if (copied.isNeeded())
    copy(copied);
  spend(1000 * bounds.prefillChunk);
  if (strikes(faults.launch)) {
    KVRM_TRY(pager->trim(slot, before));
    return {StatusCode::Internal, "injected: prefill failed"};
  }
  write(slot, tokens);
  compute(slot, 0, outputs);
  withLogits += outputs.logits != nullptr;
  return Status::ok();
}

void SimulatedDecoder::forget(int32_t history) {
  if (history < bounds.slots)
    following[static_cast<size_t>(history)] = -1;
}

/// The tokens of a step, those that follow looked up.
std::vector<int32_t>
SimulatedDecoder::fed(std::span<const int32_t> tokens) const {
  std::vector<int32_t> known(tokens.begin(), tokens.end());
  for (size_t slot = 0; slot < known.size(); ++slot)
    if (known[slot] == followingToken) {
      KVRM_CHECK(following[slot] >= 0, "a token follows the slot's history");
      known[slot] = following[slot];
    }
  return known;
}

/// Notes what a step chose for its slots, and the prompt's at the end as
/// theirs.
void SimulatedDecoder::start(const StepOutputs &outputs,
                             std::vector<int32_t> next) {
  std::ranges::fill(following, -1);
  withLogits += outputs.logits != nullptr;
  forLater += outputs.isLater;
  if (!outputs.isLater)
    return;
  KVRM_CHECK(underWay.size() <= static_cast<size_t>(bounds.stepsAhead),
             "steps are awaited before others are started");
  std::copy_n(next.begin(), bounds.slots, following.begin());
  underWay.push_back(std::move(next));
}

Status SimulatedDecoder::awaitStep(std::span<int32_t> next) {
  KVRM_CHECK(!underWay.empty(), "what is awaited is under way");
  if (strikes(faults.launch)) {
    underWay.clear();
    std::ranges::fill(following, -1);
    return {StatusCode::Internal, "injected: the step failed on its way"};
  }
  std::ranges::copy(underWay.front(), next.begin());
  underWay.pop_front();
  return Status::ok();
}

/// Extends the histories of a step, whose code may fail then.
Status SimulatedDecoder::append(std::span<const AppendRequest> requests) {
  if (strikes(faults.allocation))
    return {StatusCode::ResourceExhausted, "injected: no page"};
  std::vector<PageCopy> copies(requests.size());
  int32_t count = 0;
  KVRM_TRY(pager->appendAll(requests, copies, count));
  for (int32_t i = 0; i < count; ++i)
    copy(copies[static_cast<size_t>(i)]);
  spend(10000);
  if (!strikes(faults.launch))
    return Status::ok();
  for (const AppendRequest &request : requests)
    KVRM_TRY(pager->trim(request.slot, length(request.slot) - request.tokens));
  return {StatusCode::Internal, "injected: the step failed"};
}

static std::vector<AppendRequest> requestsOf(std::span<const int32_t> tokens) {
  std::vector<AppendRequest> requests;
  for (size_t slot = 0; slot < tokens.size(); ++slot)
    if (tokens[slot] != -1)
      requests.push_back({static_cast<int32_t>(slot), 1});
  return requests;
}

/// Writes the tokens of a step's rows, and the outputs of each.
void SimulatedDecoder::computeRows(std::span<const AppendRequest> requests,
                                   std::span<const int32_t> tokens,
                                   const StepOutputs &outputs) {
  for (const AppendRequest &request : requests) {
    write(request.slot, tokens.subspan(static_cast<size_t>(request.slot), 1));
    compute(request.slot, request.slot, outputs);
  }
}

/// `outputs`, or for later what is kept in `next`, [slots + 1].
static StepOutputs outputsOr(const StepOutputs &outputs,
                             std::vector<int32_t> &next) {
  StepOutputs wanted = outputs;
  if (outputs.isLater)
    wanted.next = next.data();
  return wanted;
}

Status SimulatedDecoder::decode(std::span<const int32_t> tokens,
                                const StepOutputs &outputs) {
  std::vector<int32_t> known = fed(tokens);
  std::vector<AppendRequest> requests = requestsOf(known);
  KVRM_TRY(append(requests));
  std::vector<int32_t> next(static_cast<size_t>(bounds.slots) + 1, -1);
  computeRows(requests, known, outputsOr(outputs, next));
  start(outputs, std::move(next));
  return Status::ok();
}

Status SimulatedDecoder::mixedStep(std::span<const int32_t> tokens,
                                   int32_t slot,
                                   std::span<const int32_t> prompt,
                                   const StepOutputs &outputs) {
  KVRM_TRY(checkMixed(tokens, slot, prompt, outputs));
  std::vector<int32_t> known = fed(tokens);
  std::vector<AppendRequest> requests = requestsOf(known);
  requests.push_back({slot, static_cast<int32_t>(prompt.size())});
  KVRM_TRY(append(requests));
  spend(1000 * bounds.prefillChunk);
  requests.pop_back();
  std::vector<int32_t> next(static_cast<size_t>(bounds.slots) + 1, -1);
  StepOutputs wanted = outputsOr(outputs, next);
  computeRows(requests, known, wanted);
  write(slot, prompt);
  compute(slot, bounds.slots, wanted);
  int32_t first = next.back();
  start(outputs, std::move(next));
  if (outputs.isLater)
    following[static_cast<size_t>(slot)] = first;
  return Status::ok();
}

void SimulatedDecoder::expect(int32_t slot, int32_t tokens) {
  pager->expect(slot, tokens);
}

Status SimulatedDecoder::trim(int32_t history, int32_t length) {
  forget(history);
  return pager->trim(history, length);
}

Status SimulatedDecoder::release(int32_t history) {
  forget(history);
  return pager->release(history);
}

Status SimulatedDecoder::alias(int32_t target, int32_t source, int32_t tokens) {
  return pager->alias(target, source, tokens);
}

Status SimulatedDecoder::park(int32_t slot, int32_t place) {
  KVRM_CHECK(parking->length(place) == 0, "the place is empty");
  if (strikes(faults.copy))
    return {StatusCode::IoError, "injected: copy to the host failed"};
  forget(slot);
  PageCopy none;
  KVRM_TRY(parking->append(place, length(slot), none));
  auto page = static_cast<size_t>(bounds.pageTokens);
  for (int32_t i = 0; i < pager->filledPages(slot); ++i)
    std::copy_n(
        &pool[static_cast<size_t>(pager->pages(slot)[static_cast<size_t>(i)]) *
              page],
        bounds.pageTokens,
        &host[static_cast<size_t>(
                  parking->pages(place)[static_cast<size_t>(i)]) *
              page]);
  spend(100 * length(slot));
  return pager->release(slot);
}

Status SimulatedDecoder::unpark(int32_t place, int32_t slot) {
  KVRM_CHECK(length(slot) == 0 && parking->length(place) > 0,
             "a parked history goes to an empty slot");
  if (strikes(faults.copy))
    return {StatusCode::IoError, "injected: copy from the host failed"};
  PageCopy none;
  KVRM_TRY(pager->append(slot, parking->length(place), none));
  auto page = static_cast<size_t>(bounds.pageTokens);
  for (int32_t i = 0; i < pager->filledPages(slot); ++i)
    std::copy_n(
        &host[static_cast<size_t>(
                  parking->pages(place)[static_cast<size_t>(i)]) *
              page],
        bounds.pageTokens,
        &pool[static_cast<size_t>(pager->pages(slot)[static_cast<size_t>(i)]) *
              page]);
  spend(100 * length(slot));
  return parking->release(place);
}

Status SimulatedDecoder::discard(int32_t place) {
  return parking->release(place);
}

Status SimulatedDecoder::checkInvariants() const {
  KVRM_TRY(pager->checkInvariants());
  return parking ? parking->checkInvariants() : Status::ok();
}
