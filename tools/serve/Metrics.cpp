//===- Metrics.cpp - What a server counts ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Metrics.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string_view>
#include <unistd.h>

using namespace kvrm;
using namespace kvrm::serve;

//===----------------------------------------------------------------------===//
// Prometheus' text form
//===----------------------------------------------------------------------===//

static void head(std::string &out, std::string_view name, const char *type,
                 std::string_view help) {
  out.append("# HELP ").append(name).append(" ").append(help);
  out.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

/// `labels` is empty, or as in `{code="200"}`.
static void line(std::string &out, std::string_view name,
                 std::string_view labels, int64_t value) {
  out.append(name).append(labels).append(" ").append(std::to_string(value));
  out.append("\n");
}

static void gauge(std::string &out, std::string_view name,
                  std::string_view help, int64_t value) {
  head(out, name, "gauge", help);
  line(out, name, "", value);
}

static std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.9g", value);
  return text.data();
}

//===----------------------------------------------------------------------===//
// Histogram
//===----------------------------------------------------------------------===//

void Histogram::observe(int64_t nanoseconds) {
  double seconds = static_cast<double>(nanoseconds) / 1e9;
  auto bound = std::ranges::lower_bound(bounds, seconds);
  ++counts[static_cast<size_t>(bound - bounds.begin())];
  sum += seconds;
}

void Histogram::write(std::string &out, const char *name,
                      const char *help) const {
  head(out, name, "histogram", help);
  int64_t below = 0; // buckets are cumulative
  for (size_t i = 0; i < counts.size(); ++i) {
    below += counts[i];
    std::string bound = i < bounds.size() ? number(bounds[i]) : "+Inf";
    line(out, std::string(name) + "_bucket", "{le=\"" + bound + "\"}", below);
  }
  out.append(name).append("_sum ").append(number(sum)).append("\n");
  line(out, std::string(name) + "_count", "", below);
}

//===----------------------------------------------------------------------===//
// Metrics
//===----------------------------------------------------------------------===//

static const char *outcomeName(Outcome outcome) {
  switch (outcome) {
  case Outcome::Stop:
    return "stop";
  case Outcome::Length:
    return "length";
  case Outcome::Invalid:
    return "invalid";
  case Outcome::QueueFull:
    return "queue_full";
  case Outcome::Draining:
    return "draining";
  case Outcome::ClientGone:
    return "client_gone";
  case Outcome::SlowReader:
    return "slow_reader";
  case Outcome::Failed:
    return "failed";
  }
  return "?";
}

void Metrics::observeFirstToken(int64_t nanoseconds) {
  std::lock_guard lock(mutex);
  firstToken.observe(nanoseconds);
}

void Metrics::observeNextToken(int64_t nanoseconds) {
  std::lock_guard lock(mutex);
  nextToken.observe(nanoseconds);
}

void Metrics::countOutcome(Outcome outcome) {
  std::lock_guard lock(mutex);
  ++outcomes[static_cast<size_t>(outcome)];
}

void Metrics::countResponse(int status) {
  std::lock_guard lock(mutex);
  ++responses[status];
}

static void writeEngine(std::string &out, const EngineState &engine) {
  const EngineStats &stats = engine.stats;
  gauge(out, "kvrm_queue_length", "Requests that have not started.",
        engine.waiting);
  gauge(out, "kvrm_slots", "Slots of the decoder.", engine.slots);
  gauge(out, "kvrm_slots_running", "Slots with a request.", stats.running);
  gauge(out, "kvrm_requests_preempted",
        "Requests that wait for pages in the middle of their work.",
        stats.preempted);
  gauge(out, "kvrm_pages_free", "KV pages that no history has.",
        engine.freePages);
  gauge(out, "kvrm_pages_used", "KV pages that histories have, kept ones too.",
        engine.pages - engine.freePages);

  head(out, "kvrm_preemptions_total", "counter",
       "Requests preempted, by how their history was kept.");
  line(out, "kvrm_preemptions_total", "{how=\"parked\"}", stats.parked);
  line(out, "kvrm_preemptions_total", "{how=\"recomputed\"}", stats.recomputed);
  head(out, "kvrm_tokens_total", "counter",
       "Tokens: of prompts computed and found in the pool, and of decode "
       "steps.");
  line(out, "kvrm_tokens_total", "{kind=\"prompt\"}", stats.prefillTokens);
  line(out, "kvrm_tokens_total", "{kind=\"shared\"}", stats.sharedTokens);
  line(out, "kvrm_tokens_total", "{kind=\"decoded\"}", stats.decodeTokens);
  head(out, "kvrm_steps_total", "counter", "Decode steps.");
  line(out, "kvrm_steps_total", "", stats.steps);
  head(out, "kvrm_step_failures_total", "counter", "Steps that failed.");
  line(out, "kvrm_step_failures_total", "", engine.stepFailures);
}

/// Pages of memory that the process has; 0 where the system does not say.
static int64_t residentPages() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  return file >> size >> resident ? resident : 0;
}

std::string Metrics::text(const EngineState &engine,
                          int32_t connections) const {
  std::string out;
  writeEngine(out, engine);
  gauge(out, "kvrm_connections", "Open connections.", connections);
  gauge(out, "process_resident_memory_bytes", "Memory of the process.",
        residentPages() * ::sysconf(_SC_PAGESIZE));
  std::lock_guard lock(mutex);
  head(out, "kvrm_requests_total", "counter",
       "Requests for completions, by how they ended.");
  for (size_t i = 0; i < outcomeCount; ++i)
    line(out, "kvrm_requests_total",
         std::string("{outcome=\"") + outcomeName(static_cast<Outcome>(i)) +
             "\"}",
         outcomes[i]);
  head(out, "kvrm_http_responses_total", "counter", "Responses, by status.");
  for (const auto &[status, count] : responses)
    line(out, "kvrm_http_responses_total",
         "{code=\"" + std::to_string(status) + "\"}", count);
  firstToken.write(out, "kvrm_time_to_first_token_seconds",
                   "From a request's arrival to its first token.");
  nextToken.write(out, "kvrm_inter_token_seconds",
                  "Between two tokens of a request.");
  return out;
}
