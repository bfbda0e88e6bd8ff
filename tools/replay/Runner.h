//===- Runner.h - One mode serves a workload --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Open loop: a request is submitted when it is due, whatever the engine does.
// Between two rounds all that came due is submitted; with nothing to do, the
// runner waits until the next is due. What the queue refuses is counted and
// not tried again. Saturated, requests are submitted as fast as the queue takes
// them, and a request is due when it is submitted.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_RUNNER_H
#define KVRM_TOOLS_REPLAY_RUNNER_H

#include "ModeDecoder.h"
#include "Progress.h"
#include "Timeline.h"

#include "kvrm/runtime/support/Clock.h"

namespace kvrm::replay {

/// A clock that can be waited on. Tests have one that waits in no time.
class WaitableClock : public Clock {
public:
  virtual void wait(int64_t nanoseconds) = 0;
};

/// The machine's.
class SteadyWaitableClock final : public WaitableClock {
public:
  int64_t now() const override { return clock.now(); }
  void wait(int64_t nanoseconds) override;

private:
  SteadyClock clock;
};

struct RunSettings {
  EngineConfig engine;
  bool isSaturated = false;
  bool keepsTokens = false; ///< for a later verification
  double limitSeconds = 0;  ///< 0 = none
  int32_t pageTokens = 0;   ///< of the paged mode
  std::string label;
  Timeline *timeline = nullptr;
  ProgressObserver *progress = nullptr;
};

/// Errors: what the engine returns, and Internal when nothing moves any more.
Expected<ModeResult> runWorkload(const ModeSpec &mode, ModeDecoder &decoder,
                                 const Workload &work,
                                 const RunSettings &settings,
                                 WaitableClock &clock);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_RUNNER_H
