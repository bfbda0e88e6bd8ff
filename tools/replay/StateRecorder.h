//===- StateRecorder.h - KV memory and requests over time -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_STATERECORDER_H
#define KVRM_TOOLS_REPLAY_STATERECORDER_H

#include "Metrics.h"
#include "ModeDecoder.h"

#include <optional>

namespace kvrm::replay {

/// Follows the state of a run: peaks, means over time, and the series.
class StateRecorder {
public:
  /// `pageTokens` are those of the paged mode, whatever the mode.
  StateRecorder(ModeDecoder &mode, const Engine &engine, bool sharesPrefixes,
                int32_t pageTokens, ModeResult &result);

  /// A decode step was taken.
  void addStep(const StepStats &step);
  /// Looks at the state. The point that joined the series, if one did.
  std::optional<StatePoint> observe(double seconds);
  /// Writes the means.
  void finish();

  double heldShare() const; ///< of KV memory, when last looked at

private:
  KvUse use();
  void integrate(double seconds);
  StatePoint makePoint(double seconds);

  ModeDecoder &mode;
  const Engine &engine;
  bool countsShared;
  int64_t pageBytes;
  ModeResult &result;

  KvUse kv;
  int64_t poolBytes = 0;
  // Integrals over time.
  double poolSum = 0;
  double heldSum = 0;
  double liveSum = 0;
  double lastTime = 0;
  // Since the last point of the series.
  int64_t groups = 0;
  int64_t pages = 0;
  int64_t steps = 0;
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_STATERECORDER_H
