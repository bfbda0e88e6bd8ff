//===- Bench.cpp - kvrm-run bench -------------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <unistd.h>

using namespace kvrm;
using nlohmann::json;

namespace {

/// One line of the result: all slots at one context.
struct Measurement {
  int32_t context = 0;
  int64_t prefillTokens = 0;
  int64_t prefillNanoseconds = 0;
  std::vector<int64_t> stepNanoseconds;
  std::vector<int64_t> planNanoseconds;
  std::vector<int64_t> commitNanoseconds;
  std::vector<int64_t> commitBytes;
  std::vector<int64_t> attendNanoseconds;
  StepStats last;
  int64_t liveBytes = 0;
};

} // namespace

static int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

static Status measure(Session &session, const run::BenchOptions &options,
                      int32_t active, std::mt19937_64 &random,
                      Measurement &out) {
  auto vocabulary = static_cast<uint64_t>(session.vocabulary());
  auto randomToken = [&] {
    return static_cast<int32_t>(random() % vocabulary);
  };
  std::vector<int32_t> prompt;
  for (int32_t slot = 0; slot < active; ++slot) {
    int32_t target = out.context;
    if (options.isRagged)
      target = std::max<int32_t>(
          1, static_cast<int32_t>(int64_t(out.context) * (slot + 1) / active));
    // What has collapsed cannot be cut: then the slot starts anew.
    if (session.length(slot) > target && !session.trim(slot, target).isOk())
      KVRM_TRY(session.release(slot));
    prompt.resize(static_cast<size_t>(target - session.length(slot)));
    if (prompt.empty())
      continue;
    std::ranges::generate(prompt, randomToken);
    int64_t start = now();
    KVRM_TRY(session.prefill(slot, prompt, nullptr));
    out.prefillNanoseconds += now() - start;
    out.prefillTokens += static_cast<int64_t>(prompt.size());
  }
  std::vector<int32_t> tokens(static_cast<size_t>(session.slots()), -1);
  std::vector<float> logits(static_cast<size_t>(session.slots()) *
                            static_cast<size_t>(session.vocabulary()));
  for (int32_t step = 0; step < options.warmup + options.steps; ++step) {
    for (int32_t slot = 0; slot < active; ++slot)
      tokens[static_cast<size_t>(slot)] = randomToken();
    int64_t start = now();
    KVRM_TRY(session.decode(tokens, logits.data()));
    int64_t spent = now() - start;
    if (step < options.warmup)
      continue;
    out.last = session.lastStep();
    out.stepNanoseconds.push_back(spent);
    out.planNanoseconds.push_back(out.last.planNanoseconds);
    out.commitNanoseconds.push_back(out.last.commitNanoseconds);
    out.commitBytes.push_back(out.last.committedBytes);
    out.attendNanoseconds.push_back(out.last.attendNanoseconds);
  }
  out.liveBytes = session.liveKvBytes();
  return Status::ok();
}

Status run::bench(const CommonOptions &common, const BenchOptions &options) {
  if (options.steps < 1 || options.steps > 1000000)
    return invalidArgument("--steps: ", options.steps,
                           " is outside 1..1000000");
  if (options.warmup < 0 || options.warmup > 1000000)
    return invalidArgument("--warmup: ", options.warmup,
                           " is outside 0..1000000");
  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  const Manifest &m = (*package)->manifest();
  if (options.active < 0 || options.active > m.slots)
    return invalidArgument("--slots-active: ", options.active,
                           " is outside 0..", m.slots);
  int32_t active = options.active == 0 ? m.slots : options.active;
  std::vector<int32_t> contexts = options.contexts;
  std::ranges::sort(contexts);
  int64_t grown = int64_t(options.warmup) + options.steps;
  for (int32_t context : contexts)
    if (context < 1 || context + grown > m.capacity)
      return invalidArgument("--contexts: ", context, " tokens and ", grown,
                             " steps are outside 1..", m.capacity);
  Expected<std::unique_ptr<Session>> session =
      Session::create(*package, common.session);
  KVRM_TRY(session.status());

  std::mt19937_64 random(options.seed);
  json rows = json::array();
  if (!common.isJson) {
    std::printf("%s: %s, %s, %d of %d slots, %d threads, %d steps, reserved KV "
                "%.1f MiB\n",
                common.package.c_str(), m.modelName.c_str(),
                m.isPaged ? "paged" : "static", active, m.slots,
                (*session)->workers(), options.steps,
                static_cast<double>((*session)->reservedKvBytes()) / (1 << 20));
    std::printf("%8s %10s %9s %9s %9s %10s %10s %7s %7s %8s %9s %8s\n",
                "context", "prefill/s", "p50 ms", "p99 ms", "max ms",
                "decode/s", "live MiB", "groups", "items", "plan us",
                "commit us", "commit B");
  }
  for (int32_t context : contexts) {
    if (isatty(2) && !common.isJson)
      std::fprintf(stderr, "\rkvrm-run: context %d ...\r", context);
    Measurement result;
    result.context = context;
    KVRM_TRY(measure(**session, options, active, random, result));
    double prefillRate =
        result.prefillNanoseconds > 0
            ? static_cast<double>(result.prefillTokens) * 1e9 /
                  static_cast<double>(result.prefillNanoseconds)
            : 0;
    double median = percentile(result.stepNanoseconds, 50);
    double decodeRate = median > 0 ? active * 1e9 / median : 0;
    if (common.isJson) {
      auto ms = [&](double percent) {
        return percentile(result.stepNanoseconds, percent) / 1e6;
      };
      rows.push_back(
          {{"context", context},
           {"prefill_tokens", result.prefillTokens},
           {"prefill_tokens_per_s", prefillRate},
           {"steps", result.stepNanoseconds.size()},
           {"step_ms",
            {{"min", ms(0)},
             {"p50", ms(50)},
             {"p90", ms(90)},
             {"p99", ms(99)},
             {"p99.9", ms(99.9)},
             {"max", ms(100)}}},
           {"decode_tokens_per_s", decodeRate},
           {"attend_ms", percentile(result.attendNanoseconds, 50) / 1e6},
           {"live_kv_bytes", result.liveBytes},
           {"pages", result.last.pages},
           {"groups", result.last.groups},
           {"items", result.last.items},
           {"segments", result.last.segments},
           {"tiles", result.last.tiles},
           {"stage_copies", result.last.stageCopies},
           {"stage_bytes", result.last.stageBytes},
           {"plan_us",
            {{"p50", percentile(result.planNanoseconds, 50) / 1e3},
             {"max", percentile(result.planNanoseconds, 100) / 1e3}}},
           {"commit_us",
            {{"p50", percentile(result.commitNanoseconds, 50) / 1e3},
             {"max", percentile(result.commitNanoseconds, 100) / 1e3}}},
           {"commit_bytes",
            {{"p50", percentile(result.commitBytes, 50)},
             {"max", percentile(result.commitBytes, 100)}}}});
      continue;
    }
    std::printf(
        "%8d %10.1f %9.3f %9.3f %9.3f %10.1f %10.1f %7d %7d %8.2f %9.2f "
        "%8.0f\n",
        context, prefillRate, median / 1e6,
        percentile(result.stepNanoseconds, 99) / 1e6,
        percentile(result.stepNanoseconds, 100) / 1e6, decodeRate,
        static_cast<double>(result.liveBytes) / (1 << 20), result.last.groups,
        result.last.items, percentile(result.planNanoseconds, 50) / 1e3,
        percentile(result.commitNanoseconds, 50) / 1e3,
        percentile(result.commitBytes, 50));
    std::fflush(stdout);
  }
  if (common.isJson) {
    json out = {{"package", common.package},
                {"mode", m.isPaged ? "paged" : "static"},
                {"slots", m.slots},
                {"slots_active", active},
                {"ragged", options.isRagged},
                {"threads", (*session)->workers()},
                {"reserved_kv_bytes", (*session)->reservedKvBytes()},
                {"pool_pages", (*session)->poolPages()},
                {"results", rows}};
    std::cout << out.dump(2) << "\n";
    std::cout.flush();
  }
  return Status::ok();
}
