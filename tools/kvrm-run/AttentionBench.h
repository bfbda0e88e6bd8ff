//===- AttentionBench.h - What bench attention measures ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_ATTENTIONBENCH_H
#define KVRM_TOOLS_RUN_ATTENTIONBENCH_H

#include "AttentionCases.h"
#include "AttentionRig.h"
#include "Commands.h"

#include "kvrm/runtime/paging/Calibration.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace kvrm::run {

/// What the command line asks for, checked.
struct AttentionBenchPlan {
  std::vector<AttentionCase> rows;
  std::vector<AttentionCase> serving;
  std::vector<CudaSchedule> schedules; ///< empty = all that there are
  std::vector<bool> pdl;
  PoolState pages = PoolState::Scattered;

  bool wants(CudaSchedule schedule) const;
};

/// What all that is measured shares. Whatever it refers to outlives it.
class AttentionBench {
public:
  /// Without a calibration the policy takes the work queue always.
  AttentionBench(AttentionLab &lab, const AttentionBenchOptions &options,
                 const AttentionBenchPlan &plan, const Calibration *calibration)
      : lab(lab), options(options), plan(plan), calibration(calibration) {}

  AttentionLab &lab;
  const AttentionBenchOptions &options;
  const AttentionBenchPlan &plan;
  const Calibration *const calibration;

  /// Tells on standard error, if asked to, what is measured next.
  void progress(const std::string &name) const;
  /// A batch and what it attends with, as JSON.
  nlohmann::json describe(const AttentionCase &one) const;
  /// The time that memory alone takes for `bytes`.
  double floorUs(int64_t bytes) const;
  /// What was measured of schedules; null without.
  const ScheduleCosts *costs(bool usesPdl) const;
  /// Of schedules that `rig` can run.
  Expected<SchedulePolicy> policyFor(const AttentionRig &rig,
                                     bool usesPdl) const;
  /// Keeps the first error that is over the limit.
  void note(const std::string &what, CudaSchedule schedule,
            const ErrorStats &errors);
  /// What note() kept, Internal.
  Status firstError() const;

private:
  std::string overLimit;
};

/// A launch of each schedule on a batch, timed alone; what the policy takes;
/// and what planning and committing a step cost.
Expected<nlohmann::json> measureRow(AttentionBench &bench,
                                    const AttentionCase &one);

/// Whole steps of a batch that grows, timed from plan to end.
Expected<nlohmann::json> measureServing(AttentionBench &bench,
                                        const AttentionCase &one);

/// The median of a member, in microseconds.
double medianUs(const std::vector<StepTimes> &times,
                int64_t StepTimes::*member);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONBENCH_H
