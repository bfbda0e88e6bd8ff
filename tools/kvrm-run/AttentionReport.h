//===- AttentionReport.h - What bench attention prints ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_ATTENTIONREPORT_H
#define KVRM_TOOLS_RUN_ATTENTIONREPORT_H

#include "AttentionBench.h"

#include <nlohmann/json.hpp>

namespace kvrm::run {

/// What was measured, an object each.
struct AttentionReport {
  nlohmann::json rows = nlohmann::json::array();    ///< by measureRow()
  nlohmann::json serving = nlohmann::json::array(); ///< by measureServing()

  /// Prints one JSON object, with what was measured on.
  void printJson(const AttentionBench &bench) const;
  /// Prints a table of the rows and one of the serving, if there are any.
  void printTables(const AttentionBench &bench) const;
};

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONREPORT_H
