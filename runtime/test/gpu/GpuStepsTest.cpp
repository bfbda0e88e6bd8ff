//===- GpuStepsTest.cpp - Thousands of steps of one capture ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A graph a schedule is captured once. Then requests join, end, skip steps,
// grow, are cut back and share prefixes, the schedules take turns at random,
// and each step's outputs are compared with float64. Pages that go back to the
// pool are filled with NaN, so that nothing stale goes unseen.
//
//===----------------------------------------------------------------------===//

#include "GpuSupport.h"

#include <algorithm>
#include <chrono>
#include <cstring>

using namespace kvrm;
using gpu::expectOk;

namespace {

constexpr int32_t slots = 8;
constexpr int32_t layers = 2;
constexpr int32_t capacity = 296;

class Steps {
public:
  Steps(AttentionStep &backend, ThreadPool &threads, uint64_t seed)
      : gpu(backend), m(backend.info()), threads(threads), random(seed),
        elements(m), rows(slots), copies(slots) {
    auto histories =
        static_cast<size_t>(int64_t(2) * layers * slots * m.kvHeads);
    mirror.resize(histories * capacity * dim());
    auto tokens = static_cast<size_t>(layers * slots * m.queries) * dim();
    wanted.resize(tokens * static_cast<size_t>(m.heads));
    for (auto [buffer, heads] :
         {std::pair(&q, m.heads), std::pair(&out, m.heads),
          std::pair(&k, m.kvHeads), std::pair(&v, m.kvHeads)}) {
      Expected<PinnedBuffer> taken = PinnedBuffer::create(
          gpu.stream().device(), static_cast<int64_t>(tokens) * heads * 2,
          "test");
      EXPECT_TRUE(taken) << taken.status().message();
      if (taken)
        *buffer = taken.take();
    }
    expectOk(gpu.stream().fill(gpu.pool(), 0xff));
  }

  void run(int64_t count, const std::vector<CudaSchedule> &schedules) {
    int32_t captures = gpu.captures();
    for (int64_t step = 0; step < count; ++step) {
      CudaSchedule schedule = schedules[static_cast<size_t>(
          random.between(0, static_cast<int32_t>(schedules.size()) - 1))];
      SCOPED_TRACE("step " + std::to_string(step) + ", " +
                   gpu::nameOf(schedule));
      // Every now and then all slots are empty for a step or more.
      if (random.oneIn(150))
        quiet = random.between(1, 3);
      change();
      append();
      inputs();
      expectOk(gpu.stream().fill(whole(AttentionTensor::Out), 0xff));
      gpu.plan(rows);
      expectOk(gpu.commit());
      EXPECT_FALSE(gpu.commitStats().isWhole);
      expectOk(gpu.replay(schedule));
      expectOk(gpu.stream().copyOut(out.data(), whole(AttentionTensor::Out)));
      compute(); // while the device does
      expectOk(gpu.synchronize());
      compare();
      if (step % 500 == 499 || step + 1 == count)
        comparePool();
      if (step % 50 == 49)
        gpu::expectEmptyPartials(gpu);
      quiet = std::max(quiet - 1, 0);
      if (testing::Test::HasFailure())
        return;
    }
    EXPECT_EQ(gpu.captures(), captures);
  }

  // What happened, to see that the test tests.
  int64_t joins = 0, shares = 0, imports = 0, ends = 0, cuts = 0,
          pageCopies = 0, idleSteps = 0, attended = 0;
  ErrorStats worst;

private:
  size_t dim() const { return static_cast<size_t>(m.headDim); }
  int32_t length(int32_t slot) const { return gpu.pager().length(slot); }
  /// Room for `capacity` tokens.
  float *history(bool isValue, int32_t layer, int32_t slot, int32_t head) {
    auto index = static_cast<size_t>(
        (int64_t(isValue * layers + layer) * slots + slot) * m.kvHeads + head);
    return &mirror[index * capacity * dim()];
  }
  template <typename Visit> void eachHistory(int32_t slot, Visit visit) {
    for (bool isValue : {false, true})
      for (int32_t layer = 0; layer < layers; ++layer)
        for (int32_t head = 0; head < m.kvHeads; ++head)
          visit(isValue, layer, head, history(isValue, layer, slot, head));
  }
  DeviceSpan whole(AttentionTensor which) const {
    DeviceSpan span = gpu.tensor(which);
    span.bytes *= layers;
    return span;
  }
  uint16_t *elementsOf(const PinnedBuffer &buffer) const {
    return reinterpret_cast<uint16_t *>(buffer.data());
  }
  size_t tokenAt(int32_t layer, int32_t row, int32_t token,
                 int32_t heads) const {
    return static_cast<size_t>(((layer * slots + row) * m.queries + token) *
                               heads) *
           dim();
  }

  /// Cuts a history, and spoils the pages that nobody has any more.
  void trim(int32_t slot, int32_t to) {
    std::span<const int32_t> had = gpu.pager().pages(slot);
    std::vector<int32_t> pages(had.begin(), had.end());
    expectOk(gpu.pager().trim(slot, to));
    for (int32_t page : pages)
      if (gpu.pager().references(page) == 0)
        eachHistory(slot,
                    [&](bool isValue, int32_t layer, int32_t head, float *) {
                      expectOk(gpu.stream().fill(
                          gpu.page({layer, isValue, head, page}), 0xff));
                    });
  }

  void join(int32_t slot) {
    ++joins;
    int32_t source = random.between(0, slots - 1);
    int32_t kind = random.between(0, 9);
    if (kind < 6 && source != slot && length(source) > 0) {
      // Half of the time all of it, so that both write the same page next.
      int32_t tokens =
          random.oneIn(2) ? length(source) : random.between(1, length(source));
      expectOk(gpu.pager().alias(slot, source, tokens));
      eachHistory(slot,
                  [&](bool isValue, int32_t layer, int32_t head, float *to) {
                    std::copy_n(history(isValue, layer, source, head),
                                static_cast<size_t>(tokens) * dim(), to);
                  });
      ++shares;
    } else if (kind == 9) {
      importHistory(slot, random.between(1, capacity - 10));
      ++imports;
    }
  }

  void importHistory(int32_t slot, int32_t tokens) {
    PageCopy copy;
    expectOk(gpu.pager().append(slot, tokens, copy));
    auto perPage = static_cast<size_t>(m.pageTokens) * dim();
    size_t size = static_cast<size_t>(tokens) * dim();
    std::vector<uint16_t> drawn(size);
    eachHistory(slot, [&](bool isValue, int32_t layer, int32_t head,
                          float *to) {
      elements.fill(random, drawn);
      elements.keep(drawn, {to, size});
      for (size_t at = 0; at < size; at += perPage)
        expectOk(gpu.importPage(
            {layer, isValue, head, gpu.pager().pages(slot)[at / perPage]},
            elements.rowsOf(
                std::span(drawn).subspan(at, std::min(perPage, size - at)))));
    });
  }

  /// Requests come and go.
  void change() {
    for (int32_t slot = 0; slot < slots; ++slot) {
      if (quiet > 0 || (length(slot) > 0 && random.oneIn(60))) {
        ends += length(slot) > 0;
        trim(slot, 0);
      } else if (length(slot) > 1 && random.oneIn(80)) {
        ++cuts;
        trim(slot, random.between(1, length(slot) - 1));
      } else if (length(slot) == 0 && random.oneIn(2)) {
        join(slot);
        continue;
      }
    }
  }

  /// Rows of the step, their pages, and copies of shared ones.
  void append() {
    std::vector<AppendRequest> requests;
    bool isIdle = true;
    for (int32_t slot = 0; slot < slots; ++slot) {
      auto index = static_cast<size_t>(slot);
      rows[index] = {};
      // An empty slot mostly waits for a join.
      bool isWaiting = length(slot) == 0 ? !random.oneIn(4) : random.oneIn(10);
      if (quiet > 0 || isWaiting)
        continue;
      int32_t count = random.between(1, m.queries);
      if (length(slot) + count > capacity) {
        ++ends;
        trim(slot, 0);
      }
      rows[index] = {slot, length(slot), count};
      requests.push_back({slot, count});
      isIdle = false;
    }
    idleSteps += isIdle;
    int32_t count = 0;
    expectOk(gpu.pager().appendAll(requests, copies, count));
    for (int32_t i = 0; i < count; ++i)
      expectOk(gpu.copyPage(copies[static_cast<size_t>(i)]));
    pageCopies += count;
  }

  void inputs() {
    std::memset(q.data(), 0xff, static_cast<size_t>(q.size()));
    std::memset(k.data(), 0xff, static_cast<size_t>(k.size()));
    std::memset(v.data(), 0xff, static_cast<size_t>(v.size()));
    for (int32_t layer = 0; layer < layers; ++layer)
      for (int32_t row = 0; row < slots; ++row) {
        const PlanRow &plan = rows[static_cast<size_t>(row)];
        for (int32_t t = 0; t < plan.count; ++t)
          for (int32_t head = 0; head < m.kvHeads; ++head)
            for (bool isValue : {false, true}) {
              uint16_t *fresh = elementsOf(isValue ? v : k) +
                                tokenAt(layer, row, t, m.kvHeads) +
                                static_cast<size_t>(head) * dim();
              elements.fill(random, {fresh, dim()});
              float *kept = history(isValue, layer, row, head) +
                            static_cast<size_t>(plan.position + t) * dim();
              elements.keep({fresh, dim()}, {kept, dim()});
            }
        for (int32_t t = 0; t < plan.count; ++t)
          for (int32_t h = 0; h < m.heads; ++h) {
            std::span<uint16_t> query(elementsOf(q) +
                                          tokenAt(layer, row, t, m.heads) +
                                          static_cast<size_t>(h) * dim(),
                                      dim());
            if (random.oneIn(2)) {
              elements.fillQuery(random, query);
              continue;
            }
            int32_t target = random.between(0, plan.position + t);
            elements.fillLookup(
                {history(false, layer, row, h / m.groupHeads()) +
                     static_cast<size_t>(target) * dim(),
                 dim()},
                query);
          }
      }
    expectOk(gpu.stream().copyIn(whole(AttentionTensor::Q), q.data()));
    expectOk(gpu.stream().copyIn(whole(AttentionTensor::K), k.data()));
    expectOk(gpu.stream().copyIn(whole(AttentionTensor::V), v.data()));
  }

  void compute() {
    auto heads = static_cast<size_t>(m.kvHeads);
    gpu::parallel(threads, layers * slots * heads, [&](size_t task) {
      auto head = static_cast<int32_t>(task % heads);
      auto row = static_cast<int32_t>(task / heads % slots);
      auto layer = static_cast<int32_t>(task / heads / slots);
      const PlanRow &plan = rows[static_cast<size_t>(row)];
      if (plan.count == 0)
        return;
      thread_local std::vector<const uint16_t *> queries;
      thread_local std::vector<int32_t> visible;
      thread_local std::vector<double> result;
      queries.clear();
      visible.clear();
      for (int32_t t = 0; t < plan.count; ++t)
        for (int32_t g = 0; g < m.groupHeads(); ++g) {
          queries.push_back(elementsOf(q) + tokenAt(layer, row, t, m.heads) +
                            static_cast<size_t>(head * m.groupHeads() + g) *
                                dim());
          visible.push_back(plan.position + t + 1);
        }
      result.resize(queries.size() * dim());
      size_t size = static_cast<size_t>(plan.position + plan.count) * dim();
      attendReference({m.io,
                       m.headDim,
                       {history(false, layer, row, head), size},
                       {history(true, layer, row, head), size},
                       queries,
                       visible},
                      result);
      for (size_t i = 0; i < queries.size(); ++i)
        std::copy_n(&result[i * dim()], dim(),
                    &wanted[static_cast<size_t>(queries[i] - elementsOf(q))]);
    });
  }

  void compare() {
    ErrorStats stats;
    auto token = static_cast<size_t>(m.heads) * dim();
    for (int32_t layer = 0; layer < layers; ++layer)
      for (int32_t row = 0; row < slots; ++row)
        for (int32_t t = 0; t < m.queries; ++t) {
          size_t at = tokenAt(layer, row, t, m.heads);
          std::span<const uint16_t> got(elementsOf(out) + at, token);
          if (t < rows[static_cast<size_t>(row)].count) {
            stats.add(m.io, got, {&wanted[at], token});
            ++attended;
            continue;
          }
          EXPECT_TRUE(std::ranges::all_of(
              got, [](uint16_t bits) { return bits == gpu::poison; }))
              << "layer " << layer << " row " << row << " token " << t
              << " was written";
        }
    EXPECT_EQ(stats.poisoned, 0);
    if (stats.count > 0) {
      EXPECT_LT(stats.most, ErrorStats::mostOf(m.io));
    }
    worst.merge(stats);
  }

  /// All histories are in the pool as they are here.
  void comparePool() {
    std::vector<uint8_t> pool(static_cast<size_t>(gpu.pool().bytes));
    expectOk(gpu.read(gpu::bytesOf(pool), gpu.pool()));
    auto perPage = static_cast<size_t>(m.pageTokens) * dim();
    std::vector<float> page(perPage);
    expectOk(gpu.pager().checkInvariants());
    for (int32_t slot = 0; slot < slots; ++slot)
      eachHistory(slot, [&](bool isValue, int32_t layer, int32_t head,
                            const float *want) {
        size_t size = static_cast<size_t>(length(slot)) * dim();
        for (size_t at = 0; at < size; at += perPage) {
          uint64_t offset = gpu.page({layer, isValue, head,
                                      gpu.pager().pages(slot)[at / perPage]})
                                .address -
                            gpu.pool().address;
          std::span<float> there =
              std::span(page).first(std::min(perPage, size - at));
          elements.unpack({&pool[offset], static_cast<size_t>(m.pageBytes())},
                          there);
          EXPECT_TRUE(std::equal(there.begin(), there.end(), want + at))
              << "slot " << slot << " layer " << layer << " head " << head
              << (isValue ? " values" : " keys") << " from token "
              << at / dim();
        }
      });
  }

  AttentionStep &gpu;
  const AttentionInfo &m;
  ThreadPool &threads;
  gpu::Random random;
  gpu::Elements elements;
  std::vector<PlanRow> rows;
  std::vector<PageCopy> copies;
  std::vector<float> mirror;  ///< [K or V][layer][slot][head][capacity][dim]
  std::vector<double> wanted; ///< like q
  PinnedBuffer q, k, v, out;  ///< of all layers
  int32_t quiet = 0;          ///< steps to go without a request
};

class GpuSteps : public gpu::Kernels {};

} // namespace

TEST_F(GpuSteps, OneCaptureServesThousands) {
  int64_t count = gpu::numberOf("KVRM_GPU_STEPS", 10000);
  for (const auto &set : sets) {
    SCOPED_TRACE(set->path());
    const Manifest &m = set->manifest();
    AttentionShape shape;
    shape.layers = layers;
    shape.slots = slots;
    shape.capacityTokens = capacity;
    shape.hasLayerTensors = true;
    shape.usesStaging = m.kernel(KVRM_ROLE_STAGE) != nullptr;
    Expected<std::unique_ptr<AttentionStep>> created =
        AttentionStep::create(device, *set, shape);
    ASSERT_TRUE(created) << created.status().message();
    std::vector<CudaSchedule> schedules = gpu::captureAll(**created);
    ASSERT_FALSE(schedules.empty());
    auto begin = std::chrono::steady_clock::now();
    Steps steps(**created, *threads, gpu::seed());
    if (HasFailure())
      return;
    steps.run(count, schedules);
    std::chrono::duration<double> spent =
        std::chrono::steady_clock::now() - begin;
    std::printf(
        "%s: %lld steps in %.1f s over %zu schedules, %d captures; %lld joins "
        "(%lld share, %lld imported), %lld ends, %lld cuts, %lld page copies, "
        "%lld steps without a row; %lld tokens attended a layer, error %.3g at "
        "most, %.3g on average\n",
        set->path().c_str(), static_cast<long long>(count), spent.count(),
        schedules.size(), (*created)->captures(),
        static_cast<long long>(steps.joins),
        static_cast<long long>(steps.shares),
        static_cast<long long>(steps.imports),
        static_cast<long long>(steps.ends), static_cast<long long>(steps.cuts),
        static_cast<long long>(steps.pageCopies),
        static_cast<long long>(steps.idleSteps),
        static_cast<long long>(steps.attended / layers), steps.worst.most,
        steps.worst.mean());
    EXPECT_LT(steps.worst.mean(), ErrorStats::meanOf(m.io));
    if (count >= 2000 && !HasFailure()) {
      EXPECT_GT(steps.shares, 0);
      EXPECT_GT(steps.pageCopies, 0);
      EXPECT_GT(steps.idleSteps, 0);
      EXPECT_GT(steps.ends, 0);
    }
    if (HasFailure())
      return;
  }
}
