//===- Report.cpp - All that a replay found out -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Report.h"
#include "Curves.h"
#include "Figures.h"

using namespace kvrm;
using namespace kvrm::replay;
using nlohmann::json;

Status replay::verdict(const Report &report) {
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

static json summaryOf(const Distribution &all) {
  return {{"count", all.count()},      {"mean", all.mean()},
          {"p50", all.percentile(50)}, {"p90", all.percentile(90)},
          {"p99", all.percentile(99)}, {"p99.9", all.percentile(99.9)},
          {"max", all.max()}};
}

static json requestsJson(const ModeResult &result) {
  return {{"done", result.done},
          {"refused", result.refused},
          {"failed", result.failed},
          {"unfinished", result.unfinished}};
}

static json tokensJson(const ModeResult &result) {
  return {{"generated", result.doneTokens},
          {"prompt", result.promptTokens},
          {"generated_per_s", result.tokensPerSecond()},
          {"all_per_s", result.allTokensPerSecond()}};
}

static json preemptionsJson(const ModeResult &result) {
  const EngineStats &stats = result.stats;
  return {{"parked", stats.parked},
          {"unparked", stats.unparked},
          {"parked_bytes", stats.parkedTokens * result.tokenKvBytes},
          {"recomputed", stats.recomputed},
          {"recomputed_tokens", stats.recomputedTokens}};
}

static json kvJson(const ModeResult &result) {
  return {{"reserved_bytes", result.budgetBytes},
          {"token_bytes", result.tokenKvBytes},
          {"page_tokens", result.pageTokens},
          {"pool_pages", result.poolPages},
          {"mean_pool_bytes", result.meanPoolBytes},
          {"mean_held_bytes", result.meanHeldBytes},
          {"mean_live_bytes", result.meanLiveBytes},
          {"peak_held_bytes", result.peakHeldBytes},
          {"peak_live_bytes", result.peakLiveBytes},
          {"max_held_to_live_and_page", result.worstHeld}};
}

static json transferJson(const Figures &f) {
  using enum Figures::Tenth;
  return {
      {"groups", summaryOf(f.groups)},
      {"pages_per_group", summaryOf(f.pagesPerGroup)},
      {"groups_first_tenth", f.mean(First, Figures::groupsOf)},
      {"groups_last_tenth", f.mean(Last, Figures::groupsOf)},
      {"pages_per_group_first_tenth", f.mean(First, Figures::pagesPerGroupOf)},
      {"pages_per_group_last_tenth", f.mean(Last, Figures::pagesPerGroupOf)},
      {"committed_bytes", summaryOf(f.committed)},
      {"stage_copies", summaryOf(f.stageCopies)},
      {"plan_us", summaryOf(f.plan)}};
}

static json latencyJson(const Figures &f) {
  return {{"itl_tail", tailOf(f.itl)},
          {"ttft_tail", tailOf(f.ttft)},
          {"itl_histogram", histogramOf(f.itl)},
          {"ttft_histogram", histogramOf(f.ttft)},
          {"itl_windows", windowsOf(f.result.itl, f.result.seconds)},
          {"ttft", pointsOf(f.result.ttft)}};
}

static json modeJson(const ModeResult &result) {
  Figures f(result);
  json out = {{"mode", result.mode},
              {"packages", result.packages},
              {"slots", result.slots},
              {"capacity", result.capacity},
              {"seconds", result.seconds},
              {"idle_s", result.idleSeconds},
              {"cut", result.isCut},
              {"requests", requestsJson(result)},
              {"tokens", tokensJson(result)},
              {"ttft_ms", summaryOf(f.ttft)},
              {"itl_ms", summaryOf(f.itl)},
              {"itl_ratios",
               {{"p99_to_p50", f.itl.ratio(99, 50)},
                {"max_to_p50", f.itl.ratio(100, 50)}}},
              {"decode_step_ms", summaryOf(f.step)},
              {"queue_wait_ms", summaryOf(f.wait)},
              {"busy_s",
               {{"prefill", toSeconds(result.prefillNanoseconds)},
                {"decode", toSeconds(result.decodeNanoseconds)}}},
              {"preemptions", preemptionsJson(result)},
              {"kv", kvJson(result)}};
  if (result.poolPages > 0) {
    out["transfer"] = transferJson(f);
    out["sharing"] = {{"tokens", result.stats.sharedTokens},
                      {"pages", result.stats.sharedPages},
                      {"evicted", result.stats.evicted}};
  }
  if (result.mode == "bucketed")
    out["buckets"] = {{"moves", result.bucketMoves},
                      {"moved_bytes", result.bucketMovedBytes}};
  out["latency"] = latencyJson(f);
  out["series"] = seriesOf(result.series.points());
  return out;
}

std::string replay::toJson(const Report &report) {
  const Options &options = report.options;
  const Workload &work = report.work;
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
                {"queue_limit", options.engine.queueLimit},
                {"stall_factor", options.engine.stallFactor},
                {"share_prefixes", options.engine.sharesPrefixes},
                {"kept_histories", options.session.keptHistories},
                {"parking_places", options.session.parkingPlaces},
                {"preemption", preemptionName(options.engine.preemption)},
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
