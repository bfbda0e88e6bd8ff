//===- PaddedSession.cpp - The static baseline of a backend ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/PaddedSession.h"

#include <algorithm>
#include <numeric>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

/// Gives every slot its pages, in order, and fills them.
Status PaddedSession::reservePages(const PlanShape &shape) {
  int32_t each = shape.pagesPerSlot;
  Expected<BlockPager> created = BlockPager::create(
      {runner->info().pages, slots(), each, shape.pageTokens});
  KVRM_TRY(created.status());
  pager.emplace(created.take());
  std::vector<int32_t> pages(static_cast<size_t>(each));
  for (int32_t slot = 0; slot < slots(); ++slot) {
    std::iota(pages.begin(), pages.end(), slot * each);
    KVRM_TRY(pager->reservePages(slot, pages));
    PageCopy none;
    KVRM_TRY(pager->append(slot, each * shape.pageTokens, none));
    KVRM_CHECK(!none.isNeeded(), "pages are not shared");
  }
  return Status::ok();
}

Expected<std::unique_ptr<PaddedSession>>
PaddedSession::create(const SessionShape &shape,
                      std::unique_ptr<Backend> backend) {
  KVRM_CHECK(backend, "a session has a backend");
  KVRM_CHECK(shape.window == 0 && shape.keptHistories == 0 &&
                 shape.parkingPlaces == 0,
             "a static decoder has slots alone");
  const PlanShape &prefill =
      shape.entries[static_cast<size_t>(StepEntry::Prefill)];
  KVRM_CHECK(backend->info().pages == shape.slots * prefill.pagesPerSlot,
             "the pool is what slots reserve");
  std::unique_ptr<PaddedSession> session(new PaddedSession());
  session->runner = std::move(backend);
  session->setShape({.slots = shape.slots,
                     .histories = shape.slots,
                     .capacity = shape.capacity,
                     .vocabulary = shape.vocabulary,
                     .prefillChunk = prefill.queries,
                     .stepsAhead = session->runner->info().stepsAhead},
                    /*choosesTokens=*/!session->runner->info().choosesTokens);
  for (StepEntry which : {StepEntry::Decode, StepEntry::Prefill}) {
    auto index = static_cast<size_t>(which);
    KVRM_CHECK(shape.entries[index].isPadded, "a static decoder's plans are");
    KVRM_TRY(session->entries[index].create(which, shape.entries[index],
                                            session->runner->info()));
  }
  KVRM_TRY(session->reservePages(prefill));
  return session;
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

void PaddedSession::fillRows(PlannedEntry &entry, const StepRows &rows) {
  std::span<const int32_t> tokens = rows.tokens;
  auto queries = static_cast<size_t>(rows.queries);
  for (size_t row = 0; row < rows.slots.size(); ++row) {
    int32_t position = rows.positions[row];
    int32_t count = std::max(rows.counts[row], 1);
    PlanRow &planned = entry.rows()[row];
    planned = {};
    if (position + count > capacity())
      continue;
    planned = {.slot = rows.slots[row], .position = position, .count = count};
    std::span<const int32_t> own =
        tokens.subspan(row * queries, static_cast<size_t>(count));
    auto index = static_cast<int32_t>(row);
    if (own[0] == followingToken)
      entry.setFed(index, ahead.rowOf(index));
    else
      entry.setTokens(index, own);
  }
}

Status PaddedSession::runStep(StepEntry which, const StepRows &rows,
                              const StepOutputs &outputs, StepStats &stats) {
  PlannedEntry &entry = entries[static_cast<size_t>(which)];
  fillRows(entry, rows);
  bool choosesTokens = runner->info().choosesTokens;
  float *logits = outputs.logits;
  if (!logits && !choosesTokens)
    logits = spareLogits();
  KVRM_TRY(entry.run(*runner, *pager, SchedulePolicy::workqueue, outputs,
                     logits, stats));
  if (!choosesTokens)
    chooseActive(rows, logits, outputs);
  return Status::ok();
}

Status PaddedSession::copyTokens(int32_t target, int32_t source,
                                 int32_t tokens) {
  std::span<const int32_t> from = pager->pages(source);
  std::span<const int32_t> to = pager->pages(target);
  int32_t page = pager->limits().pageTokens;
  for (size_t i = 0; static_cast<int64_t>(i) * page < tokens; ++i)
    KVRM_TRY(runner->copyPage({from[i], to[i]}));
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Sizes
//===----------------------------------------------------------------------===//

int64_t PaddedSession::reservedKvBytes() const {
  return runner->info().pages * runner->info().pageBytes;
}

int64_t PaddedSession::tokenKvBytes() const {
  return runner->info().pageBytes / pager->limits().pageTokens;
}
