//===- ReplayReport.cpp - A replay as a table and as JSON -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ReplayReport.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

namespace {

/// The distributions of a mode, sorted once.
struct Figures {
  explicit Figures(const ModeResult &result)
      : result(result), ttft(result.ttft), itl(result.itl),
        wait(result.queueWait), step(column(&StepRecord::milliseconds)),
        plan(column(&StepRecord::planMicroseconds)),
        groups(column(&StepRecord::groups)), pagesPerGroup(perGroup()),
        committed(column(&StepRecord::committedBytes)),
        stageCopies(column(&StepRecord::stageCopies)) {}

  const ModeResult &result;
  Distribution ttft, itl, wait, step, plan, groups, pagesPerGroup, committed,
      stageCopies;

  /// Mean of a figure over the first or last tenth of the steps.
  double tenth(bool isLast,
               const std::function<double(const StepRecord &)> &value) const {
    size_t count = (result.steps.size() + 9) / 10;
    size_t begin = isLast ? result.steps.size() - count : 0;
    double sum = 0;
    for (size_t i = begin; i < begin + count; ++i)
      sum += value(result.steps[i]);
    return count > 0 ? sum / static_cast<double>(count) : 0;
  }

  static double pagesAGroup(const StepRecord &step) {
    return step.groups > 0 ? static_cast<double>(step.pages) / step.groups : 0;
  }

private:
  template <typename Member> std::vector<float> column(Member member) const {
    std::vector<float> values;
    values.reserve(result.steps.size());
    for (const StepRecord &step : result.steps)
      values.push_back(static_cast<float>(step.*member));
    return values;
  }
  std::vector<float> perGroup() const {
    std::vector<float> values;
    for (const StepRecord &step : result.steps)
      values.push_back(static_cast<float>(pagesAGroup(step)));
    return values;
  }
};

/// A line of the table.
struct Row {
  const char *name;
  const char *format;
  bool hasRatio;
  std::function<double(const Figures &)> value;
  bool isPagedOnly = false;
};

} // namespace

static constexpr double mebibyte = 1 << 20;

static double pagedShare(const Figures &f) {
  int64_t prompts = f.result.promptTokens;
  return prompts > 0
             ? 100.0 * static_cast<double>(f.result.stats.sharedTokens) /
                   static_cast<double>(prompts)
             : 0;
}

static std::vector<Row> tableRows() {
  auto of = [](Distribution Figures::*member, double percent) {
    return [member, percent](const Figures &f) {
      return (f.*member).percentile(percent);
    };
  };
  auto sum = [](auto ModeResult::*member) {
    return [member](const Figures &f) {
      return static_cast<double>(f.result.*member);
    };
  };
  auto stat = [](auto EngineStats::*member) {
    return [member](const Figures &f) {
      return static_cast<double>(f.result.stats.*member);
    };
  };
  auto mib = [](auto ModeResult::*member) {
    return [member](const Figures &f) {
      return static_cast<double>(f.result.*member) / mebibyte;
    };
  };
  return {
      {"slots", "%.0f", false, sum(&ModeResult::slots)},
      {"KV reserved at most, MiB", "%.2f", false,
       mib(&ModeResult::budgetBytes)},
      {"requests done", "%.0f", true, sum(&ModeResult::done)},
      {"  refused", "%.0f", false, sum(&ModeResult::refused)},
      {"  unfinished", "%.0f", false, sum(&ModeResult::unfinished)},
      {"  failed", "%.0f", false, sum(&ModeResult::failed)},
      {"time, s", "%.1f", true, sum(&ModeResult::seconds)},
      {"generated tok/s", "%.1f", true,
       [](const Figures &f) { return f.result.tokensPerSecond(); }},
      {"prompt + generated tok/s", "%.1f", true,
       [](const Figures &f) { return f.result.allTokensPerSecond(); }},
      {"TTFT p50, ms", "%.1f", true, of(&Figures::ttft, 50)},
      {"TTFT p90, ms", "%.1f", true, of(&Figures::ttft, 90)},
      {"TTFT p99, ms", "%.1f", true, of(&Figures::ttft, 99)},
      {"TTFT max, ms", "%.1f", true, of(&Figures::ttft, 100)},
      {"inter-token p50, ms", "%.2f", true, of(&Figures::itl, 50)},
      {"inter-token p99, ms", "%.2f", true, of(&Figures::itl, 99)},
      {"inter-token p99.9, ms", "%.2f", true, of(&Figures::itl, 99.9)},
      {"inter-token max, ms", "%.2f", true, of(&Figures::itl, 100)},
      {"  p99 / p50", "%.2f", false,
       [](const Figures &f) { return f.itl.ratio(99, 50); }},
      {"  max / p50", "%.2f", false,
       [](const Figures &f) { return f.itl.ratio(100, 50); }},
      {"decode step p50, ms", "%.2f", true, of(&Figures::step, 50)},
      {"decode step p99, ms", "%.2f", true, of(&Figures::step, 99)},
      {"decode step max, ms", "%.2f", true, of(&Figures::step, 100)},
      {"queue wait p50, ms", "%.1f", false, of(&Figures::wait, 50)},
      {"queue wait p99, ms", "%.1f", false, of(&Figures::wait, 99)},
      {"KV held, mean MiB", "%.2f", true, mib(&ModeResult::meanHeldBytes)},
      {"KV live, mean MiB", "%.2f", true, mib(&ModeResult::meanLiveBytes)},
      {"KV live, peak MiB", "%.2f", true, mib(&ModeResult::peakLiveBytes)},
      {"held / (live + page), max", "%.3f", false, sum(&ModeResult::worstHeld)},
      {"preempted, parked", "%.0f", false, stat(&EngineStats::parked)},
      {"preempted, recomputed", "%.0f", false, stat(&EngineStats::recomputed)},
      {"parked, MiB", "%.2f", false,
       [](const Figures &f) {
         return static_cast<double>(f.result.stats.parkedTokens *
                                    f.result.tokenKvBytes) /
                mebibyte;
       },
       true},
      {"prompt tokens shared, %", "%.1f", false, pagedShare, true},
      {"groups a step", "%.1f", false,
       [](const Figures &f) { return f.groups.mean(); }, true},
      {"pages a group", "%.2f", false,
       [](const Figures &f) { return f.pagesPerGroup.mean(); }, true},
      {"  first tenth", "%.2f", false,
       [](const Figures &f) { return f.tenth(false, Figures::pagesAGroup); },
       true},
      {"  last tenth", "%.2f", false,
       [](const Figures &f) { return f.tenth(true, Figures::pagesAGroup); },
       true},
      {"committed bytes a step", "%.0f", false,
       [](const Figures &f) { return f.committed.mean(); }, true},
      {"stage copies a step", "%.1f", false,
       [](const Figures &f) { return f.stageCopies.mean(); }, true},
      {"plan p50, us", "%.2f", false, of(&Figures::plan, 50), true},
      {"plan p99, us", "%.2f", false, of(&Figures::plan, 99), true},
      {"bucket moves", "%.0f", false, sum(&ModeResult::bucketMoves)},
  };
}

void run::printSummary(const ReplayReport &report, const Workload &work) {
  const ReplayOptions &options = report.options;
  std::printf("%s: %zu requests over %.1f s, %lld prompt and %lld output "
              "tokens; %lld clipped (%lld tokens cut)\n",
              work.source().name.c_str(), work.items.size(),
              work.sliceSeconds(), static_cast<long long>(work.promptTokens),
              static_cast<long long>(work.outputTokens),
              static_cast<long long>(work.clipped),
              static_cast<long long>(work.clippedTokens));
  std::printf("%s: KV budget %.2f MiB, %lld bytes a token, requests up to %d "
              "tokens, %d threads\n",
              report.set.modelName.c_str(),
              static_cast<double>(report.set.budgetBytes) / mebibyte,
              static_cast<long long>(report.results.front().tokenKvBytes),
              report.set.capacity, report.threads);
  if (options.isSaturated)
    std::printf(
        "saturated: requests are submitted as the queue takes them, and "
        "due when submitted\n");
  else if (report.saturation)
    std::printf("load %.2f of kvrm's %.1f tok/s when saturated: arrivals x "
                "%.4g\n",
                options.load, report.saturation->tokensPerSecond(),
                report.timeScale);
  else
    std::printf("arrivals x %.4g\n", report.timeScale);
  if (work.overloadEnd > work.overloadBegin)
    std::printf(
        "overload: arrivals %.3g times as dense from %.1f s to %.1f s\n",
        options.overload, work.overloadBegin, work.overloadEnd);

  std::vector<Figures> figures;
  figures.reserve(report.results.size());
  for (const ModeResult &result : report.results)
    figures.emplace_back(result);
  const Figures *base = nullptr;
  for (const Figures &figure : figures)
    if (figure.result.mode == "kvrm")
      base = &figure;
  std::printf("\n%-26s", "");
  for (const Figures &figure : figures)
    std::printf(" %12s%-8s", figure.result.mode.c_str(),
                base && &figure != base ? " / kvrm" : "");
  std::printf("\n");
  for (const Row &row : tableRows()) {
    std::printf("%-26s", row.name);
    for (const Figures &figure : figures) {
      if (row.isPagedOnly && figure.result.poolPages == 0) {
        std::printf(" %12s%-8s", "-", "");
        continue;
      }
      char text[32];
      std::snprintf(text, sizeof(text), row.format, row.value(figure));
      char ratio[32] = "";
      if (row.hasRatio && base && &figure != base && row.value(*base) > 0)
        std::snprintf(ratio, sizeof(ratio), "  %.2fx",
                      row.value(figure) / row.value(*base));
      std::printf(" %12s%-8s", text, ratio);
    }
    std::printf("\n");
  }
  for (const ModeResult &result : report.results)
    if (result.isCut)
      std::printf("%s was cut after %.1f s, the limit\n", result.mode.c_str(),
                  result.seconds);
  if (report.verification)
    std::printf("verified: %lld requests alone, %lld differ%s%s\n",
                static_cast<long long>(report.verification->requests),
                static_cast<long long>(report.verification->mismatches),
                report.verification->first.empty() ? "" : "; ",
                report.verification->first.c_str());
  std::fflush(stdout);
}

//===----------------------------------------------------------------------===//
// JSON
//===----------------------------------------------------------------------===//

static constexpr size_t mostPoints = 2000;

/// Four digits that count are enough to draw; files stay small.
static double rounded(double value) {
  if (value == 0 || !std::isfinite(value))
    return 0;
  double scale = std::pow(10.0, 5 - std::ceil(std::log10(std::fabs(value))));
  return std::round(value * scale) / scale;
}

static json summaryOf(const Distribution &all) {
  return {{"count", all.count()},      {"mean", all.mean()},
          {"p50", all.percentile(50)}, {"p90", all.percentile(90)},
          {"p99", all.percentile(99)}, {"p99.9", all.percentile(99.9)},
          {"max", all.max()}};
}

/// Value and share of samples above it, at exact percentiles that lie closer
/// together towards the tail.
static json tailOf(const Distribution &all) {
  json points = json::array();
  if (all.count() == 0)
    return points;
  // Twenty shares a decade, down to one sample.
  double least = 1.0 / static_cast<double>(all.count());
  for (int i = 0; static_cast<size_t>(i) < mostPoints; ++i) {
    double above = std::pow(10.0, -i / 20.0);
    if (above < least * 0.999)
      break;
    points.push_back(
        {rounded(all.percentile(100 * (1 - above))), rounded(above)});
  }
  points.push_back({rounded(all.max()), 0});
  return points;
}

/// Counts in bins that are a twentieth of a decade wide, from 1 us on.
static json histogramOf(const Distribution &all) {
  constexpr int perDecade = 20;
  constexpr int bins = 9 * perDecade; // to 1000 s
  std::vector<int64_t> counts(bins);
  for (float value : all.sorted()) {
    double position =
        (std::log10(std::max(double(value), 1e-3)) + 3) * perDecade;
    counts[static_cast<size_t>(std::clamp(position, 0.0, bins - 1.0))]++;
  }
  size_t first = 0;
  size_t end = counts.size();
  while (first < end && counts[first] == 0)
    ++first;
  while (end > first && counts[end - 1] == 0)
    --end;
  json edges = json::array();
  for (size_t i = first; i <= end; ++i)
    edges.push_back(
        rounded(std::pow(10.0, static_cast<double>(i) / perDecade - 3)));
  return {{"edges_ms", edges},
          {"counts",
           std::vector<int64_t>(counts.begin() + static_cast<int64_t>(first),
                                counts.begin() + static_cast<int64_t>(end))}};
}

/// Percentiles of what was sampled in each of some equal spans of time.
static json windowsOf(const std::vector<Sample> &samples, double seconds) {
  constexpr size_t windows = 200;
  std::vector<std::vector<float>> parts(windows);
  double width = std::max(seconds, 1e-9) / windows;
  for (const Sample &sample : samples)
    parts[static_cast<size_t>(
              std::clamp(sample.time / width, 0.0, windows - 1.0))]
        .push_back(sample.value);
  json out = {{"t_s", json::array()},
              {"count", json::array()},
              {"p50_ms", json::array()},
              {"p99_ms", json::array()},
              {"max_ms", json::array()}};
  for (size_t i = 0; i < windows; ++i) {
    if (parts[i].empty())
      continue;
    Distribution part(std::move(parts[i]));
    out["t_s"].push_back(rounded((static_cast<double>(i) + 0.5) * width));
    out["count"].push_back(part.count());
    out["p50_ms"].push_back(rounded(part.percentile(50)));
    out["p99_ms"].push_back(rounded(part.percentile(99)));
    out["max_ms"].push_back(rounded(part.max()));
  }
  return out;
}

/// Samples by time; of each stretch that is left out, the largest stays.
static json pointsOf(std::vector<Sample> samples) {
  std::ranges::stable_sort(samples, {}, &Sample::time);
  size_t stride = (samples.size() + mostPoints - 1) / mostPoints;
  json times = json::array();
  json values = json::array();
  for (size_t i = 0; i < samples.size(); i += stride) {
    auto begin = samples.begin() + static_cast<int64_t>(i);
    auto end = samples.begin() +
               static_cast<int64_t>(std::min(i + stride, samples.size()));
    auto largest = std::ranges::max_element(begin, end, {}, &Sample::value);
    times.push_back(rounded(largest->time));
    values.push_back(rounded(largest->value));
  }
  return {{"t_s", times}, {"ms", values}};
}

static json seriesOf(const std::vector<StatePoint> &points) {
  size_t stride = (points.size() + mostPoints - 1) / mostPoints;
  json out;
  auto add = [&](const char *name, auto member) {
    json &values = out[name] = json::array();
    for (size_t i = 0; i < points.size(); i += stride)
      values.push_back(points[i].*member);
  };
  json &times = out["t_s"] = json::array();
  for (size_t i = 0; i < points.size(); i += stride)
    times.push_back(rounded(points[i].time));
  add("waiting", &StatePoint::waiting);
  add("running", &StatePoint::running);
  add("preempted", &StatePoint::preempted);
  add("done", &StatePoint::done);
  add("refused", &StatePoint::refused);
  add("pool_bytes", &StatePoint::poolBytes);
  add("held_bytes", &StatePoint::heldBytes);
  add("kept_bytes", &StatePoint::keptBytes);
  add("live_bytes", &StatePoint::liveBytes);
  add("shared_tokens", &StatePoint::sharedTokens);
  json &groups = out["groups"] = json::array();
  json &pages = out["pages"] = json::array();
  for (size_t i = 0; i < points.size(); i += stride) {
    groups.push_back(rounded(points[i].groups));
    pages.push_back(rounded(points[i].pages));
  }
  return out;
}

static json modeJson(const ModeResult &result) {
  Figures f(result);
  const EngineStats &stats = result.stats;
  json out = {
      {"mode", result.mode},
      {"packages", result.packages},
      {"slots", result.slots},
      {"capacity", result.capacity},
      {"seconds", result.seconds},
      {"idle_s", result.idleSeconds},
      {"cut", result.isCut},
      {"requests",
       {{"done", result.done},
        {"refused", result.refused},
        {"failed", result.failed},
        {"unfinished", result.unfinished}}},
      {"tokens",
       {{"generated", result.doneTokens},
        {"prompt", result.promptTokens},
        {"generated_per_s", result.tokensPerSecond()},
        {"all_per_s", result.allTokensPerSecond()}}},
      {"ttft_ms", summaryOf(f.ttft)},
      {"itl_ms", summaryOf(f.itl)},
      {"itl_ratios",
       {{"p99_to_p50", f.itl.ratio(99, 50)},
        {"max_to_p50", f.itl.ratio(100, 50)}}},
      {"decode_step_ms", summaryOf(f.step)},
      {"queue_wait_ms", summaryOf(f.wait)},
      {"busy_s",
       {{"prefill", static_cast<double>(result.prefillNanoseconds) / 1e9},
        {"decode", static_cast<double>(result.decodeNanoseconds) / 1e9}}},
      {"preemptions",
       {{"parked", stats.parked},
        {"unparked", stats.unparked},
        {"parked_bytes", stats.parkedTokens * result.tokenKvBytes},
        {"recomputed", stats.recomputed},
        {"recomputed_tokens", stats.recomputedTokens}}},
      {"kv",
       {{"reserved_bytes", result.budgetBytes},
        {"token_bytes", result.tokenKvBytes},
        {"page_tokens", result.pageTokens},
        {"pool_pages", result.poolPages},
        {"mean_pool_bytes", result.meanPoolBytes},
        {"mean_held_bytes", result.meanHeldBytes},
        {"mean_live_bytes", result.meanLiveBytes},
        {"peak_held_bytes", result.peakHeldBytes},
        {"peak_live_bytes", result.peakLiveBytes},
        {"max_held_to_live_and_page", result.worstHeld}}}};
  if (result.poolPages > 0) {
    auto groups = [](const StepRecord &step) { return double(step.groups); };
    out["transfer"] = {
        {"groups", summaryOf(f.groups)},
        {"pages_per_group", summaryOf(f.pagesPerGroup)},
        {"groups_first_tenth", f.tenth(false, groups)},
        {"groups_last_tenth", f.tenth(true, groups)},
        {"pages_per_group_first_tenth", f.tenth(false, Figures::pagesAGroup)},
        {"pages_per_group_last_tenth", f.tenth(true, Figures::pagesAGroup)},
        {"committed_bytes", summaryOf(f.committed)},
        {"stage_copies", summaryOf(f.stageCopies)},
        {"plan_us", summaryOf(f.plan)}};
    out["sharing"] = {{"tokens", stats.sharedTokens},
                      {"pages", stats.sharedPages},
                      {"evicted", stats.evicted}};
  }
  if (result.mode == "bucketed")
    out["buckets"] = {{"moves", result.bucketMoves},
                      {"moved_bytes", result.bucketMovedBytes}};
  out["latency"] = {{"itl_tail", tailOf(f.itl)},
                    {"ttft_tail", tailOf(f.ttft)},
                    {"itl_histogram", histogramOf(f.itl)},
                    {"ttft_histogram", histogramOf(f.ttft)},
                    {"itl_windows", windowsOf(result.itl, result.seconds)},
                    {"ttft", pointsOf(result.ttft)}};
  out["series"] = seriesOf(result.series.points());
  return out;
}

std::string run::replayJson(const ReplayReport &report, const Workload &work) {
  const ReplayOptions &options = report.options;
  json out = {{"format", "kvrm-replay"},
              {"version", 1},
              {"trace",
               {{"name", work.source().name},
                {"format", work.source().format},
                {"requests", work.items.size()},
                {"seconds", work.sliceSeconds()},
                {"prompt_tokens", work.promptTokens},
                {"output_tokens", work.outputTokens},
                {"clipped", work.clipped},
                {"clipped_tokens", work.clippedTokens},
                {"length_scale", options.lengthScale},
                {"max_prompt", options.maxPrompt},
                {"time_scale", report.timeScale}}},
              {"model",
               {{"name", report.set.modelName},
                {"layers", report.set.layers},
                {"vocabulary", report.set.vocabulary},
                {"capacity", report.set.capacity}}},
              {"kv_budget_bytes", report.set.budgetBytes},
              {"threads", report.threads},
              {"saturated", options.isSaturated},
              {"load", options.load},
              {"options",
               {{"seed", options.seed},
                {"queue_limit", options.queueLimit},
                {"stall_factor", options.stallFactor},
                {"share_prefixes", options.sharesPrefixes},
                {"kept_histories", options.keptHistories},
                {"parking_places", options.parkingPlaces},
                {"preemption", options.preemption},
                {"limit_seconds", options.limitSeconds}}}};
  if (work.overloadEnd > work.overloadBegin)
    out["overload"] = {{"factor", options.overload},
                       {"begin_s", work.overloadBegin},
                       {"end_s", work.overloadEnd}};
  if (report.saturation)
    out["saturation"] = {
        {"seconds", report.saturation->seconds},
        {"cut", report.saturation->isCut},
        {"generated_per_s", report.saturation->tokensPerSecond()},
        {"all_per_s", report.saturation->allTokensPerSecond()}};
  json &modes = out["modes"] = json::array();
  for (const ModeResult &result : report.results)
    modes.push_back(modeJson(result));
  if (report.verification)
    out["verification"] = {{"requests", report.verification->requests},
                           {"mismatches", report.verification->mismatches},
                           {"first", report.verification->first}};
  return out.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}
