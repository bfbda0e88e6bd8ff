//===- CalibrationFitTest.cpp - Tests of fitting constants ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../CalibrationFit.h"
#include "PolicyConstants.h"

#include <gtest/gtest.h>
#include <random>

using namespace kvrm;
using namespace kvrm::run;
using namespace kvrm::test;

static std::vector<std::vector<int32_t>> fitBatches() {
  std::mt19937 random(4);
  std::vector<std::vector<int32_t>> batches = {{1024},
                                               {8192},
                                               {50000},
                                               std::vector<int32_t>(4, 3000),
                                               std::vector<int32_t>(8, 1000),
                                               std::vector<int32_t>(32, 1500),
                                               std::vector<int32_t>(64, 800),
                                               std::vector<int32_t>(64, 17),
                                               std::vector<int32_t>(40, 200)};
  for (int i = 0; i < 8; ++i) {
    batches.emplace_back();
    for (int row = 0; row < 4 + i; ++row)
      batches.back().push_back(1000 + static_cast<int32_t>(random() % 50000));
  }
  return batches;
}

TEST(CalibrationFit, FindsTheConstantsAgain) {
  Expected<SchedulePolicy> made =
      SchedulePolicy::create(testShape(), testCosts(), 64);
  ASSERT_TRUE(made) << made.status().message();
  SchedulePolicy &policy = *made;
  ScheduleCosts costs = testCosts();
  std::mt19937 random(5);
  for (double noise : {0.0, 0.01}) {
    auto samplesOf = [&](int32_t schedule) {
      std::vector<CostSample> samples;
      for (const auto &lengths : fitBatches()) {
        double unit = double(random() % 2001) / 1000 - 1;
        samples.push_back(
            {lengths, policy.predict(schedule, lengths) * (1 + noise * unit)});
      }
      return samples;
    };
    std::vector<CostSample> queue = samplesOf(SchedulePolicy::workqueue);
    Expected<WorkqueueCost> found = fitWorkqueue(
        testShape(), costs.workqueue.shares, costs.workqueue.itemCost, queue);
    ASSERT_TRUE(found) << found.status().message();
    EXPECT_NEAR(found->gbPerS, costs.workqueue.gbPerS, 20 + 4000 * noise);
    EXPECT_EQ(found->shares, costs.workqueue.shares);
    EXPECT_EQ(found->itemCost, costs.workqueue.itemCost);
    EXPECT_NEAR(found->itemUs, costs.workqueue.itemUs, 0.1 + 100 * noise);
    EXPECT_GE(found->partialUs, 0);
    ScheduleCosts fitted = costs;
    fitted.workqueue = *found;
    for (ClusterCost &cost : fitted.clusters) {
      std::vector<CostSample> samples = samplesOf(cost.blocks);
      Expected<ClusterCost> cluster =
          fitCluster(testShape(), cost.blocks, cost.atOnce, samples);
      ASSERT_TRUE(cluster) << cluster.status().message();
      cost = *cluster;
    }
    Expected<SchedulePolicy> again =
        SchedulePolicy::create(testShape(), fitted, 64);
    ASSERT_TRUE(again);
    for (const auto &lengths : fitBatches())
      for (int32_t schedule : {0, 1, 2, 4, 8}) {
        double want = policy.predict(schedule, lengths);
        EXPECT_NEAR(again->predict(schedule, lengths), want,
                    want * (0.01 + 4 * noise))
            << schedule << " of " << lengths.size();
      }
  }
}

TEST(CalibrationFit, NeedsSamples) {
  std::vector<CostSample> few = {{{100}, 5}, {{200}, 6}};
  EXPECT_EQ(fitWorkqueue(testShape(), 132, 0, few).status().message(),
            "calibration: workqueue: 2 samples are fewer than its 5 constants");
  EXPECT_EQ(fitCluster(testShape(), 8, 16, few).status().message(),
            "calibration: cluster: 2 samples are fewer than its 4 constants");
}
