//===- AttentionRows.cpp - Launches of a batch, timed ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionBench.h"

#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

/// Steps in which every row grows, whose plan and commit are timed.
static constexpr int32_t growthSteps = 100;

namespace {

/// A schedule, timed with programmatic dependent launch or without.
struct Timing {
  CudaSchedule schedule;
  bool usesPdl = false;
  AttentionTime time;
};

/// Measures one batch; each member writes what it finds into `row`.
class RowBench {
public:
  RowBench(AttentionBench &bench, const AttentionCase &one, AttentionRig &rig)
      : bench(bench), one(one), rig(rig), row(bench.describe(one)) {}

  Status measure();
  json take() { return std::move(row); }

private:
  void describe();
  void describePlan();
  void describePages();
  Status timeSchedules();
  Status timeSchedule(CudaSchedule schedule, bool usesPdl);
  void findBest();
  Status askPolicies();
  Expected<json> askPolicy(bool usesPdl);
  Status timeGrowth();

  AttentionBench &bench;
  const AttentionCase &one;
  AttentionRig &rig;
  json row;
  std::vector<Timing> timings;
  ErrorStats errors; ///< of all schedules
};

} // namespace

void RowBench::describe() {
  row["kv_bytes"] = rig.bytes();
  row["floor_us"] = bench.floorUs(rig.bytes());
  row["layers"] = rig.backend().shape().layers;
  row["launches"] = rig.launches();
  row["launches_per_layer"] = 1;
  row["replays"] = bench.options.replays;
  row["shares"] = rig.backend().shares();
  row["item_cost"] = rig.itemCost();
}

/// Of the step that is timed, so before any other is planned.
void RowBench::describePlan() {
  const PlanStats &planned = rig.backend().planner().stats();
  row["items"] = planned.items;
  row["segments"] = planned.segments;
  row["partials"] = planned.partials;
  row["groups"] = planned.groups;
  double perGroup = planned.groups > 0
                        ? static_cast<double>(planned.pages) / planned.groups
                        : 0;
  row["pages_per_group"] = perGroup;
  // A group is that many bytes in a row of K or V of one head.
  row["bytes_per_group"] =
      perGroup * static_cast<double>(bench.lab.info().pageBytes());
}

/// A warp asks for K and V of a strip page by page, and for their scales.
void RowBench::describePages() {
  const AttentionInfo &m = bench.lab.info();
  int32_t copied = std::min(kvrm_strip_tokens(kvrm_head_shape_of(m.headDim),
                                              kvrm_element_bytes(m.element)),
                            m.pageTokens);
  int64_t parts = kvrm_scale_bytes(m.element) > 0 ? 4 : 2;
  int64_t copies = 0;
  for (int32_t length : one.lengths)
    copies += parts * m.kvHeads * ((length + copied - 1) / copied);
  row["copies"] = copies;
}

//===----------------------------------------------------------------------===//
// Schedules
//===----------------------------------------------------------------------===//

Status RowBench::timeSchedule(CudaSchedule schedule, bool usesPdl) {
  Expected<AttentionTime> time =
      rig.measure(schedule, usesPdl, bench.options.replays);
  KVRM_TRY(time.status());
  bench.note(one.name, schedule, time->errors);
  errors.merge(time->errors);
  timings.push_back({schedule, usesPdl, *time});
  row["schedules"].push_back({{"schedule", nameOf(schedule)},
                              {"pdl", usesPdl},
                              {"us", time->us},
                              {"error_max", time->errors.most},
                              {"error_mean", time->errors.mean()},
                              {"poisoned", time->errors.poisoned}});
  return Status::ok();
}

Status RowBench::timeSchedules() {
  const AttentionBenchPlan &plan = bench.plan;
  row["schedules"] = json::array();
  for (bool usesPdl : plan.pdl)
    for (CudaSchedule schedule : rig.schedules()) {
      // Staged kernels are never launched so.
      bool isSpared = schedule.isStaged && usesPdl && plan.pdl.size() > 1;
      if (plan.wants(schedule) && !isSpared)
        KVRM_TRY(timeSchedule(schedule, usesPdl));
    }
  row["error_max"] = errors.most;
  row["error_mean"] = errors.mean();
  row["poisoned"] = errors.poisoned;
  row["sampled_outputs"] = rig.sampledOutputs() * bench.lab.info().groupHeads();
  return Status::ok();
}

void RowBench::findBest() {
  const Timing *best = nullptr;
  for (const Timing &timing : timings)
    if (!timing.schedule.isStaged && (!best || timing.time.us < best->time.us))
      best = &timing;
  if (!best)
    return;
  auto bytes = static_cast<double>(rig.bytes());
  row["best"] = nameOf(best->schedule);
  row["best_us"] = best->time.us;
  row["pdl"] = best->usesPdl;
  row["gb_per_s"] = bytes / best->time.us / 1e3;
  row["above_floor_us"] = best->time.us - bench.floorUs(rig.bytes());
}

//===----------------------------------------------------------------------===//
// Policies
//===----------------------------------------------------------------------===//

/// Microseconds of a choice.
static double timeChoice(SchedulePolicy &policy,
                         std::span<const int32_t> lengths) {
  constexpr int32_t rounds = 1000;
  // Alternating, so that no answer is repeated.
  std::vector<int32_t> other(lengths.begin(), lengths.end());
  for (int32_t &length : other)
    length *= 2;
  const Stopwatch watch;
  for (int32_t i = 0; i < rounds; ++i)
    (void)policy.choose(i % 2 ? lengths : other);
  return static_cast<double>(watch.nanoseconds()) / rounds / 1e3;
}

/// What the policy takes, beside the best that it could.
Expected<json> RowBench::askPolicy(bool usesPdl) {
  Expected<SchedulePolicy> policy = bench.policyFor(rig, usesPdl);
  KVRM_TRY(policy.status());
  int32_t blocks = policy->choose(rig.lengths());
  CudaSchedule choice{blocks, false};
  json entry = {{"pdl", usesPdl},
                {"schedule", nameOf(choice)},
                {"choice_us", timeChoice(*policy, rig.lengths())}};
  double least = 0;
  for (const Timing &timing : timings) {
    if (timing.usesPdl != usesPdl || timing.schedule.isStaged)
      continue;
    least = least == 0 ? timing.time.us : std::min(least, timing.time.us);
    if (timing.schedule == choice)
      entry["us"] = timing.time.us;
  }
  entry["best_us"] = least;
  if (bench.costs(usesPdl))
    entry["predicted_us"] = policy->predict(blocks, rig.lengths());
  return entry;
}

/// With and without programmatic dependent launch; the first is what counts.
Status RowBench::askPolicies() {
  json policies = json::array();
  for (bool usesPdl : bench.plan.pdl) {
    Expected<json> entry = askPolicy(usesPdl);
    KVRM_TRY(entry.status());
    policies.push_back(entry.take());
  }
  const json &first = policies.front();
  row["policy"] = first["schedule"];
  row["policy_choice_us"] = first["choice_us"];
  if (first.contains("us"))
    row["policy_us"] = first["us"];
  row["policies"] = std::move(policies);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Growth
//===----------------------------------------------------------------------===//

Status RowBench::timeGrowth() {
  AttentionStep &gpu = rig.backend();
  std::vector<StepTimes> steps(growthSteps);
  std::vector<double> commitBytes;
  for (StepTimes &step : steps) {
    KVRM_TRY(rig.grow(step));
    KVRM_TRY(gpu.commit());
    step.commit = gpu.commitStats().nanoseconds;
    commitBytes.push_back(static_cast<double>(gpu.commitStats().bytes));
    KVRM_TRY(gpu.launchCommit());
    KVRM_TRY(gpu.synchronize());
  }
  row["plan_us"] = medianUs(steps, &StepTimes::plan);
  row["commit_us"] = medianUs(steps, &StepTimes::commit);
  row["commit_bytes"] = static_cast<int64_t>(median(commitBytes));
  row["commit_bytes_max"] =
      static_cast<int64_t>(*std::ranges::max_element(commitBytes));
  return Status::ok();
}

Status RowBench::measure() {
  KVRM_TRY(rig.prepareCheck());
  describe();
  describePlan();
  describePages();
  KVRM_TRY(timeSchedules());
  findBest();
  KVRM_TRY(askPolicies());
  return timeGrowth();
}

Expected<json> run::measureRow(AttentionBench &bench,
                               const AttentionCase &one) {
  bench.progress(one.name);
  RigOptions options;
  options.lengths = one.lengths;
  options.growth = growthSteps;
  options.pages = bench.plan.pages;
  options.itemCost = bench.options.itemCost;
  options.seed = bench.options.seed;
  options.usesStaging = bench.options.isStaged;
  Expected<std::unique_ptr<AttentionRig>> rig =
      AttentionRig::create(bench.lab, options);
  KVRM_TRY(rig.status());
  RowBench measured(bench, one, **rig);
  KVRM_TRY(measured.measure());
  return measured.take();
}
