//===- Session.cpp - Paged histories, one step at a time ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/Session.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <utility>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

Status Session::createPagers(const SessionShape &shape) {
  const BackendInfo &info = runner->info();
  Expected<BlockPager> pool = BlockPager::create(
      {info.pages, bounds.histories, bounds.historyPages, bounds.pageTokens});
  KVRM_TRY(pool.status());
  pager.emplace(pool.take());
  if (shape.parkingPlaces > 0) {
    Expected<BlockPager> parked =
        BlockPager::create({info.parkingPages, shape.parkingPlaces,
                            bounds.historyPages, bounds.pageTokens});
    KVRM_TRY(parked.status());
    parking.emplace(parked.take());
    runs.reserve(static_cast<size_t>(bounds.historyPages));
  }
  return createFarHistory(shape);
}

Expected<std::unique_ptr<Session>>
Session::create(const SessionShape &shape, std::unique_ptr<Backend> backend,
                Policies policies) {
  KVRM_CHECK(backend, "a session has a backend");
  const BackendInfo &info = backend->info();
  if (shape.window > 0 && !info.canCollapse)
    return makeError(StatusCode::Incompatible,
                     "far history: the backend cannot collapse pages");
  std::unique_ptr<Session> session(new Session());
  const PlanShape &prefill =
      shape.entries[static_cast<size_t>(StepEntry::Prefill)];
  session->bounds = {.slots = shape.slots,
                     .histories = shape.slots + shape.keptHistories,
                     .parkingPlaces = shape.parkingPlaces,
                     .capacity = shape.capacity,
                     .vocabulary = shape.vocabulary,
                     .pageTokens = prefill.pageTokens,
                     .poolPages = info.pages,
                     .historyPages = prefill.pagesPerSlot,
                     .window = shape.window,
                     .prefillChunk = prefill.queries,
                     .mixes = info.mixes,
                     .stepsAhead = info.stepsAhead};
  for (StepEntry which : {StepEntry::Decode, StepEntry::Prefill}) {
    auto index = static_cast<size_t>(which);
    const PlanShape &plan = shape.entries[index];
    Entry &entry = session->entryOf(which);
    KVRM_TRY(entry.planned.create(which, plan, info));
    entry.policy = std::move(policies[index]);
    entry.lengths.resize(static_cast<size_t>(plan.rows));
  }
  session->runner = std::move(backend);
  KVRM_TRY(session->createPagers(shape));
  if (!session->runner->info().choosesTokens)
    // A mixed step has one row more.
    session->spareLogits.resize(static_cast<size_t>(shape.slots + 1) *
                                static_cast<size_t>(shape.vocabulary));
  session->ahead.create(shape.slots, info.stepsAhead);
  session->requests.reserve(static_cast<size_t>(shape.slots));
  session->copies.resize(static_cast<size_t>(shape.slots));
  return session;
}

//===----------------------------------------------------------------------===//
// Checks
//===----------------------------------------------------------------------===//

Status Session::checkPlace(int32_t place, bool isTaken) const {
  if (place < 0 || place >= bounds.parkingPlaces)
    return invalidArgument("parking place ", place, " is outside 0..",
                           bounds.parkingPlaces - 1);
  if ((parking->length(place) > 0) != isTaken)
    return invalidArgument("parking place ", place,
                           isTaken ? " is empty" : " is taken");
  return Status::ok();
}

Status Session::exhausted(int64_t needed) const {
  return makeError(StatusCode::ResourceExhausted, "the step needs ", needed,
                   " KV pages, ", freePages(), " of ", poolPages(),
                   " are free");
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

int32_t Session::chooseSchedule(Entry &entry) {
  std::span<const int32_t> schedules =
      runner->info()
          .entries[static_cast<size_t>(entry.planned.which())]
          .schedules;
  if (schedules.size() == 1)
    return schedules.front();
  std::span<const PlanRow> rows = entry.planned.rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    const PlanRow &row = rows[i];
    entry.lengths[i] = row.slot < 0 ? 0 : pager->length(row.slot);
  }
  int32_t schedule = entry.policy.choose(entry.lengths);
  KVRM_CHECK(std::ranges::find(schedules, schedule) != schedules.end(),
             "a policy chooses what its backend has");
  return schedule;
}

/// Runs one step of an entry whose rows and tokens are filled in and whose
/// histories are extended.
Status Session::runEntry(Entry &entry, const StepOutputs &outputs,
                         StepStats &stats) {
  bool choosesTokens = runner->info().choosesTokens;
  float *logits = outputs.logits;
  if (!logits && !choosesTokens)
    logits = spareLogits.data();
  KVRM_TRY(entry.planned.run(*runner, *pager, chooseSchedule(entry), outputs,
                             logits, stats));
  if (!choosesTokens)
    chooseActive(entry.planned.rows(), logits, outputs);
  noteCollapses(stats);
  return Status::ok();
}

void Session::chooseActive(std::span<const PlanRow> rows, const float *logits,
                           const StepOutputs &outputs) const {
  for (size_t row = 0; row < rows.size(); ++row)
    if (rows[row].slot >= 0)
      choose(static_cast<int32_t>(row), logits, outputs);
}

/// Moves to a step's figures what was collapsed for it.
void Session::noteCollapses(StepStats &stats) {
  stats.collapsedPages += std::exchange(collapsedPages, 0);
  stats.collapseNanoseconds += std::exchange(collapseNanoseconds, 0);
}

Status Session::copyPages(std::span<const PageCopy> needed, StepStats &stats) {
  for (const PageCopy &copy : needed)
    KVRM_TRY(runner->copyPage(copy));
  stats.pageCopies += static_cast<int32_t>(needed.size());
  return Status::ok();
}

/// Takes all pages at once: a prompt that cannot end does not begin, and one
/// whose length is known gets one run.
Status Session::reservePrompt(int32_t slot, int32_t count) {
  int32_t needed = pagesNeeded(slot, count);
  if (needed > pager->freePages())
    return exhausted(needed);
  Status reserved = pager->reserve(slot, pager->length(slot) +
                                             tokensBeforeCollapse(slot, count));
  KVRM_CHECK(reserved.isOk(), "pages were counted");
  return Status::ok();
}

/// One step of a prompt. `copy` is set if this one needs a page copied.
Status Session::prefillChunk(int32_t slot, std::span<const int32_t> chunk,
                             PageCopy &copy, const StepOutputs &outputs,
                             StepStats &stats) {
  Entry &entry = entryOf(StepEntry::Prefill);
  auto count = static_cast<int32_t>(chunk.size());
  int32_t position = length(slot);
  KVRM_TRY(collapse(slot));
  PageCopy needed;
  Status appended = pager->append(slot, count, needed);
  KVRM_CHECK(appended.isOk(), "pages were counted");
  if (needed.isNeeded()) {
    copy = needed;
    KVRM_TRY(copyPages({&needed, 1}, stats));
  }
  entry.planned.setTokens(0, chunk);
  entry.planned.rows()[0] = planRow(slot, position, count);
  return runEntry(entry, outputs, stats);
}

/// Cuts off again what a prefill appended, and the pages taken for it. What was
/// there before may have collapsed meanwhile.
void Session::undoPrefill(int32_t slot, int32_t before, const PageCopy &copy) {
  if (far && before == 0) {
    Status released = release(slot);
    KVRM_CHECK(released.isOk(), "a slot can be emptied");
    return;
  }
  int32_t kept = before;
  if (far)
    kept = std::max(before, far->leastLength(slot)) - far->placesSaved(slot);
  pager->undoAppend(slot, kept, {&copy, copy.isNeeded() ? 1u : 0u});
}

Status Session::prefill(int32_t slot, std::span<const int32_t> tokens,
                        const StepOutputs &outputs) {
  Stopwatch watch;
  KVRM_TRY(checkPrefill(slot, tokens));
  KVRM_TRY(checkPrefillOutputs(outputs));
  KVRM_TRY(reservePrompt(slot, static_cast<int32_t>(tokens.size())));
  ahead.forget(slot);
  ahead.promptComputed();
  StepStats stats;
  int32_t before = length(slot);
  PageCopy copy;
  auto chunkTokens = static_cast<size_t>(bounds.prefillChunk);
  for (size_t done = 0; done < tokens.size(); done += chunkTokens) {
    std::span<const int32_t> chunk =
        tokens.subspan(done, std::min(chunkTokens, tokens.size() - done));
    bool isLast = done + chunk.size() == tokens.size();
    Status status = prefillChunk(slot, chunk, copy,
                                 isLast ? outputs : StepOutputs(), stats);
    if (!status.isOk()) {
      undoPrefill(slot, before, copy);
      return status;
    }
  }
  stats.stepNanoseconds = watch.nanoseconds();
  last = stats;
  return Status::ok();
}

/// Collects what a decode step appends.
void Session::addDecodeRequests(std::span<const int32_t> tokens) {
  for (int32_t slot = 0; slot < slots(); ++slot)
    if (tokens[static_cast<size_t>(slot)] != -1)
      requests.push_back({slot, 1});
}

/// Extends the histories of `requests`, all or none. `copied` is then the pages
/// to copy for it.
Status Session::appendRequests(std::span<PageCopy> &copied) {
  int64_t needed = 0;
  for (const AppendRequest &request : requests)
    needed += pagesNeeded(request.slot, request.tokens);
  Expected<int64_t> growth = pager->pagesNeeded(requests);
  KVRM_TRY(growth.status());
  if (!hasRoomFor(requests, *growth))
    return exhausted(needed);
  for (const AppendRequest &request : requests)
    KVRM_TRY(collapse(request.slot));
  int32_t copyCount = 0;
  Status appended = pager->appendAll(requests, copies, copyCount);
  KVRM_CHECK(appended.isOk(), "pages were counted");
  copied = std::span(copies).first(static_cast<size_t>(copyCount));
  return Status::ok();
}

void Session::undoRequests(std::span<const PageCopy> copied) {
  for (const AppendRequest &request : requests)
    pager->undoAppend(request.slot,
                      pager->length(request.slot) - request.tokens, copied);
}

/// Rows and tokens of a decode step whose histories are extended.
void Session::fillDecodeRows(std::span<const int32_t> tokens) {
  PlannedEntry &planned = entryOf(StepEntry::Decode).planned;
  for (int32_t slot = 0; slot < slots(); ++slot) {
    auto row = static_cast<size_t>(slot);
    bool isActive = tokens[row] != -1;
    if (tokens[row] == followingToken)
      planned.setFed(slot, ahead.rowOf(slot));
    else if (isActive)
      planned.setTokens(slot, tokens.subspan(row, 1));
    planned.rows()[row] =
        isActive ? planRow(slot, length(slot) - 1, 1) : PlanRow{};
  }
}

/// Runs the step that `run` makes of requests whose rows are filled in, and
/// keeps its figures. If it fails, what was appended for it is cut off again.
template <typename Run>
Status Session::runRequests(std::span<const PageCopy> copied,
                            const Stopwatch &watch, Run run) {
  StepStats stats;
  Status status = copyPages(copied, stats);
  if (status.isOk())
    status = run(stats);
  if (!status.isOk()) {
    ahead.failed();
    undoRequests(copied);
    return status;
  }
  stats.stepNanoseconds = watch.nanoseconds();
  last = stats;
  return Status::ok();
}

Status Session::decode(std::span<const int32_t> tokens,
                       const StepOutputs &outputs) {
  Stopwatch watch;
  KVRM_TRY(checkDecode(tokens, outputs));
  KVRM_TRY(ahead.check(outputs));
  requests.clear();
  addDecodeRequests(tokens);
  if (requests.empty())
    return Status::ok();
  std::span<PageCopy> copied;
  KVRM_TRY(appendRequests(copied));
  fillDecodeRows(tokens);
  KVRM_TRY(runRequests(copied, watch, [&](StepStats &stats) {
    return runEntry(entryOf(StepEntry::Decode), outputs, stats);
  }));
  ahead.started(tokens, outputs);
  return Status::ok();
}

Status Session::mixedStep(std::span<const int32_t> tokens, int32_t slot,
                          std::span<const int32_t> prompt,
                          const StepOutputs &outputs) {
  Stopwatch watch;
  KVRM_TRY(checkMixed(tokens, slot, prompt, outputs));
  KVRM_TRY(ahead.check(outputs));
  auto count = static_cast<int32_t>(prompt.size());
  requests.clear();
  addDecodeRequests(tokens);
  requests.push_back({slot, count});
  std::span<PageCopy> copied;
  KVRM_TRY(appendRequests(copied));
  fillDecodeRows(tokens);
  PlannedEntry &prefill = entryOf(StepEntry::Prefill).planned;
  prefill.setTokens(0, prompt);
  prefill.rows()[0] = planRow(slot, length(slot) - count, count);
  KVRM_TRY(runRequests(copied, watch, [&](StepStats &stats) {
    return runMixed(outputs, stats);
  }));
  ahead.started(tokens, outputs, slot);
  return Status::ok();
}

/// Runs a mixed step whose rows and tokens are filled in, as runEntry() does
/// for one batch. The row of the prompt comes last.
Status Session::runMixed(const StepOutputs &outputs, StepStats &stats) {
  bool isChosen = isChosenThere(runner->info(), outputs);
  float *logits = outputs.logits;
  if (!logits && !runner->info().choosesTokens)
    logits = spareLogits.data();
  PlannedEntry &decode = entryOf(StepEntry::Decode).planned;
  PlannedEntry &prefill = entryOf(StepEntry::Prefill).planned;
  const kvrm_sampling *sampling = isChosen ? outputs.sampling : nullptr;
  decode.plan(*pager, sampling, stats);
  prefill.plan(*pager, sampling ? sampling + slots() : nullptr, stats);
  const std::array descriptors = {&decode.planned(), &prefill.planned()};
  KVRM_TRY(runPlanned(*runner,
                      {.entry = StepEntry::Mixed,
                       .descriptors = descriptors,
                       .schedule = SchedulePolicy::workqueue,
                       .logits = logits,
                       .next = isChosen ? outputs.next : nullptr,
                       .isLater = outputs.isLater},
                      stats));
  if (!runner->info().choosesTokens) {
    chooseActive(decode.rows(), logits, outputs);
    choose(slots(), logits, outputs);
  }
  noteCollapses(stats);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Histories
//===----------------------------------------------------------------------===//

int32_t Session::length(int32_t history) const {
  KVRM_CHECK(history >= 0 && history < bounds.histories, "history in range");
  return pager->length(history) + (far ? far->placesSaved(history) : 0);
}

int32_t Session::pagesNeeded(int32_t slot, int32_t tokens) const {
  return far ? static_cast<int32_t>(farPagesNeeded(slot, tokens))
             : pager->pagesNeeded(slot, tokens);
}

void Session::expect(int32_t slot, int32_t tokens) {
  KVRM_CHECK(slot >= 0 && slot < slots(), "slot in range");
  pager->expect(slot, tokens);
}

Status Session::release(int32_t history) {
  KVRM_TRY(checkHistory(history));
  ahead.forget(history);
  if (far)
    far->forget(history);
  return pager->release(history);
}

Status Session::trim(int32_t history, int32_t newLength) {
  KVRM_TRY(checkHistory(history));
  if (far && newLength == 0)
    return release(history);
  if (far && far->collapsed(history) > 0) {
    KVRM_TRY(checkTrim(history, newLength));
    newLength -= far->placesSaved(history);
  }
  KVRM_TRY(pager->trim(history, newLength));
  ahead.forget(history);
  return Status::ok();
}

Status Session::alias(int32_t target, int32_t source, int32_t tokens) {
  KVRM_TRY(checkHistory(target));
  KVRM_TRY(checkHistory(source));
  KVRM_TRY(checkShare(target, source, tokens));
  if (!far)
    return pager->alias(target, source, tokens);
  KVRM_TRY(pager->alias(target, source, tokens - far->placesSaved(source)));
  if (far->dropsPages())
    far->setDropped(target, far->collapsed(source));
  return Status::ok();
}

int64_t Session::reservedKvBytes() const {
  return bounds.poolPages * runner->info().pageBytes;
}

int64_t Session::liveKvBytes() const {
  return pager->usedPages() * runner->info().pageBytes;
}

int64_t Session::tokenKvBytes() const {
  return runner->info().pageBytes / bounds.pageTokens;
}

//===----------------------------------------------------------------------===//
// Parking
//===----------------------------------------------------------------------===//

/// Copies the pages of `history` to those of `place`, or back: run by run,
/// where pages are adjacent on both sides.
Status Session::movePages(int32_t history, int32_t place,
                          MoveDirection direction) {
  std::span<const int32_t> here = pager->pages(history);
  std::span<const int32_t> there = parking->pages(place);
  auto count = static_cast<size_t>(pager->filledPages(history));
  runs.clear();
  for (size_t first = 0; first < count;) {
    int32_t run = 1;
    while (first + static_cast<size_t>(run) < count &&
           here[first + static_cast<size_t>(run)] == here[first] + run &&
           there[first + static_cast<size_t>(run)] == there[first] + run)
      ++run;
    runs.push_back({here[first], there[first], run});
    first += static_cast<size_t>(run);
  }
  return runner->movePages(runs, direction);
}

Status Session::park(int32_t slot, int32_t place) {
  KVRM_TRY(checkSlot(slot));
  KVRM_TRY(checkPlace(place, /*isTaken=*/false));
  if (length(slot) == 0)
    return invalidArgument("slot ", slot, " is empty");
  PageCopy copy;
  int32_t tokens = pager->length(slot);
  parking->expect(place, tokens);
  Status status = parking->append(place, tokens, copy);
  if (status.code() == StatusCode::ResourceExhausted)
    return makeError(StatusCode::ResourceExhausted, "slot ", slot, ": its ",
                     pager->filledPages(slot), " pages cannot be parked, ",
                     parking->freePages(), " of ", parking->limits().pages,
                     " are free");
  KVRM_TRY(status);
  ahead.forget(slot);
  status = movePages(slot, place, MoveDirection::ToParking);
  if (status.isOk() && far)
    parkedPast[static_cast<size_t>(place)] = far->collapsed(slot);
  // Of the two copies, one is given up.
  Status released = status.isOk() ? release(slot) : parking->release(place);
  KVRM_CHECK(released.isOk(), "a history can be given up");
  return status;
}

Status Session::unpark(int32_t place, int32_t slot) {
  KVRM_TRY(checkSlot(slot));
  KVRM_TRY(checkPlace(place, /*isTaken=*/true));
  if (length(slot) != 0)
    return invalidArgument("slot ", slot, " is not empty");
  int32_t tokens = parking->length(place);
  int32_t needed = pager->pagesNeeded(slot, tokens);
  if (needed > pager->freePages())
    return exhausted(needed);
  PageCopy copy;
  pager->expect(slot, tokens);
  KVRM_TRY(pager->append(slot, tokens, copy));
  Status status = movePages(slot, place, MoveDirection::FromParking);
  if (status.isOk() && far)
    far->setDropped(slot, parkedPast[static_cast<size_t>(place)]);
  Status released =
      status.isOk() ? parking->release(place) : pager->release(slot);
  KVRM_CHECK(released.isOk(), "a history can be given up");
  return status;
}

Status Session::discard(int32_t place) {
  KVRM_TRY(checkPlace(place, /*isTaken=*/true));
  return parking->release(place);
}
