//===- EnginePages.cpp - Who has the pages of an engine ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Engine.h"

#include <algorithm>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Pages that requests share
//===----------------------------------------------------------------------===//

/// Starts a history on the pages of one that begins alike. Returns the tokens
/// that are there then; one at least is left to compute logits from.
int32_t Engine::sharePrefix(Request &request, int32_t slot) {
  std::span<const int32_t> tokens = tokensOf(request, 0, request.target);
  PrefixIndex::Match match = prefixes.find(tokens);
  if (match.history < 0)
    return 0;
  int32_t there =
      match.history < decoder.shape().slots
          ? known(requests.at(slotOwner[static_cast<size_t>(match.history)]))
          : decoder.length(match.history);
  int32_t most = std::min(request.target - 1, there);
  int32_t shared = 0;
  while (shared < most && tokens[static_cast<size_t>(shared)] ==
                              historyToken(match.history, shared))
    ++shared;
  if (shared == 0 || !decoder.alias(slot, match.history, shared).isOk())
    return 0;
  if (match.history >= decoder.shape().slots)
    kept[static_cast<size_t>(match.history - decoder.shape().slots)].lastUse =
        clock.now();
  return shared;
}

/// Makes whole pages of a running request known.
void Engine::addPages(const Request &request) {
  int32_t page = decoder.shape().pageTokens;
  int32_t pages = known(request) / page;
  for (int32_t i = prefixes.pages(request.slot); i < pages; ++i)
    prefixes.add(request.slot, tokensOf(request, i * page, page));
}

//===----------------------------------------------------------------------===//
// Pages that are taken away
//===----------------------------------------------------------------------===//

/// Gives up kept histories until the pages that `slot` needs for `tokens` more
/// are free, and one more for each request that runs. False if they never are;
/// alone, a request may take every page.
bool Engine::makeRoom(int32_t slot, int32_t tokens) {
  while (decoder.freePages() < decoder.pagesNeeded(slot, tokens) +
                                   (decoder.isPaged() ? sums.running : 0))
    if (!evictKept())
      return false;
  return true;
}

/// Frees pages for a request, or, without one, for a decode step: of kept
/// histories first, then of the youngest running request, but not of one older
/// than the beneficiary. False if there is nobody.
bool Engine::reclaim(const Request *beneficiary) {
  if (evictKept())
    return true;
  RequestId victim = *std::ranges::max_element(slotOwner);
  RequestId oldest = -1;
  for (RequestId id : slotOwner)
    if (id >= 0 && (oldest < 0 || id < oldest))
      oldest = id;
  // Somebody gets on.
  if (victim < 0 || victim == oldest ||
      (beneficiary && victim <= beneficiary->result.id))
    return false;
  preempt(requests.at(victim));
  return true;
}

/// Takes the slot from a running request; its tokens are kept. No step is under
/// way.
void Engine::preempt(Request &request) {
  bool isDecoding = request.phase == Phase::Decoding;
  auto place = std::ranges::find(placeOwner, RequestId(-1));
  bool parks = isDecoding && place != placeOwner.end() &&
               config.preemption != PreemptionPolicy::Recompute &&
               (config.preemption == PreemptionPolicy::Park ||
                2 * parkTokenCost <= prefillTokenCost);
  if (parks) {
    auto index = static_cast<int32_t>(place - placeOwner.begin());
    int64_t start = clock.now();
    // One that cannot be parked is computed again.
    parks = decoder.park(request.slot, index).isOk();
    if (parks) {
      learn(parkTokenCost,
            static_cast<double>(clock.now() - start) / request.target);
      *place = request.result.id;
      request.place = index;
      ++sums.parked;
      sums.parkedTokens += request.target;
    }
  }
  if (!parks) {
    drop(request);
    return;
  }
  ++request.result.preemptions;
  ++sums.preempted;
  leaveSlot(request);
  request.phase = Phase::Parked;
}

/// Takes the slot from a running request, whose history is computed again.
void Engine::drop(Request &request) {
  ++request.result.preemptions;
  ++sums.preempted;
  ++sums.recomputed;
  sums.recomputedTokens += decoder.length(request.slot);
  leaveSlot(request);
  request.phase = Phase::Dropped;
}

bool Engine::evictKept() {
  Kept *oldest = nullptr;
  for (Kept &history : kept)
    if (history.lastUse >= 0 && (!oldest || history.lastUse < oldest->lastUse))
      oldest = &history;
  if (!oldest)
    return false;
  auto history =
      decoder.shape().slots + static_cast<int32_t>(oldest - kept.data());
  prefixes.remove(history);
  Status released = decoder.release(history);
  KVRM_CHECK(released.isOk(), "a kept history can be forgotten");
  *oldest = Kept();
  --sums.kept;
  ++sums.evicted;
  return true;
}

/// Keeps the history of a request that ends, unless an equal one is kept.
void Engine::keep(Request &request) {
  if (kept.empty() || !cutAhead(request))
    return;
  int32_t length = decoder.length(request.slot);
  std::span<const int32_t> tokens = tokensOf(request, 0, length);
  int32_t pages = prefixes.pages(request.slot);
  if (pages == 0)
    return;
  prefixes.remove(request.slot);
  PrefixIndex::Match match = prefixes.find(tokens);
  int32_t slots = decoder.shape().slots;
  if (match.pages == pages && match.history >= slots) {
    kept[static_cast<size_t>(match.history - slots)].lastUse = clock.now();
    return;
  }
  auto free = std::ranges::find_if(
      kept, [](const Kept &history) { return history.lastUse < 0; });
  if (free == kept.end()) {
    evictKept();
    free = std::ranges::find_if(
        kept, [](const Kept &history) { return history.lastUse < 0; });
  }
  auto target = slots + static_cast<int32_t>(free - kept.begin());
  if (!decoder.alias(target, request.slot, length).isOk())
    return;
  auto page = static_cast<size_t>(decoder.shape().pageTokens);
  for (size_t i = 0; i < static_cast<size_t>(pages); ++i)
    prefixes.add(target, tokens.subspan(i * page, page));
  free->tokens.assign(tokens.begin(), tokens.end());
  free->lastUse = clock.now();
  ++sums.kept;
}
