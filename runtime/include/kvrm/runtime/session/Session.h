//===- Session.h - Paged histories, one step at a time ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A session is a decoder with paged KV: pager, planner, one committed
// descriptor a step (KV-RM, arXiv 2605.09735). It decides where histories lie
// and what a step does; a Backend.h owns the pool and does it. The session
// knows nothing of the machine.
//
// Every call checks its arguments before it changes anything, and a failed one,
// be it that the backend failed, leaves the session as it was, but that pages
// collapsed for it stay collapsed (see trim()). No call allocates once create()
// is done, unless to word an error. A session is used by one thread at a time.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_SESSION_H
#define KVRM_RUNTIME_SESSION_SESSION_H

#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/paging/FarHistory.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/paging/SchedulePolicy.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/session/PlannedEntry.h"
#include "kvrm/runtime/session/StepsAhead.h"
#include "kvrm/runtime/support/Clock.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace kvrm {

/// What fixes a session for its life; the backend says the rest.
struct SessionShape {
  int32_t slots = 0;
  int32_t capacity = 0; ///< tokens of one history
  int32_t vocabulary = 0;
  int32_t window = 0;        ///< tokens of a slot kept exactly; 0 = all
  int32_t sinks = 0;         ///< far-history entries for the first tokens
  int32_t keptHistories = 0; ///< besides the slots'
  int32_t parkingPlaces = 0;
  /// `shares` are the backend's.
  std::array<PlanShape, plannedEntries> entries;
};

class Session final : public Decoder {
public:
  using Policies = std::array<SchedulePolicy, plannedEntries>;

  /// `policies` choose among the backend's schedules, an entry each; without
  /// constants they take the work queue. Errors: InvalidArgument,
  /// ResourceExhausted.
  static Expected<std::unique_ptr<Session>>
  create(const SessionShape &shape, std::unique_ptr<Backend> backend,
         Policies policies = {});

  const DecoderShape &shape() const override { return bounds; }
  Status prefill(int32_t slot, std::span<const int32_t> tokens,
                 const StepOutputs &outputs) override;
  Status decode(std::span<const int32_t> tokens,
                const StepOutputs &outputs) override;
  Status mixedStep(std::span<const int32_t> tokens, int32_t slot,
                   std::span<const int32_t> prompt,
                   const StepOutputs &outputs) override;
  Status awaitStep(std::span<int32_t> next) override {
    return ahead.await(*runner, next);
  }
  void expect(int32_t slot, int32_t tokens) override;
  Status release(int32_t history) override;
  /// With far history pages collapse when tokens are appended, no more than
  /// those tokens need, and nothing brings them back: a length that would leave
  /// fewer exact tokens than a query is to see is refused, unless it is 0. When
  /// a prefill of several chunks fails, that is also how far its tokens can be
  /// cut off again.
  Status trim(int32_t history, int32_t length) override;
  /// Of a source whose pages have been dropped, the last tokens are shared, as
  /// many as trim() would leave. Refuses one that has summaries.
  Status alias(int32_t target, int32_t source, int32_t tokens) override;
  Status park(int32_t slot, int32_t place) override;
  Status unpark(int32_t place, int32_t slot) override;
  Status discard(int32_t place) override;
  int32_t length(int32_t history) const override;
  int32_t pagesNeeded(int32_t slot, int32_t tokens) const override;
  int32_t freePages() const override { return pager->freePages(); }
  int64_t reservedKvBytes() const override;
  int64_t liveKvBytes() const override;
  int64_t tokenKvBytes() const override;
  const StepStats &lastStep() const override { return last; }
  std::string products() const override { return runner->info().products; }

  /// For tests and tools.
  Backend &backend() { return *runner; }
  const BlockPager &blockPager() const { return *pager; }
  const FarHistory *farHistory() const { return far ? &*far : nullptr; }

private:
  /// An entry point with what its steps need.
  struct Entry {
    PlannedEntry planned;
    SchedulePolicy policy;
    std::vector<int32_t> lengths; ///< of the rows, for the policy
  };

  Session() = default;

  Status createPagers(const SessionShape &shape);
  Status checkPlace(int32_t place, bool isTaken) const;
  Status exhausted(int64_t needed) const;

  // Steps.
  bool isFollowing(int32_t slot) const override {
    return ahead.rowOf(slot) >= 0;
  }
  Entry &entryOf(StepEntry which) {
    return entries[static_cast<size_t>(which)];
  }
  Status reservePrompt(int32_t slot, int32_t count);
  Status prefillChunk(int32_t slot, std::span<const int32_t> chunk,
                      PageCopy &copy, const StepOutputs &outputs,
                      StepStats &stats);
  void undoPrefill(int32_t slot, int32_t before, const PageCopy &copy);
  void addDecodeRequests(std::span<const int32_t> tokens);
  Status appendRequests(std::span<PageCopy> &copied);
  template <typename Run>
  Status runRequests(std::span<const PageCopy> copied, const Stopwatch &watch,
                     Run run);
  void undoRequests(std::span<const PageCopy> copied);
  void fillDecodeRows(std::span<const int32_t> tokens);
  Status runMixed(const StepOutputs &outputs, StepStats &stats);
  Status copyPages(std::span<const PageCopy> needed, StepStats &stats);
  Status runEntry(Entry &entry, const StepOutputs &outputs, StepStats &stats);
  int32_t chooseSchedule(Entry &entry);
  void chooseActive(std::span<const PlanRow> rows, const float *logits,
                    const StepOutputs &outputs) const;
  void noteCollapses(StepStats &stats);
  Status movePages(int32_t history, int32_t place, MoveDirection direction);

  // Far history, in SessionFarHistory.cpp. Without it nothing is done.
  Status createFarHistory(const SessionShape &shape);
  PlanRow planRow(int32_t slot, int32_t position, int32_t count) const;
  int64_t farPagesNeeded(int32_t slot, int32_t tokens) const;
  bool hasRoomFor(std::span<const AppendRequest> appends, int64_t growth);
  int32_t pagesToCollapse(int32_t slot) const;
  Status collapse(int32_t slot);
  Status collapsePages(int32_t slot, int32_t count, bool isFirst,
                       int32_t &done);
  int32_t tokensBeforeCollapse(int32_t slot, int32_t tokens) const;
  Status checkTrim(int32_t slot, int32_t newLength) const;
  Status checkShare(int32_t target, int32_t source, int32_t tokens) const;

  DecoderShape bounds;
  std::unique_ptr<Backend> runner;
  std::optional<BlockPager> pager;
  std::optional<BlockPager> parking; ///< pages of parking memory
  std::optional<FarHistory> far;
  std::vector<int32_t> farDrops;   ///< [pages] scratch, zero between
  std::vector<int32_t> parkedPast; ///< [places] tokens that were dropped
  /// Since the last step that ran.
  int32_t collapsedPages = 0;
  int64_t collapseNanoseconds = 0;
  std::array<Entry, plannedEntries> entries;
  /// [slots][vocabulary], of a backend that cannot do without.
  std::vector<float> spareLogits;
  StepsAhead ahead;
  std::vector<AppendRequest> requests;
  std::vector<PageRun> runs; ///< of movePages()
  std::vector<PageCopy> copies;
  StepStats last;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_SESSION_H
