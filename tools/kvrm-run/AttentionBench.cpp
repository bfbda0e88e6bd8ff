//===- AttentionBench.cpp - kvrm-run bench attention ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionBench.h"

#include "AttentionReport.h"

#include <algorithm>
#include <cstdio>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

static constexpr int32_t mostReplays = 10000;
static constexpr int32_t mostSteps = 100000;

//===----------------------------------------------------------------------===//
// AttentionBench
//===----------------------------------------------------------------------===//

bool AttentionBenchPlan::wants(CudaSchedule schedule) const {
  return schedules.empty() ||
         std::ranges::find(schedules, schedule) != schedules.end();
}

void AttentionBench::progress(const std::string &name) const {
  if (options.isVerbose)
    std::fprintf(stderr, "kvrm-run: %s ...\n", name.c_str());
}

json AttentionBench::describe(const AttentionCase &one) const {
  const AttentionInfo &m = lab.info();
  return {{"name", one.name},
          {"family", one.family},
          {"seed", one.seed},
          {"lengths", one.lengths},
          {"slots", one.lengths.size()},
          {"heads", m.heads},
          {"kv_heads", m.kvHeads},
          {"head_dim", m.headDim},
          {"page", m.pageTokens},
          {"pages", nameOf(plan.pages)}};
}

double AttentionBench::floorUs(int64_t bytes) const {
  return static_cast<double>(bytes) / (options.bandwidth * 1e3);
}

const ScheduleCosts *AttentionBench::costs(bool usesPdl) const {
  return calibration ? calibration->costs(usesPdl) : nullptr;
}

Expected<SchedulePolicy> AttentionBench::policyFor(const AttentionRig &rig,
                                                   bool usesPdl) const {
  const ScheduleCosts *measured = costs(usesPdl);
  if (!measured)
    return SchedulePolicy();
  ScheduleCosts usable = *measured;
  usable.workqueue.itemCost = rig.itemCost();
  std::erase_if(usable.clusters, [&](const ClusterCost &cost) {
    auto schedule = CudaSchedule::clusters(cost.blocks);
    return std::ranges::find(rig.schedules(), schedule) ==
           rig.schedules().end();
  });
  return SchedulePolicy::create(policyShapeOf(lab.info()), usable, rig.rows());
}

void AttentionBench::note(const std::string &what, CudaSchedule schedule,
                          const ErrorStats &errors) {
  kvrm_element element = lab.info().io;
  if (errors.isGood(element) || !overLimit.empty())
    return;
  overLimit = what + " " + nameOf(schedule) + ": ";
  if (errors.poisoned > 0) {
    overLimit += std::to_string(errors.poisoned) + " outputs are no numbers";
    return;
  }
  char text[160];
  std::snprintf(text, sizeof(text),
                "errors of %.3g at most and %.3g on average are over the "
                "limits %g and %g",
                errors.most, errors.mean(), ErrorStats::mostOf(element),
                ErrorStats::meanOf(element));
  overLimit += text;
}

Status AttentionBench::firstError() const {
  return overLimit.empty() ? Status::ok()
                           : makeError(StatusCode::Internal, overLimit);
}

double run::medianUs(const std::vector<StepTimes> &times,
                     int64_t StepTimes::*member) {
  std::vector<double> values;
  for (const StepTimes &time : times)
    values.push_back(static_cast<double>(time.*member) / 1e3);
  return median(std::move(values));
}

//===----------------------------------------------------------------------===//
// Options
//===----------------------------------------------------------------------===//

static Expected<AttentionBenchPlan>
planOf(const AttentionBenchOptions &options) {
  KVRM_TRY(checkRange("--steps", options.steps, 1, mostSteps));
  KVRM_TRY(checkRange("--replays", options.replays, 1, mostReplays));
  KVRM_TRY(
      checkRange("--item-cost", options.itemCost, -1, PlanShape::maxItemCost));
  if (!(options.bandwidth >= 1 && options.bandwidth <= 1e6))
    return invalidArgument("--bandwidth: ", std::to_string(options.bandwidth),
                           " is outside 1..1000000");
  AttentionBenchPlan plan;
  Expected<PoolState> pages = poolStateOf(options.pages);
  KVRM_TRY(pages.status());
  plan.pages = *pages;
  if (options.pdl == "both")
    plan.pdl = {true, false};
  else if (options.pdl == "on" || options.pdl == "off")
    plan.pdl = {options.pdl == "on"};
  else
    return invalidArgument("--pdl: '", options.pdl,
                           "' is not one of on, off, both");
  if (options.schedules != "all")
    for (const std::string &name : splitList(options.schedules)) {
      Expected<CudaSchedule> schedule = scheduleOf(name);
      KVRM_TRY(schedule.status());
      plan.schedules.push_back(*schedule);
    }
  Expected<std::vector<AttentionCase>> rows =
      parseRows(options.rows, options.seed, "--rows");
  KVRM_TRY(rows.status());
  plan.rows = rows.take();
  if (options.isServing)
    plan.serving = servingCases(options.seeds);
  return plan;
}

//===----------------------------------------------------------------------===//
// The command
//===----------------------------------------------------------------------===//

/// Adds what `measure` says of each case to `results`, up to the first error.
template <typename Measure>
static Status measureAll(AttentionBench &bench,
                         const std::vector<AttentionCase> &cases,
                         Measure measure, json &results) {
  for (const AttentionCase &one : cases) {
    Expected<json> result = measure(bench, one);
    KVRM_TRY(result.status());
    results.push_back(result.take());
  }
  return Status::ok();
}

/// What fails amid is told after what was measured before.
static Status measureAndReport(AttentionBench &bench) {
  AttentionReport report;
  Status status = measureAll(bench, bench.plan.rows, measureRow, report.rows);
  if (status.isOk())
    status =
        measureAll(bench, bench.plan.serving, measureServing, report.serving);
  if (bench.options.isJson)
    report.printJson(bench);
  else
    report.printTables(bench);
  KVRM_TRY(status);
  return bench.firstError();
}

Status run::benchAttention(const AttentionBenchOptions &options) {
  Expected<AttentionBenchPlan> plan = planOf(options);
  KVRM_TRY(plan.status());
  Expected<std::shared_ptr<const Package>> kernels =
      Package::load(options.kernels);
  KVRM_TRY(kernels.status());
  if (options.isStaged && !(*kernels)->manifest().kernel(KVRM_ROLE_STAGE))
    return invalidArgument("--staged: ", options.kernels,
                           " has no kernel stage");
  Calibration calibration;
  if (!options.calibration.empty()) {
    Expected<Calibration> loaded = loadCalibration(options.calibration);
    KVRM_TRY(loaded.status());
    calibration = loaded.take();
  }
  Expected<std::unique_ptr<AttentionLab>> lab =
      AttentionLab::create(kernels.take());
  KVRM_TRY(lab.status());
  if (!options.calibration.empty())
    KVRM_TRY(calibration.check(options.calibration,
                               (*lab)->device()->info().name,
                               policyShapeOf((*lab)->info())));
  AttentionBench bench(**lab, options, *plan,
                       options.calibration.empty() ? nullptr : &calibration);
  return measureAndReport(bench);
}
