//===- Calibrate.cpp - kvrm-run calibrate ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionCases.h"
#include "AttentionRig.h"
#include "CalibrationFit.h"
#include "Commands.h"
#include "kvrm/runtime/paging/Calibration.h"
#include "kvrm/runtime/support/ReplaceFile.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

using namespace kvrm;
using namespace kvrm::run;

/// Few, as there are many batches; medians of so many are stable.
static constexpr int32_t replays = 9;

namespace {
/// What was measured with programmatic dependent launch, or without.
struct Setting {
  bool usesPdl = false;
  std::map<int32_t, std::vector<CostSample>> samples; ///< by cluster; 0 = queue
  ScheduleCosts costs;
};
} // namespace

/// Measures a batch with every schedule.
static Status measureCase(AttentionLab &lab, const AttentionCase &one,
                          int32_t itemCost, std::vector<Setting> &settings,
                          std::map<int32_t, int32_t> &atOnce) {
  RigOptions options;
  options.lengths = one.lengths;
  options.itemCost = itemCost;
  Expected<std::unique_ptr<AttentionRig>> rig =
      AttentionRig::create(lab, options);
  KVRM_TRY(rig.status());
  for (CudaSchedule schedule : (*rig)->schedules()) {
    if (schedule.cluster > 0 && !atOnce.contains(schedule.cluster)) {
      Expected<int32_t> held = (*rig)->clustersAtOnce(schedule.cluster);
      KVRM_TRY(held.status());
      atOnce[schedule.cluster] = *held;
    }
    for (Setting &setting : settings) {
      const PlanShape &plan = (*rig)->backend().planner().shape();
      setting.costs.workqueue.shares = plan.shares;
      setting.costs.workqueue.itemCost = plan.itemCost;
      Expected<AttentionTime> time =
          (*rig)->measure(schedule, setting.usesPdl, replays);
      KVRM_TRY(time.status());
      setting.samples[schedule.cluster].push_back({one.lengths, time->us});
    }
  }
  return Status::ok();
}

/// What was fitted for a schedule; 0 is the work queue.
static std::string constantsOf(const ScheduleCosts &costs, int32_t schedule) {
  char text[200];
  if (schedule == 0) {
    const WorkqueueCost &cost = costs.workqueue;
    std::snprintf(text, sizeof(text),
                  "base %.2f us, %.0f GB/s, %.1f GB/s a block, item %.2f us, "
                  "partial %.3f us",
                  cost.baseUs, cost.gbPerS, cost.blockGbPerS, cost.itemUs,
                  cost.partialUs);
    return text;
  }
  auto cost = std::ranges::find(costs.clusters, schedule, &ClusterCost::blocks);
  KVRM_CHECK(cost != costs.clusters.end(), "what was measured was fitted");
  std::snprintf(text, sizeof(text),
                "base %.2f us, %.0f GB/s, %.0f GB/s a cluster, row %.2f us, "
                "%d at once",
                cost->baseUs, cost->gbPerS, cost->clusterGbPerS, cost->rowUs,
                cost->atOnce);
  return text;
}

/// Prints how far the fit of each schedule is off.
static void reportFit(SchedulePolicy &policy, const Setting &setting) {
  for (const auto &[schedule, samples] : setting.samples) {
    double sum = 0, worst = 0;
    for (const CostSample &sample : samples) {
      double error =
          std::abs(policy.predict(schedule, sample.lengths) / sample.us - 1);
      sum += error;
      worst = std::max(worst, error);
    }
    std::printf("  %-10s error mean %4.1f %%, max %4.1f %%: %s\n",
                nameOf(CudaSchedule{schedule, false}).c_str(),
                100 * sum / static_cast<double>(samples.size()), 100 * worst,
                constantsOf(setting.costs, schedule).c_str());
  }
}

/// Prints what the policy loses by it.
static void reportLoss(SchedulePolicy &policy, const Setting &setting) {
  double lost = 0, mostLost = 0;
  const auto &queue = setting.samples.at(0);
  for (size_t i = 0; i < queue.size(); ++i) {
    double best = HUGE_VAL, taken = 0;
    int32_t choice = policy.choose(queue[i].lengths);
    for (const auto &[schedule, samples] : setting.samples) {
      best = std::min(best, samples[i].us);
      if (schedule == choice)
        taken = samples[i].us;
    }
    lost += taken / best - 1;
    mostLost = std::max(mostLost, taken / best - 1);
  }
  std::printf("  policy     behind the best by %.2f %% on average, %.1f %% at "
              "most\n",
              100 * lost / static_cast<double>(queue.size()), 100 * mostLost);
}

static Status report(const PolicyShape &shape, const Setting &setting,
                     size_t most) {
  std::printf("pdl %s\n", setting.usesPdl ? "on" : "off");
  Expected<SchedulePolicy> policy =
      SchedulePolicy::create(shape, setting.costs, static_cast<int32_t>(most));
  KVRM_TRY(policy.status());
  reportFit(*policy, setting);
  reportLoss(*policy, setting);
  return Status::ok();
}

Status run::calibrate(const CalibrateOptions &options) {
  if (options.output.empty())
    return invalidArgument("nothing to write to: give -o FILE");
  KVRM_TRY(checkOutput(options.output, {{options.kernels}}));
  Expected<UnfinishedFile> output = UnfinishedFile::create(options.output);
  KVRM_TRY(output.status());
  Expected<std::shared_ptr<const Package>> kernels =
      Package::load(options.kernels);
  KVRM_TRY(kernels.status());
  Expected<std::unique_ptr<AttentionLab>> created =
      AttentionLab::create(kernels.take());
  KVRM_TRY(created.status());
  AttentionLab &lab = **created;
  std::vector<Setting> settings(2);
  settings[0].usesPdl = true;
  std::map<int32_t, int32_t> atOnce;
  size_t most = 1;
  for (const AttentionCase &one : calibrationCases()) {
    if (options.isVerbose)
      std::fprintf(stderr, "kvrm-run: %s ...\n", one.name.c_str());
    KVRM_TRY(measureCase(lab, one, options.itemCost, settings, atOnce));
    most = std::max(most, one.lengths.size());
  }

  Calibration calibration;
  calibration.device = lab.device()->info().name;
  calibration.shape = policyShapeOf(lab.info());
  for (Setting &setting : settings) {
    setting.costs.usesPdl = setting.usesPdl;
    for (const auto &[schedule, samples] : setting.samples) {
      if (schedule == 0) {
        const WorkqueueCost &queue = setting.costs.workqueue;
        Expected<WorkqueueCost> cost = fitWorkqueue(
            calibration.shape, queue.shares, queue.itemCost, samples);
        KVRM_TRY(cost.status());
        setting.costs.workqueue = *cost;
        continue;
      }
      Expected<ClusterCost> cost =
          fitCluster(calibration.shape, schedule, atOnce[schedule], samples);
      KVRM_TRY(cost.status());
      setting.costs.clusters.push_back(*cost);
    }
    KVRM_TRY(report(calibration.shape, setting, most));
    calibration.settings.push_back(setting.costs);
  }
  KVRM_TRY(output->write(formatCalibration(calibration)));
  return output->commit();
}
