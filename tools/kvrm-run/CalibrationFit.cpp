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

using namespace kvrm;
using namespace kvrm::run;

static Status checkSamples(const char *what, size_t count, size_t least) {
  if (count < least)
    return invalidArgument("calibration: ", what, ": ", count,
                           " samples are fewer than its ", least, " constants");
  return Status::ok();
}

namespace {
/// base + slope * x, added to what a model without them says.
struct Line {
  double base = 0;
  double slope = 0;
  double error = HUGE_VAL; ///< relative, squared and summed
};

/// Where a constant is looked for. Of equals the nearest to `from` is taken.
struct Range {
  double from;
  double to;
};
} // namespace

static double weightOf(const CostSample &sample) {
  return 1 / std::max(sample.us, 1e-3);
}

static double errorOf(std::span<const CostSample> samples,
                      std::span<const double> model, std::span<const double> x,
                      double base, double slope) {
  double error = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    double us = model[i] + base + slope * x[i];
    double relative = (samples[i].us - us) * weightOf(samples[i]);
    error += relative * relative;
  }
  return error;
}

/// The line, no number of which is negative, that comes closest to the samples.
static Line fitLine(std::span<const CostSample> samples,
                    std::span<const double> model, std::span<const double> x) {
  double w = 0, wx = 0, wxx = 0, wy = 0, wxy = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    double weight = weightOf(samples[i]) * weightOf(samples[i]);
    double rest = samples[i].us - model[i];
    w += weight;
    wx += weight * x[i];
    wxx += weight * x[i] * x[i];
    wy += weight * rest;
    wxy += weight * x[i] * rest;
  }
  Line best;
  auto consider = [&](double base, double slope) {
    if (!(base >= 0 && base <= CostLimits::maxUs && slope >= 0 &&
          slope <= CostLimits::maxUs))
      return;
    double error = errorOf(samples, model, x, base, slope);
    if (error < best.error)
      best = {base, slope, error};
  };
  consider(0, 0);
  consider(wy / w, 0);
  if (wxx > 0)
    consider(0, wxy / wxx);
  if (double determinant = w * wxx - wx * wx; determinant > 1e-9 * w * wxx)
    consider((wxx * wy - wx * wxy) / determinant,
             (w * wxy - wx * wy) / determinant);
  return best;
}

/// The point of a box with the least error, on a grid over the logarithms that
/// gets finer around the best.
template <typename ErrorAt>
static std::array<double, 3> search(std::array<Range, 3> box, ErrorAt errorAt) {
  constexpr int points = 10;
  constexpr int rounds = 8;
  std::array<double, 3> best{};
  double bestError = HUGE_VAL;
  for (int round = 0; round < rounds; ++round) {
    std::array<double, 3> factor{};
    for (size_t i = 0; i < 3; ++i)
      factor[i] = std::pow(box[i].to / box[i].from, 1.0 / (points - 1));
    for (int point = 0; point < points * points * points; ++point) {
      std::array<double, 3> at{};
      for (size_t i = 0, rest = static_cast<size_t>(point); i < 3; ++i) {
        at[i] = box[i].from * std::pow(factor[i], double(rest % points));
        rest /= points;
      }
      if (double error = errorAt(at); error < bestError) {
        bestError = error;
        best = at;
      }
    }
    for (size_t i = 0; i < 3; ++i)
      box[i] = {best[i] / (factor[i] * factor[i]),
                best[i] * factor[i] * factor[i]};
  }
  return best;
}

/// Around the fastest that any sample read.
static Range bandwidths(double gbPerS) { return {4 * gbPerS, 0.8 * gbPerS}; }
/// Beside the bytes of an item, or of a cluster.
static constexpr Range besides{0.01, 20};

Expected<WorkqueueCost> run::fitWorkqueue(const PolicyShape &shape,
                                          int32_t shares, int32_t itemCost,
                                          std::span<const CostSample> samples) {
  KVRM_TRY(checkSamples("workqueue", samples.size(), 5));
  WorkqueueCost cost;
  cost.shares = shares;
  cost.itemCost = itemCost;
  std::vector<WorkqueueLoad> loads;
  std::vector<double> model(samples.size()), partials;
  double fastest = CostLimits::leastGbPerS;
  for (const CostSample &sample : samples) {
    loads.push_back(workqueueLoad(shape, cost, sample.lengths));
    partials.push_back(loads.back().partials);
    fastest = std::max(fastest, loads.back().bytes * weightOf(sample) / 1e3);
  }
  auto lineAt = [&](const std::array<double, 3> &at) {
    cost.gbPerS = at[0];
    cost.blockGbPerS = at[1];
    cost.itemUs = at[2];
    for (size_t i = 0; i < samples.size(); ++i)
      model[i] =
          std::max(loads[i].bytes / cost.gbPerS / 1e3, loads[i].blockUs(cost));
    return fitLine(samples, model, partials);
  };
  // A block alone reads as much as its part of the bandwidth, or more.
  std::array<double, 3> best =
      search({bandwidths(fastest),
              {16 * fastest / shares, 0.8 * fastest / shares},
              besides},
             [&](const std::array<double, 3> &at) { return lineAt(at).error; });
  Line line = lineAt(best);
  cost.baseUs = line.base;
  cost.partialUs = line.slope;
  return cost;
}

Expected<ClusterCost> run::fitCluster(const PolicyShape &shape, int32_t blocks,
                                      int32_t atOnce,
                                      std::span<const CostSample> samples) {
  KVRM_TRY(checkSamples("cluster", samples.size(), 4));
  size_t rows = 1;
  double fastest = CostLimits::leastGbPerS;
  double fastestRow = CostLimits::leastGbPerS;
  for (const CostSample &sample : samples) {
    rows = std::max(rows, sample.lengths.size());
    double tokens = 0, longest = 0;
    for (int32_t length : sample.lengths) {
      tokens += length;
      longest = std::max<double>(longest, length);
    }
    double perUs = weightOf(sample) / 1e3;
    fastest = std::max(fastest, tokens * shape.rowBytes() * perUs);
    fastestRow = std::max(fastestRow, longest * shape.tokenBytes() * perUs);
  }
  ScheduleCosts costs;
  costs.workqueue = {1, 0, 0, 1, 1, 0, 0};
  costs.clusters = {{blocks, atOnce, 0, 0, 0, 0}};
  ClusterCost &cost = costs.clusters[0];
  std::vector<double> model(samples.size()), none(samples.size());
  auto lineAt = [&](const std::array<double, 3> &at) {
    cost.gbPerS = at[0];
    cost.clusterGbPerS = at[1];
    cost.rowUs = at[2];
    Expected<SchedulePolicy> policy =
        SchedulePolicy::create(shape, costs, static_cast<int32_t>(rows));
    if (!policy)
      return Line();
    for (size_t i = 0; i < samples.size(); ++i)
      model[i] = policy->predict(blocks, samples[i].lengths);
    return fitLine(samples, model, none);
  };
  std::array<double, 3> best = search(
      {bandwidths(fastest), {16 * fastestRow, 0.8 * fastestRow}, besides},
      [&](const std::array<double, 3> &at) { return lineAt(at).error; });
  Line line = lineAt(best);
  if (line.error == HUGE_VAL)
    return invalidArgument("calibration: cluster: no constants fit");
  cost.baseUs = line.base;
  return cost;
}
