//===- PercentileTest.cpp - Tests of percentiles --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "measure/Percentile.h"
#include "kvrm/runtime/support/SplitMix64.h"

#include <algorithm>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::measure;

TEST(Percentile, IsTheSmallestThatSoManyDoNotExceed) {
  SplitMix64 random(3);
  for (size_t size : {1, 2, 7, 100, 1000}) {
    std::vector<int64_t> values(size);
    for (int64_t &value : values)
      value = static_cast<int64_t>(random.next() % 300);
    for (int mille : {0, 10, 500, 900, 990, 999, 1000}) {
      auto found = static_cast<int64_t>(percentile(values, mille / 10.0));
      auto countIf = [&](auto isCounted) {
        return 1000 * std::ranges::count_if(values, isCounted);
      };
      auto asked = mille * static_cast<int64_t>(size);
      EXPECT_TRUE(std::ranges::find(values, found) != values.end());
      EXPECT_GE(countIf([&](int64_t value) { return value <= found; }), asked);
      EXPECT_TRUE(found == std::ranges::min(values) ||
                  countIf([&](int64_t value) { return value < found; }) <
                      asked);
    }
  }
}

TEST(Percentile, OfNothingIsZero) { EXPECT_EQ(percentile({}, 50), 0); }

TEST(Percentile, RanksThatAreWholeStaySo) {
  EXPECT_EQ(nearestRank(1000, 99.9), 998u);
  EXPECT_EQ(nearestRank(10, 50), 4u);
  EXPECT_EQ(nearestRank(10, 0), 0u);
  EXPECT_EQ(nearestRank(10, 100), 9u);
}
