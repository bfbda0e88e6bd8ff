//===- Metrics.cpp - What a replay measures ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Metrics.h"

#include "measure/Percentile.h"

#include <algorithm>
#include <numeric>

using namespace kvrm;
using namespace kvrm::replay;

Distribution::Distribution(std::vector<float> all) : values(std::move(all)) {
  std::ranges::sort(values);
}

Distribution::Distribution(const std::vector<Sample> &samples) {
  values.reserve(samples.size());
  for (const Sample &sample : samples)
    values.push_back(sample.value);
  std::ranges::sort(values);
}

double Distribution::mean() const {
  return values.empty() ? 0
                        : std::accumulate(values.begin(), values.end(), 0.0) /
                              static_cast<double>(values.size());
}

double Distribution::percentile(double percent) const {
  if (values.empty())
    return 0;
  return values[measure::nearestRank(values.size(), percent)];
}

double Distribution::ratio(double percent, double toPercent) const {
  double base = percentile(toPercent);
  return base > 0 ? percentile(percent) / base : 0;
}

void StateSeries::add(const StatePoint &point) {
  list.push_back(point);
  if (list.size() >= most) {
    for (size_t i = 0; i < list.size() / 2; ++i)
      list[i] = list[2 * i];
    list.resize(list.size() / 2);
    interval *= 2;
  }
  nextTime = point.time + interval;
}

double ModeResult::tokensPerSecond() const {
  return seconds > 0 ? static_cast<double>(doneTokens) / seconds : 0;
}

double ModeResult::allTokensPerSecond() const {
  return seconds > 0 ? static_cast<double>(doneTokens + promptTokens) / seconds
                     : 0;
}
