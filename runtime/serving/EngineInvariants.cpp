//===- EngineInvariants.cpp - What holds between two rounds -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Engine.h"

#include <algorithm>

using namespace kvrm;

template <typename... Parts> static Status broken(const Parts &...parts) {
  return makeError(StatusCode::Internal, "engine: ", parts...);
}

/// Whether a request is in one place and has the tokens that it should have.
Status Engine::checkRequest(RequestId id, const Request &request) const {
  bool runs =
      request.phase == Phase::Prefilling || request.phase == Phase::Decoding;
  if (runs != (request.slot >= 0) ||
      (runs && slotOwner[static_cast<size_t>(request.slot)] != id))
    return broken("request ", id, " is not the owner of its slot");
  if ((request.phase == Phase::Parked) != (request.place >= 0) ||
      (request.place >= 0 &&
       placeOwner[static_cast<size_t>(request.place)] != id))
    return broken("request ", id, " is not the owner of its parking place");
  if ((request.phase == Phase::Prefilling) != (id == prefilling))
    return broken("request ", id, " is not the one that prefills");
  auto known = static_cast<int64_t>(request.spec.prompt.size()) +
               std::max<int64_t>(
                   static_cast<int64_t>(request.result.tokens.size()) - 1, 0);
  if (request.target != known)
    return broken("request ", id, " has ", known, " tokens to have, not ",
                  request.target);
  auto chosen =
      static_cast<int64_t>(request.result.tokens.size()) + request.choicesAhead;
  int64_t length =
      static_cast<int64_t>(request.spec.prompt.size()) + chosen - 1;
  if (request.phase == Phase::Decoding &&
      decoder.length(request.slot) != length)
    return broken("request ", id, " has a history of ",
                  decoder.length(request.slot), " tokens, not ", length);
  if ((!runs || underWay == 0) &&
      (request.tokensAhead != 0 || request.choicesAhead != 0))
    return broken("request ", id, " waits for steps that are not under way");
  return Status::ok();
}

/// Whether requests started in order of arrival, but for those that may
/// overtake, and are counted.
Status Engine::checkRequests() const {
  int32_t waiting = 0;
  int32_t preempted = 0;
  int32_t running = 0;
  int32_t mostOvertaken = 0; ///< of those that wait so far
  for (const auto &[id, request] : requests) {
    switch (request.phase) {
    case Phase::Waiting:
      ++waiting;
      break;
    case Phase::Parked:
    case Phase::Dropped:
      ++preempted;
      break;
    case Phase::Prefilling:
    case Phase::Decoding:
      ++running;
      break;
    }
    if (request.overtaken > config.overtakeLimit)
      return broken("request ", id, " was overtaken ", request.overtaken,
                    " times, the limit is ", config.overtakeLimit);
    if (request.phase != Phase::Waiting && waiting > 0 && mostOvertaken == 0)
      return broken("request ", id, " overtook one that waits");
    if (request.phase == Phase::Waiting)
      mostOvertaken = std::max(mostOvertaken, request.overtaken);
    KVRM_TRY(checkRequest(id, request));
  }
  if (waiting != sums.waiting || preempted != sums.preempted ||
      running != sums.running || waiting > config.queueLimit)
    return broken("requests are miscounted");
  return Status::ok();
}

/// Whether each history in a slot has a request, and known pages.
Status Engine::checkSlots() const {
  int32_t owned = 0;
  for (size_t slot = 0; slot < slotOwner.size(); ++slot) {
    owned += slotOwner[slot] >= 0;
    auto history = static_cast<int32_t>(slot);
    if (slotOwner[slot] < 0 && decoder.length(history) != 0)
      return broken("slot ", slot, " has a history and no request");
    if (!config.sharesPrefixes)
      continue;
    int32_t pages = prefixes.pages(history);
    int32_t whole = 0;
    int32_t ahead = 0;
    if (slotOwner[slot] >= 0) {
      const Request &request = requests.at(slotOwner[slot]);
      whole = known(request) / decoder.shape().pageTokens;
      ahead = request.tokensAhead;
    }
    // Pages of a shared start are made known with the first chunk.
    bool hasFirst = slotOwner[slot] != prefilling && ahead == 0;
    if (pages != whole && (pages != 0 || hasFirst))
      return broken("slot ", slot, " is known by ", pages, " of ", whole,
                    " pages");
  }
  if (owned != sums.running)
    return broken(owned, " slots have owners, ", sums.running, " requests run");
  return Status::ok();
}

Status Engine::checkPlaces() const {
  auto parked = static_cast<int32_t>(std::ranges::count_if(
      placeOwner, [](RequestId owner) { return owner >= 0; }));
  if (parked > sums.preempted)
    return broken(parked, " places have owners, ", sums.preempted,
                  " requests are preempted");
  return Status::ok();
}

Status Engine::checkKept() const {
  int32_t seen = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    auto length = static_cast<size_t>(
        decoder.length(decoder.shape().slots + static_cast<int32_t>(i)));
    if (length != kept[i].tokens.size())
      return broken("kept history ", i, " has ", length, " tokens, not ",
                    kept[i].tokens.size());
    seen += kept[i].lastUse >= 0;
  }
  return seen == sums.kept ? Status::ok()
                           : broken("kept histories are miscounted");
}

Status Engine::checkInvariants() const {
  KVRM_TRY(checkRequests());
  KVRM_TRY(checkSlots());
  KVRM_TRY(checkPlaces());
  return checkKept();
}
