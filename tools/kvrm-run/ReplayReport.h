//===- ReplayReport.h - A replay as a table and as JSON ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_REPLAYREPORT_H
#define KVRM_TOOLS_RUN_REPLAYREPORT_H

#include "ReplayModes.h"
#include "ReplayRunner.h"

#include <optional>

namespace kvrm::run {

/// All that a replay found out.
struct ReplayReport {
  ReplayOptions options;
  ModeSet set;
  int32_t threads = 0;
  double timeScale = 1;
  std::optional<ModeResult> saturation; ///< of kvrm, measured for --load
  std::vector<ModeResult> results;
  std::optional<Verification> verification;
};

/// A table, modes side by side.
void printSummary(const ReplayReport &report, const Workload &work);
/// One object; docs/replay.md has its fields.
std::string replayJson(const ReplayReport &report, const Workload &work);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_REPLAYREPORT_H
