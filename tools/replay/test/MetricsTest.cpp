//===- MetricsTest.cpp - Tests of what a replay measures ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "replay/Metrics.h"
#include "kvrm/runtime/support/SplitMix64.h"

#include <algorithm>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::replay;

/// The smallest value that `percent` of 100 of all do not exceed, in whole
/// numbers: percent is thousandths here.
static float naivePercentile(const std::vector<float> &values, int mille) {
  float best = *std::ranges::max_element(values);
  for (float candidate : values) {
    auto below = std::ranges::count_if(
        values, [&](float value) { return value <= candidate; });
    if (below * 1000 >= mille * static_cast<int64_t>(values.size()))
      best = std::min(best, candidate);
  }
  return best;
}

TEST(Distribution, PercentilesAreThoseOfTheirDefinition) {
  SplitMix64 random(1);
  for (size_t size : {1, 2, 3, 10, 99, 100, 101, 1000}) {
    std::vector<float> values(size);
    for (float &value : values)
      value = static_cast<float>(random.next() % 500);
    const Distribution all(values);
    EXPECT_EQ(all.count(), size);
    for (int mille : {0, 1, 250, 500, 900, 990, 999, 1000})
      EXPECT_EQ(all.percentile(mille / 10.0), naivePercentile(values, mille))
          << size << " values, " << mille;
    EXPECT_EQ(all.max(), *std::ranges::max_element(values));
  }
}

TEST(Distribution, OfNothingIsZero) {
  const Distribution none;
  EXPECT_EQ(none.mean(), 0);
  EXPECT_EQ(none.percentile(50), 0);
  EXPECT_EQ(none.ratio(99, 50), 0);
}

TEST(Distribution, MeanAndRatio) {
  const Distribution all(std::vector<float>{4, 1, 3, 2});
  EXPECT_EQ(all.mean(), 2.5);
  EXPECT_EQ(all.ratio(100, 50), 2);
  EXPECT_EQ(all.sorted(), (std::vector<float>{1, 2, 3, 4}));
}

TEST(StateSeries, IsBoundedAndCoversTheWholeRun) {
  StateSeries series;
  const int end = 2000;
  for (int i = 0; i < 100 * end; ++i) {
    StatePoint point;
    point.time = i / 100.0;
    if (series.isDue(point.time))
      series.add(point);
  }
  const std::vector<StatePoint> &points = series.points();
  EXPECT_LE(points.size(), StateSeries::most);
  EXPECT_GE(points.size(), StateSeries::most / 4);
  EXPECT_EQ(points.front().time, 0);
  EXPECT_GT(points.back().time, end - 2);
  double widest = 0;
  for (size_t i = 1; i < points.size(); ++i) {
    EXPECT_LT(points[i - 1].time, points[i].time);
    widest = std::max(widest, points[i].time - points[i - 1].time);
  }
  EXPECT_LT(widest, 2);
}
