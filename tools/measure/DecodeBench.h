//===- DecodeBench.h - Times of decode steps --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_MEASURE_DECODEBENCH_H
#define KVRM_TOOLS_MEASURE_DECODEBENCH_H

#include "kvrm/runtime/session/Decoder.h"

#include <random>
#include <vector>

namespace kvrm::measure {

struct DecodeBenchOptions {
  int32_t active = 1;    ///< slots that decode, the first ones
  int32_t steps = 50;    ///< that are timed
  int32_t warmup = 5;    ///< before those
  bool isRagged = false; ///< histories are spread evenly over 1..context
  /// Of the active slots, instead of one context for all; empty = none.
  // Set, so that initializers may leave it out.
  // NOLINTNEXTLINE(readability-redundant-member-init)
  std::vector<int32_t> lengths = {};
  uint64_t seed = 1; ///< of the tokens
};

/// Slots at one context.
struct Measurement {
  int32_t context = 0;
  int64_t prefillTokens = 0;
  int64_t prefillNanoseconds = 0;
  // One value a step. If the session runs ahead, a step takes from when the one
  // before it had ended until it has, and the host's time is what it takes to
  // plan, commit and launch one meanwhile; else that is not known apart.
  std::vector<int64_t> stepNanoseconds;
  std::vector<int64_t> hostNanoseconds;
  std::vector<int64_t> planNanoseconds;
  std::vector<int64_t> commitNanoseconds;
  std::vector<int64_t> commitBytes;
  std::vector<int64_t> attendNanoseconds;
  StepStats last;
  int64_t liveBytes = 0; ///< of KV, at the end
  /// Of a decoder with a mixed step and an idle slot: steps that compute the
  /// first chunk of a prompt too, and that chunk alone.
  int32_t chunkTokens = 0;
  std::vector<int64_t> mixedNanoseconds;
  std::vector<int64_t> chunkNanoseconds;
};

/// Times decode steps of a session whose slots have histories of a length.
class DecodeBench {
public:
  /// The session must outlive it and be its own.
  DecodeBench(Decoder &session, const DecodeBenchOptions &options);

  /// Brings histories to `context`, growing those that are there, and steps
  /// from there. Errors: the session's.
  Expected<Measurement> measure(int32_t context);

private:
  Status fillSlot(int32_t slot, Measurement &out);
  Status step();
  Status stepPatiently(Measurement &out);
  Status stepAhead(Measurement &out);
  void note(Measurement &out) const;
  void drawTokens();
  Status measureMixed(Measurement &out);
  int32_t randomToken();

  Decoder &session;
  DecodeBenchOptions options;
  std::mt19937_64 random;
  std::vector<int32_t> tokens;         ///< [slots]
  std::vector<kvrm_sampling> sampling; ///< [slots + 1], greedy
  std::vector<int32_t> next;           ///< [slots + 1]
};

} // namespace kvrm::measure

#endif // KVRM_TOOLS_MEASURE_DECODEBENCH_H
