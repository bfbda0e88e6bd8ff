//===- TraceFuzzer.cpp - Traces of requests -------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Text that starts as a synthetic trace does is made; any other is read in both
// formats.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/trace/Trace.h"

#include <cctype>

using namespace kvrm;

static void checkTrace(const Expected<Trace> &trace) {
  if (!trace) {
    fuzz::checkFailure(trace.status());
    return;
  }
  fuzz::check(!trace->requests.empty(), "a trace has requests");
  int64_t last = 0;
  for (const TraceRequest &request : trace->requests) {
    fuzz::check(request.arrival >= last &&
                    request.arrival <= maxTraceSeconds * 1'000'000'000,
                "arrivals do not go back", std::to_string(request.arrival));
    last = request.arrival;
    fuzz::check(
        request.promptTokens >= 1 && request.promptTokens <= maxTraceTokens &&
            request.outputTokens >= 1 && request.outputTokens <= maxTraceTokens,
        "a request has tokens in the limits");
    int32_t blocks = trace->blockTokens == 0
                         ? 0
                         : (request.promptTokens + trace->blockTokens - 1) /
                               trace->blockTokens;
    fuzz::check(request.firstHash >= 0 && request.hashes == blocks &&
                    request.firstHash + request.hashes <=
                        static_cast<int64_t>(trace->hashIds.size()),
                "there is an id a block");
    (void)trace->hashesOf(request);
  }
}

/// Whether more than 999 requests, or prompts of more than 9999 tokens, may be
/// asked for: legal, and gigabytes.
static bool isGreat(std::string_view spec) {
  for (auto [key, digits] :
       {std::pair<std::string_view, size_t>{"requests=", 3}, {"prompt=", 4}}) {
    size_t at = spec.find(key);
    while (at != spec.npos) {
      at += key.size();
      size_t end = at;
      while (end < spec.size() &&
             std::isdigit(static_cast<unsigned char>(spec[end])))
        ++end;
      if (end - at > digits)
        return true;
      at = spec.find(key, at);
    }
  }
  return false;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view text = fuzz::textOf(data, size);
  if (isSyntheticTrace(text)) {
    if (!isGreat(text))
      checkTrace(makeSyntheticTrace(text));
    return 0;
  }
  checkTrace(parseAzureTrace(text, "azure.csv"));
  checkTrace(parseMooncakeTrace(text, "mooncake.jsonl"));
  return 0;
}
