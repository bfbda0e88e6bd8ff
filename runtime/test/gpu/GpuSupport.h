//===- GpuSupport.h - What tests on a GPU share -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Tests of compiled kernels run for each folder in KVRM_KERNELS, a list with
// colons between, and are skipped without it or without a GPU. KVRM_GPU_SEED
// sets the seed, which is printed, KVRM_GPU_STEPS the steps of the long
// test, and KVRM_GPU_LONGEST the longest history of the others.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_GPU_GPUSUPPORT_H
#define KVRM_TEST_GPU_GPUSUPPORT_H

#include "kvrm/runtime/attention/AttentionStep.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/support/Reference.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

namespace gpu {

inline int64_t numberOf(const char *variable, int64_t fallback) {
  const char *text = std::getenv(variable);
  return text && *text ? std::strtoll(text, nullptr, 10) : fallback;
}

inline uint64_t seed() {
  return static_cast<uint64_t>(numberOf("KVRM_GPU_SEED", 1));
}

/// The paths that a variable names, a colon between.
inline std::vector<std::string> foldersOf(const char *variable) {
  std::vector<std::string> folders;
  const char *text = std::getenv(variable);
  std::string rest = text ? text : "";
  while (!rest.empty()) {
    size_t colon = rest.find(':');
    if (colon != 0)
      folders.push_back(rest.substr(0, colon));
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  return folders;
}

inline void expectOk(const kvrm::Status &status) {
  EXPECT_TRUE(status.isOk()) << status.message();
}

/// Fast, and the same everywhere.
class Random {
public:
  explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1du;
  }
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>((next() >> 32) %
                                      static_cast<uint64_t>(high - low + 1));
  }
  bool oneIn(int32_t count) { return between(1, count) == 1; }

private:
  uint64_t state;
};

/// Elements of one type, by table, and what a cache keeps of them.
class Elements {
public:
  explicit Elements(const kvrm::AttentionInfo &m)
      : type(m.io), cache(m.element), shape(m.pageShape()) {
    for (size_t i = 0; i < unit.size(); ++i)
      unit[i] = kvrm::elementOf(
          type, (2 * static_cast<double>(i) + 1) / double(unit.size()) - 1);
    for (size_t i = 0; i < spread.size(); ++i)
      spread[i] = kvrm::elementOf(type, 3 * kvrm::elementValue(type, unit[i]));
    numbers.resize(1 << 16);
    for (size_t bits = 0; bits < numbers.size(); ++bits)
      numbers[bits] = static_cast<float>(
          kvrm::elementValue(type, static_cast<uint16_t>(bits)));
  }

  /// What the cache has of [token][head_dim] elements.
  void keep(std::span<const uint16_t> elements, std::span<float> kept) const {
    std::vector<uint8_t> bytes(rowBytes());
    for (size_t at = 0; at < elements.size(); at += dim()) {
      encode(elements.subspan(at, dim()), bytes);
      kvrm::decodeRow(cache, bytes, kept.subspan(at, dim()));
    }
  }
  /// The bytes of a page that begins with [token][head_dim] elements, poison
  /// behind them; in the order that packPage() takes.
  std::vector<uint8_t> rowsOf(std::span<const uint16_t> elements) const {
    std::vector<uint8_t> page(static_cast<size_t>(shape.pageBytes()), 0xff);
    std::vector<uint8_t> bytes(rowBytes());
    for (size_t token = 0; token * dim() < elements.size(); ++token) {
      encode(elements.subspan(token * dim(), dim()), bytes);
      eachPart(token, [&](size_t inPage, size_t inRow, size_t size) {
        std::memcpy(page.data() + inPage, bytes.data() + inRow, size);
      });
    }
    return page;
  }
  /// [token][head_dim] elements to the bytes of a page, poison behind them.
  void pack(std::span<const uint16_t> elements, std::span<uint8_t> page) const {
    kvrm::packPage(shape, rowsOf(elements), page);
  }
  /// [token][head_dim] numbers of the first tokens of a page.
  void unpack(std::span<const uint8_t> page, std::span<float> kept) const {
    std::vector<uint8_t> rows(page.size()), bytes(rowBytes());
    kvrm::unpackPage(shape, page, rows);
    for (size_t token = 0; token * dim() < kept.size(); ++token) {
      eachPart(token, [&](size_t inPage, size_t inRow, size_t size) {
        std::memcpy(bytes.data() + inRow, rows.data() + inPage, size);
      });
      kvrm::decodeRow(cache, bytes, kept.subspan(token * dim(), dim()));
    }
  }

  /// Numbers in -1..1, never a NaN, which poison is.
  void fill(Random &random, std::span<uint16_t> out) const {
    fillFrom(unit, random, out);
  }
  /// Queries whose scores are spread by about 1.
  void fillQuery(Random &random, std::span<uint16_t> out) const {
    fillFrom(spread, random, out);
  }
  /// A query that finds `key`: its score of that key is about 15, far above all
  /// others.
  void fillLookup(std::span<const float> key, std::span<uint16_t> out) const {
    double factor = 45 / std::sqrt(double(shape.headDim));
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = kvrm::elementOf(type, double(key[i]) * factor);
  }

  kvrm_element type;  ///< of queries, new keys and values, outputs
  kvrm_element cache; ///< of the pool

private:
  size_t dim() const { return static_cast<size_t>(shape.headDim); }
  size_t rowBytes() const {
    return static_cast<size_t>(kvrm_token_bytes(shape.headDim, cache));
  }
  void encode(std::span<const uint16_t> elements,
              std::span<uint8_t> bytes) const {
    if (cache == type) {
      std::memcpy(bytes.data(), elements.data(), bytes.size());
      return;
    }
    std::array<float, KVRM_MAX_HEAD_DIM> row;
    for (size_t i = 0; i < elements.size(); ++i)
      row[i] = numbers[elements[i]];
    kvrm::encodeRow(cache, std::span(row).first(elements.size()), bytes);
  }
  /// Calls `move(in the page, in the row, bytes)` for a token's elements and
  /// its scale.
  template <typename Move> void eachPart(size_t token, Move move) const {
    auto scale = static_cast<size_t>(kvrm_scale_bytes(cache));
    size_t row = rowBytes() - scale;
    auto scales = static_cast<size_t>(shape.pageLayout().scales);
    move(token * row, 0, row);
    move(scales + token * scale, row, scale);
  }

  using Table = std::array<uint16_t, 4096>;
  static void fillFrom(const Table &table, Random &random,
                       std::span<uint16_t> out) {
    for (size_t i = 0; i < out.size();) {
      uint64_t bits = random.next();
      for (int part = 0; part < 5 && i < out.size(); ++part, bits >>= 12)
        out[i++] = table[bits & 4095];
    }
  }

  Table unit{}, spread{};
  std::vector<float> numbers; ///< of elements
  kvrm::PoolShape shape;      ///< of a page
};

/// Runs `task(i)` for all i below `count`, on all CPUs.
template <typename Task>
void parallel(kvrm::ThreadPool &threads, size_t count, Task task) {
  struct Context {
    Task &task;
    size_t count;
    std::atomic<size_t> next{0};
  } context{task, count};
  threads.run(
      [](void *opaque, int32_t) {
        auto &shared = *static_cast<Context *>(opaque);
        for (size_t i; (i = shared.next++) < shared.count;)
          shared.task(i);
      },
      &context);
}

/// A device, or a skipped test.
class Kernels : public testing::Test {
protected:
  void SetUp() override {
    kvrm::Expected<std::shared_ptr<const kvrm::CudaDriver>> driver =
        kvrm::CudaDriver::load();
    if (!driver)
      GTEST_SKIP() << driver.status().message();
    kvrm::Expected<std::shared_ptr<const kvrm::CudaDevice>> opened =
        kvrm::CudaDevice::create(driver.take());
    ASSERT_TRUE(opened) << opened.status().message();
    device = opened.take();
    if (foldersOf("KVRM_KERNELS").empty())
      GTEST_SKIP() << "KVRM_KERNELS names no kernel sets";
    for (const std::string &folder : foldersOf("KVRM_KERNELS")) {
      kvrm::Expected<std::shared_ptr<const kvrm::Package>> set =
          kvrm::Package::load(folder);
      ASSERT_TRUE(set) << set.status().message();
      expectOk(kvrm::checkDevice(**set, device->info()));
      sets.push_back(set.take());
    }
    kvrm::Expected<std::unique_ptr<kvrm::ThreadPool>> pool =
        kvrm::ThreadPool::create(0);
    ASSERT_TRUE(pool) << pool.status().message();
    threads = pool.take();
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed()));
  }

  std::shared_ptr<const kvrm::CudaDevice> device;
  std::vector<std::shared_ptr<const kvrm::Package>> sets;
  std::unique_ptr<kvrm::ThreadPool> threads;
};

/// The schedules that a set has and the device holds, captured.
inline std::vector<kvrm::CudaSchedule>
captureAll(kvrm::AttentionStep &backend) {
  using kvrm::CudaSchedule;
  std::vector<CudaSchedule> all = {CudaSchedule::workqueue()};
  for (int32_t blocks : {1, 2, 4, 8})
    if (blocks <= backend.info().maxCluster)
      all.push_back(CudaSchedule::clusters(blocks));
  if (backend.shape().usesStaging)
    all.push_back(CudaSchedule::staged());
  std::vector<CudaSchedule> captured;
  for (CudaSchedule schedule : all) {
    kvrm::Status status = backend.capture(schedule);
    if (status.isOk())
      captured.push_back(schedule);
    else
      EXPECT_EQ(status.code(), kvrm::StatusCode::Incompatible)
          << status.message();
  }
  return captured;
}

inline std::string nameOf(kvrm::CudaSchedule schedule) {
  if (schedule.isStaged)
    return "staged";
  return schedule.cluster == 0 ? "workqueue"
                               : "cluster" + std::to_string(schedule.cluster);
}

template <typename T> std::span<const uint8_t> bytesOf(std::span<T> values) {
  return {reinterpret_cast<const uint8_t *>(values.data()),
          values.size_bytes()};
}
template <typename T> std::span<uint8_t> bytesOf(std::vector<T> &values) {
  return {reinterpret_cast<uint8_t *>(values.data()),
          values.size() * sizeof(T)};
}

/// Called between launches: kernels leave all partial states empty.
inline void expectEmptyPartials(kvrm::AttentionStep &backend) {
  std::vector<uint32_t> words(
      static_cast<size_t>(backend.partials().bytes / 4));
  expectOk(backend.read(bytesOf(words), backend.partials()));
  auto found = std::ranges::find_if(
      words, [](uint32_t word) { return word != KVRM_EMPTY_PARTIAL; });
  EXPECT_TRUE(found == words.end())
      << "word " << found - words.begin() << " of " << words.size()
      << " of the partial states was left behind";
}

/// What 0xff bytes are: no number in f16 or bf16, nor in f8e4m3, nor is a
/// scale.
constexpr uint16_t poison = 0xffff;

} // namespace gpu

#endif // KVRM_TEST_GPU_GPUSUPPORT_H
