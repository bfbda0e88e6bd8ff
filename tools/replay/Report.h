//===- Report.h - All that a replay found out -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_REPORT_H
#define KVRM_TOOLS_REPLAY_REPORT_H

#include "Metrics.h"
#include "Modes.h"
#include "Verification.h"
#include "Workload.h"

#include <optional>

namespace kvrm::replay {

struct Report {
  Options options;
  ModeSet set;
  Workload work;
  int32_t threads = 0;
  double timeScale = 1;
  std::optional<ModeResult> saturation; ///< of kvrm, measured for --load
  std::vector<ModeResult> results;
  std::optional<Verification> verification;
};

/// One object; docs/replay.md has its fields.
std::string toJson(const Report &report);

/// What makes a replay fail that came to its end: requests that failed, and
/// tokens that differ.
Status verdict(const Report &report);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_REPORT_H
