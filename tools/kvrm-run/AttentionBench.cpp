//===- AttentionBench.cpp - kvrm-run bench attention ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionCases.h"
#include "AttentionRig.h"
#include "Commands.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/paging/Calibration.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

/// Steps in which every row grows, whose plan and commit are timed.
static constexpr int32_t growthSteps = 100;
/// Steps before those that count, and steps of each schedule that does not
/// change, for comparison.
static constexpr int32_t warmupSteps = 3;
static constexpr int32_t fixedSteps = 30;
static constexpr int32_t mostReplays = 10000;
static constexpr int32_t mostSteps = 100000;

static int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

namespace {

/// A schedule, timed with programmatic dependent launch or without.
struct Timing {
  CudaSchedule schedule;
  bool usesPdl = false;
  AttentionTime time;
};

/// What the command line asks for, checked.
struct Plan {
  std::vector<AttentionCase> rows;
  std::vector<AttentionCase> serving;
  std::vector<CudaSchedule> schedules; ///< empty = all that there are
  std::vector<bool> pdl;
  PoolState pages = PoolState::Scattered;

  bool wants(CudaSchedule schedule) const {
    return schedules.empty() ||
           std::ranges::find(schedules, schedule) != schedules.end();
  }
};

/// The lines of a table, each column as wide as it must be.
class Table {
public:
  explicit Table(std::vector<std::string> head) : lines{std::move(head)} {}
  void add(std::vector<std::string> line) { lines.push_back(std::move(line)); }
  void print() const {
    if (lines.size() < 2)
      return;
    std::vector<size_t> widths;
    for (const auto &line : lines)
      for (size_t i = 0; i < line.size(); ++i) {
        widths.resize(std::max(widths.size(), i + 1));
        widths[i] = std::max(widths[i], line[i].size());
      }
    for (const auto &line : lines) {
      std::string text;
      for (size_t i = 0; i < line.size(); ++i) {
        std::string pad(widths[i] - line[i].size(), ' ');
        text += i == 0 ? line[i] + pad : "  " + pad + line[i];
      }
      std::printf("%s\n", text.c_str());
    }
  }

private:
  std::vector<std::vector<std::string>> lines;
};

class AttentionBench {
public:
  AttentionBench(AttentionLab &lab, const AttentionBenchOptions &options,
                 const Plan &plan, const Calibration *calibration)
      : lab(lab), options(options), plan(plan), calibration(calibration) {}

  Status run();

private:
  Status runRow(const AttentionCase &one);
  Status runServing(const AttentionCase &one);
  Status serveSteps(AttentionRig &rig, SchedulePolicy *policy,
                    CudaSchedule fixed, int32_t steps, bool waits,
                    std::vector<StepTimes> &times, std::vector<double> &stepUs);
  Expected<SchedulePolicy> policyFor(const AttentionRig &rig,
                                     bool usesPdl) const;
  void note(const std::string &what, CudaSchedule schedule,
            const ErrorStats &errors);
  void progress(const std::string &name) const {
    if (options.isVerbose)
      std::fprintf(stderr, "kvrm-run: %s ...\n", name.c_str());
  }
  json describe(const AttentionCase &one) const;
  void report() const;

  AttentionLab &lab;
  const AttentionBenchOptions &options;
  const Plan &plan;
  const Calibration *calibration;
  json rows = json::array();
  json serving = json::array();
  std::string firstError;
};

} // namespace

static std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

static std::string figure(const json &row, const char *key, int digits) {
  auto found = row.find(key);
  if (found == row.end() || !found->is_number())
    return "-";
  if (found->is_number_integer())
    return std::to_string(found->get<int64_t>());
  if (digits < 0) {
    char text[64];
    std::snprintf(text, sizeof(text), "%.1e", found->get<double>());
    return text;
  }
  return fixed(found->get<double>(), digits);
}

/// The median of a member, in microseconds.
template <typename Member>
static double medianUs(const std::vector<StepTimes> &times, Member member) {
  std::vector<double> values;
  for (const StepTimes &time : times)
    values.push_back(static_cast<double>(time.*member) / 1e3);
  return median(std::move(values));
}

static double mean(const std::vector<double> &values) {
  return values.empty() ? 0
                        : std::reduce(values.begin(), values.end()) /
                              static_cast<double>(values.size());
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

/// Keeps the first error that is over the limit.
void AttentionBench::note(const std::string &what, CudaSchedule schedule,
                          const ErrorStats &errors) {
  kvrm_element element = lab.info().element;
  if (errors.isGood(element) || !firstError.empty())
    return;
  firstError = what + " " + nameOf(schedule) + ": ";
  if (errors.poisoned > 0) {
    firstError += std::to_string(errors.poisoned) + " outputs are no numbers";
    return;
  }
  char text[160];
  std::snprintf(text, sizeof(text),
                "errors of %.3g at most and %.3g on average are over the "
                "limits %g and %g",
                errors.most, errors.mean(), ErrorStats::mostOf(element),
                ErrorStats::meanOf(element));
  firstError += text;
}

/// Only of schedules that this rig can run.
Expected<SchedulePolicy> AttentionBench::policyFor(const AttentionRig &rig,
                                                   bool usesPdl) const {
  const ScheduleCosts *costs =
      calibration ? calibration->costs(usesPdl) : nullptr;
  if (!costs)
    return SchedulePolicy();
  ScheduleCosts usable = *costs;
  usable.workqueue.itemCost = rig.itemCost();
  std::erase_if(usable.clusters, [&](const ClusterCost &cost) {
    auto schedule = CudaSchedule::clusters(cost.blocks);
    return std::ranges::find(rig.schedules(), schedule) ==
           rig.schedules().end();
  });
  return SchedulePolicy::create(policyShapeOf(lab.info()), usable, rig.rows());
}

Status AttentionBench::runRow(const AttentionCase &one) {
  progress(one.name);
  RigOptions rigOptions;
  rigOptions.lengths = one.lengths;
  rigOptions.growth = growthSteps;
  rigOptions.pages = plan.pages;
  rigOptions.itemCost = options.itemCost;
  rigOptions.seed = options.seed;
  rigOptions.usesStaging = options.isStaged;
  Expected<std::unique_ptr<AttentionRig>> created =
      AttentionRig::create(lab, rigOptions);
  KVRM_TRY(created.status());
  AttentionRig &rig = **created;
  AttentionStep &gpu = rig.backend();
  const AttentionInfo &m = gpu.info();
  KVRM_TRY(rig.prepareCheck());

  json row = describe(one);
  auto bytes = static_cast<double>(rig.bytes());
  double floorUs = bytes / (options.bandwidth * 1e3);
  row["kv_bytes"] = rig.bytes();
  row["floor_us"] = floorUs;
  row["layers"] = gpu.shape().layers;
  row["launches"] = rig.launches();
  row["replays"] = options.replays;
  const PlanStats planned = gpu.planner().stats();

  std::vector<Timing> timings;
  ErrorStats errors;
  row["schedules"] = json::array();
  for (bool usesPdl : plan.pdl)
    for (CudaSchedule schedule : rig.schedules()) {
      // Staged kernels are never launched so.
      if (!plan.wants(schedule) ||
          (schedule.isStaged && usesPdl && plan.pdl.size() > 1))
        continue;
      Expected<AttentionTime> time =
          rig.measure(schedule, usesPdl, options.replays);
      KVRM_TRY(time.status());
      note(one.name, schedule, time->errors);
      errors.merge(time->errors);
      timings.push_back({schedule, usesPdl, *time});
      row["schedules"].push_back({{"schedule", nameOf(schedule)},
                                  {"pdl", usesPdl},
                                  {"us", time->us},
                                  {"error_max", time->errors.most},
                                  {"error_mean", time->errors.mean()},
                                  {"poisoned", time->errors.poisoned}});
    }
  row["error_max"] = errors.most;
  row["error_mean"] = errors.mean();
  row["poisoned"] = errors.poisoned;
  row["sampled_outputs"] = rig.sampledOutputs() * m.groupHeads();

  const Timing *best = nullptr;
  for (const Timing &timing : timings)
    if (!timing.schedule.isStaged && (!best || timing.time.us < best->time.us))
      best = &timing;
  if (best) {
    row["best"] = nameOf(best->schedule);
    row["best_us"] = best->time.us;
    row["pdl"] = best->usesPdl;
    row["gb_per_s"] = bytes / best->time.us / 1e3;
    row["above_floor_us"] = best->time.us - floorUs;
  }
  // What the policy takes, with and without; the first is what counts.
  row["policies"] = json::array();
  for (bool usesPdl : plan.pdl) {
    Expected<SchedulePolicy> policy = policyFor(rig, usesPdl);
    KVRM_TRY(policy.status());
    int32_t blocks = policy->choose(rig.lengths());
    CudaSchedule choice{blocks, false};
    constexpr int32_t rounds = 1000;
    // Alternating, so that no answer is repeated.
    std::vector<int32_t> other(rig.lengths().begin(), rig.lengths().end());
    for (int32_t &length : other)
      length *= 2;
    int64_t start = now();
    for (int32_t i = 0; i < rounds; ++i)
      (void)policy->choose(i % 2 ? rig.lengths() : other);
    double choiceUs = static_cast<double>(now() - start) / rounds / 1e3;
    json entry = {{"pdl", usesPdl},
                  {"schedule", nameOf(choice)},
                  {"choice_us", choiceUs}};
    double least = 0;
    for (const Timing &timing : timings) {
      if (timing.usesPdl != usesPdl || timing.schedule.isStaged)
        continue;
      least = least == 0 ? timing.time.us : std::min(least, timing.time.us);
      if (timing.schedule == choice)
        entry["us"] = timing.time.us;
    }
    entry["best_us"] = least;
    if (calibration && calibration->costs(usesPdl))
      entry["predicted_us"] = policy->predict(blocks, rig.lengths());
    if (row["policies"].empty()) {
      row["policy"] = entry["schedule"];
      row["policy_choice_us"] = choiceUs;
      if (entry.contains("us"))
        row["policy_us"] = entry["us"];
    }
    row["policies"].push_back(entry);
  }

  row["launches_per_layer"] = 1;
  row["shares"] = gpu.shares();
  row["item_cost"] = rig.itemCost();
  row["items"] = planned.items;
  row["segments"] = planned.segments;
  row["partials"] = planned.partials;
  row["groups"] = planned.groups;
  double perGroup = planned.groups > 0
                        ? static_cast<double>(planned.pages) / planned.groups
                        : 0;
  row["pages_per_group"] = perGroup;
  // A group is that many bytes in a row of K or V of one head.
  row["bytes_per_group"] = perGroup * static_cast<double>(m.pageBytes());
  // A warp asks for K and V of a strip page by page.
  int32_t copied =
      std::min(kvrm_head_shape_of(m.headDim)->strip_tokens, m.pageTokens);
  int64_t copies = 0;
  for (int32_t length : one.lengths)
    copies += int64_t(2) * m.kvHeads * ((length + copied - 1) / copied);
  row["copies"] = copies;

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
  rows.push_back(std::move(row));
  return Status::ok();
}

Status AttentionBench::serveSteps(AttentionRig &rig, SchedulePolicy *policy,
                                  CudaSchedule fixed, int32_t steps, bool waits,
                                  std::vector<StepTimes> &times,
                                  std::vector<double> &stepUs) {
  AttentionStep &gpu = rig.backend();
  int64_t begin = now();
  for (int32_t i = 0; i < steps; ++i) {
    StepTimes time;
    int64_t start = now();
    KVRM_TRY(rig.grow(time));
    int64_t planned = now();
    CudaSchedule schedule =
        policy ? CudaSchedule{policy->choose(rig.lengths()), false} : fixed;
    int64_t chosen = now();
    KVRM_TRY(gpu.commit());
    int64_t committed = now();
    KVRM_TRY(gpu.replay(schedule));
    int64_t launched = now();
    if (waits) {
      KVRM_TRY(gpu.synchronize());
      stepUs.push_back(static_cast<double>(now() - start) / 1e3);
    }
    time.plan = planned - start;
    time.policy = chosen - planned;
    time.commit = committed - chosen;
    time.launch = launched - committed;
    times.push_back(time);
  }
  if (!waits) {
    KVRM_TRY(gpu.synchronize());
    stepUs.push_back(static_cast<double>(now() - begin) / 1e3 / steps);
  }
  return Status::ok();
}

Status AttentionBench::runServing(const AttentionCase &one) {
  progress("serving " + one.name);
  int32_t steps = options.steps;
  RigOptions rigOptions;
  rigOptions.lengths = one.lengths;
  rigOptions.growth =
      2 * (warmupSteps + steps) + 1 + 5 * (warmupSteps + fixedSteps);
  rigOptions.pages = plan.pages;
  rigOptions.itemCost = options.itemCost;
  rigOptions.seed = one.seed + 1;
  rigOptions.layers = 1;
  Expected<std::unique_ptr<AttentionRig>> created =
      AttentionRig::create(lab, rigOptions);
  KVRM_TRY(created.status());
  AttentionRig &rig = **created;
  AttentionStep &gpu = rig.backend();
  for (CudaSchedule schedule : rig.schedules())
    KVRM_TRY(gpu.capture(schedule));
  // A step has one attention, which follows the commit kernel: nothing
  // overlaps.
  Expected<SchedulePolicy> policy = policyFor(rig, /*usesPdl=*/false);
  KVRM_TRY(policy.status());

  std::vector<StepTimes> times, ignoredTimes;
  std::vector<double> stepUs, unsyncedUs, ignored;
  CudaSchedule none;
  for (auto [isWaiting, out] :
       {std::pair(true, &stepUs), std::pair(false, &unsyncedUs)}) {
    KVRM_TRY(serveSteps(rig, &*policy, none, warmupSteps, true, ignoredTimes,
                        ignored));
    KVRM_TRY(serveSteps(rig, &*policy, none, steps, isWaiting,
                        isWaiting ? times : ignoredTimes, *out));
  }
  CudaSchedule choice{policy->choose(rig.lengths()), false};

  json entry = describe(one);
  entry["steps"] = steps;
  entry["step_us"] = median(stepUs);
  entry["mean_us"] = mean(stepUs);
  entry["max_us"] = *std::ranges::max_element(stepUs);
  entry["unsynced_us"] = unsyncedUs.front();
  entry["plan_us"] = medianUs(times, &StepTimes::plan);
  entry["choice_us"] = medianUs(times, &StepTimes::policy);
  entry["commit_us"] = medianUs(times, &StepTimes::commit);
  entry["launch_us"] = medianUs(times, &StepTimes::launch);
  entry["policy"] = nameOf(choice);
  entry["policy_evaluations"] = policy->evaluations();
  entry["floor_us"] =
      static_cast<double>(rig.bytes()) / (options.bandwidth * 1e3);

  json always = json::object();
  for (CudaSchedule schedule : rig.schedules()) {
    if (!plan.wants(schedule))
      continue;
    std::vector<double> us;
    KVRM_TRY(serveSteps(rig, nullptr, schedule, warmupSteps, true, ignoredTimes,
                        ignored));
    KVRM_TRY(
        serveSteps(rig, nullptr, schedule, fixedSteps, true, ignoredTimes, us));
    always[nameOf(schedule)] = median(us);
  }
  entry["always_us"] = always;

  // One more step, compared.
  KVRM_TRY(rig.poison());
  KVRM_TRY(serveSteps(rig, nullptr, choice, 1, true, ignoredTimes, ignored));
  KVRM_TRY(rig.prepareCheck());
  Expected<ErrorStats> errors = rig.compare();
  KVRM_TRY(errors.status());
  note("serving " + one.name, choice, *errors);
  entry["error_max"] = errors->most;
  entry["error_mean"] = errors->mean();
  entry["poisoned"] = errors->poisoned;
  serving.push_back(std::move(entry));
  return Status::ok();
}

void AttentionBench::report() const {
  const CudaDeviceInfo &device = lab.device()->info();
  const AttentionInfo &m = lab.info();
  if (options.isJson) {
    json kernels = json::array();
    const Manifest &manifest = lab.package().manifest();
    for (const KernelInfo &kernel : manifest.kernels)
      kernels.push_back({{"role", kvrm_kernel_role_name(kernel.role)},
                         {"threads", kernel.threads},
                         {"shared_bytes", kernel.sharedBytes},
                         {"blocks_per_sm", kernel.blocksPerSm}});
    json out = {{"device", device.name},
                {"multiprocessors", device.multiprocessors},
                {"driver", lab.device()->driver().version()},
                {"kernels", lab.package().path()},
                {"kernel_list", kernels},
                {"arch", manifest.arch},
                {"element", elementName(m.element)},
                {"bandwidth_gb_per_s", options.bandwidth},
                {"calibrated", calibration != nullptr},
                {"seed", options.seed},
                {"pages", nameOf(plan.pages)},
                {"rows", rows},
                {"serving", serving}};
    std::cout << out.dump(1) << "\n";
    std::cout.flush();
    return;
  }
  std::printf("%s on %s: %d query heads, %d KV heads, head_dim %d, pages of "
              "%d, %s pool, floor at %g GB/s\n",
              lab.package().path().c_str(), device.name.c_str(), m.heads,
              m.kvHeads, m.headDim, m.pageTokens, nameOf(plan.pages),
              options.bandwidth);
  const std::vector<std::string> names = {"workqueue", "cluster1", "cluster2",
                                          "cluster4",  "cluster8", "staged"};
  std::vector<std::string> head = {"us a launch", "pdl", "floor"};
  head.insert(head.end(), names.begin(), names.end());
  for (const char *name :
       {"best", "us", "+floor", "GB/s", "policy", "us", "plan", "choice",
        "commit", "commit B", "item cost", "items", "partials", "groups",
        "pages/group", "B/group", "copies", "max error", "mean error"})
    head.emplace_back(name);
  Table table(std::move(head));
  for (const json &row : rows)
    for (const json &policy : row["policies"]) {
      bool usesPdl = policy["pdl"];
      std::vector<std::string> line = {row["name"], usesPdl ? "on" : "off",
                                       figure(row, "floor_us", 1)};
      const json *best = nullptr;
      for (const std::string &name : names) {
        std::string text = "-";
        for (const json &entry : row["schedules"]) {
          if (entry["schedule"] != name || entry["pdl"] != usesPdl)
            continue;
          text = figure(entry, "us", 2);
          if (name != "staged" && (!best || entry["us"] < (*best)["us"]))
            best = &entry;
        }
        line.push_back(text);
      }
      double floorUs = row["floor_us"];
      double us = best ? (*best)["us"].get<double>() : 0;
      double bytes = row["kv_bytes"];
      line.push_back(best ? (*best)["schedule"].get<std::string>() : "-");
      line.push_back(best ? fixed(us, 2) : "-");
      line.push_back(best ? fixed(us - floorUs, 2) : "-");
      line.push_back(best ? fixed(bytes / us / 1e3, 0) : "-");
      line.push_back(policy["schedule"]);
      line.push_back(figure(policy, "us", 2));
      line.push_back(figure(row, "plan_us", 2));
      line.push_back(figure(policy, "choice_us", 2));
      line.push_back(figure(row, "commit_us", 2));
      line.push_back(figure(row, "commit_bytes", 0));
      line.push_back(figure(row, "item_cost", 0));
      line.push_back(figure(row, "items", 0));
      line.push_back(figure(row, "partials", 0));
      line.push_back(figure(row, "groups", 0));
      line.push_back(figure(row, "pages_per_group", 1));
      line.push_back(figure(row, "bytes_per_group", 0));
      line.push_back(figure(row, "copies", 0));
      line.push_back(figure(row, "error_max", -1));
      line.push_back(figure(row, "error_mean", -1));
      table.add(std::move(line));
    }
  table.print();
  Table steps({"us a step", "steps", "floor", "median", "mean", "max",
               "one wait", "plan", "choice", "commit", "launch", "policy",
               "workqueue", "cluster1", "cluster2", "cluster4", "cluster8",
               "max error"});
  for (const json &entry : serving) {
    std::vector<std::string> line = {entry["name"],
                                     figure(entry, "steps", 0),
                                     figure(entry, "floor_us", 1),
                                     figure(entry, "step_us", 1),
                                     figure(entry, "mean_us", 1),
                                     figure(entry, "max_us", 1),
                                     figure(entry, "unsynced_us", 1),
                                     figure(entry, "plan_us", 2),
                                     figure(entry, "choice_us", 2),
                                     figure(entry, "commit_us", 2),
                                     figure(entry, "launch_us", 2),
                                     entry["policy"]};
    for (const char *name :
         {"workqueue", "cluster1", "cluster2", "cluster4", "cluster8"})
      line.push_back(figure(entry["always_us"], name, 1));
    line.push_back(figure(entry, "error_max", -1));
    steps.add(std::move(line));
  }
  if (!rows.empty() && !serving.empty())
    std::printf("\n");
  steps.print();
}

Status AttentionBench::run() {
  // What fails amid is told after what was measured before.
  Status status;
  for (const AttentionCase &one : plan.rows)
    if (status.isOk())
      status = runRow(one);
  for (const AttentionCase &one : plan.serving)
    if (status.isOk())
      status = runServing(one);
  report();
  KVRM_TRY(status);
  if (!firstError.empty())
    return makeError(StatusCode::Internal, firstError);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Options
//===----------------------------------------------------------------------===//

static Expected<Plan> planOf(const AttentionBenchOptions &options) {
  KVRM_TRY(checkRange("--steps", options.steps, 1, mostSteps));
  KVRM_TRY(checkRange("--replays", options.replays, 1, mostReplays));
  KVRM_TRY(
      checkRange("--item-cost", options.itemCost, -1, PlanShape::maxItemCost));
  if (!(options.bandwidth >= 1 && options.bandwidth <= 1e6))
    return invalidArgument("--bandwidth: ", std::to_string(options.bandwidth),
                           " is outside 1..1000000");
  Plan plan;
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

Status run::benchAttention(const AttentionBenchOptions &options) {
  Expected<Plan> plan = planOf(options);
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
  return AttentionBench(**lab, options, *plan,
                        options.calibration.empty() ? nullptr : &calibration)
      .run();
}
