//===- Workload.h - Requests that a replay submits --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A slice of a trace, fitted to a model: lengths scaled and clipped, arrivals
// scaled, and tokens made up. Token i of a prompt is a hash of the seed, the
// request and i; where a trace says which blocks of prompts are equal, it is a
// hash of the seed, the block's id and i, so that equal blocks have equal
// tokens.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_WORKLOAD_H
#define KVRM_TOOLS_REPLAY_WORKLOAD_H

#include "Options.h"

namespace kvrm::replay {

struct WorkItem {
  int64_t arrival = 0; ///< of the trace, nanoseconds
  int64_t due = 0;     ///< of the replay, nanoseconds
  int32_t promptTokens = 0;
  int32_t outputTokens = 0;
};

/// What the decoders of a replay can take.
struct WorkLimits {
  int32_t capacity = 0;
  int32_t vocabulary = 0;
};

class Workload {
public:
  /// Errors: those of loadTrace().
  static Expected<Workload> create(const Options &options,
                                   const WorkLimits &limits);

  /// Sets when requests are due: arrivals times `timeScale`, and from a third
  /// of that on, `overloadSeconds` in which they are `overload` times as dense.
  void schedule(double timeScale, double overload, double overloadSeconds);

  std::vector<int32_t> promptOf(size_t item) const;

  const Trace &source() const { return trace; }
  /// Length of the slice: to the last arrival, and a mean gap after it.
  double sliceSeconds() const;
  /// Of the replay, as scheduled.
  double scheduledSeconds() const;

  std::vector<WorkItem> items;
  int64_t promptTokens = 0;
  int64_t outputTokens = 0;
  int64_t clipped = 0; ///< requests that the decoders or --max-prompt cut
  int64_t clippedTokens = 0;
  // When arrivals are denser, of the replay; equal = never.
  double overloadBegin = 0;
  double overloadEnd = 0;

private:
  void add(const TraceRequest &request, const Options &options,
           const WorkLimits &limits);

  Trace trace;
  uint64_t seed = 0;
  int32_t vocabulary = 0;
  int32_t blockTokens = 0; ///< scaled
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_WORKLOAD_H
