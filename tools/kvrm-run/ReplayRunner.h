//===- ReplayRunner.h - One mode serves a workload --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Open loop: a request is submitted when it is due, whatever the engine does.
// Between two rounds all that came due is submitted; with nothing to do, the
// runner sleeps until the next is due. What the queue refuses is counted and
// not tried again. Saturated, requests are submitted as fast as the queue takes
// them, and a request is due when it is submitted.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_REPLAYRUNNER_H
#define KVRM_TOOLS_RUN_REPLAYRUNNER_H

#include "ReplayModes.h"
#include "ReplayTimeline.h"
#include "ReplayWorkload.h"

namespace kvrm::run {

struct RunSettings {
  EngineConfig engine;
  bool isSaturated = false;
  bool keepsTokens = false; ///< for a later verification
  double limitSeconds = 0;  ///< 0 = none
  int32_t pageTokens = 0;   ///< of the paged mode
  bool showsLine = false;   ///< a line on a terminal, drawn again and again
  bool tellsLines = false;  ///< a line every ten seconds
  std::string label;
  Timeline *timeline = nullptr;
};

/// Errors: what the engine returns, and Internal when nothing moves any more.
Expected<ModeResult> runWorkload(const ModeSpec &mode, ModeDecoder &decoder,
                                 const Workload &work,
                                 const RunSettings &settings);

/// Runs requests one by one, each alone on a fresh engine, and compares their
/// tokens with `tokens`.
struct Verification {
  int64_t requests = 0;
  int64_t mismatches = 0;
  std::string first; ///< where the first one differs
};
Expected<Verification>
verifyTokens(Decoder &decoder, const Workload &work,
             const std::vector<std::vector<int32_t>> &tokens, int64_t count,
             const RunSettings &settings);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_REPLAYRUNNER_H
