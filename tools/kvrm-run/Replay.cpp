//===- Replay.cpp - kvrm-run replay -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "ReplayProgress.h"
#include "ReplaySummary.h"

#include "kvrm/runtime/support/ReplaceFile.h"
#include "replay/Replay.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <unistd.h>

using namespace kvrm;
using namespace kvrm::run;

namespace {

/// The command line, before it is checked.
struct Arguments {
  CommonOptions common;
  replay::Options options;
  std::string format = "auto";
  std::string preemption = "cheaper";
  std::string verify; ///< a number or "all"
  std::string output;
  std::string timeline;
  bool isQuiet = false;
};

} // namespace

static void addWorkOptions(CLI::App &command, Arguments &arguments) {
  replay::Options &options = arguments.options;
  command.add_option("--trace", options.trace,
                     "File, or synthetic:family=chat,seed=1,requests=500,...");
  command.add_option("--format", arguments.format, "auto, azure or mooncake");
  command
      .add_option("--modes", options.modes,
                  "Of kvrm, max, bucketed; without: all that have packages")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--static", options.staticPackage,
                     "Static package, for the mode max");
  command
      .add_option("--bucket", options.buckets,
                  "Static package of one capacity, for the mode bucketed; "
                  "repeat for each")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  command.add_option("--duration", options.duration,
                     "Seconds of the trace, 0 = all");
  command.add_option("--requests", options.requests,
                     "Most requests of the trace, 0 = all");
  command.add_option("--time-scale", options.timeScale,
                     "Arrival times are multiplied by this");
  command.add_option("--load", options.load,
                     "Scale time so that this much of what kvrm serves when "
                     "saturated is offered");
  command.add_flag("--saturation", options.isSaturated,
                   "Submit as fast as the queue takes requests");
  command.add_option("--limit-seconds", options.limitSeconds,
                     "End a mode after so long, 0 = never");
  command.add_option("--kv-budget", options.kvBudgetMebibytes,
                     "KV memory of each mode in MiB, 0 = what static packages "
                     "reserve");
  command.add_option("--max-prompt", options.maxPrompt,
                     "Clip prompts to so many tokens, 0 = to the capacity");
  command.add_option("--length-scale", options.lengthScale,
                     "Prompt and output lengths are multiplied by this");
  command.add_option("--overload", options.overload,
                     "How much denser arrivals are during --overload-seconds");
  command.add_option("--overload-seconds", options.overloadSeconds,
                     "How long they are, from a third of the replay on");
}

static void addServingOptions(CLI::App &command, Arguments &arguments) {
  replay::Options &options = arguments.options;
  addEngineOptions(command, options.engine, arguments.common.session);
  command.add_option("--stall-factor", options.engine.stallFactor,
                     "Prefill between two decode steps, in decode steps (1)");
  command.add_option("--preemption", arguments.preemption,
                     "cheaper, park or recompute");
  command.add_option("--verify", arguments.verify,
                     "Run so many requests, or all, again alone and compare "
                     "their tokens");
  addSeedOption(command, "--seed", options.seed, "Seed of prompt tokens");
  command.add_option("--warm-up", options.warmupSeconds,
                     "Most seconds to touch memory in before a run (3)");
  command.add_option("-o,--output", arguments.output, "File to write JSON to");
  command.add_option("--timeline", arguments.timeline,
                     "File to write trace events to, for ui.perfetto.dev");
  command.add_flag("-q,--quiet", arguments.isQuiet, "No progress");
}

static Expected<TraceFormat> parseFormat(const std::string &text) {
  if (text == "auto")
    return TraceFormat::Auto;
  if (text == "azure")
    return TraceFormat::Azure;
  if (text == "mooncake")
    return TraceFormat::Mooncake;
  return invalidArgument("--format: '", text,
                         "' is not one of auto, azure, mooncake");
}

static Expected<PreemptionPolicy> parsePreemption(const std::string &text) {
  for (PreemptionPolicy policy :
       {PreemptionPolicy::Cheaper, PreemptionPolicy::Park,
        PreemptionPolicy::Recompute})
    if (text == replay::preemptionName(policy))
      return policy;
  return invalidArgument("--preemption: '", text,
                         "' is not one of cheaper, park, recompute");
}

/// The number of --verify: 0 without one.
static Expected<int64_t> parseVerify(const std::string &text) {
  if (text.empty())
    return int64_t(0);
  if (text == "all")
    return maxTraceRequests;
  int64_t count = 0;
  const char *end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc() || stop != end || count < 1 ||
      count > maxTraceRequests)
    return invalidArgument("--verify: '", text,
                           "' is not 'all' or a number in 1..",
                           maxTraceRequests);
  return count;
}

static Expected<replay::Options> makeOptions(const Arguments &arguments) {
  replay::Options options = arguments.options;
  options.package = arguments.common.package;
  options.session = arguments.common.session;
  KVRM_TRY(replay::checkOptions(options));
  Expected<TraceFormat> format = parseFormat(arguments.format);
  KVRM_TRY(format.status());
  options.format = *format;
  Expected<PreemptionPolicy> policy = parsePreemption(arguments.preemption);
  KVRM_TRY(policy.status());
  options.engine.preemption = *policy;
  Expected<int64_t> verify = parseVerify(arguments.verify);
  KVRM_TRY(verify.status());
  options.verify = *verify;
  return options;
}

static ReplayProgress::Style progressStyle(const Arguments &arguments) {
  using enum ReplayProgress::Style;
  if (arguments.isQuiet)
    return Silent;
  if (isatty(2))
    return Line;
  return arguments.common.isVerbose ? Log : Silent;
}

static Status closeTimeline(replay::Timeline &timeline,
                            const Arguments &arguments) {
  if (timeline.isFull() && !arguments.isQuiet)
    std::fprintf(stderr, "kvrm-run: %s: ends at the limit of %lld events\n",
                 arguments.timeline.c_str(),
                 static_cast<long long>(replay::Timeline::maxEvents));
  return timeline.close();
}

static Status writeReport(const replay::Report &report,
                          const Arguments &arguments,
                          std::optional<UnfinishedFile> &output) {
  if (arguments.common.isJson || output) {
    std::string text = replay::toJson(report);
    if (output) {
      KVRM_TRY(output->write(text));
      KVRM_TRY(output->commit());
    }
    if (arguments.common.isJson)
      std::fwrite(text.data(), 1, text.size(), stdout);
  }
  if (!arguments.common.isJson)
    printSummary(report);
  return Status::ok();
}

/// Outputs against what the replay reads, and against each other.
static Status checkOutputs(const Arguments &arguments) {
  const replay::Options &options = arguments.options;
  std::vector<std::string> inputs = options.buckets;
  inputs.insert(inputs.end(),
                {arguments.common.package, options.trace, options.staticPackage,
                 arguments.common.session.calibration});
  KVRM_TRY(checkOutput(arguments.output, inputs));
  inputs.push_back(arguments.output);
  return checkOutput(arguments.timeline, inputs);
}

static Status runReplay(const Arguments &arguments) {
  KVRM_TRY(checkPackage(arguments.common));
  Expected<replay::Options> options = makeOptions(arguments);
  KVRM_TRY(options.status());
  // A replay may take hours: outputs are refused before it.
  KVRM_TRY(checkOutputs(arguments));
  std::optional<UnfinishedFile> output;
  if (!arguments.output.empty()) {
    Expected<UnfinishedFile> created = UnfinishedFile::create(arguments.output);
    KVRM_TRY(created.status());
    output.emplace(created.take());
  }
  std::unique_ptr<replay::Timeline> timeline;
  if (!arguments.timeline.empty()) {
    Expected<std::unique_ptr<replay::Timeline>> created =
        replay::Timeline::create(arguments.timeline);
    KVRM_TRY(created.status());
    timeline = created.take();
  }
  ReplayProgress progress(progressStyle(arguments));
  Expected<replay::Report> report =
      replay::runReplay(*options, timeline.get(), &progress);
  KVRM_TRY(report.status());
  if (timeline)
    KVRM_TRY(closeTimeline(*timeline, arguments));
  KVRM_TRY(writeReport(*report, arguments, output));
  return replay::verdict(*report);
}

Command run::addReplay(CLI::App &app) {
  CLI::App *command = app.add_subcommand(
      "replay", "Serve a trace of requests, beside static baselines");
  auto arguments = std::make_shared<Arguments>();
  addPackageOptions(*command, arguments->common);
  addSessionOptions(*command, arguments->common);
  addWorkOptions(*command, *arguments);
  addServingOptions(*command, *arguments);
  return {command, [arguments] { return runReplay(*arguments); }};
}
