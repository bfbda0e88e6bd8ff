//===- Session.h - A model with its KV, one step at a time ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A session is one package with its KV: a fixed number of slots, each the
// history of one request, and three calls that extend histories: prefill() for
// many tokens of one slot, decode() for one token of any slots. Paged and
// static packages behave the same, so that a caller need not know which it
// runs:
//
//   paged   pager, planner, one committed descriptor a step (KV-RM, arXiv
//           2605.09735); KV is taken page by page from a common pool
//   static  K and V reserved for slots x capacity, the baseline
//
// Every call checks its arguments before it changes anything, and a failed one
// leaves the session as it was. No call allocates once create() is done, unless
// to word an error. A session is used by one thread at a time.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_H
#define KVRM_RUNTIME_SESSION_H

#include "kvrm/runtime/BlockPager.h"
#include "kvrm/runtime/HostBackend.h"
#include "kvrm/runtime/Package.h"
#include "kvrm/runtime/Planner.h"
#include "kvrm/runtime/Status.h"
#include "kvrm/runtime/StepDescriptor.h"

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
};

/// What the last successful step did. A prefill of several chunks is several
/// steps: counts are of the last, sums are over all.
struct StepStats {
  int32_t activeRows = 0;
  int64_t pages = 0;             ///< pages of the active rows' histories
  int32_t groups = 0;            ///< transfer groups, maximal runs of pages
  int32_t items = 0;             ///< work items a layer
  int32_t segments = 0;          ///< merges a layer
  int64_t tiles = 0;             ///< KV tiles a layer
  int32_t pageCopies = 0;        ///< copy-on-write pages (sum)
  int32_t steps = 0;             ///< calls of compiled code (sum)
  int64_t committedBytes = 0;    ///< (sum)
  int64_t stageCopies = 0;       ///< memcpy runs into staging tiles (sum)
  int64_t stageBytes = 0;        ///< (sum)
  int64_t planNanoseconds = 0;   ///< (sum)
  int64_t commitNanoseconds = 0; ///< (sum)
  int64_t attendNanoseconds = 0; ///< (sum)
  int64_t stepNanoseconds = 0;   ///< whole call, pager to logits (sum)
};

class Session {
public:
  /// Takes all memory of a session and starts its workers. Errors:
  /// InvalidArgument, ResourceExhausted.
  static Expected<std::unique_ptr<Session>>
  create(std::shared_ptr<const Package> package, const SessionConfig &config);

  /// Appends `tokens` (one or more) to the history of `slot` and computes the
  /// logits of the last, vocabulary floats; `logits` may be null. Errors:
  /// InvalidArgument, ResourceExhausted when the pool has too few free pages.
  Status prefill(int32_t slot, std::span<const int32_t> tokens, float *logits);

  /// One decode step: `tokens` has one token a slot, -1 for an idle one.
  /// `logits` is [slots][vocabulary]; rows of idle slots mean nothing. With all
  /// slots idle nothing is done. Errors as for prefill().
  Status decode(std::span<const int32_t> tokens, float *logits);

  /// Forgets the history of a slot and frees its pages.
  Status release(int32_t slot);
  /// Makes the empty slot `target` start with the first `tokens` tokens of
  /// `source`; pages are shared until one of them is written.
  Status alias(int32_t target, int32_t source, int32_t tokens);
  /// Cuts the history of `slot` to its first `length` tokens.
  Status trim(int32_t slot, int32_t length);

  /// Tokens in the history of `slot`, which must be in 0..slots-1.
  int32_t length(int32_t slot) const;
  int32_t slots() const { return manifest().slots; }
  int32_t capacity() const { return manifest().capacity; }
  int32_t vocabulary() const { return manifest().vocabulary; }
  /// Pages that prefill(slot, n tokens) or decode would take now (0 for a
  /// static package).
  int32_t pagesNeeded(int32_t slot, int32_t tokens) const;
  int32_t freePages() const { return pager ? pager->freePages() : 0; }
  int32_t poolPages() const { return pager ? pager->limits().pages : 0; }

  /// Bytes of KV memory that the session holds, and those in use by histories.
  int64_t reservedKvBytes() const { return reservedBytes; }
  int64_t liveKvBytes() const;

  const StepStats &lastStep() const { return last; }
  const Manifest &manifest() const { return package->manifest(); }
  int32_t workers() const { return backend->workers(); }
  /// For tests and tools.
  HostBackend &host() { return *backend; }
  const BlockPager *blockPager() const { return pager ? &*pager : nullptr; }

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
  Status checkToken(int32_t token, int32_t slot) const;
  Status exhausted(int64_t needed) const;
  Status runEntry(Entry &entry, float *logits);
  int64_t staticTokenBytes() const;
  uint8_t *staticRows(uint8_t *cache, int64_t layer, int32_t slot,
                      int64_t head) const;

  std::shared_ptr<const Package> package;
  std::unique_ptr<HostBackend> backend;
  std::optional<BlockPager> pager;
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

#endif // KVRM_RUNTIME_SESSION_H
