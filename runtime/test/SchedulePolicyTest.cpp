//===- SchedulePolicyTest.cpp - Tests of the choice of a schedule ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PolicyConstants.h"

#include <cmath>
#include <gtest/gtest.h>
#include <random>

using namespace kvrm;
using namespace kvrm::test;

static SchedulePolicy makePolicy(int32_t rows) {
  Expected<SchedulePolicy> policy =
      SchedulePolicy::create(testShape(), testCosts(), rows);
  EXPECT_TRUE(policy) << policy.status().message();
  return policy.take();
}

/// The model again, event by event: clusters of whole rows share the bandwidth.
static double simulate(const ClusterCost &cost,
                       const std::vector<int32_t> &lengths) {
  PolicyShape shape = testShape();
  double outputs = shape.kvHeads;
  double waves = std::max(1.0, outputs / cost.atOnce);
  auto groups = static_cast<size_t>(std::max(1.0, cost.atOnce / outputs));
  // What a row needs beside its bytes takes as long, but no bandwidth.
  double beside = cost.rowUs * cost.clusterGbPerS * 1e3;
  double bytes = 0, all = 0;
  for (int32_t length : lengths)
    if (length > 0) {
      bytes += length * shape.tokenBytes();
      all += length * shape.tokenBytes() + beside;
    }
  std::vector<double> left; ///< of the rows that run
  size_t next = 0;
  double us = 0;
  while (true) {
    while (left.size() < groups && next < lengths.size())
      if (int32_t length = lengths[next++]; length > 0)
        left.push_back((length * shape.tokenBytes() + beside) * waves);
    if (left.empty())
      break;
    double clusters =
        double(left.size()) * std::min<double>(outputs, cost.atOnce);
    double share = cost.gbPerS / (clusters * bytes / all);
    double rate = std::min(cost.clusterGbPerS, share) * 1e3;
    double least = *std::min_element(left.begin(), left.end());
    us += least / rate;
    for (double &rest : left)
      rest -= least;
    std::erase_if(left, [](double rest) { return rest < 1e-6; });
  }
  return cost.baseUs + us;
}

TEST(SchedulePolicy, WithoutConstantsTakesTheWorkQueue) {
  SchedulePolicy policy;
  std::vector<int32_t> lengths = {1, 100000, 0};
  EXPECT_EQ(policy.choose(lengths), SchedulePolicy::workqueue);
  EXPECT_EQ(policy.choose({}), SchedulePolicy::workqueue);
}

TEST(SchedulePolicy, ATokenHasTheBytesOfItsElements) {
  PolicyShape shape{.headDim = 128};
  EXPECT_EQ(shape.tokenBytes(), 512);
  shape.element = KVRM_F8E4M3;
  EXPECT_EQ(shape.tokenBytes(), 256);
  shape.element = KVRM_INT8;
  EXPECT_EQ(shape.tokenBytes(), 260);
}

TEST(SchedulePolicy, PredictsWhatTheModelSays) {
  SchedulePolicy policy = makePolicy(300);
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> lengths(1 + random() % (round % 3 ? 12 : 300));
    for (int32_t &length : lengths)
      length = random() % 5 == 0 ? 0 : static_cast<int32_t>(random() % 60000);
    double tokens = 0;
    for (int32_t length : lengths)
      tokens += length;
    for (const ClusterCost &cost : testCosts().clusters) {
      double least = cost.baseUs + tokens * 8 * 512 / (cost.gbPerS * 1e3);
      double want = std::max(simulate(cost, lengths), least);
      EXPECT_NEAR(policy.predict(cost.blocks, lengths), want, want * 1e-6)
          << "round " << round << " blocks " << cost.blocks;
    }
  }
}

TEST(SchedulePolicy, PredictsTheWorkQueueFromItemsAndPartials) {
  SchedulePolicy policy = makePolicy(256);
  auto predict = [&](const std::vector<int32_t> &lengths) {
    return policy.predict(SchedulePolicy::workqueue, lengths);
  };
  // 4096 bytes a token. 1024 tiles in 139 items of four tiles' cost each.
  double part = (1024 + 139 * 4) / 132. - 4;
  EXPECT_NEAR(predict({8192}), 2.5 + 8192 * 4096 / 3e6 + 0.1 * 128 / part,
              0.01);
  // Short rows are a matter of items, not of bytes: 2048 and cuts.
  EXPECT_NEAR(predict(std::vector<int32_t>(256, 17)),
              2.5 + 256 * 17 * 4096 / 132. / 60e3 + 3.5 * 2048 / 132. + 0.1,
              0.01);
  // A long one beside them hides the items while it is read.
  std::vector<int32_t> mixed(16, 17);
  double before = predict({70000});
  mixed.push_back(70000);
  EXPECT_NEAR(predict(mixed), before, 0.5);
}

TEST(SchedulePolicy, ChoosesTheLeast) {
  SchedulePolicy policy = makePolicy(256);
  std::mt19937 random(2);
  std::vector<int> chosen(9);
  for (int round = 0; round < 2000; ++round) {
    size_t rows = 1 + random() % 256;
    if (round % 2)
      rows = 1 + random() % 8;
    std::vector<int32_t> lengths(rows);
    auto most = static_cast<uint32_t>(1) << (6 + random() % 11);
    bool isEven = random() % 2;
    for (int32_t &length : lengths)
      length = static_cast<int32_t>(isEven ? most : 1 + random() % most);
    // Nothing like what came before, so that the answer is a new one.
    std::vector<int32_t> other = {round % 2 ? 3 : 1000000};
    (void)policy.choose(other);
    int32_t choice = policy.choose(lengths);
    double best = policy.predict(SchedulePolicy::workqueue, lengths);
    for (int32_t blocks : {1, 2, 4, 8})
      best = std::min(best, policy.predict(blocks, lengths));
    EXPECT_EQ(policy.predict(choice, lengths), best);
    ++chosen[static_cast<size_t>(choice)];
  }
  for (size_t blocks : {0u, 1u})
    EXPECT_GT(chosen[blocks], 0) << blocks;
}

TEST(SchedulePolicy, RepeatsItselfWhileLengthsHardlyMove) {
  SchedulePolicy policy = makePolicy(8);
  std::vector<int32_t> lengths(8, 6400);
  (void)policy.choose(lengths);
  for (int step = 0; step < 99; ++step) {
    for (int32_t &length : lengths)
      ++length;
    (void)policy.choose(lengths);
  }
  EXPECT_EQ(policy.evaluations(), 1);
  for (int32_t &length : lengths)
    length += 2;
  (void)policy.choose(lengths);
  EXPECT_EQ(policy.evaluations(), 2);
  lengths[3] = 0;
  (void)policy.choose(lengths);
  EXPECT_EQ(policy.evaluations(), 3);
  // One row grows, another shrinks: the sum says nothing.
  lengths[0] += 3000;
  lengths[1] -= 3000;
  (void)policy.choose(lengths);
  EXPECT_EQ(policy.evaluations(), 4);
}

TEST(SchedulePolicy, HandlesExtremes) {
  SchedulePolicy policy = makePolicy(KVRM_MAX_ROWS);
  std::vector<int32_t> idle(KVRM_MAX_ROWS, 0);
  EXPECT_TRUE(std::isfinite(policy.predict(8, idle)));
  (void)policy.choose(idle);
  std::vector<int32_t> full(KVRM_MAX_ROWS, 1 << 21);
  for (int32_t schedule : {0, 1, 2, 4, 8})
    EXPECT_TRUE(std::isfinite(policy.predict(schedule, full)));
  (void)policy.choose(full);
  // More heads than clusters run at once.
  ScheduleCosts costs = testCosts();
  costs.clusters[3].atOnce = 3;
  Expected<SchedulePolicy> few = SchedulePolicy::create(testShape(), costs, 4);
  ASSERT_TRUE(few);
  std::vector<int32_t> lengths = {100, 20000, 0, 70000};
  EXPECT_NEAR(few->predict(8, lengths), simulate(costs.clusters[3], lengths),
              1e-3);
}

TEST(SchedulePolicy, RefusesConstantsOutOfRange) {
  auto message = [](auto change) {
    ScheduleCosts costs = testCosts();
    change(costs);
    return SchedulePolicy::create(testShape(), costs, 8).status().message();
  };
  EXPECT_EQ(
      message([](ScheduleCosts &costs) { costs.workqueue.shares = 0; }),
      "policy: workqueue.shares: 0.000000 is outside 1.000000..65536.000000");
  EXPECT_EQ(message([](ScheduleCosts &costs) { costs.workqueue.gbPerS = NAN; }),
            "policy: workqueue.gb_per_s: nan is outside 0.001000.."
            "1000000.000000");
  EXPECT_EQ(message([](ScheduleCosts &costs) { costs.clusters[1].blocks = 1; }),
            "policy: cluster.blocks: 1 is not the next of 1, 2, 4, 8");
  EXPECT_EQ(message([](ScheduleCosts &costs) { costs.clusters[0].atOnce = 0; }),
            "policy: cluster.at_once: 0.000000 is outside "
            "1.000000..65536.000000");
}
