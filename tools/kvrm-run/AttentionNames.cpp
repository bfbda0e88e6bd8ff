//===- AttentionNames.cpp - Names of schedules and pools ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionNames.h"

#include "kvrm/runtime/paging/SchedulePolicy.h"

using namespace kvrm;
using namespace kvrm::run;

Expected<PoolState> run::poolStateOf(std::string_view name) {
  for (PoolState state :
       {PoolState::Fresh, PoolState::Holes, PoolState::Scattered})
    if (name == nameOf(state))
      return state;
  return invalidArgument("--pages: '", name,
                         "' is not one of fresh, holes, scattered");
}

const char *run::nameOf(PoolState state) {
  switch (state) {
  case PoolState::Fresh:
    return "fresh";
  case PoolState::Holes:
    return "holes";
  case PoolState::Scattered:
    return "scattered";
  }
  return "";
}

std::vector<CudaSchedule> run::allSchedules() {
  std::vector<CudaSchedule> all = {CudaSchedule::workqueue()};
  for (int32_t blocks : CostLimits::clusterSizes)
    all.push_back(CudaSchedule::clusters(blocks));
  all.push_back(CudaSchedule::staged());
  return all;
}

std::string run::nameOf(CudaSchedule schedule) {
  if (schedule.isStaged)
    return "staged";
  return schedule.cluster == 0 ? "workqueue"
                               : "cluster" + std::to_string(schedule.cluster);
}

Expected<CudaSchedule> run::scheduleOf(std::string_view name) {
  std::string known = "all";
  for (CudaSchedule schedule : allSchedules()) {
    std::string candidate = nameOf(schedule);
    if (candidate == name)
      return schedule;
    known += ", " + candidate;
  }
  return invalidArgument("--schedules: '", name, "' is not one of ", known);
}
