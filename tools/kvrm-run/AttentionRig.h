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

#include "kvrm/runtime/attention/AttentionStep.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/paging/SchedulePolicy.h"
#include "kvrm/runtime/support/Reference.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::run {

/// Where the pages of histories lie.
enum class PoolState {
  Fresh,    ///< as the pager gives them out in an empty pool: long runs
  Holes,    ///< in what is left of a pool of which half is taken at random
  Scattered ///< in random order
};
/// Errors: InvalidArgument, naming --pages.
Expected<PoolState> poolStateOf(std::string_view name);
const char *nameOf(PoolState state);

/// "workqueue", "cluster4" or "staged".
std::string nameOf(CudaSchedule schedule);
/// Errors: InvalidArgument, naming --schedules.
Expected<CudaSchedule> scheduleOf(std::string_view name);

PolicyShape policyShapeOf(const AttentionInfo &manifest);

double median(std::vector<double> values);

/// What rigs share: a device, kernels, and what costs time to make.
class AttentionLab {
public:
  /// Errors: those of the driver, the device and the kernel set.
  static Expected<std::unique_ptr<AttentionLab>>
  create(std::shared_ptr<const Package> package);

  const std::shared_ptr<const CudaDevice> &device() const { return gpu; }
  const Package &package() const { return *set; }
  const AttentionInfo &info() const { return shape; }
  ThreadPool &threads() { return *workers; }
  /// Random pages of numbers in -1..1.
  std::span<const uint16_t> pattern() const { return pages; }
  /// Pinned memory of at least that size; what was there is gone.
  Expected<uint8_t *> pinned(int64_t bytes);

private:
  explicit AttentionLab(std::shared_ptr<const Package> package)
      : set(std::move(package)), shape(AttentionInfo::of(set->manifest())) {}

  std::shared_ptr<const Package> set;
  AttentionInfo shape;
  std::shared_ptr<const CudaDevice> gpu;
  std::unique_ptr<ThreadPool> workers;
  std::vector<uint16_t> pages;
  PinnedBuffer memory;
};

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
  Status prepareCheck();
  int32_t sampledOutputs() const { return static_cast<int32_t>(pairs.size()); }
  /// Times a schedule and compares one more launch to what prepareCheck() made.
  Expected<AttentionTime> measure(CudaSchedule schedule, bool usesPdl,
                                  int32_t replays);

  /// Every row gets a token; pager and planner know of it then.
  Status grow(StepTimes &times);
  /// Poisons outputs.
  Status poison();
  /// Compares the outputs to what prepareCheck() made.
  Expected<ErrorStats> compare();

private:
  /// A (row, KV head) whose outputs are known.
  struct Pair {
    int32_t row = 0;
    int32_t head = 0;
    std::vector<double> wanted; ///< [group heads][head_dim]
  };

  explicit AttentionRig(AttentionLab &lab) : lab(lab) {}
  Status placePages(const RigOptions &options);
  Status fillPool();
  Status findSchedules();
  void choosePairs();

  AttentionLab &lab;
  std::unique_ptr<AttentionStep> gpu;
  std::vector<int32_t> current;
  std::vector<PlanRow> planRows;
  std::vector<AppendRequest> requests;
  std::vector<PageCopy> copies;
  std::vector<CudaSchedule> available;
  std::vector<CudaEvent> events;
  std::vector<uint16_t> queries; ///< [rows][queries][heads][head_dim]
  std::vector<Pair> pairs;
  uint64_t seed = 1;
  int32_t launchCount = 0;
};

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONRIG_H
