//===- Backend.h - What runs the steps of a session -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A session decides, a backend does. The session owns pagers, planners and
// descriptors, all of them host memory; the backend owns what they talk about:
// the KV pool, parking memory, weights, compiled code and the machine that runs
// it. A backend knows pages by their number alone, and neither slots nor
// histories.
//
// Ownership. What a call is given belongs to the caller and is used until the
// call returns, but for step descriptors: each batch has one for life, which
// outlives the backend's last call.
//
// Order. Calls come from one thread at a time, and each takes effect as if it
// ended before the next began. A backend may start work and return; runStep()
// returns when what it was asked for is there, unless it is asked for later.
//
// Errors. Every call can fail. What a failed call was to write holds anything
// then; all else is as before: pages that it was to read, and pages that it was
// not told of. So the session can take back what it planned and go on, and the
// same call may be made again. A device that is lost fails every later call.
// Arguments are checked by the session; a backend may assert them.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_BACKEND_H
#define KVRM_RUNTIME_SESSION_BACKEND_H

#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/paging/FarHistory.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kvrm {

/// The entry points of a decoder.
enum class StepEntry : int32_t {
  Decode = 0,  ///< one token of each row
  Prefill = 1, ///< several tokens of one row
  Mixed = 2,   ///< both at once; its batches are those of the two others
};
inline constexpr size_t stepEntries = 3;
/// Those with a batch, and so with a plan and a descriptor, of their own.
inline constexpr size_t plannedEntries = 2;

/// What a backend is, fixed for its life.
struct BackendInfo {
  struct Entry {
    /// Parts that a plan's work is cut into: workers, or blocks of a grid.
    int32_t shares = 1;
    /// Schedules that a step can run with, as SchedulePolicy.h names them; the
    /// work queue, which is always right, is among them.
    std::vector<int32_t> schedules = {0};
  };

  std::string device; ///< the machine, as a calibration names it
  int32_t pages = 0;  ///< of the pool
  int32_t parkingPages = 0;
  int64_t pageBytes = 0;      ///< of a page: all layers, K and V, all heads
  bool canCollapse = false;   ///< collapsePage() is there
  bool choosesTokens = false; ///< BackendStep::next may be wanted
  bool overlapsSteps = false; ///< programmatic dependent launch
  /// Steps that may be under way when another is started: BackendStep::isLater
  /// and fed tokens are there unless it is 0.
  int32_t stepsAhead = 0;
  bool mixes = false; ///< StepEntry::Mixed is there, as a work queue
  /// What runs products with weights that a library could: its name and
  /// version, or "generated" for kernels of the package. Empty without such.
  std::string products;
  std::array<Entry, plannedEntries> entries;
};

/// A run of pages that are adjacent in the pool and in parking memory.
struct PageRun {
  int32_t poolPage = 0;
  int32_t parkingPage = 0;
  int32_t pages = 0;
};

enum class MoveDirection : int32_t { ToParking, FromParking };

/// A page of tokens that becomes summary entries; see FarHistory.h.
struct PageCollapse {
  int32_t source = -1; ///< whose tokens the writes name
  /// In this order. Entry e is token e % page_tokens of page
  /// `summaries[e / page_tokens]`.
  std::span<const SummaryWrite> writes;
  std::span<const int32_t> summaries; ///< pages
  bool isFirst = false; ///< the summary pages hold nothing yet: zero them first
};

/// One step to run.
struct BackendStep {
  StepEntry entry = StepEntry::Decode;
  /// One a batch, planned, the tokens too. The backend commits each, once,
  /// before anything reads it; if that fails, the next commit makes up for it.
  std::span<StepDescriptor *const> descriptors;
  int32_t schedule = 0; ///< one of the entry's
  /// [rows of all batches][vocabulary], host memory. May be null if the backend
  /// chooses tokens.
  float *logits = nullptr;
  /// [rows of all batches], host memory: the token that follows each row,
  /// chosen as the descriptor's sampling says, -1 if no logit is finite. Null =
  /// not wanted; always, if the backend chooses none.
  int32_t *next = nullptr;
  /// runStep() returns when the step is started, and awaitStep() has the
  /// tokens; `logits` and `next` are null.
  bool isLater = false;
};

/// What one step moved.
struct BackendStats {
  int64_t committedBytes = 0;
  int64_t commitNanoseconds = 0;
  int64_t stageCopies = 0; ///< runs of pages copied before attention
  int64_t stageBytes = 0;
  int64_t attendNanoseconds = 0; ///< in attention, all layers; 0 = not measured
};

class Backend {
public:
  virtual ~Backend() = default;
  Backend(const Backend &) = delete;
  Backend &operator=(const Backend &) = delete;

  virtual const BackendInfo &info() const = 0;

  /// Copies a page in all layers, K and V, all heads.
  virtual Status copyPage(const PageCopy &copy) = 0;

  /// Copies runs of pages from the pool to parking memory, or back. No page is
  /// in two of them.
  virtual Status movePages(std::span<const PageRun> runs,
                           MoveDirection direction) = 0;

  /// Writes the entries that a page becomes; info().canCollapse says whether a
  /// backend can. Entries are merged in place, so this call is all or nothing:
  /// one that fails has written none.
  virtual Status collapsePage(const PageCollapse &collapse) = 0;

  /// Runs one step: commits its descriptors, appends K and V of the new tokens
  /// to the pages that they name, and writes what is wanted of each row's last
  /// token: its logits, the token that follows. Rows that are idle have none.
  /// `stats` is set if the step succeeds.
  virtual Status runStep(const BackendStep &step, BackendStats &stats) = 0;

  /// Waits for the first step that was started for later and not waited for,
  /// and writes the tokens that it chose, [rows of all batches], to `next`. If
  /// it fails, so have all started after it, and none is to be waited for.
  virtual Status awaitStep(std::span<int32_t> /*next*/) {
    KVRM_CHECK(info().stepsAhead == 0, "who starts steps is awaited");
    return makeError(StatusCode::Incompatible, "no step is under way");
  }

protected:
  Backend() = default;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_BACKEND_H
