//===- ReplaySummary.h - A replay as a table --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_REPLAYSUMMARY_H
#define KVRM_TOOLS_RUN_REPLAYSUMMARY_H

#include "replay/Report.h"

namespace kvrm::run {

/// Prints a table, modes side by side.
void printSummary(const replay::Report &report);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_REPLAYSUMMARY_H
