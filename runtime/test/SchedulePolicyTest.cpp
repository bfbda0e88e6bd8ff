//===- SchedulePolicyTest.cpp - Tests of the choice of a schedule ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/SchedulePolicy.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <queue>
#include <random>

using namespace kvrm;

static PolicyShape testShape() {
  PolicyShape shape;
  shape.heads = 32;
  shape.kvHeads = 8;
  return shape;
}

static ScheduleCosts testCosts() {
  ScheduleCosts costs;
  costs.shares = 132;
  costs.workqueue = {2.5, 3000, 0.1, 0.4};
  costs.clusters = {{1, 132, 1.5, 2950, 35},
                    {2, 66, 2, 2950, 65},
                    {4, 32, 2.2, 2950, 130},
                    {8, 16, 2.4, 2900, 260}};
  return costs;
}

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
  std::vector<double> left; ///< bytes of the rows that run
  size_t next = 0;
  double us = 0;
  while (true) {
    while (left.size() < groups && next < lengths.size())
      if (int32_t length = lengths[next++]; length > 0)
        left.push_back(length * shape.tokenBytes() * waves);
    if (left.empty())
      break;
    double clusters =
        double(left.size()) * std::min<double>(outputs, cost.atOnce);
    double rate = std::min(cost.clusterGbPerS, cost.gbPerS / clusters) * 1e3;
    double least = *std::min_element(left.begin(), left.end());
    us += least / rate;
    for (double &bytes : left)
      bytes -= least;
    std::erase_if(left, [](double bytes) { return bytes < 1e-6; });
  }
  return cost.baseUs + us;
}

TEST(SchedulePolicy, WithoutConstantsTakesTheWorkQueue) {
  SchedulePolicy policy;
  std::vector<int32_t> lengths = {1, 100000, 0};
  EXPECT_EQ(policy.choose(lengths), SchedulePolicy::workqueue);
  EXPECT_EQ(policy.choose({}), SchedulePolicy::workqueue);
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
  // 4096 bytes a token and 16 partials, as one row in 132 shares has.
  std::vector<int32_t> one = {8192};
  EXPECT_NEAR(policy.predict(SchedulePolicy::workqueue, one),
              2.5 + 8192 * 4096 / 3e6 + 0.1 * 16.5 + 0.4 * (1 + 8 / 132.),
              0.01);
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
  EXPECT_EQ(message([](ScheduleCosts &costs) { costs.shares = 0; }),
            "policy: shares: 0.000000 is outside 1.000000..65536.000000");
  EXPECT_EQ(message([](ScheduleCosts &costs) { costs.workqueue.gbPerS = NAN; }),
            "policy: workqueue.gb_per_s: nan is outside 0.001000.."
            "1000000.000000");
  EXPECT_EQ(message([](ScheduleCosts &costs) { costs.clusters[1].blocks = 1; }),
            "policy: cluster.blocks: 1 is not the next of 1, 2, 4, 8");
  EXPECT_EQ(message([](ScheduleCosts &costs) { costs.clusters[0].atOnce = 0; }),
            "policy: cluster.at_once: 0.000000 is outside "
            "1.000000..65536.000000");
}

TEST(SchedulePolicy, IsCheapBesideAStep) {
  std::mt19937 random(3);
  for (auto [rows, limitUs] : {std::pair(8, 2.0), std::pair(256, 10.0)}) {
    SchedulePolicy policy = makePolicy(rows);
    std::vector<std::vector<int32_t>> batches(64);
    for (auto &lengths : batches)
      for (int32_t i = 0; i < rows; ++i)
        lengths.push_back(static_cast<int32_t>(1 + random() % 30000));
    for (size_t i = 0; i < batches.size(); i += 2)
      for (int32_t &length : batches[i])
        length = length / 8 + 1;
    double best = HUGE_VAL;
    for (int round = 0; round < 20; ++round) {
      auto start = std::chrono::steady_clock::now();
      for (const auto &lengths : batches)
        (void)policy.choose(lengths);
      std::chrono::duration<double, std::micro> spent =
          std::chrono::steady_clock::now() - start;
      best = std::min(best, spent.count() / double(batches.size()));
    }
    EXPECT_EQ(policy.evaluations(), int64_t(20 * batches.size()));
    std::printf("%d rows: %.2f us a choice\n", rows, best);
    // With room for sanitizers.
    EXPECT_LT(best, 20 * limitUs);
  }
}

//===----------------------------------------------------------------------===//
// Fitting
//===----------------------------------------------------------------------===//

static std::vector<std::vector<int32_t>> fitBatches() {
  std::mt19937 random(4);
  std::vector<std::vector<int32_t>> batches = {{1024},
                                               {8192},
                                               {50000},
                                               std::vector<int32_t>(4, 3000),
                                               std::vector<int32_t>(8, 1000),
                                               std::vector<int32_t>(32, 1500),
                                               std::vector<int32_t>(64, 800)};
  for (int i = 0; i < 8; ++i) {
    batches.emplace_back();
    for (int row = 0; row < 4 + i; ++row)
      batches.back().push_back(1000 + static_cast<int32_t>(random() % 50000));
  }
  return batches;
}

TEST(SchedulePolicyFit, FindsTheConstantsAgain) {
  SchedulePolicy policy = makePolicy(64);
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
    Expected<WorkqueueCost> found =
        fitWorkqueue(testShape(), costs.shares, queue);
    ASSERT_TRUE(found) << found.status().message();
    EXPECT_NEAR(found->gbPerS, costs.workqueue.gbPerS, 20 + 4000 * noise);
    EXPECT_NEAR(found->baseUs + found->itemUs, 2.9, 0.01 + 60 * noise);
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

TEST(SchedulePolicyFit, NeedsSamples) {
  std::vector<CostSample> few = {{{100}, 5}, {{200}, 6}};
  EXPECT_EQ(fitWorkqueue(testShape(), 132, few).status().message(),
            "calibration: workqueue: 2 samples are fewer than its 4 constants");
  EXPECT_EQ(fitCluster(testShape(), 8, 16, few).status().message(),
            "calibration: cluster: 2 samples are fewer than its 3 constants");
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

static Calibration testCalibration() {
  Calibration calibration;
  calibration.device = "Some GPU";
  calibration.shape = testShape();
  calibration.settings = {testCosts(), testCosts()};
  calibration.settings[1].usesPdl = false;
  calibration.settings[1].workqueue.baseUs = 5.25;
  return calibration;
}

TEST(Calibration, GoesThroughAFile) {
  std::string path =
      (std::filesystem::temp_directory_path() / "kvrm-calibration-XXXXXX")
          .string();
  ASSERT_TRUE(mkdtemp(path.data()));
  std::string file = path + "/gpu.json";
  Calibration written = testCalibration();
  Status status = saveCalibration(file, written);
  ASSERT_TRUE(status.isOk()) << status.message();
  Expected<Calibration> read = loadCalibration(file);
  ASSERT_TRUE(read) << read.status().message();
  EXPECT_EQ(read->device, written.device);
  EXPECT_TRUE(read->shape == written.shape);
  ASSERT_EQ(read->settings.size(), 2u);
  EXPECT_EQ(read->costs(false)->workqueue.baseUs, 5.25);
  EXPECT_EQ(read->costs(true)->clusters[3].clusterGbPerS, 260);
  EXPECT_EQ(read->costs(true)->clusters[3].atOnce, 16);
  EXPECT_EQ(formatCalibration(*read), formatCalibration(written));
  EXPECT_FALSE(std::filesystem::exists(file + ".part"));

  EXPECT_EQ(loadCalibration(path + "/none").status().message(),
            path + "/none: there is no such file");
  EXPECT_EQ(loadCalibration(path).status().message(),
            path + ": is not a regular file");
  EXPECT_TRUE(saveCalibration(path + "/no/x", written)
                  .message()
                  .starts_with(path + "/no/x: cannot create: "));
  EXPECT_TRUE(saveCalibration(path, written)
                  .message()
                  .starts_with(path + ": cannot move into place: "));
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));
  std::filesystem::remove_all(path);
}

TEST(Calibration, RefusesWhatIsWrongInOneLine) {
  std::string text = formatCalibration(testCalibration());
  auto message = [&](const std::string &from, const std::string &to) {
    std::string changed = text;
    size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    changed.replace(at, from.size(), to);
    return parseCalibration(changed, "c.json").status().message();
  };
  EXPECT_EQ(message("{", "["), "c.json: is not valid JSON");
  EXPECT_EQ(parseCalibration("[]", "c.json").status().message(),
            "c.json: is not a JSON object");
  EXPECT_EQ(message("kvrm-calibration", "x"),
            "c.json: format: 'x' is not one of kvrm-calibration");
  EXPECT_EQ(message("\"version\": 1", "\"version\": 2"),
            "c.json: version: 2 is not this runtime's 1; calibrate again");
  EXPECT_EQ(message("\"kv_heads\": 8", "\"kv_heads\": 0"),
            "c.json: attention.kv_heads: 0 is outside 1..256");
  EXPECT_EQ(message("\"f16\"", "\"f8\""),
            "c.json: attention.element: 'f8' is not one of f16, bf16");
  EXPECT_EQ(message("\"pdl\": true", "\"pdl\": 1"),
            "c.json: settings[0].pdl: is not true or false");
  EXPECT_EQ(message("\"pdl\": true", "\"pdl\": false"),
            "c.json: settings[1].pdl: is there already");
  EXPECT_EQ(message("\"base_us\": 2.5", "\"base_us\": -1"),
            "c.json: settings[0].workqueue.base_us: -1 is outside "
            "0.0..1000000.0");
  EXPECT_EQ(message("\"base_us\": 2.5", "\"base_us\": \"2\""),
            "c.json: settings[0].workqueue.base_us: is not a number");
  EXPECT_EQ(message("\"blocks\": 2", "\"blocks\": 3"),
            "c.json: settings[0].clusters[1].blocks: 3 is not the next of 1, "
            "2, 4, 8");
  EXPECT_EQ(message("\"at_once\": 66", "\"at_once\": 1.5"),
            "c.json: settings[0].clusters[1].at_once: is not an integer");
  EXPECT_EQ(message("\"partial_us\"", "\"other\""),
            "c.json: settings[0].workqueue.partial_us: is missing");
}

TEST(Calibration, IsForOneDeviceAndShape) {
  Calibration calibration = testCalibration();
  EXPECT_TRUE(calibration.check("c", "Some GPU", testShape()).isOk());
  EXPECT_EQ(calibration.check("c", "Other GPU", testShape()).message(),
            "c: device: 'Some GPU' is not 'Other GPU'; calibrate again");
  PolicyShape shape = testShape();
  shape.pageTokens = 64;
  EXPECT_EQ(calibration.check("c", "Some GPU", shape).message(),
            "c: attention.page_tokens: was measured for another; calibrate "
            "again");
}
