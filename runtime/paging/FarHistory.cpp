//===- FarHistory.cpp - What becomes of tokens past a window ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/FarHistory.h"
#include "kvrm/runtime/abi/descriptor.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace kvrm;

Expected<FarHistory> FarHistory::create(const FarShape &shape) {
  auto refuse = [](const char *name, int64_t value, const auto &...rest) {
    return invalidArgument("far history: ", name, ": ", value, rest...);
  };
  KVRM_TRY(checkRange("far history: slots", shape.slots, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkRange("far history: page_tokens", shape.pageTokens, 1,
                      KVRM_MAX_PAGE_TOKENS));
  if (shape.window < shape.pageTokens || shape.window % shape.pageTokens != 0)
    return refuse("window", shape.window, " is not whole pages of ",
                  shape.pageTokens);
  if (shape.entries % shape.pageTokens != 0)
    return refuse("entries", shape.entries, " is not whole pages of ",
                  shape.pageTokens);
  KVRM_TRY(
      checkRange("far history: entries", shape.entries, 0, KVRM_MAX_SUMMARIES));
  if (shape.sinks < 0 || shape.sinks > shape.entries ||
      shape.entries - shape.sinks == 1)
    return refuse("sinks", shape.sinks, " of ", shape.entries,
                  " entries are not all, or all but two and more");
  FarHistory far;
  far.bounds = shape;
  far.slots.resize(static_cast<size_t>(shape.slots));
  size_t entries = far.index(shape.slots, 0);
  far.counts.resize(entries);
  far.order.resize(entries);
  far.writes.resize(static_cast<size_t>(shape.pageTokens) + 1);
  far.biasData.assign(entries, KVRM_UNUSED_SUMMARY);
  far.saved.counts.resize(static_cast<size_t>(shape.entries));
  far.saved.order.resize(static_cast<size_t>(shape.entries));
  return far;
}

void FarHistory::setCount(int32_t slot, int32_t entry, int32_t tokens) {
  counts[index(slot, entry)] = tokens;
  biasData[index(slot, entry)] =
      tokens > 0 ? std::log2(static_cast<float>(tokens)) : KVRM_UNUSED_SUMMARY;
}

/// Makes an entry that stands for `tokens` tokens the slot's newest.
SummaryWrite FarHistory::takeEntry(int32_t slot, int32_t firstToken,
                                   int32_t tokens) {
  Slot &state = slots[static_cast<size_t>(slot)];
  int32_t *byTime = order.data() + index(slot, 0);
  SummaryWrite write;
  write.firstToken = firstToken;
  write.tokens = tokens;
  if (state.inUse < bounds.entries) {
    // Entries are not given back one by one: those in use are the first.
    write.entry = state.inUse;
    byTime[state.inUse++] = write.entry;
    setCount(slot, write.entry, tokens);
    return write;
  }
  int32_t best = -1;
  int32_t least = std::numeric_limits<int32_t>::max();
  for (int32_t i = bounds.sinks; i + 1 < state.inUse; ++i) {
    int32_t both = tokensOf(slot, byTime[i]) + tokensOf(slot, byTime[i + 1]);
    if (both < least) {
      least = both;
      best = i;
    }
  }
  KVRM_CHECK(best >= 0, "two entries can merge");
  write.mergeInto = byTime[best];
  write.entry = byTime[best + 1];
  float both = static_cast<float>(least);
  write.keep = static_cast<float>(tokensOf(slot, write.mergeInto)) / both;
  write.add = static_cast<float>(tokensOf(slot, write.entry)) / both;
  setCount(slot, write.mergeInto, least);
  setCount(slot, write.entry, tokens);
  std::copy(byTime + best + 2, byTime + state.inUse, byTime + best + 1);
  byTime[state.inUse - 1] = write.entry;
  return write;
}

std::span<const SummaryWrite> FarHistory::collapsePage(int32_t slot) {
  KVRM_CHECK(slot >= 0 && slot < bounds.slots, "slot in range");
  Slot &state = slots[static_cast<size_t>(slot)];
  saved.slot = slot;
  saved.state = state;
  std::copy_n(counts.data() + index(slot, 0), bounds.entries,
              saved.counts.data());
  std::copy_n(order.data() + index(slot, 0), bounds.entries,
              saved.order.data());
  size_t count = 0;
  int32_t token = 0;
  for (; token < bounds.pageTokens && state.collapsed + token < bounds.sinks;
       ++token)
    writes[count++] = takeEntry(slot, token, 1);
  if (token < bounds.pageTokens && bounds.entries > bounds.sinks)
    writes[count++] = takeEntry(slot, token, bounds.pageTokens - token);
  state.collapsed += bounds.pageTokens;
  return {writes.data(), count};
}

void FarHistory::undoCollapse(int32_t slot) {
  KVRM_CHECK(slot == saved.slot, "the last collapse is taken back");
  for (int32_t entry = 0; entry < bounds.entries; ++entry) {
    setCount(slot, entry, saved.counts[static_cast<size_t>(entry)]);
    order[index(slot, entry)] = saved.order[static_cast<size_t>(entry)];
  }
  slots[static_cast<size_t>(slot)] = saved.state;
  saved.slot = -1;
}

void FarHistory::setDropped(int32_t slot, int32_t tokens) {
  KVRM_CHECK(dropsPages() && at(slot).collapsed == 0,
             "a slot without a past takes one that left nothing");
  KVRM_CHECK(tokens >= 0 && tokens % bounds.pageTokens == 0,
             "whole pages are dropped");
  slots[static_cast<size_t>(slot)].collapsed = tokens;
}

void FarHistory::forget(int32_t slot) {
  KVRM_CHECK(slot >= 0 && slot < bounds.slots, "slot in range");
  Slot &state = slots[static_cast<size_t>(slot)];
  for (int32_t entry = 0; entry < state.inUse; ++entry)
    setCount(slot, entry, 0);
  state = Slot();
}

Status FarHistory::checkInvariants() const {
  auto broken = [](const auto &...parts) {
    return makeError(StatusCode::Internal, "far history: ", parts...);
  };
  std::vector<int32_t> seen(static_cast<size_t>(bounds.entries));
  for (int32_t slot = 0; slot < bounds.slots; ++slot) {
    const Slot &state = at(slot);
    std::ranges::fill(seen, 0);
    int64_t tokens = 0;
    for (int32_t i = 0; i < bounds.entries; ++i) {
      int32_t held = tokensOf(slot, i);
      tokens += held;
      if ((held > 0) != (i < state.inUse))
        return broken("slot ", slot, ": entry ", i, " holds ", held);
      if (i >= state.inUse)
        continue;
      int32_t entry = order[index(slot, i)];
      if (entry < 0 || entry >= state.inUse ||
          seen[static_cast<size_t>(entry)]++)
        return broken("slot ", slot, ": entry ", entry, " is ordered twice");
    }
    int64_t expected = bounds.entries > bounds.sinks
                           ? state.collapsed
                           : std::min(state.collapsed, bounds.sinks);
    if (tokens != expected)
      return broken("slot ", slot, ": entries hold ", tokens, " of ", expected,
                    " tokens");
  }
  return Status::ok();
}
