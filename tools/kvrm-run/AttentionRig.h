//===- AttentionRig.h - Attention of a batch on a GPU, timed ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A backend with histories of given lengths in a pool of a given state, full of
// random numbers. Launches rotate over layers whose KV together is four times
// the L2 cache, so that none finds its KV there; what is timed is a graph of
// attention alone, by events, as FlashInfer's run() is.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_ATTENTIONRIG_H
#define KVRM_TOOLS_RUN_ATTENTIONRIG_H

#include "AttentionLab.h"
#include "AttentionNames.h"
#include "OutputCheck.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace kvrm::run {

double median(std::vector<double> values);

struct RigOptions {
  std::vector<int32_t> lengths; ///< a row each, at least 1
  int32_t growth = 0;           ///< tokens that each row may grow by
  PoolState pages = PoolState::Scattered;
  uint64_t seed = 1;
  int32_t layers = 0; ///< 0 = as many as exceed the cache
  bool usesStaging = false;
  int32_t itemCost = -1; ///< as AttentionShape says
};

/// A time, and whether what was timed was right.
struct AttentionTime {
  double us = 0; ///< a launch, the median over replays
  ErrorStats errors;
};

/// Host times of a step, in nanoseconds.
struct StepTimes {
  int64_t plan = 0; ///< pager and planner
  int64_t policy = 0;
  int64_t commit = 0;
  int64_t launch = 0;
};

class AttentionRig {
public:
  static Expected<std::unique_ptr<AttentionRig>>
  create(AttentionLab &lab, const RigOptions &options);

  AttentionStep &backend() { return *gpu; }
  int32_t rows() const { return static_cast<int32_t>(current.size()); }
  /// Tokens of each row, those of the step included.
  std::span<const int32_t> lengths() const { return current; }
  /// K and V that a launch reads.
  int64_t bytes() const;
  /// What the planner takes an item to cost.
  int32_t itemCost() const { return gpu->planner().shape().itemCost; }
  int32_t launches() const { return launchCount; } ///< of a timed graph
  /// What the kernel set has and the device holds: the work queue, clusters by
  /// size, and staged if the rig has that.
  const std::vector<CudaSchedule> &schedules() const { return available; }
  /// Clusters of that many blocks that run at once.
  Expected<int32_t> clustersAtOnce(int32_t blocks) const;

  /// Computes what some outputs must be, those of the last layer.
  Status prepareCheck() { return check->prepare(current); }
  int32_t sampledOutputs() const {
    return static_cast<int32_t>(check->pairCount());
  }
  /// Times a schedule and compares one more launch to what prepareCheck() made.
  Expected<AttentionTime> measure(CudaSchedule schedule, bool usesPdl,
                                  int32_t replays);

  /// Every row gets a token; pager and planner know of it then.
  Status grow(StepTimes &times);
  /// Poisons outputs.
  Status poison();
  /// Compares the outputs to what prepareCheck() made.
  Expected<ErrorStats> compare() { return check->compare(); }

private:
  explicit AttentionRig(AttentionLab &lab) : lab(lab) {}
  Status placePages(const RigOptions &options);
  Status fillPool();
  Status writeQueries();
  Status findSchedules();
  Status planFirstStep();
  Expected<std::vector<double>> timeReplays(CudaGraph &graph, int32_t replays);

  AttentionLab &lab;
  std::unique_ptr<AttentionStep> gpu;
  std::vector<int32_t> current;
  std::vector<PlanRow> planRows;
  std::vector<AppendRequest> requests;
  std::vector<PageCopy> copies;
  std::vector<CudaSchedule> available;
  std::vector<CudaEvent> events;
  std::vector<uint16_t> queries; ///< [rows][queries][heads][head_dim]
  std::optional<OutputCheck> check;
  uint64_t seed = 1;
  int32_t launchCount = 0;
};

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONRIG_H
