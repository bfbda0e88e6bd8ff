//===- Session.h - A model with its KV, one step at a time ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A session is one package with its KV: a fixed number of slots, each the
// history of one request, and two calls that extend histories: prefill() for
// many tokens of one slot, decode() for one token of any slots. Paged and
// static packages behave the same, so that a caller need not know which it
// runs:
//
//   paged   pager, planner, one committed descriptor a step (KV-RM, arXiv
//           2605.09735); KV is taken page by page from a common pool
//   static  K and V reserved for slots x capacity, the baseline
//
// Every call checks its arguments before it changes anything, and a failed one
// leaves the session as it was, but that pages collapsed for it stay collapsed
// (see trim()). No call allocates once create() is done, unless to word an
// error. A session is used by one thread at a time.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_SESSION_H
#define KVRM_RUNTIME_SESSION_SESSION_H

#include "kvrm/runtime/host/HostBackend.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/paging/FarHistory.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace kvrm {

struct SessionConfig {
  /// Pages of the pool; 0 = slots x pages a slot, with which no request can run
  /// out. Static packages ignore it.
  int64_t poolPages = 0;
  /// Worker threads, the caller among them; 0 = one a usable CPU.
  int32_t threads = 0;
  /// Shares that the work queue is cut into; 0 = one a worker.
  int32_t shares = 0;
  /// Histories besides the slots' that can be kept in the pool. Paged only.
  int32_t keptHistories = 0;
  /// Histories that can be parked in host memory at a time, and the pages that
  /// they have there together. Paged only.
  int32_t parkingPlaces = 0;
  int64_t parkingPages = 0;
};

class Session final : public Decoder {
public:
  /// Takes all memory of a session and starts its workers. Errors:
  /// InvalidArgument, ResourceExhausted.
  static Expected<std::unique_ptr<Session>>
  create(std::shared_ptr<const Package> package, const SessionConfig &config);

  const DecoderShape &shape() const override { return bounds; }
  Status prefill(int32_t slot, std::span<const int32_t> tokens,
                 float *logits) override;
  Status decode(std::span<const int32_t> tokens, float *logits) override;
  void expect(int32_t slot, int32_t tokens) override;
  Status release(int32_t history) override;
  Status alias(int32_t target, int32_t source, int32_t tokens) override;
  Status park(int32_t slot, int32_t place) override;
  Status unpark(int32_t place, int32_t slot) override;
  Status discard(int32_t place) override;
  int32_t length(int32_t history) const override;
  int32_t pagesNeeded(int32_t slot, int32_t tokens) const override;
  int32_t freePages() const override { return pager ? pager->freePages() : 0; }
  int64_t reservedKvBytes() const override { return reservedBytes; }
  int64_t liveKvBytes() const override;
  int64_t tokenKvBytes() const override;
  const StepStats &lastStep() const override { return last; }

  /// Cuts a history to its first `length` tokens. With far history pages
  /// collapse when tokens are appended, no more than those tokens need, and
  /// nothing brings them back: a length before the exact tokens is refused,
  /// unless it is 0. When a prefill of several chunks fails, that is also how
  /// far its tokens can be cut off again. alias() refuses a source whose far
  /// history has collapsed: its first tokens are not there.
  Status trim(int32_t history, int32_t length);
  /// Makes the empty `slot` of this static session a copy of the same slot of
  /// `source`, a static session of the same model with another capacity.
  Status copyHistory(const Session &source, int32_t slot);

  int32_t slots() const { return bounds.slots; }
  int32_t capacity() const { return bounds.capacity; }
  int32_t vocabulary() const { return bounds.vocabulary; }
  int32_t poolPages() const { return bounds.poolPages; }
  const Manifest &manifest() const { return package->manifest(); }
  int32_t workers() const { return backend->workers(); }
  /// For tests and tools.
  HostBackend &host() { return *backend; }
  const BlockPager *blockPager() const { return pager ? &*pager : nullptr; }
  const FarHistory *farHistory() const { return far ? &*far : nullptr; }

private:
  /// An entry point with what its steps need.
  struct Entry {
    const EntryInfo *info = nullptr;
    kvrm_step_fn fn = nullptr;
    std::optional<Planner> planner;
    std::optional<StepDescriptor> descriptor;
    std::vector<PlanRow> rows;
    std::vector<int32_t> tokens; ///< [rows][queries]
    // Static packages:
    std::vector<int32_t> positions;
    std::vector<int32_t> counts;
    std::vector<int32_t> slots;
  };

  Session() = default;

  Status createEntry(Entry &entry, const EntryInfo &info, kvrm_step_fn fn,
                     int32_t shares);
  Status checkSlot(int32_t slot) const;
  Status checkHistory(int32_t history) const;
  Status checkPlace(int32_t place, bool isTaken) const;
  void movePages(int32_t history, int32_t place, bool parks);
  Status checkToken(int32_t token, int32_t slot) const;
  Status exhausted(int64_t needed) const;

  // Far history, in SessionFarHistory.cpp. Without it nothing is done.
  Status createFarHistory();
  PlanRow planRow(int32_t slot, int32_t position, int32_t count) const;
  int64_t farPagesNeeded(int32_t slot, int32_t tokens) const;
  /// Collapses what must before each request can be appended. Errors:
  /// ResourceExhausted if the requests do not fit after it; then nothing is.
  Status collapseFor(std::span<const AppendRequest> appends);
  void collapse(int32_t slot);
  int32_t tokensBeforeCollapse(int32_t slot, int32_t tokens) const;
  Status checkTrim(int32_t slot, int32_t newLength) const;
  Status checkShare(int32_t target, int32_t source) const;

  Status runEntry(Entry &entry, float *logits);
  int64_t staticTokenBytes() const;
  int64_t staticOffset(int64_t layer, int32_t slot, int64_t head) const;

  std::shared_ptr<const Package> package;
  DecoderShape bounds;
  std::unique_ptr<HostBackend> backend;
  std::optional<BlockPager> pager;
  std::optional<BlockPager> parking; ///< pages of host memory
  std::optional<FarHistory> far;
  std::vector<int32_t> farDrops; ///< [pages] scratch, zero between
  /// Since the last step that ran.
  int32_t collapsedPages = 0;
  int64_t collapseNanoseconds = 0;
  std::vector<int32_t> staticLengths;
  AlignedBuffer kCache;
  AlignedBuffer vCache;
  AlignedBuffer arena;
  AlignedBuffer spareLogits;
  Entry decodeEntry;
  Entry prefillEntry;
  std::vector<AppendRequest> requests;
  std::vector<PageCopy> copies;
  int64_t reservedBytes = 0;
  StepStats last;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_SESSION_H
