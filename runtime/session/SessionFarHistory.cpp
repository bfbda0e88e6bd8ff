//===- SessionFarHistory.cpp - Sessions whose past collapses ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a session does about far history: count pages as if the past collapsed,
// collapse it before tokens are appended, and tell the planner of it. A slot's
// table is [pages of summaries][pages of exact tokens]; the first part comes
// with the first collapse, so that short requests pay nothing.
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/Session.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>

using namespace kvrm;

Status Session::createFarHistory(const SessionShape &shape) {
  if (shape.window == 0)
    return Status::ok();
  Expected<FarHistory> created = FarHistory::create(
      {.slots = bounds.histories,
       .window = shape.window,
       .entries =
           shape.entries[static_cast<size_t>(StepEntry::Prefill)].summaries,
       .sinks = shape.sinks,
       .pageTokens = bounds.pageTokens});
  KVRM_TRY(created.status());
  far.emplace(created.take());
  KVRM_CHECK(far->dropsPages() ||
                 (shape.keptHistories == 0 && shape.parkingPlaces == 0),
             "summaries stay with their slot");
  parkedPast.resize(static_cast<size_t>(shape.parkingPlaces));
  farDrops.resize(static_cast<size_t>(pager->limits().pages));
  return Status::ok();
}

/// A row of `count` tokens from `position` on, which the pager holds already.
PlanRow Session::planRow(int32_t slot, int32_t position, int32_t count) const {
  PlanRow row{slot, position, count};
  if (!far)
    return row;
  row.place = position - far->placesSaved(slot);
  row.summaries = far->inUse(slot);
  row.biases = far->biases(slot);
  return row;
}

/// Pages that prefill() or, of one token, decode() would take now, at the time
/// when it holds most. Follows the steps that they would make.
int64_t Session::farPagesNeeded(int32_t slot, int32_t tokens) const {
  int32_t page = bounds.pageTokens;
  std::span<const int32_t> table = pager->pages(slot);
  int64_t front = far->summaryPages(slot);
  int32_t exact = length(slot) - far->collapsed(slot);
  int64_t exactPages = static_cast<int64_t>(table.size()) - front;
  bool isFirst = far->collapsed(slot) == 0;
  // The page that the next token goes to is this slot's own then.
  int64_t copied = pager->isCopyNeeded(slot) ? front + exact / page : -1;
  auto oldest = static_cast<size_t>(front);
  int64_t taken = 0;
  int64_t most = 0;
  for (int32_t done = 0; done < tokens;) {
    int32_t chunk = std::min(bounds.prefillChunk, tokens - done);
    int32_t collapsing = far->pagesToCollapse(exact);
    if (collapsing > 0 && isFirst) {
      taken += far->shape().entries / page;
      most = std::max(most, taken);
      isFirst = false;
    }
    for (int32_t i = 0; i < collapsing; ++i, ++oldest)
      if (oldest >= table.size() || static_cast<int64_t>(oldest) == copied ||
          pager->references(table[oldest]) == 1)
        --taken;
    exact -= collapsing * page;
    exactPages -= collapsing;
    int64_t grown = (int64_t(exact) + chunk + page - 1) / page - exactPages;
    if (grown > 0) {
      taken += grown;
      exactPages += grown;
    }
    if (done == 0 && copied >= 0)
      ++taken;
    most = std::max(most, taken);
    exact += chunk;
    done += chunk;
  }
  return most;
}

/// Of `tokens` tokens to prefill, those that are appended before any page
/// collapses: all pages for them can be taken at once.
int32_t Session::tokensBeforeCollapse(int32_t slot, int32_t tokens) const {
  if (!far)
    return tokens;
  int32_t exact = length(slot) - far->collapsed(slot);
  int32_t chunk = bounds.prefillChunk;
  int32_t room = std::max(far->shape().window - exact, 0);
  return std::min(tokens, (room + chunk - 1) / chunk * chunk);
}

/// Pages of a slot that must collapse before it takes more tokens.
int32_t Session::pagesToCollapse(int32_t slot) const {
  return far->pagesToCollapse(length(slot) - far->collapsed(slot));
}

/// Whether `appends`, which take `growth` pages, fit once their slots have
/// collapsed what they must. A collapse takes as many pages from growth as it
/// gives.
bool Session::hasRoomFor(std::span<const AppendRequest> appends,
                         int64_t growth) {
  int64_t free = pager->freePages();
  if (!far)
    return growth <= free;
  auto pagesOf = [&](int32_t slot) {
    return pager->pages(slot).subspan(
        static_cast<size_t>(far->summaryPages(slot)),
        static_cast<size_t>(pagesToCollapse(slot)));
  };
  bool hasRoom = true;
  for (const AppendRequest &append : appends) {
    std::span<const int32_t> pages = pagesOf(append.slot);
    if (!pages.empty() && far->collapsed(append.slot) == 0)
      free -= far->shape().entries / far->shape().pageTokens;
    hasRoom &= free >= 0;
    // A page that several slots collapse goes with the last of them.
    for (int32_t page : pages)
      if (++farDrops[static_cast<size_t>(page)] == pager->references(page))
        ++free;
  }
  for (const AppendRequest &append : appends)
    for (int32_t page : pagesOf(append.slot))
      farDrops[static_cast<size_t>(page)] = 0;
  return hasRoom && growth <= free;
}

/// Collapses the oldest `count` exact pages of a slot and counts those that
/// have in `done`. Their pages are still in the table.
Status Session::collapsePages(int32_t slot, int32_t count, bool isFirst,
                              int32_t &done) {
  std::span<const int32_t> table = pager->pages(slot);
  auto front =
      static_cast<size_t>(far->shape().entries / far->shape().pageTokens);
  for (; done < count; ++done) {
    std::span<const SummaryWrite> writes = far->collapsePage(slot);
    if (writes.empty())
      continue; // dropped
    Status status = runner->collapsePage(
        {.source = table[front + static_cast<size_t>(done)],
         .writes = writes,
         .summaries = table.first(front),
         .isFirst = isFirst && done == 0});
    if (!status.isOk()) {
      far->undoCollapse(slot);
      return status;
    }
  }
  return Status::ok();
}

/// Collapses pages of a slot until it may take more tokens. The pages that this
/// needs have been counted. If the backend fails, the pages that collapsed
/// before stay so.
Status Session::collapse(int32_t slot) {
  int32_t count = far ? pagesToCollapse(slot) : 0;
  if (count == 0)
    return Status::ok();
  Stopwatch watch;
  int32_t front = far->shape().entries / far->shape().pageTokens;
  bool isFirst = far->collapsed(slot) == 0;
  if (isFirst) {
    Status inserted = pager->insertFront(slot, front);
    KVRM_CHECK(inserted.isOk(), "pages were counted");
  }
  int32_t done = 0;
  Status status = collapsePages(slot, count, isFirst, done);
  Status dropped = isFirst && done == 0 ? pager->dropPages(slot, 0, front)
                                        : pager->dropPages(slot, front, done);
  KVRM_CHECK(dropped.isOk(), "whole pages collapse");
  collapsedPages += done;
  collapseNanoseconds += watch.nanoseconds();
  return status;
}

/// Of a slot whose far history has collapsed.
Status Session::checkTrim(int32_t slot, int32_t newLength) const {
  int32_t least = far->leastLength(slot);
  if (newLength >= least && newLength <= length(slot))
    return Status::ok();
  return invalidArgument("slot ", slot, ": cannot trim to ", newLength,
                         " tokens, outside ", least, "..", length(slot),
                         "; the first ", far->collapsed(slot),
                         " have collapsed, and those behind are needed");
}

Status Session::checkShare(int32_t target, int32_t source,
                           int32_t tokens) const {
  if (!far)
    return Status::ok();
  // A slot without pages may have a past all the same.
  if (length(target) != 0)
    return invalidArgument("slot ", target, " is not empty");
  int32_t collapsed = far->collapsed(source);
  if (collapsed == 0)
    return Status::ok();
  if (!far->dropsPages())
    return invalidArgument("slot ", source, ": cannot share, its first ",
                           collapsed, " tokens have collapsed");
  if (tokens < far->leastLength(source) || tokens > length(source))
    return invalidArgument("slot ", source, ": cannot share ", tokens,
                           " tokens, outside ", far->leastLength(source), "..",
                           length(source), "; its first ", collapsed,
                           " are dropped");
  return Status::ok();
}
