//===- GpuBatchTest.cpp - Random batches against float64 ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Batches of random lengths, in long runs of pages and in scattered ones, whole
// steps of append and attention, with every schedule, overlapping and not. What
// no kernel may read is NaN: pages of nobody, tokens past a history, queries,
// keys and values of no token. What no kernel may write is compared too:
// outputs of no token, and the whole pool.
//
//===----------------------------------------------------------------------===//

#include "GpuSupport.h"

#include <algorithm>
#include <numeric>

using namespace kvrm;
using gpu::expectOk;

namespace {

/// What a batch is drawn from.
struct BatchKind {
  int32_t rows;
  int32_t shortest; ///< of histories, new tokens included
  int32_t longest;
  int32_t giants; ///< rows of the longest length; the others are a tenth
  bool isScattered;
  int32_t layers;
};

class Batch {
public:
  Batch(std::shared_ptr<const CudaDevice> device, const Package &set,
        ThreadPool &threads, const BatchKind &kind, uint64_t seed)
      : device(std::move(device)), set(set),
        m(AttentionInfo::of(set.manifest())), threads(threads), kind(kind),
        random(seed), elements(m) {}

  void run() {
    draw();
    for (bool usesPdl : {true, false}) {
      runOn(usesPdl);
      if (testing::Test::HasFailure())
        return;
    }
  }

  ErrorStats worst;

private:
  struct Row {
    int32_t length = 0; ///< new tokens included
    int32_t count = 0;  ///< new tokens; 0 = idle
    int32_t pages = 0;
    /// [layer][head][length][head_dim]: what is appended, and what of it the
    /// cache has.
    std::vector<uint16_t> newKeys, newValues;
    std::vector<float> keys, values;
  };

  size_t dim() const { return static_cast<size_t>(m.headDim); }
  size_t tensorElements(bool isQuery) const {
    return rows.size() * static_cast<size_t>(m.queries) *
           static_cast<size_t>(isQuery ? m.heads : m.kvHeads) * dim();
  }
  template <typename Element>
  std::span<Element> history(std::vector<Element> &side, const Row &row,
                             int32_t layer, int32_t head) const {
    size_t size = static_cast<size_t>(row.length) * dim();
    return {side.data() + static_cast<size_t>(layer * m.kvHeads + head) * size,
            size};
  }

  /// Lengths, histories, inputs and the outputs that they make.
  void draw() {
    rows.resize(static_cast<size_t>(kind.rows));
    for (size_t i = 0; i < rows.size(); ++i) {
      Row &row = rows[i];
      int32_t most = static_cast<int32_t>(i) < kind.giants
                         ? kind.longest
                         : std::max(kind.longest / (kind.giants ? 10 : 1), 1);
      row.length = random.between(std::min(kind.shortest, most), most);
      // At the ends of pages and tiles kernels err first.
      if (random.oneIn(4))
        row.length = std::max(row.length / m.kvTile * m.kvTile, 1) +
                     random.between(-1, 1);
      row.length = std::clamp(row.length, 0, kind.longest);
      row.count = std::min(random.between(1, m.queries), row.length);
      if (kind.rows > 1 && random.oneIn(6))
        row.count = 0;
      row.pages = (row.length + m.pageTokens - 1) / m.pageTokens;
      size_t size = static_cast<size_t>(kind.layers * m.kvHeads) *
                    static_cast<size_t>(row.length) * dim();
      for (auto [drawn, kept] : {std::pair(&row.newKeys, &row.keys),
                                 std::pair(&row.newValues, &row.values)}) {
        drawn->resize(size);
        kept->resize(size);
        elements.fill(random, *drawn);
        elements.keep(*drawn, *kept);
      }
    }
    auto layers = static_cast<size_t>(kind.layers);
    queries.assign(layers * tensorElements(true), gpu::poison);
    newKeys.assign(layers * tensorElements(false), gpu::poison);
    newValues = newKeys;
    wanted.assign(queries.size(), 0);
    for (int32_t layer = 0; layer < kind.layers; ++layer)
      for (size_t r = 0; r < rows.size(); ++r)
        for (int32_t t = 0; t < rows[r].count; ++t)
          drawToken(layer, r, t);
    size_t heads = static_cast<size_t>(m.kvHeads);
    gpu::parallel(threads, layers * rows.size() * heads, [&](size_t task) {
      compute(static_cast<int32_t>(task / heads / rows.size()),
              task / heads % rows.size(), static_cast<int32_t>(task % heads));
    });
  }

  size_t tokenAt(int32_t layer, size_t row, int32_t token,
                 int32_t heads) const {
    return ((static_cast<size_t>(layer) * rows.size() + row) *
                static_cast<size_t>(m.queries) +
            static_cast<size_t>(token)) *
           static_cast<size_t>(heads) * dim();
  }

  void drawToken(int32_t layer, size_t r, int32_t t) {
    Row &row = rows[r];
    int32_t position = row.length - row.count + t;
    for (int32_t head = 0; head < m.kvHeads; ++head) {
      size_t to =
          tokenAt(layer, r, t, m.kvHeads) + static_cast<size_t>(head) * dim();
      size_t from = static_cast<size_t>(position) * dim();
      std::copy_n(&history(row.newKeys, row, layer, head)[from], dim(),
                  &newKeys[to]);
      std::copy_n(&history(row.newValues, row, layer, head)[from], dim(),
                  &newValues[to]);
    }
    for (int32_t h = 0; h < m.heads; ++h) {
      std::span<uint16_t> q(&queries[tokenAt(layer, r, t, m.heads) +
                                     static_cast<size_t>(h) * dim()],
                            dim());
      // Half of the queries look up one token: any, the first or the last.
      if (random.oneIn(2)) {
        elements.fillQuery(random, q);
        continue;
      }
      int32_t target = random.between(0, position);
      target = random.oneIn(4) ? 0 : random.oneIn(3) ? position : target;
      elements.fillLookup(
          history(row.keys, row, layer, h / m.groupHeads())
              .subspan(static_cast<size_t>(target) * dim(), dim()),
          q);
    }
  }

  void compute(int32_t layer, size_t r, int32_t head) {
    Row &row = rows[r];
    if (row.count == 0)
      return;
    std::vector<const uint16_t *> q;
    std::vector<int32_t> visible;
    std::vector<size_t> places;
    for (int32_t t = 0; t < row.count; ++t)
      for (int32_t g = 0; g < m.groupHeads(); ++g) {
        places.push_back(tokenAt(layer, r, t, m.heads) +
                         static_cast<size_t>(head * m.groupHeads() + g) *
                             dim());
        q.push_back(&queries[places.back()]);
        visible.push_back(row.length - row.count + t + 1);
      }
    std::vector<double> out(q.size() * dim());
    attendReference({m.io, m.headDim, history(row.keys, row, layer, head),
                     history(row.values, row, layer, head), q, visible},
                    out);
    for (size_t i = 0; i < places.size(); ++i)
      std::copy_n(&out[i * dim()], dim(), &wanted[places[i]]);
  }

  /// What the pool holds of all layers; `isAfter` the step's append or before.
  std::vector<uint8_t> image(AttentionStep &backend, bool isAfter) {
    std::vector<uint8_t> pool(static_cast<size_t>(backend.pool().bytes), 0xff);
    auto perPage = static_cast<size_t>(m.pageTokens) * dim();
    auto perToken = dim();
    gpu::parallel(
        threads, rows.size() * static_cast<size_t>(m.kvHeads),
        [&](size_t task) {
          size_t r = task / static_cast<size_t>(m.kvHeads);
          auto head =
              static_cast<int32_t>(task % static_cast<size_t>(m.kvHeads));
          Row &row = rows[r];
          size_t end =
              static_cast<size_t>(row.length - (isAfter ? 0 : row.count)) *
              perToken;
          std::span<const int32_t> pages =
              backend.pager().pages(static_cast<int32_t>(r));
          for (int32_t layer = 0; layer < kind.layers; ++layer)
            for (bool isValue : {false, true}) {
              std::span<uint16_t> tokens = history(
                  isValue ? row.newValues : row.newKeys, row, layer, head);
              for (size_t at = 0; at < end; at += perPage) {
                size_t size = std::min(perPage, end - at);
                uint64_t address =
                    backend.page({layer, isValue, head, pages[at / perPage]})
                        .address -
                    backend.pool().address;
                elements.pack(
                    tokens.subspan(at, size),
                    {&pool[address], static_cast<size_t>(m.pageBytes())});
              }
            }
        });
    return pool;
  }

  void placePages(AttentionStep &backend) {
    if (!kind.isScattered)
      return;
    Random order(random);
    std::vector<int32_t> pages(
        static_cast<size_t>(backend.pager().limits().pages));
    std::iota(pages.begin(), pages.end(), 0);
    for (size_t i = pages.size(); i > 1; --i)
      std::swap(pages[i - 1], pages[order.next() % i]);
    std::span<const int32_t> rest(pages);
    for (size_t r = 0; r < rows.size(); ++r) {
      auto count = static_cast<size_t>(rows[r].pages);
      expectOk(backend.pager().reservePages(static_cast<int32_t>(r),
                                            rest.first(count)));
      rest = rest.subspan(count);
    }
  }

  void runOn(bool usesPdl) {
    AttentionShape shape;
    shape.layers = kind.layers;
    shape.slots = kind.rows;
    shape.capacityTokens = 1;
    shape.usesPdl = usesPdl;
    shape.hasLayerTensors = true;
    shape.usesStaging =
        set.manifest().kernel(KVRM_ROLE_STAGE) && kind.longest <= 4096;
    // A few pages more than needed, so that some are nobody's.
    shape.poolPages = 3;
    for (const Row &row : rows) {
      shape.capacityTokens = std::max(shape.capacityTokens, row.length);
      shape.poolPages += row.pages;
    }
    if (shape.usesStaging)
      shape.poolPages = 0;
    Expected<std::unique_ptr<AttentionStep>> created =
        AttentionStep::create(device, set, shape);
    ASSERT_TRUE(created) << created.status().message();
    AttentionStep &backend = **created;
    placePages(backend);
    std::vector<PlanRow> planRows(rows.size());
    for (size_t r = 0; r < rows.size(); ++r) {
      auto slot = static_cast<int32_t>(r);
      PageCopy copy;
      expectOk(backend.pager().append(slot, rows[r].length, copy));
      if (rows[r].count > 0)
        planRows[r] = {slot, rows[r].length - rows[r].count, rows[r].count};
    }
    std::vector<uint8_t> pool = image(backend, /*isAfter=*/false);
    expectOk(backend.write(backend.pool(), gpu::bytesOf(pool)));
    auto whole = [&](AttentionTensor which) {
      DeviceSpan span = backend.tensor(which);
      span.bytes *= kind.layers;
      return span;
    };
    expectOk(backend.write(whole(AttentionTensor::Q), gpu::bytesOf(queries)));
    expectOk(backend.write(whole(AttentionTensor::K), gpu::bytesOf(newKeys)));
    expectOk(backend.write(whole(AttentionTensor::V), gpu::bytesOf(newValues)));
    std::vector<CudaSchedule> schedules = gpu::captureAll(backend);
    backend.plan(planRows);
    expectOk(backend.commit());
    for (CudaSchedule schedule : schedules)
      // Twice, as what one launch leaves behind may spoil the next.
      for (int round = 0; round < 2; ++round) {
        SCOPED_TRACE(gpu::nameOf(schedule) + (usesPdl ? " pdl" : "") +
                     " round " + std::to_string(round));
        expectOk(backend.stream().fill(whole(AttentionTensor::Out), 0xff));
        expectOk(backend.replay(schedule));
        expectOk(backend.synchronize());
        std::vector<uint16_t> out(queries.size());
        expectOk(backend.read(gpu::bytesOf(out), whole(AttentionTensor::Out)));
        compare(out);
        gpu::expectEmptyPartials(backend);
        if (testing::Test::HasFailure())
          return;
      }
    // Nothing but the new tokens was written.
    std::vector<uint8_t> after(pool.size());
    expectOk(backend.read(gpu::bytesOf(after), backend.pool()));
    std::vector<uint8_t> want = image(backend, /*isAfter=*/true);
    auto [at, other] = std::ranges::mismatch(after, want);
    EXPECT_TRUE(at == after.end())
        << "the pool differs at byte " << at - after.begin() << " of "
        << after.size();
  }

  void compare(const std::vector<uint16_t> &out) {
    ErrorStats stats;
    auto token = static_cast<size_t>(m.heads) * dim();
    for (int32_t layer = 0; layer < kind.layers; ++layer)
      for (size_t r = 0; r < rows.size(); ++r)
        for (int32_t t = 0; t < m.queries; ++t) {
          size_t at = tokenAt(layer, r, t, m.heads);
          std::span<const uint16_t> got(&out[at], token);
          if (t < rows[r].count) {
            stats.add(m.io, got, {&wanted[at], token});
            continue;
          }
          EXPECT_TRUE(std::ranges::all_of(
              got, [](uint16_t bits) { return bits == gpu::poison; }))
              << "row " << r << " token " << t << " of " << rows[r].count
              << " was written";
        }
    EXPECT_EQ(stats.poisoned, 0);
    EXPECT_LT(stats.most, ErrorStats::mostOf(m.io));
    EXPECT_LT(stats.mean(), ErrorStats::meanOf(m.io));
    worst.merge(stats);
  }

  using Random = gpu::Random;
  std::shared_ptr<const CudaDevice> device;
  const Package &set;
  AttentionInfo m;
  ThreadPool &threads;
  BatchKind kind;
  Random random;
  gpu::Elements elements;
  std::vector<Row> rows;
  /// [layer][row][queries][heads][head_dim]
  std::vector<uint16_t> queries, newKeys, newValues;
  std::vector<double> wanted;
};

class GpuBatch : public gpu::Kernels {
protected:
  void runKinds(const std::vector<BatchKind> &kinds) {
    for (const auto &set : sets) {
      ErrorStats worst;
      uint64_t seed = gpu::seed() * 1000;
      for (const BatchKind &kind : kinds) {
        SCOPED_TRACE(set->path() + ", batch " +
                     std::to_string(seed - gpu::seed() * 1000));
        Batch batch(device, *set, *threads, kind, seed++);
        batch.run();
        worst.merge(batch.worst);
        if (HasFailure())
          return;
      }
      std::printf("%s: error %.3g at most, %.3g on average\n",
                  set->path().c_str(), worst.most, worst.mean());
    }
  }
  static int32_t atMost(int32_t length) {
    return static_cast<int32_t>(
        std::min<int64_t>(length, gpu::numberOf("KVRM_GPU_LONGEST", 70000)));
  }
};

} // namespace

TEST_F(GpuBatch, ShortHistories) {
  std::vector<BatchKind> kinds;
  for (int32_t i = 0; i < 12; ++i)
    kinds.push_back(
        {1 + i * 5 % 9, 0, 1 + (i * i * 13) % 700, 0, i % 2 == 1, 1 + i % 3});
  runKinds(kinds);
}

TEST_F(GpuBatch, MiddlingHistories) {
  runKinds({{4, 1, atMost(4000), 0, true, 1},
            {8, 1, atMost(3000), 0, false, 2},
            {33, 0, atMost(1500), 0, true, 1},
            {130, 0, atMost(300), 0, true, 1},
            {1, atMost(9000), atMost(9000), 0, true, 2}});
}

TEST_F(GpuBatch, LongHistories) {
  runKinds({{4, 0, atMost(70000), 1, true, 1},
            {1, atMost(69000), atMost(70000), 0, false, 1},
            {6, 0, atMost(40000), 2, true, 1}});
}

TEST_F(GpuBatch, TooLargeAPoolIsOneLine) {
  for (const auto &set : sets) {
    AttentionShape shape;
    shape.layers = 64;
    shape.slots = 8;
    shape.capacityTokens = 512;
    shape.poolPages = KVRM_MAX_POOL_PAGES;
    Expected<std::unique_ptr<AttentionStep>> refused =
        AttentionStep::create(device, *set, shape);
    ASSERT_FALSE(refused);
    Status status = refused.status();
    EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
    EXPECT_TRUE(status.message().starts_with("KV pool: cannot take "))
        << status.message();
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
  // And the device works as before.
  runKinds({{3, 1, 200, 0, false, 1}});
}
