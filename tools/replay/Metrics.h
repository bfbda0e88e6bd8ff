//===- Metrics.h - What a replay measures -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_METRICS_H
#define KVRM_TOOLS_REPLAY_METRICS_H

#include "kvrm/runtime/serving/Engine.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kvrm::replay {

inline double toSeconds(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e9;
}
inline float toMilliseconds(int64_t nanoseconds) {
  return static_cast<float>(static_cast<double>(nanoseconds) / 1e6);
}

/// A value and when it was, in seconds of the replay.
struct Sample {
  float time = 0;
  float value = 0;
};

/// All values of a figure, sorted. Percentiles are exact, by nearest rank.
class Distribution {
public:
  Distribution() = default;
  explicit Distribution(std::vector<float> values);
  explicit Distribution(const std::vector<Sample> &samples);

  size_t count() const { return values.size(); }
  double mean() const;
  /// The smallest value that `percent` of 100 of all do not exceed; 0 if none.
  double percentile(double percent) const;
  double max() const { return percentile(100); }
  /// a/b of two percentiles, 0 without values.
  double ratio(double percent, double toPercent) const;
  const std::vector<float> &sorted() const { return values; }

private:
  std::vector<float> values;
};

/// The state of a replay at a time.
struct StatePoint {
  double time = 0;
  int32_t waiting = 0;
  int32_t running = 0;
  int32_t preempted = 0;
  int64_t done = 0;
  int64_t refused = 0;
  int64_t poolBytes = 0;    ///< memory set aside
  int64_t heldBytes = 0;    ///< held by requests and kept histories
  int64_t keptBytes = 0;    ///< of those, held by kept histories alone
  int64_t liveBytes = 0;    ///< tokens of running requests, shared ones once
  int64_t sharedTokens = 0; ///< tokens that sharing saves now
  double groups = 0;        ///< a decode step, mean since the point before
  double pages = 0;         ///< a decode step, mean since the point before
};

/// Points at least `interval` apart; when there are too many, every second one
/// goes and the interval doubles, so that memory is bounded.
class StateSeries {
public:
  static constexpr size_t most = 4000;

  bool isDue(double time) const { return time >= nextTime; }
  void add(const StatePoint &point);
  const std::vector<StatePoint> &points() const { return list; }

private:
  std::vector<StatePoint> list;
  double interval = 0.05;
  double nextTime = 0;
};

/// What one decode step did.
struct StepRecord {
  float time = 0;         ///< s
  float milliseconds = 0; ///< of the whole step
  float planMicroseconds = 0;
  int32_t rows = 0;
  int32_t groups = 0;
  int32_t pages = 0;
  int32_t committedBytes = 0;
  int32_t stageCopies = 0;
};

/// All that one mode did.
struct ModeResult {
  std::string mode;
  std::vector<std::string> packages;
  int32_t slots = 0;
  int32_t capacity = 0;
  int32_t poolPages = 0; ///< 0 = static
  int32_t pageTokens = 0;
  int64_t budgetBytes = 0; ///< most that it reserves
  int64_t tokenKvBytes = 0;

  double seconds = 0; ///< to the last token, or to the limit
  bool isCut = false; ///< by --limit-seconds
  int64_t done = 0;
  int64_t refused = 0;
  int64_t failed = 0;
  int64_t unfinished = 0;   ///< running, waiting or not due when it was cut
  int64_t doneTokens = 0;   ///< generated, of all requests
  int64_t promptTokens = 0; ///< of requests with a first token
  int64_t decodeNanoseconds = 0;
  int64_t prefillNanoseconds = 0;
  double idleSeconds = 0; ///< waited for the next arrival
  std::string firstError; ///< of a failed request

  std::vector<Sample> ttft;     ///< ms, at the time of arrival
  std::vector<Sample> itl;      ///< ms, at the time of the token
  std::vector<float> queueWait; ///< ms
  std::vector<StepRecord> steps;
  StateSeries series;
  /// Largest held / (live + one page a running request), of running requests.
  double worstHeld = 0;
  int64_t peakHeldBytes = 0;
  int64_t peakLiveBytes = 0;
  /// Means over time.
  double meanPoolBytes = 0;
  double meanHeldBytes = 0;
  double meanLiveBytes = 0;
  EngineStats stats;
  int64_t bucketMoves = 0;
  int64_t bucketMovedBytes = 0;
  /// Generated tokens of each request, by item; empty if refused or unfinished.
  std::vector<std::vector<int32_t>> tokens;

  double tokensPerSecond() const;
  double allTokensPerSecond() const; ///< prompts too
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_METRICS_H
