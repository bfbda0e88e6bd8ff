//===- Metrics.h - What a server counts -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What GET /metrics says, in Prometheus' text form (version 0.0.4). Threads add
// to it as things happen; times are in seconds there, in nanoseconds here.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_METRICS_H
#define KVRM_TOOLS_SERVE_METRICS_H

#include "kvrm/runtime/serving/Engine.h"

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace kvrm::serve {

/// The engine between two rounds.
struct EngineState {
  EngineStats stats;
  int32_t waiting = 0; ///< not started, those on their way to the engine too
  int32_t slots = 0;
  int32_t pages = 0; ///< of the pool; 0 = not paged
  int32_t freePages = 0;
  int64_t stepFailures = 0;
  bool isFailing = false; ///< the last round's step failed
};

/// Counts of values up to bounds, which Prometheus makes percentiles of.
class Histogram {
public:
  void observe(int64_t nanoseconds);
  /// Appends the lines of the metric `name`.
  void write(std::string &out, const char *name, const char *help) const;

  /// Upper bounds, in seconds; what is above them is counted last.
  static constexpr std::array bounds = {0.001, 0.0025, 0.005, 0.01, 0.025,
                                        0.05,  0.1,    0.25,  0.5,  1.0,
                                        2.5,   5.0,    10.0,  25.0, 60.0};

private:
  std::array<int64_t, bounds.size() + 1> counts{};
  double sum = 0; ///< seconds
};

/// How a request for a completion ended.
enum class Outcome {
  Stop,       ///< end of text, or a stop text
  Length,     ///< its limit, or the slot's capacity
  Invalid,    ///< refused for what it says
  QueueFull,  ///< refused, to be tried again
  Draining,   ///< refused or cut off: the server is going
  ClientGone, ///< cancelled
  SlowReader, ///< cancelled
  Failed,
};
constexpr size_t outcomeCount = 8;

class Metrics {
public:
  void observeFirstToken(int64_t nanoseconds);
  void observeNextToken(int64_t nanoseconds);
  void countOutcome(Outcome outcome);
  void countResponse(int status);

  /// All of it, and of the engine, connections and process what they are now.
  std::string text(const EngineState &engine, int32_t connections) const;

private:
  mutable std::mutex mutex;
  Histogram firstToken;
  Histogram nextToken;
  std::array<int64_t, outcomeCount> outcomes{};
  std::map<int, int64_t> responses; ///< by status, of the few that there are
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_METRICS_H
