//===- CalibrationFit.h - Constants from measured times ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Fits the model of SchedulePolicy.h to times that were measured.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_CALIBRATIONFIT_H
#define KVRM_TOOLS_RUN_CALIBRATIONFIT_H

#include "kvrm/runtime/paging/SchedulePolicy.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <span>
#include <vector>

namespace kvrm::run {

/// A batch and what a launch of it took.
struct CostSample {
  std::vector<int32_t> lengths;
  double us = 0;
};

/// The constants, none negative, that come closest to the samples by relative
/// error, squared and summed. Errors: InvalidArgument for fewer samples than
/// constants.
Expected<WorkqueueCost> fitWorkqueue(const PolicyShape &shape, int32_t shares,
                                     int32_t itemCost,
                                     std::span<const CostSample> samples);
Expected<ClusterCost> fitCluster(const PolicyShape &shape, int32_t blocks,
                                 int32_t atOnce,
                                 std::span<const CostSample> samples);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_CALIBRATIONFIT_H
