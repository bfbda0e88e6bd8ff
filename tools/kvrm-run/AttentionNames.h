//===- AttentionNames.h - Names of schedules and pools ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_ATTENTIONNAMES_H
#define KVRM_TOOLS_RUN_ATTENTIONNAMES_H

#include "kvrm/runtime/attention/AttentionStep.h"
#include "kvrm/runtime/support/Status.h"

#include <string>
#include <string_view>
#include <vector>

namespace kvrm::run {

/// Where the pages of histories lie.
enum class PoolState {
  Fresh,    ///< as the pager gives them out in an empty pool: long runs
  Holes,    ///< in what is left of a pool of which half is taken at random
  Scattered ///< in random order
};
/// Errors: InvalidArgument, naming --pages.
Expected<PoolState> poolStateOf(std::string_view name);
const char *nameOf(PoolState state);

/// The work queue, clusters by size, and staged, the last.
std::vector<CudaSchedule> allSchedules();
/// "workqueue", "cluster4" or "staged".
std::string nameOf(CudaSchedule schedule);
/// Errors: InvalidArgument, naming --schedules.
Expected<CudaSchedule> scheduleOf(std::string_view name);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONNAMES_H
