//===- Bench.cpp - kvrm-run bench -------------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include "measure/DecodeBench.h"
#include "measure/Percentile.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace kvrm;
using namespace kvrm::run;
using measure::DecodeBench;
using measure::DecodeBenchOptions;
using measure::Measurement;
using measure::percentile;
using nlohmann::json;

namespace {

struct Arguments {
  CommonOptions common;
  DecodeBenchOptions bench{.active = 0}; ///< 0 = all slots
  std::vector<int32_t> contexts{128};
};

} // namespace

static Status checkSteps(const DecodeBenchOptions &bench) {
  if (bench.steps < 1 || bench.steps > 1000000)
    return invalidArgument("--steps: ", bench.steps, " is outside 1..1000000");
  if (bench.warmup < 0 || bench.warmup > 1000000)
    return invalidArgument("--warmup: ", bench.warmup,
                           " is outside 0..1000000");
  return Status::ok();
}

static Status checkSizes(const Arguments &arguments, const Manifest &m) {
  const DecodeBenchOptions &bench = arguments.bench;
  if (bench.active < 0 || bench.active > m.slots)
    return invalidArgument("--slots-active: ", bench.active, " is outside 0..",
                           m.slots);
  int64_t grown = int64_t(bench.warmup) + bench.steps;
  for (int32_t context : arguments.contexts)
    if (context < 1 || context + grown > m.capacity)
      return invalidArgument("--contexts: ", context, " tokens and ", grown,
                             " steps are outside 1..", m.capacity);
  return Status::ok();
}

/// Lengths of their own for the first slots, of which the longest is the
/// context.
static Status useLengths(Arguments &arguments, const Manifest &m) {
  DecodeBenchOptions &bench = arguments.bench;
  if (bench.lengths.empty())
    return Status::ok();
  if (bench.active != 0 || bench.isRagged)
    return invalidArgument("--lengths: says which slots are active, and how "
                           "long; --slots-active and --ragged are not for it");
  if (bench.lengths.size() > static_cast<size_t>(m.slots))
    return invalidArgument("--lengths: ", bench.lengths.size(),
                           " are more than the ", m.slots, " slots");
  for (int32_t length : bench.lengths)
    if (length < 1)
      return invalidArgument("--lengths: ", length, " is less than 1");
  bench.active = static_cast<int32_t>(bench.lengths.size());
  arguments.contexts = {std::ranges::max(bench.lengths)};
  return Status::ok();
}

static double prefillRate(const Measurement &result) {
  return result.prefillNanoseconds > 0
             ? static_cast<double>(result.prefillTokens) * 1e9 /
                   static_cast<double>(result.prefillNanoseconds)
             : 0;
}

static double decodeRate(const Measurement &result, int32_t active) {
  double median = percentile(result.stepNanoseconds, 50);
  return median > 0 ? active * 1e9 / median : 0;
}

//===----------------------------------------------------------------------===//
// Printing
//===----------------------------------------------------------------------===//

static void printHead(const Arguments &arguments, const Manifest &m,
                      const Decoder &session) {
  std::string products = session.products();
  if (!products.empty())
    products.insert(0, ", products ");
  std::printf("%s: %s, %s, %d of %d slots, %d threads, %d steps, reserved KV "
              "%.1f MiB%s\n",
              arguments.common.package.c_str(), oneLine(m.modelName).c_str(),
              m.isPaged ? "paged" : "static", arguments.bench.active, m.slots,
              arguments.common.session.workers(), arguments.bench.steps,
              static_cast<double>(session.reservedKvBytes()) / (1 << 20),
              products.c_str());
  std::printf("%8s %10s %9s %9s %9s %10s %10s %7s %7s %8s %9s %8s %8s\n",
              "context", "prefill/s", "p50 ms", "p99 ms", "max ms", "decode/s",
              "live MiB", "groups", "items", "plan us", "commit us", "commit B",
              "host us");
}

static void printRow(const Measurement &result, int32_t active) {
  char host[32] = "-";
  if (!result.hostNanoseconds.empty())
    std::snprintf(host, sizeof(host), "%.2f",
                  percentile(result.hostNanoseconds, 50) / 1e3);
  std::printf(
      "%8d %10.1f %9.3f %9.3f %9.3f %10.1f %10.1f %7d %7d %8.2f %9.2f "
      "%8.0f %8s\n",
      result.context, prefillRate(result),
      percentile(result.stepNanoseconds, 50) / 1e6,
      percentile(result.stepNanoseconds, 99) / 1e6,
      percentile(result.stepNanoseconds, 100) / 1e6, decodeRate(result, active),
      static_cast<double>(result.liveBytes) / (1 << 20), result.last.groups,
      result.last.items, percentile(result.planNanoseconds, 50) / 1e3,
      percentile(result.commitNanoseconds, 50) / 1e3,
      percentile(result.commitBytes, 50), host);
  if (!result.mixedNanoseconds.empty())
    std::printf("%8s %d tokens of a prompt: %.3f ms with the step, %.3f ms "
                "alone\n",
                "", result.chunkTokens,
                percentile(result.mixedNanoseconds, 50) / 1e6,
                percentile(result.chunkNanoseconds, 50) / 1e6);
  std::fflush(stdout);
}

/// Null without a mixed step.
static json mixedJson(const Measurement &result) {
  if (result.mixedNanoseconds.empty())
    return nullptr;
  auto ms = [](const std::vector<int64_t> &values) {
    return percentile(values, 50) / 1e6;
  };
  return {{"chunk_tokens", result.chunkTokens},
          {"step_ms", ms(result.mixedNanoseconds)},
          {"chunk_ms", ms(result.chunkNanoseconds)}};
}

static json rowJson(const Measurement &result, int32_t active) {
  auto ms = [&](double percent) {
    return percentile(result.stepNanoseconds, percent) / 1e6;
  };
  auto medianAndMax = [](const std::vector<int64_t> &values, double unit) {
    return json{{"p50", percentile(values, 50) / unit},
                {"max", percentile(values, 100) / unit}};
  };
  return {{"context", result.context},
          {"prefill_tokens", result.prefillTokens},
          {"prefill_tokens_per_s", prefillRate(result)},
          {"steps", result.stepNanoseconds.size()},
          {"step_ms",
           {{"min", ms(0)},
            {"p50", ms(50)},
            {"p90", ms(90)},
            {"p99", ms(99)},
            {"p99.9", ms(99.9)},
            {"max", ms(100)}}},
          {"mixed", mixedJson(result)},
          {"decode_tokens_per_s", decodeRate(result, active)},
          {"attend_ms", percentile(result.attendNanoseconds, 50) / 1e6},
          {"live_kv_bytes", result.liveBytes},
          {"pages", result.last.pages},
          {"groups", result.last.groups},
          {"items", result.last.items},
          {"segments", result.last.segments},
          {"tiles", result.last.tiles},
          {"stage_copies", result.last.stageCopies},
          {"stage_bytes", result.last.stageBytes},
          {"plan_us", medianAndMax(result.planNanoseconds, 1e3)},
          {"commit_us", medianAndMax(result.commitNanoseconds, 1e3)},
          {"commit_bytes", medianAndMax(result.commitBytes, 1)},
          {"host_us", result.hostNanoseconds.empty()
                          ? json(nullptr)
                          : medianAndMax(result.hostNanoseconds, 1e3)}};
}

static void printJson(const Arguments &arguments, const Decoder &session,
                      json rows) {
  json out = {{"package", arguments.common.package},
              {"mode", session.isPaged() ? "paged" : "static"},
              {"slots", session.slots()},
              {"slots_active", arguments.bench.active},
              {"ragged", arguments.bench.isRagged},
              {"lengths", arguments.bench.lengths},
              {"threads", arguments.common.session.workers()},
              {"reserved_kv_bytes", session.reservedKvBytes()},
              {"pool_pages", session.poolPages()},
              {"products", session.products()},
              {"results", std::move(rows)}};
  std::cout << out.dump(2) << "\n";
  std::cout.flush();
}

//===----------------------------------------------------------------------===//
// The command
//===----------------------------------------------------------------------===//

static Status bench(Arguments arguments) {
  const CommonOptions &common = arguments.common;
  DecodeBenchOptions &options = arguments.bench;
  KVRM_TRY(checkPackage(common));
  KVRM_TRY(checkSteps(options));
  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  KVRM_TRY(useLengths(arguments, (*package)->manifest()));
  std::ranges::sort(arguments.contexts);
  KVRM_TRY(checkSizes(arguments, (*package)->manifest()));
  if (options.active == 0)
    options.active = (*package)->manifest().slots;
  Expected<std::unique_ptr<Decoder>> session =
      createDecoder(*package, common.session);
  KVRM_TRY(session.status());

  DecodeBench bench(**session, options);
  json rows = json::array();
  if (!common.isJson)
    printHead(arguments, (*package)->manifest(), **session);
  for (int32_t context : arguments.contexts) {
    if (isatty(2) && !common.isJson)
      std::fprintf(stderr, "\rkvrm-run: context %d ...\r", context);
    Expected<Measurement> result = bench.measure(context);
    KVRM_TRY(result.status());
    if (common.isJson)
      rows.push_back(rowJson(*result, options.active));
    else
      printRow(*result, options.active);
  }
  if (common.isJson)
    printJson(arguments, **session, std::move(rows));
  return Status::ok();
}

Command run::addBench(CLI::App &app) {
  CLI::App *command = app.add_subcommand("bench", "Time decode steps");
  auto arguments = std::make_shared<Arguments>();
  DecodeBenchOptions &options = arguments->bench;
  addPackageOptions(*command, arguments->common);
  addSessionOptions(*command, arguments->common);
  command->add_option("--slots-active", options.active,
                      "Slots that decode, 0 = all");
  command
      ->add_option("--contexts,--context", arguments->contexts,
                   "History lengths to start from, e.g. 128,1024")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--steps", options.steps, "Timed steps a context");
  command->add_option("--warmup", options.warmup, "Steps before those");
  command->add_flag("--ragged", options.isRagged,
                    "Spread histories evenly over 1..context");
  command
      ->add_option("--lengths", options.lengths,
                   "Histories of the first slots, e.g. 17,300,16384, instead "
                   "of contexts")
      ->delimiter(',')
      ->allow_extra_args(false);
  addSeedOption(*command, "--seed", options.seed, "Seed of the histories");
  Command attention = addAttentionBench(*command);
  Command parking = addParkingBench(*command);
  return {command, [arguments, attention, parking] {
            return attention.app->parsed() ? attention.run()
                   : parking.app->parsed() ? parking.run()
                                           : bench(*arguments);
          }};
}
