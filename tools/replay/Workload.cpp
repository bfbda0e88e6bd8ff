//===- Workload.cpp - Requests that a replay submits ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Workload.h"

#include "kvrm/runtime/support/SplitMix64.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;
using namespace kvrm::replay;

static int32_t scaled(int32_t tokens, double scale) {
  // The limit keeps sums of two far from overflow.
  constexpr double most = 1 << 28;
  return static_cast<int32_t>(
      std::clamp(std::ceil(tokens * scale - 1e-9), 1.0, most));
}

/// Cuts a trace to what was asked for. Requests keep their numbers, so that a
/// slice has equal tokens.
static void takeSlice(std::vector<TraceRequest> &requests,
                      const Options &options) {
  if (options.duration > 0) {
    auto end = static_cast<int64_t>(options.duration * 1e9);
    auto after =
        std::ranges::find_if(requests, [&](const TraceRequest &request) {
          return request.arrival >= end;
        });
    requests.erase(after, requests.end());
  }
  if (options.requests > 0 &&
      requests.size() > static_cast<size_t>(options.requests))
    requests.resize(static_cast<size_t>(options.requests));
}

Expected<Workload> Workload::create(const Options &options,
                                    const WorkLimits &limits) {
  Expected<Trace> loaded = loadTrace(options.trace, options.format);
  KVRM_TRY(loaded.status());
  Workload work;
  work.trace = loaded.take();
  work.seed = SplitMix64::mix(options.seed);
  work.vocabulary = limits.vocabulary;
  if (work.trace.blockTokens > 0)
    work.blockTokens = scaled(work.trace.blockTokens, options.lengthScale);
  takeSlice(work.trace.requests, options);
  for (const TraceRequest &request : work.trace.requests)
    work.add(request, options, limits);
  KVRM_CHECK(!work.items.empty(), "the first request is in every slice");
  return work;
}

/// Scales and clips a request.
void Workload::add(const TraceRequest &request, const Options &options,
                   const WorkLimits &limits) {
  WorkItem item;
  item.arrival = item.due = request.arrival;
  int32_t prompt = scaled(request.promptTokens, options.lengthScale);
  int32_t output = scaled(request.outputTokens, options.lengthScale);
  // The output comes first: what a request generates is what takes steps.
  item.outputTokens = std::min(output, std::max(limits.capacity - 1, 1));
  item.promptTokens =
      std::min(prompt, std::max(limits.capacity - item.outputTokens, 1));
  if (options.maxPrompt > 0)
    item.promptTokens = std::min(item.promptTokens, options.maxPrompt);
  int64_t cut =
      int64_t(prompt) - item.promptTokens + output - item.outputTokens;
  clipped += cut > 0;
  clippedTokens += cut;
  promptTokens += item.promptTokens;
  outputTokens += item.outputTokens;
  items.push_back(item);
}

void Workload::schedule(double timeScale, double overload,
                        double overloadSeconds) {
  overloadBegin = overloadEnd = 0;
  bool isOverloaded = overload > 1 && overloadSeconds > 0;
  double begin = sliceSeconds() * timeScale / 3;
  if (isOverloaded) {
    overloadBegin = begin;
    overloadEnd = begin + overloadSeconds;
  }
  for (WorkItem &item : items) {
    double due = static_cast<double>(item.arrival) / 1e9 * timeScale;
    if (isOverloaded && due > begin) {
      // What would come in overload x overloadSeconds comes in overloadSeconds.
      double inside = std::min(due - begin, overload * overloadSeconds);
      due -= inside - inside / overload;
    }
    item.due = static_cast<int64_t>(due * 1e9);
  }
}

double Workload::sliceSeconds() const {
  double last = static_cast<double>(items.back().arrival) / 1e9;
  auto count = static_cast<double>(items.size());
  return count > 1 ? last * count / (count - 1) : last;
}

double Workload::scheduledSeconds() const {
  return static_cast<double>(items.back().due) / 1e9;
}

std::vector<int32_t> Workload::promptOf(size_t item) const {
  std::vector<int32_t> tokens(static_cast<size_t>(items[item].promptTokens));
  std::span<const uint64_t> blocks = trace.hashesOf(trace.requests[item]);
  auto block = static_cast<size_t>(blockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    // The two kinds of keys differ in their lowest bit.
    uint64_t key =
        blocks.empty()
            ? SplitMix64::mix(seed ^ item << 1) + i
            : SplitMix64::mix(
                  seed ^
                  (blocks[std::min(i / block, blocks.size() - 1)] << 1 | 1)) +
                  i % block;
    tokens[i] = static_cast<int32_t>(SplitMix64::mix(key) %
                                     static_cast<uint64_t>(vocabulary));
  }
  return tokens;
}
