//===- Options.cpp - What a replay does -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Options.h"

#include <cstdio>

using namespace kvrm;
using namespace kvrm::replay;

static Status checkRanges(const Options &options) {
  constexpr double year = 366 * 86400.0;
  struct Range {
    const char *option;
    double value;
    double low;
    double high;
  };
  for (const Range &range : {
           Range{"--duration", options.duration, 0, year},
           Range{"--requests", double(options.requests), 0,
                 double(maxTraceRequests)},
           Range{"--time-scale", options.timeScale, 1e-6, 1e6},
           Range{"--load", options.load, 0, 100},
           Range{"--limit-seconds", options.limitSeconds, 0, year},
           Range{"--kv-budget", options.kvBudgetMebibytes, 0, 1 << 24},
           Range{"--max-prompt", double(options.maxPrompt), 0, maxTraceTokens},
           Range{"--length-scale", options.lengthScale, 1e-4, 100},
           Range{"--overload", options.overload, 0, 1000},
           Range{"--overload-seconds", options.overloadSeconds, 0, year},
           Range{"--queue-limit", double(options.engine.queueLimit), 1, 65536},
           Range{"--stall-factor", options.engine.stallFactor, 0, 1000},
           Range{"--kept-histories", double(options.session.keptHistories), 0,
                 1 << 20},
           Range{"--parking-places", double(options.session.parkingPlaces), 0,
                 1 << 20},
           Range{"--warm-up", options.warmupSeconds, 0, 600},
       }) {
    if (range.value >= range.low && range.value <= range.high)
      continue;
    char text[128];
    std::snprintf(text, sizeof(text), "%s: %g is outside %g..%g", range.option,
                  range.value, range.low, range.high);
    return invalidArgument(text);
  }
  return Status::ok();
}

Status replay::checkOptions(const Options &options) {
  if (options.trace.empty())
    return invalidArgument("nothing to replay: give --trace");
  KVRM_TRY(checkRanges(options));
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
  if (options.session.keptHistories > 0 && !options.engine.sharesPrefixes)
    return invalidArgument("--kept-histories needs --share-prefixes");
  if (options.session.parkingPages > 0 && options.session.parkingPlaces == 0)
    return invalidArgument("--parking-pages needs --parking-places");
  return Status::ok();
}

const char *replay::preemptionName(PreemptionPolicy policy) {
  switch (policy) {
  case PreemptionPolicy::Cheaper:
    return "cheaper";
  case PreemptionPolicy::Park:
    return "park";
  case PreemptionPolicy::Recompute:
    return "recompute";
  }
  return "?";
}
