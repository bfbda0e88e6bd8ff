//===- Replay.cpp - kvrm-run replay -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "ReplayReport.h"

#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/support/ReplaceFile.h"

#include <charconv>
#include <cmath>
#include <unistd.h>

using namespace kvrm;
using namespace kvrm::run;

static Status checkNumber(const char *option, double value, double low,
                          double high) {
  if (value >= low && value <= high)
    return Status::ok();
  char text[128];
  std::snprintf(text, sizeof(text), "%s: %g is outside %g..%g", option, value,
                low, high);
  return invalidArgument(text);
}

static Status checkOptions(const ReplayOptions &options) {
  constexpr double year = 366 * 86400.0;
  if (options.trace.empty())
    return invalidArgument("nothing to replay: give --trace");
  KVRM_TRY(checkNumber("--duration", options.duration, 0, year));
  KVRM_TRY(
      checkNumber("--requests", options.requests, 0, double(maxTraceRequests)));
  KVRM_TRY(checkNumber("--time-scale", options.timeScale, 1e-6, 1e6));
  KVRM_TRY(checkNumber("--load", options.load, 0, 100));
  KVRM_TRY(checkNumber("--limit-seconds", options.limitSeconds, 0, year));
  KVRM_TRY(checkNumber("--kv-budget", options.kvBudgetMebibytes, 0, 1 << 24));
  KVRM_TRY(checkNumber("--max-prompt", options.maxPrompt, 0, maxTraceTokens));
  KVRM_TRY(checkNumber("--length-scale", options.lengthScale, 1e-4, 100));
  KVRM_TRY(checkNumber("--overload", options.overload, 0, 1000));
  KVRM_TRY(checkNumber("--overload-seconds", options.overloadSeconds, 0, year));
  KVRM_TRY(checkNumber("--queue-limit", options.queueLimit, 1, 65536));
  KVRM_TRY(checkNumber("--stall-factor", options.stallFactor, 0, 1000));
  KVRM_TRY(checkNumber("--kept-histories", options.keptHistories, 0, 1 << 20));
  KVRM_TRY(checkNumber("--parking-places", options.parkingPlaces, 0, 1 << 20));
  KVRM_TRY(checkNumber("--warm-up", options.warmupSeconds, 0, 600));
  if (options.load > 0 && options.isSaturated)
    return invalidArgument("--load and --saturation exclude each other");
  if (options.load > 0 && options.timeScale != 1)
    return invalidArgument(
        "--load sets the time scale: leave out --time-scale");
  if ((options.overload > 0) != (options.overloadSeconds > 0))
    return invalidArgument("--overload and --overload-seconds go together");
  if (options.overload > 0 && options.overload < 1)
    return invalidArgument("--overload: less than 1 is no overload");
  if (options.overload > 0 && options.isSaturated)
    return invalidArgument("--overload and --saturation exclude each other");
  if (options.keptHistories > 0 && !options.sharesPrefixes)
    return invalidArgument("--kept-histories needs --share-prefixes");
  if (options.parkingPages > 0 && options.parkingPlaces == 0)
    return invalidArgument("--parking-pages needs --parking-places");
  return Status::ok();
}

static Expected<EngineConfig> engineConfig(const ReplayOptions &options) {
  EngineConfig config;
  config.queueLimit = options.queueLimit;
  config.stallFactor = options.stallFactor;
  if (options.preemption == "park")
    config.preemption = PreemptionPolicy::Park;
  else if (options.preemption == "recompute")
    config.preemption = PreemptionPolicy::Recompute;
  else if (options.preemption != "cheaper")
    return invalidArgument("--preemption: '", options.preemption,
                           "' is not one of cheaper, park, recompute");
  return config;
}

/// The number of --verify: 0 without one.
static Expected<int64_t> verifyCount(const ReplayOptions &options) {
  if (options.verify.empty())
    return int64_t(0);
  if (options.verify == "all")
    return maxTraceRequests;
  int64_t count = 0;
  const char *end = options.verify.data() + options.verify.size();
  auto [stop, error] = std::from_chars(options.verify.data(), end, count);
  if (error != std::errc() || stop != end || count < 1 ||
      count > maxTraceRequests)
    return invalidArgument("--verify: '", options.verify,
                           "' is not 'all' or a number in 1..",
                           maxTraceRequests);
  return count;
}

/// Opens a mode, runs the workload, and gives all memory back.
static Expected<ModeResult> runMode(const ModeSpec &mode, const Workload &work,
                                    const RunSettings &settings,
                                    double warmupSeconds) {
  if (settings.showsLine) {
    std::fprintf(stderr, "\r\033[Kkvrm-run: %s: warming up",
                 settings.label.c_str());
    std::fflush(stderr);
  }
  Expected<std::unique_ptr<ModeDecoder>> decoder = mode.open(warmupSeconds);
  KVRM_TRY(decoder.status());
  return runWorkload(mode, **decoder, work, settings);
}

Status run::replay(const CommonOptions &common, const ReplayOptions &given) {
  ReplayReport report;
  report.options = given;
  ReplayOptions &options = report.options;
  KVRM_TRY(checkOptions(options));
  options.kvBudgetBytes =
      static_cast<int64_t>(options.kvBudgetMebibytes * (1 << 20));
  RunSettings settings;
  Expected<EngineConfig> config = engineConfig(options);
  KVRM_TRY(config.status());
  Expected<int64_t> verified = verifyCount(options);
  KVRM_TRY(verified.status());
  settings.showsLine = isatty(2) && !options.isQuiet;
  settings.tellsLines =
      common.isVerbose && !settings.showsLine && !options.isQuiet;
  settings.limitSeconds = options.limitSeconds;

  Expected<ModeSet> set = prepareModes(common, options);
  KVRM_TRY(set.status());
  report.set = set.take();
  report.threads =
      common.session.threads > 0 ? common.session.threads : usableCpus();
  settings.pageTokens = report.set.pageTokens;
  const ModeSpec *kvrm = report.set.find("kvrm");
  if (!kvrm && (*verified > 0 || options.load > 0))
    return invalidArgument(*verified > 0 ? "--verify" : "--load",
                           " needs the mode kvrm");
  Expected<Workload> made =
      Workload::create(options, {report.set.capacity, report.set.vocabulary});
  KVRM_TRY(made.status());
  Workload &work = *made;
  std::unique_ptr<Timeline> timeline;
  if (!options.timeline.empty()) {
    Expected<std::unique_ptr<Timeline>> created =
        Timeline::create(options.timeline);
    KVRM_TRY(created.status());
    timeline = created.take();
  }

  auto settingsOf = [&](const ModeSpec &mode) {
    RunSettings own = settings;
    own.engine = *config;
    own.engine.sharesPrefixes = options.sharesPrefixes && mode.isPaged();
    own.label = mode.name;
    own.keepsTokens = *verified > 0 && mode.isPaged();
    return own;
  };

  report.timeScale = options.timeScale;
  if (options.load > 0) {
    RunSettings saturated = settingsOf(*kvrm);
    saturated.isSaturated = true;
    saturated.keepsTokens = false;
    saturated.label = "kvrm, saturated";
    Expected<ModeResult> result =
        runMode(*kvrm, work, saturated, options.warmupSeconds);
    KVRM_TRY(result.status());
    auto all = static_cast<double>(work.promptTokens + work.outputTokens);
    double rate = result->allTokensPerSecond();
    if (!(rate > 0) || !(work.sliceSeconds() > 0))
      return invalidArgument("--load: the slice has too few requests to scale");
    // At load 1 the slice lasts as long as kvrm takes for it when saturated.
    report.timeScale = all / rate / options.load / work.sliceSeconds();
    report.saturation = result.take();
  }
  work.schedule(report.timeScale, options.overload, options.overloadSeconds);

  for (const ModeSpec &mode : report.set.modes) {
    RunSettings own = settingsOf(mode);
    own.isSaturated = options.isSaturated;
    own.timeline = timeline.get();
    if (timeline)
      timeline->beginMode(mode.name);
    Expected<ModeResult> result =
        runMode(mode, work, own, options.warmupSeconds);
    KVRM_TRY(result.status());
    report.results.push_back(result.take());
  }
  if (*verified > 0) {
    Expected<std::unique_ptr<ModeDecoder>> fresh = kvrm->open(0);
    KVRM_TRY(fresh.status());
    for (ModeResult &result : report.results) {
      if (result.mode != "kvrm")
        continue;
      Expected<Verification> done = verifyTokens(
          (*fresh)->decoder(), work, result.tokens, *verified, settings);
      KVRM_TRY(done.status());
      report.verification = *done;
    }
  }

  if (timeline) {
    if (timeline->isFull() && !options.isQuiet)
      std::fprintf(stderr, "kvrm-run: %s: ends at the limit of %lld events\n",
                   options.timeline.c_str(),
                   static_cast<long long>(Timeline::maxEvents));
    KVRM_TRY(timeline->close());
  }
  if (common.isJson || !options.output.empty()) {
    std::string text = replayJson(report, work);
    if (!options.output.empty())
      KVRM_TRY(replaceFile(options.output, text));
    if (common.isJson)
      std::fwrite(text.data(), 1, text.size(), stdout);
  }
  if (!common.isJson)
    printSummary(report, work);
  for (const ModeResult &result : report.results)
    if (result.failed > 0)
      return makeError(StatusCode::Internal, result.mode, ": ", result.failed,
                       " requests failed: ", result.firstError);
  if (report.verification && report.verification->mismatches > 0)
    return makeError(
        StatusCode::Internal, "--verify: ", report.verification->mismatches,
        " of ", report.verification->requests,
        " requests differ from a run alone: ", report.verification->first);
  return Status::ok();
}
