//===- CalibrationFuzzer.cpp - Constants of the schedule policy -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/paging/Calibration.h"

#include <cmath>

using namespace kvrm;

/// Every prediction of a policy with constants from a file is a time.
static void checkPredictions(const PolicyShape &shape,
                             const ScheduleCosts &costs) {
  constexpr int32_t rows = 8;
  Expected<SchedulePolicy> policy = SchedulePolicy::create(shape, costs, rows);
  fuzz::check(bool(policy), "constants of a file are in range",
              policy.status().message());
  static constexpr int32_t batches[][rows] = {
      {},
      {1},
      {4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096},
      {1 << 24, 1, 0, 7, 1 << 20, 0, 3, 100},
      {1 << 28, 1 << 28, 1 << 28, 1 << 28, 1 << 28, 1 << 28, 1 << 28, 1 << 28},
  };
  for (const auto &lengths : batches) {
    int32_t chosen = policy->choose(lengths);
    auto checkTime = [&](int32_t schedule) {
      double us = policy->predict(schedule, lengths);
      fuzz::check(std::isfinite(us) && us >= 0, "a prediction is a time",
                  std::to_string(us));
    };
    checkTime(SchedulePolicy::workqueue);
    bool isKnown = chosen == SchedulePolicy::workqueue;
    for (const ClusterCost &cost : costs.clusters) {
      checkTime(cost.blocks);
      isKnown |= chosen == cost.blocks;
    }
    fuzz::check(isKnown, "a schedule is chosen that there are constants for");
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Expected<Calibration> parsed =
      parseCalibration(fuzz::textOf(data, size), "calibration.json");
  if (!parsed) {
    fuzz::checkFailure(parsed.status());
    return 0;
  }
  for (const ScheduleCosts &costs : parsed->settings)
    checkPredictions(parsed->shape, costs);
  // Writing rounds numbers; what was written is then read as it is.
  std::string written = formatCalibration(*parsed);
  Expected<Calibration> again = parseCalibration(written, "written.json");
  fuzz::check(bool(again), "what was written can be read",
              again.status().message());
  fuzz::check(formatCalibration(*again) == written,
              "what was read is written the same", written);
  if (Status status =
          again->check("written.json", parsed->device, parsed->shape);
      !status.isOk())
    fuzz::check(false, "shapes are written exactly", status.message());
  return 0;
}
