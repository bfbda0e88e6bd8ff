//===- AttentionRig.cpp - Attention of a batch on a GPU, timed ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionRig.h"

#include <algorithm>
#include <atomic>
#include <chrono>
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
/// Prime, so that neither pages nor heads are alike.
static constexpr int32_t patternPages = 1021;
/// Tokens of all (row, KV head) pairs that are computed on the host.
static constexpr int64_t checkedTokens = 1 << 17;

static int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double run::median(std::vector<double> values) {
  if (values.empty())
    return 0;
  std::ranges::sort(values);
  size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle]
                           : (values[middle - 1] + values[middle]) / 2;
}

Expected<PoolState> run::poolStateOf(std::string_view name) {
  for (PoolState state :
       {PoolState::Fresh, PoolState::Holes, PoolState::Scattered})
    if (name == nameOf(state))
      return state;
  return invalidArgument("--pages: '", name,
                         "' is not one of fresh, holes, scattered");
}

const char *run::nameOf(PoolState state) {
  switch (state) {
  case PoolState::Fresh:
    return "fresh";
  case PoolState::Holes:
    return "holes";
  case PoolState::Scattered:
    return "scattered";
  }
  return "";
}

std::string run::nameOf(CudaSchedule schedule) {
  if (schedule.isStaged)
    return "staged";
  return schedule.cluster == 0 ? "workqueue"
                               : "cluster" + std::to_string(schedule.cluster);
}

Expected<CudaSchedule> run::scheduleOf(std::string_view name) {
  std::vector<CudaSchedule> known = {CudaSchedule::workqueue()};
  for (int32_t blocks : {1, 2, 4, 8})
    known.push_back(CudaSchedule::clusters(blocks));
  known.push_back(CudaSchedule::staged());
  for (CudaSchedule schedule : known)
    if (nameOf(schedule) == name)
      return schedule;
  return invalidArgument("--schedules: '", name,
                         "' is not one of all, workqueue, cluster1, cluster2, "
                         "cluster4, cluster8, staged");
}

PolicyShape run::policyShapeOf(const AttentionInfo &manifest) {
  PolicyShape shape;
  shape.heads = manifest.heads;
  shape.kvHeads = manifest.kvHeads;
  shape.headDim = manifest.headDim;
  shape.pageTokens = manifest.pageTokens;
  shape.queries = manifest.queries;
  shape.kvTile = manifest.kvTile;
  // Steps of one token have one query tile.
  shape.queryTiles = 1;
  shape.element = manifest.element;
  return shape;
}

//===----------------------------------------------------------------------===//
// AttentionLab
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<AttentionLab>>
AttentionLab::create(std::shared_ptr<const Package> package) {
  std::unique_ptr<AttentionLab> lab(new AttentionLab(std::move(package)));
  Expected<std::shared_ptr<const CudaDriver>> driver = CudaDriver::load();
  KVRM_TRY(driver.status());
  Expected<std::shared_ptr<const CudaDevice>> device =
      CudaDevice::create(driver.take());
  KVRM_TRY(device.status());
  lab->gpu = device.take();
  KVRM_TRY(checkDevice(*lab->set, lab->gpu->info()));
  Expected<std::unique_ptr<ThreadPool>> workers = ThreadPool::create(0);
  KVRM_TRY(workers.status());
  lab->workers = workers.take();
  const AttentionInfo &m = lab->info();
  // All elements that can come, once each, so that none is rounded twice.
  std::vector<uint16_t> values(1 << 12);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] =
        elementOf(m.element, (2 * static_cast<double>(i) + 1) / (1 << 12) - 1);
  lab->pages.resize(static_cast<size_t>(patternPages * m.pageBytes() / 2));
  std::mt19937_64 random(1);
  for (uint16_t &element : lab->pages)
    element = values[random() % values.size()];
  return lab;
}

Expected<uint8_t *> AttentionLab::pinned(int64_t bytes) {
  if (memory.size() < bytes) {
    memory = PinnedBuffer();
    Expected<PinnedBuffer> taken =
        PinnedBuffer::create(gpu, bytes, "pages to compare with");
    KVRM_TRY(taken.status());
    memory = taken.take();
  }
  return memory.data();
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

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
  int64_t longest = 0;
  int64_t pages = 0;
  for (int32_t length : options.lengths) {
    int64_t most = int64_t(length) + options.growth;
    longest = std::max(longest, most);
    pages += (most + m.pageTokens - 1) / m.pageTokens;
  }
  shape.capacityTokens = static_cast<int32_t>(longest);
  if (options.pages == PoolState::Holes)
    pages *= 2;
  if (options.usesStaging)
    pages = std::max(pages, rig->rows() *
                                ((longest + m.pageTokens - 1) / m.pageTokens));
  if (pages > KVRM_MAX_POOL_PAGES)
    return invalidArgument("pool_pages: ", pages, " is outside 1..",
                           int32_t(KVRM_MAX_POOL_PAGES));
  shape.poolPages = static_cast<int32_t>(pages);

  int64_t layerBytes = pages * m.pageBytes() * 2 * m.kvHeads;
  Expected<int64_t> free = lab.device()->freeBytes();
  KVRM_TRY(free.status());
  int64_t most = std::min(mostSetBytes, *free / 10 * 9);
  int64_t wanted = std::max(leastSetBytes, 4 * lab.device()->info().l2Bytes);
  int64_t read = rig->bytes();
  int64_t layers = options.layers;
  if (layers == 0) {
    layers =
        std::clamp<int64_t>((wanted + read - 1) / read, 2, KVRM_MAX_LAYERS);
    int64_t fit = most / layerBytes - options.usesStaging;
    layers = std::max<int64_t>(std::min(layers, fit), 1);
  }
  shape.layers = static_cast<int32_t>(layers);
  int64_t launches = read * mostLaunches <= graphBytes
                         ? mostLaunches
                         : std::max<int64_t>(graphBytes / read, leastLaunches);
  rig->launchCount =
      static_cast<int32_t>((launches + layers - 1) / layers * layers);

  Expected<std::unique_ptr<AttentionStep>> backend =
      AttentionStep::create(lab.device(), lab.package(), shape);
  KVRM_TRY(backend.status());
  rig->gpu = backend.take();
  KVRM_TRY(rig->placePages(options));
  KVRM_TRY(rig->fillPool());
  KVRM_TRY(rig->findSchedules());

  auto rows = static_cast<size_t>(rig->rows());
  rig->planRows.resize(rows);
  rig->requests.resize(rows);
  rig->copies.resize(rows);
  for (size_t i = 0; i < rows; ++i) {
    auto slot = static_cast<int32_t>(i);
    PageCopy copy;
    KVRM_TRY(rig->gpu->pager().append(slot, rig->current[i], copy));
    rig->planRows[i] = {slot, rig->current[i] - 1, 1};
    rig->requests[i] = {slot, 1};
  }
  rig->gpu->plan(rig->planRows);
  KVRM_TRY(rig->gpu->commit());
  KVRM_TRY(rig->gpu->launchCommit());
  KVRM_TRY(rig->gpu->synchronize());
  return rig;
}

int64_t AttentionRig::bytes() const {
  const AttentionInfo &m = lab.info();
  int64_t tokens = std::reduce(current.begin(), current.end(), int64_t(0));
  return tokens * m.kvHeads * m.headDim * 4;
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
  size_t total = 0;
  auto pagesOf = [&](int32_t length) {
    int32_t page = pager.limits().pageTokens;
    return static_cast<size_t>((length + options.growth + page - 1) / page);
  };
  for (int32_t length : current)
    total += pagesOf(length);
  if (options.pages == PoolState::Holes)
    std::sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(total));
  std::span<const int32_t> rest(order);
  for (int32_t row = 0; row < rows(); ++row) {
    size_t count = pagesOf(current[static_cast<size_t>(row)]);
    KVRM_TRY(pager.reservePages(row, rest.first(count)));
    rest = rest.subspan(count);
  }
  return Status::ok();
}

/// Never zeros: a device may be faster where all bits are alike.
Status AttentionRig::fillPool() {
  DeviceSpan pool = gpu->pool();
  const CudaStream &stream = gpu->stream();
  std::span<const uint16_t> pattern = lab.pattern();
  int64_t done =
      std::min(static_cast<int64_t>(pattern.size_bytes()), pool.bytes);
  KVRM_TRY(stream.copyIn(pool.part(0, done), pattern.data()));
  while (done < pool.bytes) {
    int64_t part = std::min(done, pool.bytes - done);
    KVRM_TRY(stream.copy(pool.address + static_cast<uint64_t>(done),
                         pool.part(0, part)));
    done += part;
  }
  const AttentionInfo &m = gpu->info();
  DeviceSpan q = gpu->tensor(AttentionTensor::Q);
  queries.resize(static_cast<size_t>(q.bytes / 2));
  std::mt19937_64 random(seed + 1);
  std::vector<uint16_t> values(1 << 12);
  // Scores of even heads are spread by about 1, so that all tokens count; those
  // of odd heads by 4, so that a few make up the output.
  for (size_t i = 0; i < queries.size(); ++i) {
    auto head =
        i / static_cast<size_t>(m.headDim) % static_cast<size_t>(m.heads);
    double unit = static_cast<double>(random() % 4096) / 2048 - 1;
    queries[i] = elementOf(m.element, unit * (head % 2 ? 12 : 3));
  }
  KVRM_TRY(stream.copyIn(q, queries.data()));
  return stream.synchronize();
}

Status AttentionRig::findSchedules() {
  std::vector<CudaSchedule> all = {CudaSchedule::workqueue()};
  for (int32_t blocks : {1, 2, 4, 8})
    all.push_back(CudaSchedule::clusters(blocks));
  if (gpu->shape().usesStaging)
    all.push_back(CudaSchedule::staged());
  for (CudaSchedule schedule : all) {
    if (schedule.cluster > gpu->info().maxCluster)
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
  int64_t start = now();
  int32_t copyCount = 0;
  KVRM_TRY(gpu->pager().appendAll(requests, copies, copyCount));
  for (size_t i = 0; i < current.size(); ++i)
    planRows[i].position = current[i]++;
  gpu->plan(planRows);
  times.plan = now() - start;
  return Status::ok();
}

Expected<AttentionTime> AttentionRig::measure(CudaSchedule schedule,
                                              bool usesPdl, int32_t replays) {
  Expected<CudaGraph> graph =
      gpu->captureAttention(schedule, launchCount, usesPdl);
  KVRM_TRY(graph.status());
  const CudaStream &stream = gpu->stream();
  auto marks = static_cast<size_t>(replays) + 1;
  while (events.size() < marks) {
    Expected<CudaEvent> event = CudaEvent::create(lab.device(), true);
    KVRM_TRY(event.status());
    events.push_back(event.take());
  }
  for (int i = 0; i < 2; ++i)
    KVRM_TRY(graph->launch(stream));
  KVRM_TRY(events[0].record(stream));
  for (size_t i = 1; i < marks; ++i) {
    KVRM_TRY(graph->launch(stream));
    KVRM_TRY(events[i].record(stream));
  }
  KVRM_TRY(stream.synchronize());
  std::vector<double> times;
  for (size_t i = 1; i < marks; ++i) {
    Expected<double> us = events[i].microsecondsSince(events[i - 1]);
    KVRM_TRY(us.status());
    times.push_back(*us / launchCount);
  }
  AttentionTime result;
  result.us = median(std::move(times));
  if (pairs.empty())
    return result;
  KVRM_TRY(poison());
  KVRM_TRY(graph->launch(stream));
  KVRM_TRY(stream.synchronize());
  Expected<ErrorStats> errors = compare();
  KVRM_TRY(errors.status());
  result.errors = *errors;
  return result;
}

//===----------------------------------------------------------------------===//
// Comparing
//===----------------------------------------------------------------------===//

Status AttentionRig::poison() {
  return gpu->stream().fill(gpu->tensor(AttentionTensor::Out), 0xff);
}

/// The longest row, the shortest and the last, then others at random, as far as
/// their tokens can be computed soon.
void AttentionRig::choosePairs() {
  pairs.clear();
  int32_t heads = gpu->info().kvHeads;
  std::vector<int32_t> order(current.size());
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(seed + 2);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random() % i]);
  auto lengthOf = [&](int32_t row) {
    return current[static_cast<size_t>(row)];
  };
  order.insert(order.begin(),
               {std::ranges::max(order, {}, lengthOf),
                std::ranges::min(order, {}, lengthOf), rows() - 1});
  int64_t left = checkedTokens;
  auto isThere = [&](int32_t row, int32_t head) {
    return std::ranges::any_of(pairs, [&](const Pair &pair) {
      return pair.row == row && pair.head == head;
    });
  };
  // A head of each row, then another of each.
  for (int32_t round = 0; round < heads; ++round)
    for (int32_t row : order) {
      int32_t head = (row + round * 3 + heads - 1) % heads;
      if (isThere(row, head) || (!pairs.empty() && lengthOf(row) > left))
        continue;
      pairs.push_back({row, head, {}});
      left -= lengthOf(row);
    }
}

Status AttentionRig::prepareCheck() {
  choosePairs();
  const AttentionInfo &m = gpu->info();
  int64_t pageBytes = m.pageBytes();
  int64_t total = 0;
  std::vector<int64_t> offsets; ///< K, then V, of each pair
  for (const Pair &pair : pairs) {
    int64_t half = gpu->pager().filledPages(pair.row) * pageBytes;
    offsets.push_back(total);
    offsets.push_back(total + half);
    total += 2 * half;
  }
  Expected<uint8_t *> memory = lab.pinned(total);
  KVRM_TRY(memory.status());
  int32_t layer = gpu->shape().layers - 1;
  for (size_t i = 0; i < pairs.size(); ++i)
    for (bool isValue : {false, true}) {
      std::span<const int32_t> pages =
          gpu->pager()
              .pages(pairs[i].row)
              .first(
                  static_cast<size_t>(gpu->pager().filledPages(pairs[i].row)));
      uint8_t *to = *memory + offsets[2 * i + isValue];
      for (size_t at = 0; at < pages.size();) {
        size_t run = 1;
        while (at + run < pages.size() &&
               pages[at + run] == pages[at] + static_cast<int32_t>(run))
          ++run;
        DeviceSpan from = gpu->page({layer, isValue, pairs[i].head, pages[at]});
        from.bytes = static_cast<int64_t>(run) * pageBytes;
        KVRM_TRY(gpu->stream().copyOut(to, from));
        to += from.bytes;
        at += run;
      }
    }
  KVRM_TRY(gpu->synchronize());

  struct Context {
    AttentionRig &rig;
    const uint8_t *memory;
    const std::vector<int64_t> &offsets;
    std::atomic<size_t> next{0};
  } context{*this, *memory, offsets};
  auto work = [](void *opaque, int32_t) {
    auto &shared = *static_cast<Context *>(opaque);
    AttentionRig &rig = shared.rig;
    const AttentionInfo &m = rig.gpu->info();
    auto pageElements = static_cast<size_t>(m.pageBytes() / 2);
    std::vector<uint16_t> sides[2];
    for (size_t i; (i = shared.next++) < rig.pairs.size();) {
      Pair &pair = rig.pairs[i];
      auto pages = static_cast<size_t>(rig.gpu->pager().filledPages(pair.row));
      for (size_t side = 0; side < 2; ++side) {
        sides[side].resize(pages * pageElements);
        const auto *from = reinterpret_cast<const uint16_t *>(
            shared.memory + shared.offsets[2 * i + side]);
        for (size_t page = 0; page < pages; ++page)
          unpackPage({from + page * pageElements, pageElements}, m.headDim,
                     {&sides[side][page * pageElements], pageElements});
      }
      auto group = static_cast<size_t>(m.groupHeads());
      auto dim = static_cast<size_t>(m.headDim);
      std::vector<const uint16_t *> queries;
      for (size_t g = 0; g < group; ++g)
        queries.push_back(&rig.queries[(
            (static_cast<size_t>(pair.row) * static_cast<size_t>(m.queries) *
                 static_cast<size_t>(m.heads) +
             static_cast<size_t>(pair.head) * group + g) *
            dim)]);
      std::vector<int32_t> visible(group,
                                   rig.current[static_cast<size_t>(pair.row)]);
      pair.wanted.resize(group * dim);
      attendReference(
          {m.element, m.headDim, sides[0], sides[1], queries, visible},
          pair.wanted);
    }
  };
  lab.threads().run(work, &context);
  return Status::ok();
}

Expected<ErrorStats> AttentionRig::compare() {
  const AttentionInfo &m = gpu->info();
  DeviceSpan span = gpu->tensor(AttentionTensor::Out, gpu->shape().layers - 1);
  std::vector<uint16_t> out(static_cast<size_t>(span.bytes / 2));
  KVRM_TRY(gpu->read({reinterpret_cast<uint8_t *>(out.data()),
                      static_cast<size_t>(span.bytes)},
                     span));
  ErrorStats stats;
  auto outputElements = static_cast<size_t>(m.heads * m.headDim);
  auto rowElements = outputElements * static_cast<size_t>(m.queries);
  // No output may be left as it was, sampled or not.
  for (size_t row = 0; row < current.size(); ++row)
    for (size_t i = 0; i < outputElements; ++i)
      stats.poisoned += out[row * rowElements + i] == 0xffff;
  if (stats.poisoned > 0)
    return stats;
  for (const Pair &pair : pairs) {
    size_t at = static_cast<size_t>(pair.row) * rowElements +
                static_cast<size_t>(pair.head * m.groupHeads() * m.headDim);
    stats.add(m.element, {&out[at], pair.wanted.size()}, pair.wanted);
  }
  return stats;
}
