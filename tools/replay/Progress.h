//===- Progress.h - How far a replay is -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_PROGRESS_H
#define KVRM_TOOLS_REPLAY_PROGRESS_H

#include "Metrics.h"
#include "Workload.h"

#include <string>

namespace kvrm::replay {

/// A run between two rounds.
struct RunProgress {
  const std::string &label;
  const Workload &work;
  const ModeResult &result;
  const EngineStats &stats;
  bool isSaturated = false;
  double seconds = 0;
  double heldShare = 0; ///< of KV memory, what histories hold
};

/// Told how far a replay is.
class ProgressObserver {
public:
  virtual ~ProgressObserver() = default;
  virtual void onWarmUp(const std::string & /*label*/) {}
  virtual void onRound(const RunProgress &) {}
  virtual void onVerify(int64_t /*done*/, int64_t /*all*/) {}
  /// Of a run, or of the verification.
  virtual void onEnd() {}
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_PROGRESS_H
