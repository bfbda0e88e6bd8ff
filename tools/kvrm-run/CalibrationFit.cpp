//===- CalibrationFit.cpp - Constants from measured times -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CalibrationFit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

using namespace kvrm;
using namespace kvrm::run;

static Status checkSamples(const char *what, size_t count, size_t least) {
  if (count < least)
    return invalidArgument("calibration: ", what, ": ", count,
                           " samples are fewer than its ", least, " constants");
  return Status::ok();
}

/// Solves the equations of the features in `mask` by elimination; those left
/// out are 0. Returns whether there is one solution.
static bool solve(const double (&matrix)[4][5], unsigned mask,
                  double (&result)[4]) {
  double rows[4][5];
  std::memcpy(rows, matrix, sizeof(rows));
  for (int i = 0; i < 4; ++i)
    if (!(mask >> i & 1)) {
      for (int j = 0; j < 5; ++j)
        rows[i][j] = j == i;
      rows[i][4] = 0;
    } else {
      for (int j = 0; j < 4; ++j)
        if (!(mask >> j & 1))
          rows[i][j] = 0;
    }
  for (int i = 0; i < 4; ++i) {
    int pivot = i;
    for (int j = i + 1; j < 4; ++j)
      if (std::abs(rows[j][i]) > std::abs(rows[pivot][i]))
        pivot = j;
    if (std::abs(rows[pivot][i]) < 1e-12)
      return false;
    std::swap(rows[i], rows[pivot]);
    for (int j = 0; j < 4; ++j) {
      double factor = rows[j][i] / rows[i][i];
      for (int k = i; j != i && k < 5; ++k)
        rows[j][k] -= factor * rows[i][k];
    }
  }
  for (int i = 0; i < 4; ++i)
    result[i] = rows[i][4] / rows[i][i];
  return true;
}

Expected<WorkqueueCost> run::fitWorkqueue(const PolicyShape &shape,
                                          int32_t shares,
                                          std::span<const CostSample> samples) {
  KVRM_TRY(checkSamples("workqueue", samples.size(), 4));
  // Rows of features over time, each about 1 so that elimination is stable.
  std::vector<std::array<double, 4>> features;
  double mostBytes = 1;
  for (const CostSample &sample : samples) {
    WorkqueueLoad load = workqueueLoad(shape, shares, sample.lengths);
    mostBytes = std::max(mostBytes, load.bytes);
    features.push_back({1, load.bytes, load.partials, load.items});
  }
  double matrix[4][5] = {};
  for (size_t i = 0; i < features.size(); ++i) {
    features[i][1] /= mostBytes;
    double weight = 1 / std::max(samples[i].us, 1e-3);
    for (int a = 0; a < 4; ++a) {
      for (int b = 0; b < 4; ++b)
        matrix[a][b] +=
            weight * weight * features[i][size_t(a)] * features[i][size_t(b)];
      matrix[a][4] += weight * weight * features[i][size_t(a)] * samples[i].us;
    }
  }
  // The best of all sets of features whose constants come out as none below 0.
  WorkqueueCost best;
  double bestError = HUGE_VAL;
  for (unsigned mask = 0; mask < 16; ++mask) {
    double constants[4];
    if (!(mask & 2) || !solve(matrix, mask, constants) ||
        *std::min_element(constants, constants + 4) < 0)
      continue;
    double error = 0;
    for (size_t i = 0; i < features.size(); ++i) {
      double us = 0;
      for (size_t a = 0; a < 4; ++a)
        us += constants[a] * features[i][a];
      double relative = us / std::max(samples[i].us, 1e-3) - 1;
      error += relative * relative;
    }
    double gbPerS = mostBytes / std::max(constants[1], 1e-12) / 1e3;
    if (error >= bestError ||
        !(gbPerS >= CostLimits::leastGbPerS && gbPerS <= CostLimits::maxGbPerS))
      continue;
    bestError = error;
    best = {constants[0], gbPerS, constants[2], constants[3]};
  }
  if (bestError == HUGE_VAL)
    return invalidArgument("calibration: workqueue: no constants fit");
  return best;
}

Expected<ClusterCost> run::fitCluster(const PolicyShape &shape, int32_t blocks,
                                      int32_t atOnce,
                                      std::span<const CostSample> samples) {
  KVRM_TRY(checkSamples("cluster", samples.size(), 3));
  size_t rows = 1;
  for (const CostSample &sample : samples)
    rows = std::max(rows, sample.lengths.size());
  ScheduleCosts costs;
  costs.shares = 1;
  costs.workqueue.gbPerS = 1;
  costs.clusters = {{blocks, atOnce, 0, 1, 1}};
  // Predictions without a base; the base that fits them best is a mean.
  std::vector<double> times(samples.size());
  auto errorOf = [&](ClusterCost &cost) -> Expected<double> {
    costs.clusters[0] = cost;
    costs.clusters[0].baseUs = 0;
    Expected<SchedulePolicy> policy =
        SchedulePolicy::create(shape, costs, static_cast<int32_t>(rows));
    KVRM_TRY(policy.status());
    double sum = 0, weights = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      times[i] = policy->predict(blocks, samples[i].lengths);
      double weight = 1 / std::max(samples[i].us, 1e-3);
      sum += weight * weight * (samples[i].us - times[i]);
      weights += weight * weight;
    }
    cost.baseUs = std::clamp(sum / weights, 0.0, CostLimits::maxUs);
    double error = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      double relative =
          (cost.baseUs + times[i]) / std::max(samples[i].us, 1e-3) - 1;
      error += relative * relative;
    }
    return error;
  };
  // A grid over the logarithms of both rates, ever finer around the best.
  constexpr int points = 16;
  double low[2] = {std::log(1.0), std::log(0.1)};
  double high[2] = {std::log(1e5), std::log(1e4)};
  ClusterCost best;
  double bestError = HUGE_VAL;
  for (int round = 0; round < 6; ++round) {
    double step[2];
    for (int i = 0; i < 2; ++i)
      step[i] = (high[i] - low[i]) / (points - 1);
    for (int a = 0; a < points; ++a)
      for (int b = 0; b < points; ++b) {
        ClusterCost cost{blocks, atOnce, 0, std::exp(low[0] + a * step[0]),
                         std::exp(low[1] + b * step[1])};
        Expected<double> error = errorOf(cost);
        KVRM_TRY(error.status());
        if (*error < bestError) {
          bestError = *error;
          best = cost;
        }
      }
    double at[2] = {std::log(best.gbPerS), std::log(best.clusterGbPerS)};
    for (int i = 0; i < 2; ++i) {
      low[i] = at[i] - 2 * step[i];
      high[i] = at[i] + 2 * step[i];
    }
  }
  return best;
}
