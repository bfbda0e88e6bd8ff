//===- SchedulePolicy.h - Which schedule a step should run ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// On a GPU the same step can run as persistent blocks on a work queue, or as
// clusters of 1, 2, 4 or 8 blocks a (row, KV head, query tile). Which is faster
// depends on lengths and on the device. The policy predicts each with a
// roofline whose constants were measured (`kvrm-run calibrate`), and takes the
// least. B is the bytes of K and V that a launch reads; times are microseconds.
//
// Work queue: every block has an equal share of tiles and items. Bandwidth is
// reached whatever the lengths are, unless blocks have so many items that they
// do not keep up, each reading no faster than `blockGbPerS` alone:
//
//   base + max(B / bandwidth, B / (shares * blockGbPerS) + item * I)
//        + partial * P
//
// P = partials of the longest output tile, I = items of a block.
//
// Clusters of c blocks: at most `atOnce` of them run, and one reads no faster
// than `clusterGbPerS` and needs `rowUs` beside. Clusters start in the order of
// rows, each as soon as another ends, and those that run share the bandwidth
// equally; what one does not use, since it starts or ends, others do:
//
//   base + the end of the last of them
//
// All KV heads of a row are taken to run together, so that this is a list
// schedule of rows. It is evaluated only if the time that no schedule of
// clusters can beat, max(B / bandwidth, longest / clusterGbPerS), is less than
// the best prediction so far; and nothing is while lengths have hardly moved.
//
// Pure host code. No call but create() allocates.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PAGING_SCHEDULEPOLICY_H
#define KVRM_RUNTIME_PAGING_SCHEDULEPOLICY_H

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

/// The attention whose time is predicted.
struct PolicyShape {
  int32_t heads = 1;
  int32_t kvHeads = 1;
  int32_t headDim = 128;
  int32_t pageTokens = 16;
  int32_t queries = 1;
  int32_t kvTile = 64;
  int32_t queryTiles = 1;
  kvrm_element element = KVRM_F16;

  bool operator==(const PolicyShape &) const = default;
  /// K and V of one token and KV head.
  double tokenBytes() const {
    return 2.0 * static_cast<double>(kvrm_token_bytes(headDim, element));
  }
  /// What a token of a row costs a launch.
  double rowBytes() const { return tokenBytes() * kvHeads * queryTiles; }
};

struct WorkqueueCost {
  int32_t shares = 0;   ///< blocks on it
  int32_t itemCost = 0; ///< that steps are planned with (PlanShape)
  double baseUs = 0;
  double gbPerS = 0;
  double blockGbPerS = 0;
  double itemUs = 0;
  double partialUs = 0;
};

struct ClusterCost {
  int32_t blocks = 0; ///< of a cluster
  int32_t atOnce = 0; ///< clusters that the device holds
  double baseUs = 0;
  double gbPerS = 0;
  double clusterGbPerS = 0;
  double rowUs = 0; ///< of a cluster beside its bytes
};

/// What was measured with programmatic dependent launch, or without.
struct ScheduleCosts {
  bool usesPdl = true;
  WorkqueueCost workqueue;
  std::vector<ClusterCost> clusters; ///< by blocks, ascending; may be empty
};

/// What constants may be.
struct CostLimits {
  static constexpr double maxUs = 1e6;
  static constexpr double leastGbPerS = 1e-3;
  static constexpr double maxGbPerS = 1e6;
  static constexpr int32_t maxBlocks = 1 << 16;
  static constexpr std::array<int32_t, 4> clusterSizes = {1, 2, 4, 8};
};

/// What a pass over the lengths of a batch tells.
struct BatchSummary {
  int64_t tokens = 0;
  int32_t longest = 0;
  int32_t active = 0;
};

/// B, P and I of a batch, as the planner lays it out.
struct WorkqueueLoad {
  double bytes = 0;
  double partials = 0;
  double items = 0;

  /// What a block alone takes for its share: bytes, then items.
  double blockUs(const WorkqueueCost &cost) const;
};
WorkqueueLoad workqueueLoad(const PolicyShape &shape, const WorkqueueCost &cost,
                            std::span<const int32_t> lengths);

class SchedulePolicy {
public:
  /// The schedule that is always right: the work queue.
  static constexpr int32_t workqueue = 0;

  /// Without constants: always the work queue.
  SchedulePolicy() = default;
  /// For steps of at most `rows` rows. Errors: InvalidArgument for a constant
  /// out of range.
  static Expected<SchedulePolicy>
  create(const PolicyShape &shape, const ScheduleCosts &costs, int32_t rows);

  /// The blocks of a cluster, or `workqueue`, for rows of these lengths; 0 is
  /// an idle row.
  int32_t choose(std::span<const int32_t> lengths);
  /// Microseconds that a launch should take. `schedule` is `workqueue` or the
  /// blocks of a cluster that there are constants for.
  double predict(int32_t schedule, std::span<const int32_t> lengths);
  /// Times that choose() did not repeat its last answer.
  int64_t evaluations() const { return evaluationCount; }

private:
  double workqueueUs(const BatchSummary &summary) const;
  double leastClusterUs(const ClusterCost &cost,
                        const BatchSummary &summary) const;
  double clusterUs(const ClusterCost &cost, const BatchSummary &summary,
                   std::span<const int32_t> lengths);

  PolicyShape shape;
  ScheduleCosts costs;
  std::vector<double> ends; ///< of the rows that run, a heap; clusterUs
  BatchSummary last;
  int32_t lastChoice = workqueue;
  int64_t evaluationCount = 0;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PAGING_SCHEDULEPOLICY_H
