//===- MetricsTest.cpp - Tests of what a server counts --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "serve/Metrics.h"

#include <gtest/gtest.h>
#include <regex>
#include <sstream>

using namespace kvrm;
using namespace kvrm::serve;

static bool hasLine(const std::string &text, const std::string &line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Metrics, BucketsAreOfAllBelowTheirBound) {
  Histogram histogram;
  for (int64_t microseconds : {500, 1000, 1001, 30000, 100000000})
    histogram.observe(microseconds * 1000);
  std::string text;
  histogram.write(text, "h", "Help.");
  for (const char *line :
       {"# TYPE h histogram", "h_bucket{le=\"0.001\"} 2",
        "h_bucket{le=\"0.0025\"} 3", "h_bucket{le=\"0.025\"} 3",
        "h_bucket{le=\"0.05\"} 4", "h_bucket{le=\"60\"} 4",
        "h_bucket{le=\"+Inf\"} 5", "h_sum 100.032501", "h_count 5"})
    EXPECT_TRUE(hasLine(text, line)) << line << "\n" << text;
}

TEST(Metrics, SaysWhatWasCounted) {
  Metrics metrics;
  metrics.countOutcome(Outcome::Stop);
  metrics.countOutcome(Outcome::QueueFull);
  metrics.countOutcome(Outcome::QueueFull);
  metrics.countResponse(200);
  metrics.observeFirstToken(2000000);
  EngineState engine;
  engine.waiting = 3;
  engine.slots = 4;
  engine.stats.running = 2;
  engine.pages = 10;
  engine.freePages = 7;
  engine.stats.parked = 5;
  std::string text = metrics.text(engine, 6);
  for (const char *line :
       {"kvrm_requests_total{outcome=\"stop\"} 1",
        "kvrm_requests_total{outcome=\"queue_full\"} 2",
        "kvrm_requests_total{outcome=\"failed\"} 0",
        "kvrm_http_responses_total{code=\"200\"} 1", "kvrm_queue_length 3",
        "kvrm_slots 4", "kvrm_slots_running 2", "kvrm_pages_used 3",
        "kvrm_pages_free 7", "kvrm_preemptions_total{how=\"parked\"} 5",
        "kvrm_connections 6", "kvrm_time_to_first_token_seconds_count 1"})
    EXPECT_TRUE(hasLine(text, line)) << line << "\n" << text;
}

TEST(Metrics, EveryLineIsOfTheForm) {
  const std::regex form(
      "# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))|"
      "[a-z_]+(\\{[a-z]+=\"[^\"]+\"\\})? [-+.e0-9]+");
  std::istringstream text(Metrics().text(EngineState(), 0));
  for (std::string line; std::getline(text, line);)
    EXPECT_TRUE(std::regex_match(line, form)) << line;
}
