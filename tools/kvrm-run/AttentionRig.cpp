//===- AttentionRig.cpp - Attention of a batch on a GPU, timed ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionRig.h"

#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <numeric>
#include <random>

using namespace kvrm;
using namespace kvrm::run;

/// All layers' KV: at least what a cache does not hold, at most what is left
/// for others on a device.
static constexpr int64_t leastSetBytes = 200'000'000;
static constexpr int64_t mostSetBytes = 40'000'000'000;
/// KV that a timed graph reads, if that is 12 launches or more.
static constexpr int64_t graphBytes = 1'600'000'000;
static constexpr int32_t mostLaunches = 32;
static constexpr int32_t leastLaunches = 12;

double run::median(std::vector<double> values) {
  if (values.empty())
    return 0;
  std::ranges::sort(values);
  size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle]
                           : (values[middle - 1] + values[middle]) / 2;
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

/// Pages of a row that has grown.
static int64_t pagesOf(int32_t length, const RigOptions &options,
                       int32_t pageTokens) {
  return (int64_t(length) + options.growth + pageTokens - 1) / pageTokens;
}

/// Errors: InvalidArgument for more pages than a pool may have.
static Expected<int32_t> poolPagesOf(const RigOptions &options,
                                     int32_t pageTokens) {
  int64_t pages = 0;
  for (int32_t length : options.lengths)
    pages += pagesOf(length, options, pageTokens);
  if (options.pages == PoolState::Holes)
    pages *= 2;
  if (options.usesStaging) {
    auto rows = static_cast<int64_t>(options.lengths.size());
    int32_t longest = std::ranges::max(options.lengths);
    pages = std::max(pages, rows * pagesOf(longest, options, pageTokens));
  }
  KVRM_TRY(checkRange("pool_pages", pages, 1, KVRM_MAX_POOL_PAGES));
  return static_cast<int32_t>(pages);
}

/// As many layers as options ask for, or as exceed the cache and fit in memory.
static Expected<int32_t> layersOf(const RigOptions &options,
                                  const CudaDevice &device, int64_t layerBytes,
                                  int64_t readBytes) {
  if (options.layers > 0)
    return options.layers;
  Expected<int64_t> free = device.freeBytes();
  KVRM_TRY(free.status());
  int64_t most = std::min(mostSetBytes, *free / 10 * 9);
  int64_t wanted = std::max(leastSetBytes, 4 * device.info().l2Bytes);
  int64_t layers = std::clamp<int64_t>((wanted + readBytes - 1) / readBytes, 2,
                                       KVRM_MAX_LAYERS);
  int64_t fit = most / layerBytes - options.usesStaging;
  return static_cast<int32_t>(std::max<int64_t>(std::min(layers, fit), 1));
}

/// Of a timed graph: a multiple of the layers.
static int32_t launchesOf(int32_t layers, int64_t readBytes) {
  int64_t launches =
      readBytes * mostLaunches <= graphBytes
          ? mostLaunches
          : std::max<int64_t>(graphBytes / readBytes, leastLaunches);
  return static_cast<int32_t>((launches + layers - 1) / layers * layers);
}

Expected<std::unique_ptr<AttentionRig>>
AttentionRig::create(AttentionLab &lab, const RigOptions &options) {
  KVRM_CHECK(!options.lengths.empty(), "a batch has rows");
  const AttentionInfo &m = lab.info();
  std::unique_ptr<AttentionRig> rig(new AttentionRig(lab));
  rig->current = options.lengths;
  rig->seed = options.seed;

  AttentionShape shape;
  shape.slots = rig->rows();
  shape.appends = false;
  shape.usesStaging = options.usesStaging;
  shape.itemCost = options.itemCost;
  shape.capacityTokens = static_cast<int32_t>(
      int64_t(std::ranges::max(options.lengths)) + options.growth);
  Expected<int32_t> pages = poolPagesOf(options, m.pageTokens);
  KVRM_TRY(pages.status());
  shape.poolPages = *pages;
  int64_t layerBytes = *pages * m.pageBytes() * 2 * m.kvHeads;
  Expected<int32_t> layers =
      layersOf(options, *lab.device(), layerBytes, rig->bytes());
  KVRM_TRY(layers.status());
  shape.layers = *layers;
  rig->launchCount = launchesOf(*layers, rig->bytes());

  Expected<std::unique_ptr<AttentionStep>> backend =
      AttentionStep::create(lab.device(), lab.package(), shape);
  KVRM_TRY(backend.status());
  rig->gpu = backend.take();
  KVRM_TRY(rig->placePages(options));
  KVRM_TRY(rig->fillPool());
  KVRM_TRY(rig->writeQueries());
  KVRM_TRY(rig->findSchedules());
  KVRM_TRY(rig->planFirstStep());
  rig->check.emplace(lab, *rig->gpu, rig->queries, rig->seed + 2);
  return rig;
}

/// In which every row has its history.
Status AttentionRig::planFirstStep() {
  auto count = static_cast<size_t>(rows());
  planRows.resize(count);
  requests.resize(count);
  copies.resize(count);
  for (size_t i = 0; i < count; ++i) {
    auto slot = static_cast<int32_t>(i);
    PageCopy copy;
    KVRM_TRY(gpu->pager().append(slot, current[i], copy));
    planRows[i] = {slot, current[i] - 1, 1};
    requests[i] = {slot, 1};
  }
  gpu->plan(planRows);
  KVRM_TRY(gpu->commit());
  KVRM_TRY(gpu->launchCommit());
  return gpu->synchronize();
}

int64_t AttentionRig::bytes() const {
  const AttentionInfo &m = lab.info();
  int64_t tokens = std::reduce(current.begin(), current.end(), int64_t(0));
  return tokens * m.kvHeads * 2 * kvrm_token_bytes(m.headDim, m.element);
}

/// Gives every row its pages, those it will grow by included.
Status AttentionRig::placePages(const RigOptions &options) {
  BlockPager &pager = gpu->pager();
  if (options.pages == PoolState::Fresh) {
    for (int32_t row = 0; row < rows(); ++row)
      KVRM_TRY(pager.reserve(row, current[static_cast<size_t>(row)] +
                                      options.growth));
    return Status::ok();
  }
  std::vector<int32_t> order(static_cast<size_t>(pager.limits().pages));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(seed);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random() % i]);
  auto countOf = [&](int32_t length) {
    return static_cast<size_t>(
        pagesOf(length, options, pager.limits().pageTokens));
  };
  size_t total = 0;
  for (int32_t length : current)
    total += countOf(length);
  if (options.pages == PoolState::Holes)
    std::sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(total));
  std::span<const int32_t> rest(order);
  for (int32_t row = 0; row < rows(); ++row) {
    size_t count = countOf(current[static_cast<size_t>(row)]);
    KVRM_TRY(pager.reservePages(row, rest.first(count)));
    rest = rest.subspan(count);
  }
  return Status::ok();
}

/// Never zeros: a device may be faster where all bits are alike.
Status AttentionRig::fillPool() {
  DeviceSpan pool = gpu->pool();
  const CudaStream &stream = gpu->stream();
  std::span<const uint8_t> pattern = lab.pattern();
  int64_t done =
      std::min(static_cast<int64_t>(pattern.size_bytes()), pool.bytes);
  KVRM_TRY(stream.copyIn(pool.part(0, done), pattern.data()));
  while (done < pool.bytes) {
    int64_t part = std::min(done, pool.bytes - done);
    KVRM_TRY(stream.copy(pool.address + static_cast<uint64_t>(done),
                         pool.part(0, part)));
    done += part;
  }
  return Status::ok();
}

Status AttentionRig::writeQueries() {
  const AttentionInfo &m = gpu->info();
  DeviceSpan q = gpu->tensor(AttentionTensor::Q);
  queries.resize(static_cast<size_t>(q.bytes / 2));
  std::mt19937_64 random(seed + 1);
  // Scores of even heads are spread by about 1, so that all tokens count; those
  // of odd heads by 4, so that a few make up the output.
  for (size_t i = 0; i < queries.size(); ++i) {
    auto head =
        i / static_cast<size_t>(m.headDim) % static_cast<size_t>(m.heads);
    double unit = static_cast<double>(random() % 4096) / 2048 - 1;
    queries[i] = elementOf(m.io, unit * (head % 2 ? 12 : 3));
  }
  KVRM_TRY(gpu->stream().copyIn(q, queries.data()));
  return gpu->stream().synchronize();
}

Status AttentionRig::findSchedules() {
  for (CudaSchedule schedule : allSchedules()) {
    if (schedule.cluster > gpu->info().maxCluster ||
        (schedule.isStaged && !gpu->shape().usesStaging))
      continue;
    Expected<CudaGraph> graph = gpu->captureAttention(schedule, 1, false);
    if (graph)
      available.push_back(schedule);
    else if (graph.status().code() != StatusCode::Incompatible)
      return graph.status();
  }
  return Status::ok();
}

Expected<int32_t> AttentionRig::clustersAtOnce(int32_t blocks) const {
  const DeviceCode::Kernel *found =
      gpu->kernels().find(KVRM_ROLE_ATTEND_CLUSTER);
  KVRM_CHECK(found, "a package has clusters");
  const KernelInfo *info = &found->info;
  const CudaKernel *kernel = &found->code;
  if (blocks == 1) {
    Expected<int32_t> held =
        kernel->maxActiveBlocks(info->threads, info->sharedBytes);
    KVRM_TRY(held.status());
    return *held * gpu->device().info().multiprocessors;
  }
  CudaLaunch launch;
  launch.cluster = static_cast<uint32_t>(blocks);
  launch.grid[0] = static_cast<uint32_t>(blocks);
  launch.threads = static_cast<uint32_t>(info->threads);
  launch.sharedBytes = static_cast<uint32_t>(info->sharedBytes);
  return kernel->maxActiveClusters(launch);
}

//===----------------------------------------------------------------------===//
// Steps and times
//===----------------------------------------------------------------------===//

Status AttentionRig::grow(StepTimes &times) {
  const Stopwatch watch;
  int32_t copyCount = 0;
  KVRM_TRY(gpu->pager().appendAll(requests, copies, copyCount));
  for (size_t i = 0; i < current.size(); ++i)
    planRows[i].position = current[i]++;
  gpu->plan(planRows);
  times.plan = watch.nanoseconds();
  return Status::ok();
}

/// Microseconds of a launch of `graph`, one for each of its replays.
Expected<std::vector<double>> AttentionRig::timeReplays(CudaGraph &graph,
                                                        int32_t replays) {
  const CudaStream &stream = gpu->stream();
  auto marks = static_cast<size_t>(replays) + 1;
  while (events.size() < marks) {
    Expected<CudaEvent> event = CudaEvent::create(lab.device(), true);
    KVRM_TRY(event.status());
    events.push_back(event.take());
  }
  for (int i = 0; i < 2; ++i)
    KVRM_TRY(graph.launch(stream));
  KVRM_TRY(events[0].record(stream));
  for (size_t i = 1; i < marks; ++i) {
    KVRM_TRY(graph.launch(stream));
    KVRM_TRY(events[i].record(stream));
  }
  KVRM_TRY(stream.synchronize());
  std::vector<double> times;
  for (size_t i = 1; i < marks; ++i) {
    Expected<double> us = events[i].microsecondsSince(events[i - 1]);
    KVRM_TRY(us.status());
    times.push_back(*us / launchCount);
  }
  return times;
}

Expected<AttentionTime> AttentionRig::measure(CudaSchedule schedule,
                                              bool usesPdl, int32_t replays) {
  Expected<CudaGraph> graph =
      gpu->captureAttention(schedule, launchCount, usesPdl);
  KVRM_TRY(graph.status());
  Expected<std::vector<double>> times = timeReplays(*graph, replays);
  KVRM_TRY(times.status());
  AttentionTime result;
  result.us = median(times.take());
  if (check->pairCount() == 0)
    return result;
  KVRM_TRY(poison());
  KVRM_TRY(graph->launch(gpu->stream()));
  KVRM_TRY(gpu->stream().synchronize());
  Expected<ErrorStats> errors = check->compare();
  KVRM_TRY(errors.status());
  result.errors = *errors;
  return result;
}

Status AttentionRig::poison() {
  return gpu->stream().fill(gpu->tensor(AttentionTensor::Out), 0xff);
}
