//===- RuntimeBench.cpp - Costs of a step outside the kernels ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a decode step pays besides its compiled code. Targets: a plan in 5 us at
// 8 slots and 20 us at 256 slots, whatever the histories' length; pager
// operations that cost the same in a pool of 10^3 and of 10^6 pages.
//
//===----------------------------------------------------------------------===//

#include "../test/PolicyConstants.h"
#include "kvrm/runtime/host/HostBackend.h"
#include "kvrm/runtime/host/MergePartials.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <benchmark/benchmark.h>
#include <random>

using namespace kvrm;

namespace {

/// Ragged histories of up to `capacity` tokens in a pool that holds them all.
class Decoder {
public:
  Decoder(int32_t slots, int32_t capacity, kvrm_schedule schedule,
          int32_t kvHeads, int32_t shares = 2, int32_t itemCost = 0)
      : shape(makeShape(slots, capacity, schedule, kvHeads, shares, itemCost)),
        pager(BlockPager::create(
                  {slots * shape.pagesPerSlot, slots, shape.pagesPerSlot, 16})
                  .take()),
        planner(Planner::create(shape).take()),
        descriptor(StepDescriptor::create(planner.capacity().limits).take()),
        rows(static_cast<size_t>(slots)), requests(static_cast<size_t>(slots)),
        copies(static_cast<size_t>(slots)) {
    restart();
  }

  static PlanShape makeShape(int32_t slots, int32_t capacity,
                             kvrm_schedule schedule, int32_t kvHeads,
                             int32_t shares, int32_t itemCost) {
    PlanShape shape;
    shape.rows = slots;
    shape.queries = 1;
    shape.kvHeads = kvHeads;
    shape.qTile = 1;
    shape.kvTile = 64;
    shape.pageTokens = 16;
    shape.pagesPerSlot = capacity / 16;
    shape.schedule = schedule;
    shape.splits = 4;
    shape.shares = shares;
    shape.itemCost = itemCost;
    return shape;
  }

  /// Releases all, and interleaves the growth of new histories, so that they
  /// lie as real ones do. Lengths are spread over 1/8..3/4 of the capacity.
  void restart() {
    std::mt19937 random(3);
    int32_t capacity = shape.pagesPerSlot * 16;
    std::vector<int32_t> targets;
    for (int32_t slot = 0; slot < shape.rows; ++slot) {
      (void)pager.release(slot).isOk();
      targets.push_back(capacity / 8 +
                        static_cast<int32_t>(random() % (capacity * 5 / 8)));
    }
    PageCopy copy;
    for (bool isGrowing = true; isGrowing;) {
      isGrowing = false;
      for (int32_t slot = 0; slot < shape.rows; ++slot)
        if (pager.length(slot) < targets[static_cast<size_t>(slot)]) {
          (void)pager.append(slot, 1, copy).isOk();
          isGrowing = true;
        }
    }
    steps = 0;
  }

  /// The pager's part of a step.
  void append() {
    for (int32_t slot = 0; slot < shape.rows; ++slot) {
      requests[static_cast<size_t>(slot)] = {slot, 1};
      rows[static_cast<size_t>(slot)] = {slot, pager.length(slot), 1};
    }
    int32_t count = 0;
    (void)pager.appendAll(requests, copies, count).isOk();
    ++steps;
  }
  const PlanStats &plan() { return planner.plan(rows, pager, descriptor); }

  /// Makes room, with a first step done, while the clock stands.
  void restartIfNearlyFull(benchmark::State &state) {
    if (steps < shape.pagesPerSlot * 16 / 8)
      return;
    state.PauseTiming();
    restart();
    append();
    plan();
    descriptor.commit();
    state.ResumeTiming();
  }

  PlanShape shape;
  BlockPager pager;
  Planner planner;
  StepDescriptor descriptor;
  std::vector<PlanRow> rows;
  std::vector<AppendRequest> requests;
  std::vector<PageCopy> copies;
  int32_t steps = 0;
};

} // namespace

/// pager + plan + commit of one decode step, averaged over steps that do and do
/// not cross page and tile boundaries.
static void planStep(benchmark::State &state) {
  auto slots = static_cast<int32_t>(state.range(0));
  Decoder decoder(slots, static_cast<int32_t>(state.range(1)),
                  static_cast<kvrm_schedule>(state.range(2)), 8);
  int64_t plan = 0;
  int64_t most = 0;
  int64_t bytes = 0;
  for (auto _ : state) {
    decoder.restartIfNearlyFull(state);
    decoder.append();
    const PlanStats &stats = decoder.plan();
    plan += stats.nanoseconds;
    most = std::max(most, stats.nanoseconds);
    bytes += decoder.descriptor.commit();
  }
  auto steps = static_cast<double>(state.iterations());
  state.counters["plan_us"] = static_cast<double>(plan) / steps / 1e3;
  state.counters["plan_max_us"] = static_cast<double>(most) / 1e3;
  state.counters["commit_bytes"] = static_cast<double>(bytes) / steps;
  state.counters["groups"] = decoder.planner.stats().groups;
  state.counters["items"] = decoder.planner.stats().items;
}
BENCHMARK(planStep)
    ->ArgNames({"slots", "capacity", "schedule"})
    ->ArgsProduct({{8, 64, 256}, {2048}, {0, 1, 2}})
    ->Args({8, 32768, 2})
    // 4096 pages a slot.
    ->Args({8, 65536, 2})
    ->Args({64, 65536, 2})
    ->Args({256, 65536, 2});

/// The same for a device of 132 multiprocessors, where a commit is the words
/// that changed.
static void planDeltaStep(benchmark::State &state) {
  auto slots = static_cast<int32_t>(state.range(0));
  Decoder decoder(slots, 2048, KVRM_SCHEDULE_WORKQUEUE, 8, 132, 64);
  std::vector<kvrm_delta_word> words(
      static_cast<size_t>(decoder.descriptor.deltaCapacity(false)));
  int64_t plan = 0;
  int64_t collect = 0;
  int64_t count = 0;
  for (auto _ : state) {
    decoder.restartIfNearlyFull(state);
    decoder.append();
    plan += decoder.plan().nanoseconds;
    const Stopwatch watch;
    count += decoder.descriptor.collectDelta(
        words, {.isWhole = false, .hasGroups = false});
    collect += watch.nanoseconds();
  }
  auto steps = static_cast<double>(state.iterations());
  state.counters["plan_us"] = static_cast<double>(plan) / steps / 1e3;
  state.counters["collect_us"] = static_cast<double>(collect) / steps / 1e3;
  state.counters["delta_bytes"] = 16 + static_cast<double>(count * 8) / steps;
}
BENCHMARK(planDeltaStep)->Arg(8)->Arg(64)->Arg(256);

/// A plan in which everything is new: after admission of all slots at once.
static void planFromNothing(benchmark::State &state) {
  auto slots = static_cast<int32_t>(state.range(0));
  Decoder decoder(slots, 2048, KVRM_SCHEDULE_WORKQUEUE, 8, 132, 64);
  std::vector<PlanRow> idle(static_cast<size_t>(slots));
  decoder.append();
  int64_t plan = 0;
  for (auto _ : state) {
    plan += decoder.plan().nanoseconds;
    decoder.planner.plan(idle, decoder.pager, decoder.descriptor);
  }
  state.counters["plan_us"] =
      static_cast<double>(plan) / static_cast<double>(state.iterations()) / 1e3;
}
BENCHMARK(planFromNothing)->Arg(8)->Arg(256);

static void forkAndJoin(benchmark::State &state) {
  std::unique_ptr<ThreadPool> pool =
      ThreadPool::create(static_cast<int32_t>(state.range(0))).take();
  for (auto _ : state)
    pool->run([](void *, int32_t) {}, nullptr);
}
BENCHMARK(forkAndJoin)->Arg(1)->Arg(2)->UseRealTime();

/// One operation of the pager in a pool that is nine tenths full of histories
/// of 64 pages, after each of them has been replaced once: append a page, or
/// free a history and start it anew.
static void pagerOperation(benchmark::State &state) {
  auto pages = static_cast<int32_t>(state.range(0));
  constexpr int32_t pagesPerSlot = 64;
  int32_t slots = std::clamp(pages * 9 / 10 / (pagesPerSlot / 2), 1,
                             int32_t(KVRM_MAX_ROWS));
  int32_t most = std::min<int32_t>(pages * 9 / 10 / slots * 2, 65536);
  BlockPager pager = BlockPager::create({pages, slots, most, 16}).take();
  std::mt19937 random(5);
  PageCopy copy;
  int64_t operations = 0;
  auto operate = [&] {
    auto slot = static_cast<int32_t>(random() % static_cast<uint32_t>(slots));
    // Lengths are spread evenly, so that half of the table is in use.
    if (pager.filledPages(slot) >= most || pager.freePages() < pages / 10)
      (void)pager.release(slot).isOk();
    (void)pager.append(slot, 16, copy).isOk();
    ++operations;
  };
  while (pager.freePages() > pages / 8)
    operate();
  for (int32_t i = 0; i < pages; ++i)
    operate();
  for (auto _ : state)
    operate();
  state.counters["slots"] = slots;
}
BENCHMARK(pagerOperation)->Arg(1000)->Arg(10000)->Arg(100000)->Arg(1000000);

/// Moving a history of 1024 tokens to parking memory and back, by runs of so
/// many adjacent pages: SmolLM2's 30 layers, 3 KV heads of 64.
static void parkAndUnpark(benchmark::State &state) {
  auto run = static_cast<int32_t>(state.range(0));
  constexpr int32_t pages = 64;
  HostShape shape;
  shape.layers = 30;
  shape.heads = 9;
  shape.kvHeads = 3;
  shape.headDim = 64;
  shape.pageTokens = 16;
  shape.pages = 1024;
  shape.parkingPages = 1024;
  shape.threads = 1;
  // No step runs.
  for (HostEntry &entry : shape.entries)
    entry.plan = {.rows = 1,
                  .queries = 1,
                  .kvHeads = 3,
                  .qTile = 1,
                  .kvTile = 64,
                  .pageTokens = 16,
                  .pagesPerSlot = pages};
  std::unique_ptr<HostBackend> backend = HostBackend::create(shape).take();
  std::mt19937 random(7);
  std::vector<PageRun> runs;
  auto moveAll = [&](int32_t base, int32_t count, int32_t run) {
    runs.clear();
    for (int32_t page = 0; page < count; page += run)
      runs.push_back({base + page, base + page, run});
    for (MoveDirection direction :
         {MoveDirection::ToParking, MoveDirection::FromParking})
      (void)backend->movePages(runs, direction).isOk();
  };
  // What nobody has touched is not memory yet.
  moveAll(0, 1024, 64);
  for (auto _ : state)
    moveAll(static_cast<int32_t>(random() % 960), pages, run);
  state.SetBytesProcessed(state.iterations() * 2 * pages *
                          backend->info().pageBytes);
}
BENCHMARK(parkAndUnpark)->Arg(1)->Arg(8)->Arg(64);

static void merge(benchmark::State &state) {
  auto parts = static_cast<int32_t>(state.range(0));
  std::vector<float> partials(
      static_cast<size_t>(parts * kvrm_partial_floats(4, 128)), 1.0f);
  std::vector<float> out(4 * 128);
  for (auto _ : state) {
    mergePartials(partials.data(), parts, 4, 128, 4, out.data(), 512, 4);
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(merge)->Arg(2)->Arg(8);

/// Choosing a schedule for batches that never repeat, with constants as a GPU
/// of 132 multiprocessors has them.
static void chooseSchedule(benchmark::State &state) {
  auto rows = static_cast<int32_t>(state.range(0));
  SchedulePolicy policy =
      SchedulePolicy::create(test::testShape(), test::testCosts(), rows).take();
  std::mt19937 random(3);
  std::vector<std::vector<int32_t>> batches(64);
  for (size_t i = 0; i < batches.size(); ++i)
    for (int32_t row = 0; row < rows; ++row)
      batches[i].push_back(
          static_cast<int32_t>(1 + random() % (i % 2 ? 30000 : 3000)));
  size_t next = 0;
  for (auto _ : state)
    benchmark::DoNotOptimize(policy.choose(batches[next++ % batches.size()]));
}
BENCHMARK(chooseSchedule)->Arg(8)->Arg(256);
