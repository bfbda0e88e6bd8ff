//===- SchedulePolicy.cpp - Which schedule a step should run --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/SchedulePolicy.h"
#include "kvrm/runtime/paging/Planner.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;

/// What lengths may move by, as a part of what they were, before they are
/// looked at again.
static constexpr int64_t hysteresis = 64;

/// Bytes a microsecond.
static double rateOf(double gbPerS) { return gbPerS * 1e3; }

//===----------------------------------------------------------------------===//
// Prediction
//===----------------------------------------------------------------------===//

static Status checkNumber(const char *name, double value, double low,
                          double high) {
  if (value >= low && value <= high)
    return Status::ok();
  return invalidArgument("policy: ", name, ": ", std::to_string(value),
                         " is outside ", std::to_string(low), "..",
                         std::to_string(high));
}

static Status checkCosts(const ScheduleCosts &costs) {
  const WorkqueueCost &queue = costs.workqueue;
  KVRM_TRY(
      checkNumber("workqueue.shares", queue.shares, 1, CostLimits::maxBlocks));
  KVRM_TRY(checkNumber("workqueue.item_cost", queue.itemCost, 0,
                       PlanShape::maxItemCost));
  KVRM_TRY(
      checkNumber("workqueue.base_us", queue.baseUs, 0, CostLimits::maxUs));
  KVRM_TRY(checkNumber("workqueue.gb_per_s", queue.gbPerS,
                       CostLimits::leastGbPerS, CostLimits::maxGbPerS));
  KVRM_TRY(checkNumber("workqueue.block_gb_per_s", queue.blockGbPerS,
                       CostLimits::leastGbPerS, CostLimits::maxGbPerS));
  KVRM_TRY(
      checkNumber("workqueue.item_us", queue.itemUs, 0, CostLimits::maxUs));
  KVRM_TRY(checkNumber("workqueue.partial_us", queue.partialUs, 0,
                       CostLimits::maxUs));
  int32_t before = 0;
  for (const ClusterCost &cost : costs.clusters) {
    if (std::ranges::find(CostLimits::clusterSizes, cost.blocks) ==
            CostLimits::clusterSizes.end() ||
        cost.blocks <= before)
      return invalidArgument("policy: cluster.blocks: ", cost.blocks,
                             " is not the next of 1, 2, 4, 8");
    before = cost.blocks;
    KVRM_TRY(
        checkNumber("cluster.at_once", cost.atOnce, 1, CostLimits::maxBlocks));
    KVRM_TRY(checkNumber("cluster.base_us", cost.baseUs, 0, CostLimits::maxUs));
    KVRM_TRY(checkNumber("cluster.gb_per_s", cost.gbPerS,
                         CostLimits::leastGbPerS, CostLimits::maxGbPerS));
    KVRM_TRY(checkNumber("cluster.cluster_gb_per_s", cost.clusterGbPerS,
                         CostLimits::leastGbPerS, CostLimits::maxGbPerS));
    KVRM_TRY(checkNumber("cluster.row_us", cost.rowUs, 0, CostLimits::maxUs));
  }
  return Status::ok();
}

Expected<SchedulePolicy> SchedulePolicy::create(const PolicyShape &shape,
                                                const ScheduleCosts &costs,
                                                int32_t rows) {
  KVRM_TRY(checkNumber("rows", rows, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkNumber("kv_heads", shape.kvHeads, 1, KVRM_MAX_KV_HEADS));
  KVRM_TRY(checkNumber("head_dim", shape.headDim, 1, KVRM_MAX_HEAD_DIM));
  KVRM_TRY(checkNumber("kv_tile", shape.kvTile, 1, 1 << 16));
  KVRM_TRY(checkNumber("query_tiles", shape.queryTiles, 1, KVRM_MAX_QUERIES));
  KVRM_TRY(checkCosts(costs));
  SchedulePolicy policy;
  policy.shape = shape;
  policy.costs = costs;
  policy.ends.resize(static_cast<size_t>(rows));
  return policy;
}

static BatchSummary summaryOf(std::span<const int32_t> lengths) {
  BatchSummary summary;
  for (int32_t length : lengths) {
    summary.tokens += length;
    summary.longest = std::max(summary.longest, length);
    summary.active += length > 0;
  }
  return summary;
}

static WorkqueueLoad loadOf(const PolicyShape &shape, const WorkqueueCost &cost,
                            const BatchSummary &summary) {
  auto tokens = static_cast<double>(summary.tokens);
  double outputs = double(shape.kvHeads) * shape.queryTiles * summary.active;
  // Each row ends with half a tile more or less; what is exact is not needed.
  double rowTiles =
      std::max<double>(tokens / shape.kvTile, double(summary.active));
  double tiles = rowTiles * shape.kvHeads * shape.queryTiles;
  // Every share but the first starts in a cut, if there are so many tiles.
  double items = std::min(outputs + cost.shares - 1, tiles);
  double itemTiles = double(cost.itemCost) / PlanShape::tileCost;
  double partTiles = (tiles + items * itemTiles) / cost.shares - itemTiles;
  double longestTiles = std::ceil(double(summary.longest) / shape.kvTile);
  double partials = std::clamp(longestTiles / std::max(partTiles, 1.0), 1.0,
                               std::max(longestTiles, 1.0));
  return {tokens * shape.rowBytes(), partials,
          std::max(items / cost.shares, 1.0)};
}

double WorkqueueLoad::blockUs(const WorkqueueCost &cost) const {
  return bytes / cost.shares / rateOf(cost.blockGbPerS) + cost.itemUs * items;
}

WorkqueueLoad kvrm::workqueueLoad(const PolicyShape &shape,
                                  const WorkqueueCost &cost,
                                  std::span<const int32_t> lengths) {
  return loadOf(shape, cost, summaryOf(lengths));
}

double SchedulePolicy::workqueueUs(const BatchSummary &summary) const {
  const WorkqueueCost &cost = costs.workqueue;
  WorkqueueLoad load = loadOf(shape, cost, summary);
  return cost.baseUs +
         std::max(load.bytes / rateOf(cost.gbPerS), load.blockUs(cost)) +
         cost.partialUs * load.partials;
}

double SchedulePolicy::leastClusterUs(const ClusterCost &cost,
                                      const BatchSummary &summary) const {
  double all = double(summary.tokens) * shape.rowBytes() / rateOf(cost.gbPerS);
  double longest =
      summary.longest * shape.tokenBytes() / rateOf(cost.clusterGbPerS);
  return cost.baseUs + std::max(all, longest);
}

/// Rows run on `groups` servers, each a cluster for every output of a row. In
/// units of tokens that each running row has read, rows end when they have read
/// their own, whatever the rate; the rate then follows from how many run. What
/// a row needs beside its bytes counts as tokens too, but takes no bandwidth.
double SchedulePolicy::clusterUs(const ClusterCost &cost,
                                 const BatchSummary &summary,
                                 std::span<const int32_t> lengths) {
  double outputs = double(shape.kvHeads) * shape.queryTiles;
  // A row of more clusters than run at once goes in waves.
  double waves = std::max(1.0, outputs / cost.atOnce);
  auto groups = static_cast<size_t>(
      std::clamp<double>(cost.atOnce / outputs, 1, double(ends.size())));
  double widest = std::min<double>(outputs, cost.atOnce);
  double rowTokens =
      cost.rowUs * rateOf(cost.clusterGbPerS) / shape.tokenBytes();
  auto read = static_cast<double>(summary.tokens);
  double reading = read / (read + rowTokens * summary.active);
  auto tokenUs = [&](size_t running) {
    double share = rateOf(cost.gbPerS) / (widest * reading * double(running));
    return shape.tokenBytes() / std::min(share, rateOf(cost.clusterGbPerS));
  };
  auto first = ends.begin();
  auto isLater = [](double a, double b) { return a > b; };
  size_t running = 0;
  double lastStart = 0;
  for (int32_t length : lengths) {
    if (length <= 0)
      continue;
    double work = (length + rowTokens) * waves;
    if (running < groups) {
      first[static_cast<ptrdiff_t>(running++)] = work;
      if (running == groups)
        std::make_heap(first, first + static_cast<ptrdiff_t>(running), isLater);
      continue;
    }
    // The row takes the place of the one that ends first: sift it down.
    lastStart = first[0];
    double end = lastStart + work;
    size_t at = 0;
    for (size_t child = 1; child < running; child = 2 * at + 1) {
      if (child + 1 < running && ends[child + 1] < ends[child])
        ++child;
      if (ends[child] >= end)
        break;
      ends[at] = ends[child];
      at = child;
    }
    ends[at] = end;
  }
  if (running == 0)
    return cost.baseUs;
  std::sort(first, first + static_cast<ptrdiff_t>(running));
  double us = lastStart * tokenUs(groups);
  double reached = lastStart;
  for (size_t i = 0; i < running; ++i) {
    us += (ends[i] - reached) * tokenUs(running - i);
    reached = ends[i];
  }
  return std::max(cost.baseUs + us, leastClusterUs(cost, summary));
}

int32_t SchedulePolicy::choose(std::span<const int32_t> lengths) {
  if (costs.clusters.empty())
    return workqueue;
  KVRM_CHECK(lengths.size() <= ends.size(), "as many rows as it was made for");
  BatchSummary summary = summaryOf(lengths);
  auto isNear = [](int64_t now, int64_t before) {
    return std::abs(now - before) * hysteresis <= before;
  };
  if (evaluationCount > 0 && summary.active == last.active &&
      isNear(summary.tokens, last.tokens) &&
      isNear(summary.longest, last.longest))
    return lastChoice;
  ++evaluationCount;
  last = summary;
  lastChoice = workqueue;
  double best = workqueueUs(summary);
  for (const ClusterCost &cost : costs.clusters) {
    if (leastClusterUs(cost, summary) >= best)
      continue;
    double us = clusterUs(cost, summary, lengths);
    if (us < best) {
      best = us;
      lastChoice = cost.blocks;
    }
  }
  return lastChoice;
}

double SchedulePolicy::predict(int32_t schedule,
                               std::span<const int32_t> lengths) {
  KVRM_CHECK(lengths.size() <= ends.size(), "as many rows as it was made for");
  BatchSummary summary = summaryOf(lengths);
  if (schedule == workqueue)
    return workqueueUs(summary);
  for (const ClusterCost &cost : costs.clusters)
    if (cost.blocks == schedule)
      return clusterUs(cost, summary, lengths);
  KVRM_CHECK(false, "a schedule that there are constants for");
  return 0;
}
