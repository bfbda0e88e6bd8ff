//===- AttentionServing.cpp - Whole steps of a batch, timed ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionBench.h"

#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <numeric>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

/// Steps before those that count, and steps of each schedule that does not
/// change, for comparison.
static constexpr int32_t warmupSteps = 3;
static constexpr int32_t fixedSteps = 30;

namespace {

/// What steps took: the host's times of each, and microseconds to the end.
struct Steps {
  std::vector<StepTimes> host;
  std::vector<double> us; ///< of each step; of steps without waits the mean
};

/// Serves one batch, whose rows grow by a token a step.
class ServingBench {
public:
  ServingBench(AttentionBench &bench, const AttentionCase &one,
               AttentionRig &rig, SchedulePolicy policy)
      : bench(bench), one(one), rig(rig), policy(std::move(policy)),
        entry(bench.describe(one)) {}

  Status measure();
  json take() { return std::move(entry); }

private:
  /// Takes the schedule of the policy if `fixed` is null.
  Expected<Steps> serve(const CudaSchedule *fixed, int32_t steps, bool waits);
  Expected<StepTimes> launchStep(const CudaSchedule *fixed);
  /// The same after some that do not count.
  Expected<Steps> serveWarm(const CudaSchedule *fixed, int32_t steps,
                            bool waits);
  CudaSchedule choice() { return {policy.choose(rig.lengths()), false}; }

  Status timePolicy();
  Status timeFixed();
  Status check(CudaSchedule schedule);

  AttentionBench &bench;
  const AttentionCase &one;
  AttentionRig &rig;
  SchedulePolicy policy;
  json entry;
};

} // namespace

static double mean(const std::vector<double> &values) {
  return values.empty() ? 0
                        : std::reduce(values.begin(), values.end()) /
                              static_cast<double>(values.size());
}

static double toUs(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e3;
}

Expected<StepTimes> ServingBench::launchStep(const CudaSchedule *fixed) {
  AttentionStep &gpu = rig.backend();
  StepTimes time;
  const Stopwatch watch;
  KVRM_TRY(rig.grow(time));
  int64_t planned = watch.nanoseconds();
  CudaSchedule schedule = fixed ? *fixed : choice();
  int64_t chosen = watch.nanoseconds();
  KVRM_TRY(gpu.commit());
  int64_t committed = watch.nanoseconds();
  KVRM_TRY(gpu.replay(schedule));
  int64_t launched = watch.nanoseconds();
  time.plan = planned;
  time.policy = chosen - planned;
  time.commit = committed - chosen;
  time.launch = launched - committed;
  return time;
}

Expected<Steps> ServingBench::serve(const CudaSchedule *fixed, int32_t steps,
                                    bool waits) {
  AttentionStep &gpu = rig.backend();
  Steps served;
  const Stopwatch all;
  for (int32_t i = 0; i < steps; ++i) {
    const Stopwatch step;
    Expected<StepTimes> time = launchStep(fixed);
    KVRM_TRY(time.status());
    if (waits) {
      KVRM_TRY(gpu.synchronize());
      served.us.push_back(toUs(step.nanoseconds()));
    }
    served.host.push_back(*time);
  }
  if (!waits) {
    KVRM_TRY(gpu.synchronize());
    served.us.push_back(toUs(all.nanoseconds()) / steps);
  }
  return served;
}

Expected<Steps> ServingBench::serveWarm(const CudaSchedule *fixed,
                                        int32_t steps, bool waits) {
  KVRM_TRY(serve(fixed, warmupSteps, /*waits=*/true).status());
  return serve(fixed, steps, waits);
}

/// With a wait after each step, then with one after all.
Status ServingBench::timePolicy() {
  int32_t steps = bench.options.steps;
  Expected<Steps> served = serveWarm(nullptr, steps, /*waits=*/true);
  KVRM_TRY(served.status());
  Expected<Steps> unsynced = serveWarm(nullptr, steps, /*waits=*/false);
  KVRM_TRY(unsynced.status());
  entry["steps"] = steps;
  entry["step_us"] = median(served->us);
  entry["mean_us"] = mean(served->us);
  entry["max_us"] = *std::ranges::max_element(served->us);
  entry["unsynced_us"] = unsynced->us.front();
  entry["plan_us"] = medianUs(served->host, &StepTimes::plan);
  entry["choice_us"] = medianUs(served->host, &StepTimes::policy);
  entry["commit_us"] = medianUs(served->host, &StepTimes::commit);
  entry["launch_us"] = medianUs(served->host, &StepTimes::launch);
  return Status::ok();
}

/// Each schedule, as if the policy took it always.
Status ServingBench::timeFixed() {
  json always = json::object();
  for (CudaSchedule schedule : rig.schedules()) {
    if (!bench.plan.wants(schedule))
      continue;
    Expected<Steps> served = serveWarm(&schedule, fixedSteps, /*waits=*/true);
    KVRM_TRY(served.status());
    always[nameOf(schedule)] = median(served->us);
  }
  entry["always_us"] = always;
  return Status::ok();
}

/// One more step, compared.
Status ServingBench::check(CudaSchedule schedule) {
  KVRM_TRY(rig.poison());
  KVRM_TRY(serve(&schedule, 1, /*waits=*/true).status());
  KVRM_TRY(rig.prepareCheck());
  Expected<ErrorStats> errors = rig.compare();
  KVRM_TRY(errors.status());
  bench.note("serving " + one.name, schedule, *errors);
  entry["error_max"] = errors->most;
  entry["error_mean"] = errors->mean();
  entry["poisoned"] = errors->poisoned;
  return Status::ok();
}

Status ServingBench::measure() {
  for (CudaSchedule schedule : rig.schedules())
    KVRM_TRY(rig.backend().capture(schedule));
  KVRM_TRY(timePolicy());
  CudaSchedule last = choice();
  entry["policy"] = nameOf(last);
  entry["policy_evaluations"] = policy.evaluations();
  entry["floor_us"] = bench.floorUs(rig.bytes());
  KVRM_TRY(timeFixed());
  return check(last);
}

Expected<json> run::measureServing(AttentionBench &bench,
                                   const AttentionCase &one) {
  bench.progress("serving " + one.name);
  RigOptions options;
  options.lengths = one.lengths;
  options.growth = 2 * (warmupSteps + bench.options.steps) + 1 +
                   5 * (warmupSteps + fixedSteps);
  options.pages = bench.plan.pages;
  options.itemCost = bench.options.itemCost;
  options.seed = one.seed + 1;
  options.layers = 1;
  Expected<std::unique_ptr<AttentionRig>> rig =
      AttentionRig::create(bench.lab, options);
  KVRM_TRY(rig.status());
  // A step has one attention, which follows the commit kernel: nothing
  // overlaps.
  Expected<SchedulePolicy> policy = bench.policyFor(**rig, /*usesPdl=*/false);
  KVRM_TRY(policy.status());
  ServingBench serving(bench, one, **rig, policy.take());
  KVRM_TRY(serving.measure());
  return serving.take();
}
