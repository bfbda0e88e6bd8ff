//===- Options.h - What a replay does ---------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Messages of this library name the options of `kvrm-run replay`, as those are
// what a user can change.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_OPTIONS_H
#define KVRM_TOOLS_REPLAY_OPTIONS_H

#include "kvrm/runtime/serving/Engine.h"
#include "kvrm/runtime/session/CreateDecoder.h"
#include "kvrm/trace/Trace.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kvrm::replay {

/// 0 and empty are "not given" where nothing else is said.
struct Options {
  std::string package;   ///< the paged one
  SessionConfig session; ///< of the mode kvrm; others have threads and shares
  EngineConfig engine;   ///< of all modes, but that only kvrm shares prefixes
  std::string trace;     ///< file or synthetic:...
  TraceFormat format = TraceFormat::Auto;
  std::vector<std::string> modes; ///< empty = all that have packages
  std::string staticPackage;
  std::vector<std::string> buckets;
  double duration = 0; ///< seconds of trace time
  int32_t requests = 0;
  double timeScale = 1;
  double load = 0; ///< of what kvrm serves when saturated
  bool isSaturated = false;
  double limitSeconds = 0; ///< of a mode
  double kvBudgetMebibytes = 0;
  int32_t maxPrompt = 0;
  double lengthScale = 1;
  double overload = 0;
  double overloadSeconds = 0;
  int64_t verify = 0; ///< requests to run again alone
  uint64_t seed = 1;
  double warmupSeconds = 3;

  int64_t kvBudgetBytes() const {
    return static_cast<int64_t>(kvBudgetMebibytes * (1 << 20));
  }
};

/// Checks each value, and those that go together or exclude each other.
/// Errors: InvalidArgument.
Status checkOptions(const Options &options);

/// "cheaper", "park" or "recompute".
const char *preemptionName(PreemptionPolicy policy);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_OPTIONS_H
