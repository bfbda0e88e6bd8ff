//===- FarHistoryTest.cpp - Summaries against float64 -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/FarHistory.h"
#include "ToyModel.h"
#include "ToyPackage.h"
#include "kvrm/runtime/host/HostBackend.h"
#include "kvrm/runtime/host/HostSummaries.h"
#include "kvrm/runtime/session/CreateDecoder.h"
#include "kvrm/runtime/support/Reference.h"

#include <atomic>
#include <filesystem>
#include <gtest/gtest.h>
#include <map>
#include <random>

using namespace kvrm;

/// Calls of operator new so far; see CountingAllocator.cpp.
extern std::atomic<int64_t> allocations;

//===----------------------------------------------------------------------===//
// Bookkeeping
//===----------------------------------------------------------------------===//

static FarHistory makeFar(FarShape shape) {
  Expected<FarHistory> far = FarHistory::create(shape);
  EXPECT_TRUE(far) << far.status().message();
  return far.take();
}

TEST(FarHistory, RefusesShapesOutOfRange) {
  auto message = [](FarShape shape) {
    return FarHistory::create(shape).status().message();
  };
  EXPECT_EQ(message({0, 32, 16, 4, 16}),
            "far history: slots: 0 is outside 1..1024");
  EXPECT_EQ(message({1, 32, 16, 4, 0}),
            "far history: page_tokens: 0 is outside 1..256");
  EXPECT_EQ(message({1, 0, 16, 4, 16}),
            "far history: window: 0 is not whole pages of 16");
  EXPECT_EQ(message({1, 40, 16, 4, 16}),
            "far history: window: 40 is not whole pages of 16");
  EXPECT_EQ(message({1, 32, 8, 4, 16}),
            "far history: entries: 8 is not whole pages of 16");
  EXPECT_EQ(message({1, 32, 8192, 2, 2}),
            "far history: entries: 8192 is outside 0..4096");
  EXPECT_EQ(message({1, 32, 16, 15, 16}),
            "far history: sinks: 15 of 16 entries are not all, or all but two "
            "and more");
  EXPECT_EQ(message({1, 32, 0, 4, 16}),
            "far history: sinks: 4 of 0 entries are not all, or all but two "
            "and more");
}

TEST(FarHistory, CollapsesWhenTheNextTokenWouldLeaveTheWindow) {
  FarHistory far = makeFar({1, 32, 16, 4, 16});
  EXPECT_EQ(far.pagesToCollapse(0), 0);
  EXPECT_EQ(far.pagesToCollapse(31), 0);
  EXPECT_EQ(far.pagesToCollapse(32), 1);
  EXPECT_EQ(far.pagesToCollapse(47), 1);
  EXPECT_EQ(far.pagesToCollapse(48), 2);
}

TEST(FarHistory, WithoutEntriesPagesAreDropped) {
  FarHistory far = makeFar({2, 32, 0, 0, 16});
  EXPECT_TRUE(far.collapsePage(1).empty());
  EXPECT_EQ(far.collapsed(1), 16);
  EXPECT_EQ(far.placesSaved(1), 16);
  EXPECT_EQ(far.summaryPages(1), 0);
  EXPECT_EQ(far.collapsed(0), 0);
}

TEST(FarHistory, WithSinksAloneTheRestIsDropped) {
  FarHistory far = makeFar({1, 32, 16, 16, 8});
  EXPECT_EQ(far.collapsePage(0).size(), 8u);
  EXPECT_EQ(far.collapsePage(0).size(), 8u);
  EXPECT_TRUE(far.collapsePage(0).empty());
  EXPECT_EQ(far.inUse(0), 16);
  EXPECT_EQ(far.collapsed(0), 24);
  EXPECT_EQ(far.summaryPages(0), 2);
  EXPECT_TRUE(far.checkInvariants().isOk());
}

TEST(FarHistory, KeepsSinksAndMergesTheLeastNeighbours) {
  // 16 entries of which 4 are sinks: 12 are left for pages.
  FarHistory far = makeFar({1, 32, 16, 4, 8});
  std::span<const SummaryWrite> writes = far.collapsePage(0);
  ASSERT_EQ(writes.size(), 5u);
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(writes[size_t(i)].entry, i);
    EXPECT_EQ(writes[size_t(i)].firstToken, i);
    EXPECT_EQ(writes[size_t(i)].tokens, 1);
  }
  EXPECT_EQ(writes[4].firstToken, 4);
  EXPECT_EQ(writes[4].tokens, 4);
  EXPECT_EQ(far.biases(0)[0], 0.0f);
  EXPECT_EQ(far.biases(0)[4], 2.0f);
  EXPECT_EQ(far.biases(0)[5], KVRM_UNUSED_SUMMARY);
  for (int i = 0; i < 11; ++i)
    EXPECT_EQ(far.collapsePage(0)[0].mergeInto, -1);
  EXPECT_EQ(far.inUse(0), 16);
  // The oldest pair, 4 + 8 tokens, is the least.
  SummaryWrite write = far.collapsePage(0)[0];
  EXPECT_EQ(write.mergeInto, 4);
  EXPECT_EQ(write.entry, 5);
  EXPECT_FLOAT_EQ(write.keep, 4.0f / 12);
  EXPECT_FLOAT_EQ(write.add, 8.0f / 12);
  EXPECT_EQ(far.tokensOf(0, 4), 12);
  EXPECT_EQ(far.tokensOf(0, 5), 8);
  // Of equal pairs the oldest: 6 and 7, since 4 holds 12 now and 5 is newest.
  write = far.collapsePage(0)[0];
  EXPECT_EQ(write.mergeInto, 6);
  EXPECT_EQ(write.entry, 7);
  for (int i = 0; i < 500; ++i) {
    far.collapsePage(0);
    Status status = far.checkInvariants();
    ASSERT_TRUE(status.isOk()) << status.message();
  }
  for (int32_t i = 0; i < 4; ++i)
    EXPECT_EQ(far.tokensOf(0, i), 1) << "sinks never merge";
  far.forget(0);
  EXPECT_EQ(far.inUse(0), 0);
  EXPECT_EQ(far.biases(0)[0], KVRM_UNUSED_SUMMARY);
  EXPECT_TRUE(far.checkInvariants().isOk());
}

//===----------------------------------------------------------------------===//
// Data movement
//===----------------------------------------------------------------------===//

static std::unique_ptr<ThreadPool> makeThreads(int32_t count) {
  Expected<std::unique_ptr<ThreadPool>> threads = ThreadPool::create(count);
  EXPECT_TRUE(threads) << threads.status().message();
  return threads.take();
}

TEST(HostSummaries, AMeanOfOneTokenIsThatToken) {
  // Every pattern of 16 bits, once in K and once in V.
  for (kvrm_element element : {KVRM_F16, KVRM_BF16}) {
    constexpr int32_t page = 128;
    constexpr int32_t dim = 512;
    constexpr int32_t pages = 2;
    std::vector<uint16_t> data(size_t(2) * pages * page * dim);
    HostPool pool{{reinterpret_cast<uint8_t *>(data.data()), data.size() * 2},
                  1,
                  1,
                  dim,
                  page,
                  pages,
                  element};
    for (size_t half = 0; half < 2; ++half)
      for (size_t i = 0; i < size_t(page) * dim; ++i)
        data[half * pages * page * dim + i] = static_cast<uint16_t>(i);
    std::vector<SummaryWrite> writes;
    for (int32_t t = 0; t < page; ++t)
      writes.push_back({t, t, 1, -1, 0, 0});
    const int32_t summaries[] = {1};
    writeSummaries(pool, writes, 0, summaries, *makeThreads(1));
    uint16_t infinity = element == KVRM_F16 ? 0x7c00 : 0x7f80;
    for (size_t half = 0; half < 2; ++half)
      for (size_t i = 0; i < size_t(page) * dim; ++i) {
        uint16_t want = data[half * pages * page * dim + i];
        uint16_t got = data[(half * pages + 1) * page * dim + i];
        if ((want & 0x7fff) > infinity)
          ASSERT_GT(got & 0x7fff, infinity) << "NaN stays NaN";
        else if ((want & 0x7fff) == 0)
          ASSERT_EQ(got & 0x7fff, 0); // 0 + -0 is 0
        else
          ASSERT_EQ(got, want);
      }
  }
}

TEST(HostSummaries, AMeanOfOneByteIsThatByte) {
  constexpr int32_t page = 16;
  constexpr int32_t dim = 16;
  constexpr size_t elements = size_t(page) * dim;
  std::vector<uint8_t> data(2 * 2 * elements);
  HostPool pool{data, 1, 1, dim, page, 2, KVRM_F8E4M3};
  for (size_t half = 0; half < 2; ++half)
    for (size_t i = 0; i < elements; ++i)
      data[half * 2 * elements + i] = static_cast<uint8_t>(i);
  std::vector<SummaryWrite> writes;
  for (int32_t t = 0; t < page; ++t)
    writes.push_back({t, t, 1, -1, 0, 0});
  const int32_t summaries[] = {1};
  writeSummaries(pool, writes, 0, summaries, *makeThreads(1));
  for (size_t half = 0; half < 2; ++half)
    for (size_t i = 0; i < elements; ++i) {
      uint8_t got = data[(half * 2 + 1) * elements + i];
      if (i % 128 == 0 || i % 128 == 127) // 0 + -0 is 0, and NaN stays NaN
        ASSERT_EQ(got & 0x7f, i & 0x7f);
      else
        ASSERT_EQ(got, i);
    }
}

TEST(HostSummaries, MeansOfBytesAreRoundedOnce) {
  constexpr int32_t page = 4;
  constexpr int32_t dim = 8;
  constexpr size_t elements = size_t(page) * dim;
  std::vector<uint8_t> data(2 * 2 * elements);
  HostPool pool{data, 1, 1, dim, page, 2, KVRM_F8E4M3};
  std::mt19937 random(5);
  std::unique_ptr<ThreadPool> threads = makeThreads(1);
  for (int round = 0; round < 2000; ++round) {
    for (uint8_t &byte : data) // some subnormal, some near the largest
      byte = static_cast<uint8_t>(random() % 127 + random() % 2 * 128);
    std::vector<uint8_t> before = data;
    // The entry that token 0 of page 1 is joins that of token 1.
    const SummaryWrite writes[] = {{0, 0, 4, 1, 0.25f, 0.75f}};
    const int32_t summaries[] = {1};
    writeSummaries(pool, writes, 0, summaries, *threads);
    for (size_t side = 0; side < 2; ++side)
      for (size_t d = 0; d < dim; ++d) {
        auto at = [&](size_t inPage, size_t token) {
          return (side * 2 + inPage) * elements +
                 (side == 0 ? d * page + token : token * dim + d);
        };
        auto old = [&](size_t inPage, size_t token) {
          return elementValue(KVRM_F8E4M3, before[at(inPage, token)]);
        };
        double mean = (old(0, 0) + old(0, 1) + old(0, 2) + old(0, 3)) / 4;
        EXPECT_EQ(elementValue(KVRM_F8E4M3, data[at(1, 0)]),
                  elementValue(KVRM_F8E4M3, elementOf(KVRM_F8E4M3, mean)));
        double merged = 0.25 * old(1, 1) + 0.75 * old(1, 0);
        EXPECT_EQ(elementValue(KVRM_F8E4M3, data[at(1, 1)]),
                  elementValue(KVRM_F8E4M3, elementOf(KVRM_F8E4M3, merged)));
      }
  }
}

TEST(HostSummaries, SummariesOfIntegersHaveScalesOfTheirOwn) {
  constexpr int32_t page = 4;
  constexpr int32_t dim = 8;
  constexpr auto row = static_cast<size_t>(dim);
  const auto layout = kvrm_page_layout_of(page, dim, KVRM_INT8);
  auto pageBytes = static_cast<size_t>(layout.bytes);
  EXPECT_EQ(pageBytes, 48u);
  std::vector<uint8_t> data(2 * 2 * pageBytes);
  HostPool pool{data, 1, 1, dim, page, 2, KVRM_INT8};
  std::mt19937 random(6);
  std::unique_ptr<ThreadPool> threads = makeThreads(1);
  // Where a side's page has element d of a token, or, as the last, its scale.
  auto bytesAt = [&](size_t side, size_t inPage, size_t token) {
    std::vector<size_t> places;
    size_t start = (side * 2 + inPage) * pageBytes;
    for (size_t d = 0; d < row; ++d)
      places.push_back(start +
                       (side == 0 ? d * page + token : token * row + d));
    for (size_t half = 0; half < 2; ++half)
      places.push_back(start + static_cast<size_t>(layout.scales) + token * 2 +
                       half);
    return places;
  };
  auto rowOf = [&](const std::vector<uint8_t> &from, size_t side, size_t inPage,
                   size_t token) {
    std::vector<uint8_t> bytes;
    for (size_t place : bytesAt(side, inPage, token))
      bytes.push_back(from[place]);
    return bytes;
  };
  auto numbersOf = [&](const std::vector<uint8_t> &bytes) {
    std::vector<float> numbers(row);
    decodeRow(KVRM_INT8, bytes, numbers);
    return numbers;
  };
  for (int round = 0; round < 2000; ++round) {
    for (size_t side = 0; side < 2; ++side)
      for (size_t token = 0; token < 2 * page; ++token) {
        std::vector<float> values(row);
        float size = std::ldexp(1.0f, static_cast<int>(random() % 20));
        for (float &value : values)
          value = size * (static_cast<float>(random() % 2001) / 1000 - 1);
        std::vector<uint8_t> bytes(row + 2);
        encodeRow(KVRM_INT8, values, bytes);
        std::vector<size_t> places = bytesAt(side, token / page, token % page);
        for (size_t i = 0; i < places.size(); ++i)
          data[places[i]] = bytes[i];
      }
    std::vector<uint8_t> before = data;
    // The entry that token 0 of page 1 is joins that of token 1.
    const SummaryWrite writes[] = {{0, 0, 4, 1, 0.25f, 0.75f}};
    const int32_t summaries[] = {1};
    writeSummaries(pool, writes, 0, summaries, *threads);
    for (size_t side = 0; side < 2; ++side) {
      std::vector<float> mean(row), merged(row);
      std::vector<float> first = numbersOf(rowOf(before, side, 1, 0));
      std::vector<float> into = numbersOf(rowOf(before, side, 1, 1));
      for (size_t d = 0; d < row; ++d) {
        merged[d] = 0.25f * into[d] + 0.75f * first[d];
        for (size_t token = 0; token < page; ++token)
          mean[d] += numbersOf(rowOf(before, side, 0, token))[d] / 4;
      }
      std::vector<uint8_t> bytes(row + 2);
      encodeRow(KVRM_INT8, mean, bytes);
      EXPECT_EQ(rowOf(data, side, 1, 0), bytes);
      encodeRow(KVRM_INT8, merged, bytes);
      EXPECT_EQ(rowOf(data, side, 1, 1), bytes);
      // The others are as they were.
      for (size_t token = 2; token < page; ++token)
        EXPECT_EQ(rowOf(data, side, 1, token), rowOf(before, side, 1, token));
    }
  }
}

TEST(HostSummaries, MeansAndMergesAreThoseOfFloat64) {
  constexpr int32_t layers = 2;
  constexpr int32_t kvHeads = 3;
  constexpr int32_t dim = 16;
  constexpr int32_t page = 4;
  constexpr int32_t pages = 5;
  constexpr int64_t pageElements = int64_t(page) * dim;
  std::vector<uint16_t> data(size_t(layers) * 2 * kvHeads * pages *
                             pageElements);
  HostPool pool{{reinterpret_cast<uint8_t *>(data.data()), data.size() * 2},
                layers,
                kvHeads,
                dim,
                page,
                pages,
                KVRM_F16};
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (uint16_t &value : data)
    value = toy::toHalf(normal(random));
  std::vector<uint16_t> before = data;
  // Entry 6 joins 1, then becomes the mean of tokens 1..3 of page 3.
  const SummaryWrite writes[] = {{6, 1, 3, 1, 0.25f, 0.75f}};
  const int32_t summaries[] = {4, 0};
  std::unique_ptr<ThreadPool> threads = makeThreads(3);
  writeSummaries(pool, writes, 3, summaries, *threads);
  auto index = [&](int64_t head, int32_t inPage, int32_t token, int32_t d) {
    bool isKey = head / kvHeads % 2 == 0;
    return size_t((head * pages + inPage) * pageElements +
                  (isKey ? d * page + token : token * dim + d));
  };
  for (int64_t head = 0; head < layers * 2 * kvHeads; ++head)
    for (int32_t d = 0; d < dim; ++d) {
      auto old = [&](int32_t inPage, int32_t token) {
        return double(toy::fromHalf(before[index(head, inPage, token, d)]));
      };
      auto now = [&](int32_t inPage, int32_t token) {
        return double(toy::fromHalf(data[index(head, inPage, token, d)]));
      };
      double mean = (old(3, 1) + old(3, 2) + old(3, 3)) / 3;
      EXPECT_NEAR(now(0, 2), mean, 1e-3 * std::abs(mean) + 1e-6);
      double merged = 0.25 * old(4, 1) + 0.75 * old(0, 2);
      EXPECT_NEAR(now(4, 1), merged, 1e-3 * std::abs(merged) + 1e-6);
      before[index(head, 0, 2, d)] = data[index(head, 0, 2, d)];
      before[index(head, 4, 1, d)] = data[index(head, 4, 1, d)];
    }
  EXPECT_EQ(before, data) << "nothing else changed";
  clearPages(pool, summaries, *threads);
  for (int64_t head = 0; head < layers * 2 * kvHeads; ++head)
    for (int32_t i = 0; i < pages; ++i) {
      const uint16_t *start = &data[size_t((head * pages + i) * pageElements)];
      bool isZero = std::all_of(start, start + pageElements,
                                [](uint16_t value) { return value == 0; });
      EXPECT_EQ(isZero, i == 4 || i == 0);
    }
}

//===----------------------------------------------------------------------===//
// Sessions
//===----------------------------------------------------------------------===//

namespace {

/// One history with far history, in float64: entries in order of time, then
/// exact tokens.
class FarReference {
public:
  explicit FarReference(bool drops = false) : drops(drops) {}

  /// What every step begins with.
  void collapse() {
    while (static_cast<int>(exact.size()) >= toy::farWindow) {
      std::vector<Entry> old(exact.begin(), exact.begin() + toy::pageTokens);
      exact.erase(exact.begin(), exact.begin() + toy::pageTokens);
      size_t alone = gone == 0 ? sinks : 0;
      for (size_t i = 0; i < alone && !drops; ++i)
        add({old[i]});
      if (!drops)
        add({old.begin() + static_cast<long>(alone), old.end()});
      gone += toy::pageTokens;
    }
  }

  /// The logits after the last of tokens that one step appends.
  std::vector<double> step(const std::vector<int> &tokens) {
    collapse();
    std::vector<Entry> past = far;
    past.insert(past.end(), exact.begin(), exact.end());
    std::vector<double> result;
    for (int token : tokens) {
      past.push_back(Entry{});
      std::vector<double> x(toy::hidden);
      toy::embed(token, length(), x.data());
      for (int layer = 0; layer < toy::layers; ++layer) {
        double q[toy::hidden];
        double k[width];
        double v[width];
        toy::project(layer, x.data(), q, k, v);
        for (int i = 0; i < width; ++i) {
          past.back().k[layer][i] = rounded(k[i]);
          past.back().v[layer][i] = rounded(v[i]);
        }
        double out[toy::hidden] = {};
        for (int head = 0; head < toy::heads; ++head)
          attend(past, layer, head, q, out);
        toy::residual(x.data(), out);
      }
      exact.push_back(past.back());
      result.resize(toy::vocabulary);
      toy::logits(x.data(), result.data());
    }
    return result;
  }

  void trim(int newLength) {
    exact.resize(static_cast<size_t>(newLength - gone));
  }
  int length() const { return gone + static_cast<int>(exact.size()); }
  /// The fewest tokens that it may be cut to, but for none.
  int least() const {
    return gone == 0 ? 0 : gone + toy::farWindow - toy::pageTokens;
  }

  int gone = 0; ///< tokens that collapsed

private:
  bool drops; ///< what collapses leaves nothing
  static constexpr int width = toy::kvHeads * toy::headDim;
  static constexpr size_t sinks = toy::farSinks;
  struct Entry {
    int tokens = 1;
    double k[toy::layers][width] = {};
    double v[toy::layers][width] = {};
  };

  static double rounded(double value) {
    return toy::fromHalf(toy::toHalf(static_cast<float>(value)));
  }

  static Entry mean(const std::vector<Entry> &parts) {
    Entry out;
    out.tokens = 0;
    for (const Entry &part : parts)
      out.tokens += part.tokens;
    for (int layer = 0; layer < toy::layers; ++layer)
      for (int i = 0; i < width; ++i) {
        double k = 0;
        double v = 0;
        for (const Entry &part : parts) {
          k += part.tokens * part.k[layer][i] / out.tokens;
          v += part.tokens * part.v[layer][i] / out.tokens;
        }
        out.k[layer][i] = rounded(k);
        out.v[layer][i] = rounded(v);
      }
    return out;
  }

  void add(const std::vector<Entry> &tokens) {
    if (far.size() == toy::farEntries) {
      size_t best = sinks;
      for (size_t i = sinks; i + 1 < far.size(); ++i)
        if (far[i].tokens + far[i + 1].tokens <
            far[best].tokens + far[best + 1].tokens)
          best = i;
      far[best] = mean({far[best], far[best + 1]});
      far.erase(far.begin() + static_cast<long>(best) + 1);
    }
    far.push_back(mean(tokens));
  }

  static void attend(const std::vector<Entry> &past, int layer, int head,
                     const double *q, double *out) {
    int from = head / toy::group * toy::headDim;
    std::vector<double> weights;
    double sum = 0;
    for (const Entry &entry : past) {
      double dot = 0;
      for (int d = 0; d < toy::headDim; ++d)
        dot += q[head * toy::headDim + d] * entry.k[layer][from + d];
      weights.push_back(entry.tokens * std::exp(dot * toy::softmaxScale));
      sum += weights.back();
    }
    for (size_t i = 0; i < past.size(); ++i)
      for (int d = 0; d < toy::headDim; ++d)
        out[head * toy::headDim + d] +=
            weights[i] / sum * past[i].v[layer][from + d];
  }

  std::vector<Entry> far;
  std::vector<Entry> exact;
};

struct Packages {
  std::map<std::string, std::string> paths;
  ~Packages() {
    for (auto &[schedule, path] : paths)
      std::filesystem::remove_all(path);
  }
};

/// A session with far history and, beside it, every history in float64.
class Pair {
public:
  Pair(const std::string &schedule, const SessionConfig &config,
       bool drops = false)
      : out(size_t(toy::slots + 1) * toy::vocabulary), drops(drops),
        references(size_t(toy::slots + config.keptHistories), nothing()),
        parked(size_t(config.parkingPlaces), nothing()) {
    static Packages made;
    std::string &path = made.paths[schedule + (drops ? " drops" : "")];
    if (path.empty())
      path = toy::makePackage({.schedule = schedule,
                               .isFar = !drops,
                               .drops = drops,
                               .mixes = schedule == "workqueue"});
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    EXPECT_TRUE(package) << package.status().message();
    Expected<std::unique_ptr<Session>> created =
        createSession(package.take(), config);
    EXPECT_TRUE(created) << created.status().message();
    session = created.take();
    // NaN in every place that a step should not read.
    std::ranges::fill(dynamic_cast<HostBackend &>(session->backend()).kvPool(),
                      0xff);
  }

  FarReference nothing() const { return FarReference(drops); }

  void expectNear(const std::vector<double> &want, const float *got) {
    for (int i = 0; i < toy::vocabulary; ++i)
      ASSERT_NEAR(got[i], want[size_t(i)], 5e-3) << "logit " << i;
  }

  /// Returns whether there were pages enough, which pagesNeeded() knows.
  bool prefill(int slot, const std::vector<int> &tokens) {
    auto count = static_cast<int32_t>(tokens.size());
    int32_t needed = session->pagesNeeded(slot, count);
    int32_t free = session->freePages();
    std::ranges::fill(out, NAN);
    Status status = session->prefill(slot, tokens, out.data());
    EXPECT_EQ(status.isOk(), needed <= free) << status.message();
    if (!status.isOk()) {
      EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
      EXPECT_EQ(session->freePages(), free);
      return false;
    }
    std::vector<double> want;
    for (size_t at = 0; at < tokens.size(); at += toy::prefillQueries) {
      size_t end = std::min(tokens.size(), at + toy::prefillQueries);
      want = references[size_t(slot)].step(
          {tokens.begin() + static_cast<long>(at),
           tokens.begin() + static_cast<long>(end)});
    }
    expectNear(want, out.data());
    return true;
  }

  bool decode(const std::vector<int32_t> &tokens) {
    int32_t free = session->freePages();
    std::ranges::fill(out, NAN);
    Status status = session->decode(tokens, out.data());
    if (!status.isOk()) {
      EXPECT_EQ(status.code(), StatusCode::ResourceExhausted)
          << status.message();
      EXPECT_EQ(session->freePages(), free) << "nothing has collapsed";
      return false;
    }
    for (int slot = 0; slot < toy::slots; ++slot)
      if (tokens[size_t(slot)] >= 0)
        expectNear(references[size_t(slot)].step({tokens[size_t(slot)]}),
                   out.data() + slot * toy::vocabulary);
    return true;
  }

  /// A decode step that takes a chunk of a prompt along.
  bool mixedStep(const std::vector<int32_t> &tokens, int slot,
                 const std::vector<int> &prompt) {
    int32_t free = session->freePages();
    std::ranges::fill(out, NAN);
    Status status = session->mixedStep(tokens, slot, prompt, out.data());
    if (!status.isOk()) {
      EXPECT_EQ(status.code(), StatusCode::ResourceExhausted)
          << status.message();
      EXPECT_EQ(session->freePages(), free) << "nothing has collapsed";
      return false;
    }
    for (int each = 0; each < toy::slots; ++each)
      if (tokens[size_t(each)] >= 0)
        expectNear(references[size_t(each)].step({tokens[size_t(each)]}),
                   out.data() + each * toy::vocabulary);
    expectNear(references[size_t(slot)].step(prompt),
               out.data() + toy::slots * toy::vocabulary);
    return true;
  }

  void check() {
    for (int slot = 0; slot < session->shape().histories; ++slot) {
      const FarReference &reference = references[size_t(slot)];
      ASSERT_EQ(session->length(slot), reference.length());
      ASSERT_EQ(session->farHistory()->collapsed(slot), reference.gone);
      ASSERT_LE(session->blockPager().pages(slot).size(),
                size_t(toy::farPagesPerSlot));
    }
    for (const Status &status : {session->blockPager().checkInvariants(),
                                 session->farHistory()->checkInvariants()})
      ASSERT_TRUE(status.isOk()) << status.message();
  }

  std::unique_ptr<Session> session;
  std::vector<float> out;
  bool drops;
  std::vector<FarReference> references; ///< [histories]
  std::vector<FarReference> parked;     ///< [places]
};

class FarSessions : public testing::TestWithParam<const char *> {};

} // namespace

INSTANTIATE_TEST_SUITE_P(All, FarSessions,
                         testing::Values("rows", "split", "workqueue"));

/// Cuts a history, or shares one, at any length.
static void trimAtRandom(Pair &pair, int history, int newLength) {
  FarReference &reference = pair.references[size_t(history)];
  bool isLegal = newLength == 0 || newLength >= reference.least();
  Status status = pair.session->trim(history, newLength);
  ASSERT_EQ(status.isOk(), isLegal) << status.message();
  if (newLength == 0)
    reference = pair.nothing();
  else if (isLegal)
    reference.trim(newLength);
}

static void shareAtRandom(Pair &pair, int target, int source, int tokens) {
  const FarReference &from = pair.references[size_t(source)];
  bool isLegal = from.gone == 0 || (pair.drops && tokens >= from.least());
  Status status = pair.session->alias(target, source, tokens);
  ASSERT_EQ(status.isOk(), isLegal) << status.message();
  if (!isLegal)
    return;
  pair.references[size_t(target)] = from;
  pair.references[size_t(target)].trim(tokens);
}

/// Parks a slot, or brings it back, where there are pages for that.
static void moveAtRandom(Pair &pair, int slot, int place) {
  FarReference &here = pair.references[size_t(slot)];
  FarReference &there = pair.parked[size_t(place)];
  if (here.length() > 0 && there.length() == 0) {
    ASSERT_TRUE(pair.session->park(slot, place).isOk());
    std::swap(here, there);
  } else if (here.length() == 0 && there.length() > 0 &&
             pair.session->unpark(place, slot).isOk()) {
    std::swap(here, there);
  }
}

/// Random calls in a pool of `pages` pages, 0 for one that cannot run out.
static void runRandom(const char *schedule, int32_t pages, uint32_t seed,
                      bool drops = false) {
  SessionConfig config{pages, 2, 5};
  if (drops) {
    config.keptHistories = 2;
    config.parkingPlaces = 2;
    config.parkingPages = 2 * toy::farPagesPerSlot;
  }
  Pair pair(schedule, config, drops);
  std::mt19937 random(seed);
  auto below = [&](int bound) {
    return static_cast<int>(random() % static_cast<uint32_t>(bound));
  };
  int refused = 0;
  int collapsed = 0;
  int merged = 0;
  for (int step = 0; step < 400; ++step) {
    int slot = below(toy::slots);
    FarReference &reference = pair.references[size_t(slot)];
    int length = pair.session->length(slot);
    switch (below(drops ? 10 : 9)) {
    case 0:
      if (below(3) != 0)
        break;
      slot = below(pair.session->shape().histories);
      ASSERT_TRUE(pair.session->release(slot).isOk());
      pair.references[size_t(slot)] = pair.nothing();
      break;
    case 1:
      trimAtRandom(pair, slot, below(length + 1));
      break;
    case 2: {
      int target = below(pair.session->shape().histories);
      if (slot != target && pair.session->length(target) == 0)
        shareAtRandom(pair, target, slot, below(length + 1));
      break;
    }
    case 9:
      moveAtRandom(pair, slot, below(2));
      break;
    case 3:
    case 4: {
      int count = 1 + below(40);
      if (length + count > toy::capacity)
        break;
      std::vector<int> tokens(static_cast<size_t>(count));
      for (int &token : tokens)
        token = below(50);
      refused += !pair.prefill(slot, tokens);
      break;
    }
    default: {
      std::vector<int32_t> tokens(toy::slots, -1);
      for (int i = 0; i < toy::slots; ++i)
        if (below(4) != 0 && pair.session->length(i) < toy::capacity)
          tokens[size_t(i)] = below(50);
      // With a work queue there is a mixed step.
      bool joins = pair.session->shape().mixes && below(2) == 0 &&
                   length + toy::prefillQueries <= toy::capacity;
      if (joins)
        tokens[size_t(slot)] = -1;
      if (!joins || std::ranges::count(tokens, -1) == toy::slots) {
        refused += !pair.decode(tokens);
        break;
      }
      std::vector<int> prompt(size_t(1 + below(toy::prefillQueries)));
      for (int &token : prompt)
        token = below(50);
      refused += !pair.mixedStep(tokens, slot, prompt);
      break;
    }
    }
    collapsed += reference.gone > 0;
    merged += reference.gone > 7 * toy::pageTokens;
    pair.check();
    if (testing::Test::HasFatalFailure())
      FAIL() << "step " << step;
  }
  EXPECT_GT(collapsed, 0);
  if (pages == 0 && !drops) {
    EXPECT_GT(merged, 0) << "some history has outgrown its entries";
  }
  if (!drops) { // else kept histories have pages too
    EXPECT_EQ(refused > 0, pages > 0);
  }
}

TEST_P(FarSessions, RandomUseMatchesFloat64) {
  runRandom(GetParam(), 0, 5);
  runRandom(GetParam(), 0, 6);
}

TEST_P(FarSessions, ATightPoolRefusesExactly) {
  for (uint32_t seed = 1; seed <= 4; ++seed)
    runRandom(GetParam(), 14, seed);
}

/// Where nothing is left of what collapses, histories can be kept, shared from
/// and parked all the same.
TEST_P(FarSessions, RandomUseOfDroppedPagesMatchesFloat64) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    runRandom(GetParam(), 0, seed, /*drops=*/true);
    runRandom(GetParam(), 14, seed, /*drops=*/true);
  }
}

TEST(FarSession, ShortRequestsPayNothing) {
  Pair pair("workqueue", {0, 1, 0});
  ASSERT_TRUE(pair.prefill(0, std::vector<int>(toy::farWindow, 3)));
  EXPECT_EQ(pair.session->blockPager().usedPages(),
            toy::farWindow / toy::pageTokens);
  EXPECT_EQ(pair.session->lastStep().collapsedPages, 0);
  EXPECT_EQ(pair.session->pagesNeeded(0, 1), toy::farEntries / toy::pageTokens)
      << "a page goes for the one that comes, entries are added before";
  ASSERT_TRUE(pair.decode({4, -1, -1, -1}));
  EXPECT_EQ(pair.session->lastStep().collapsedPages, 1);
  EXPECT_EQ(pair.session->blockPager().usedPages(),
            (toy::farWindow + toy::farEntries) / toy::pageTokens);
  pair.check();
}

TEST(FarSession, LiveKvIsBounded) {
  Pair pair("workqueue", {0, 1, 0});
  for (int i = 0; i < toy::capacity; ++i)
    ASSERT_TRUE(pair.decode({i % 50, -1, -1, -1}));
  EXPECT_LE(pair.session->blockPager().usedPages(),
            (toy::farWindow + toy::farEntries) / toy::pageTokens);
  EXPECT_EQ(
      pair.session->decode(std::vector<int32_t>{1, -1, -1, -1}, pair.out.data())
          .message(),
      "slot 0: its history of 50 tokens fills the capacity 50")
      << "positions have a limit still";
}

TEST(FarSession, WhatHasCollapsedIsNotToBeHad) {
  Pair pair("workqueue", {0, 1, 0});
  ASSERT_TRUE(pair.prefill(0, std::vector<int>(30, 3)));
  ASSERT_TRUE(pair.prefill(1, std::vector<int>(5, 3)));
  Session &session = *pair.session;
  EXPECT_EQ(session.farHistory()->collapsed(0), 8);
  EXPECT_EQ(session.trim(0, 7).message(),
            "slot 0: cannot trim to 7 tokens, outside 20..30; the first 8 have "
            "collapsed, and those behind are needed");
  EXPECT_EQ(
      session.trim(0, 31).message(),
      "slot 0: cannot trim to 31 tokens, outside 20..30; the first 8 have "
      "collapsed, and those behind are needed");
  EXPECT_EQ(session.alias(2, 0, 4).message(),
            "slot 0: cannot share, its first 8 tokens have collapsed");
  EXPECT_EQ(session.alias(0, 1, 4).message(), "slot 0 is not empty");
  pair.check();
  EXPECT_FALSE(session.trim(0, 19).isOk())
      << "the next query would see fewer than it is promised";
  ASSERT_TRUE(session.trim(0, 20).isOk());
  pair.references[0].trim(20);
  pair.check();
  ASSERT_TRUE(pair.prefill(0, {1, 2, 3}));
  ASSERT_TRUE(session.trim(0, 0).isOk());
  pair.references[0] = pair.nothing();
  pair.check();
  ASSERT_TRUE(pair.prefill(0, {1, 2, 3}));
}

TEST(FarSession, OfDroppedPagesTheLastTokensAreShared) {
  Pair pair("workqueue", {0, 1, 0}, /*drops=*/true);
  ASSERT_TRUE(pair.prefill(0, std::vector<int>(30, 3)));
  Session &session = *pair.session;
  EXPECT_EQ(session.farHistory()->collapsed(0), 8);
  EXPECT_EQ(session.alias(1, 0, 19).message(),
            "slot 0: cannot share 19 tokens, outside 20..30; its first 8 are "
            "dropped");
  EXPECT_FALSE(session.alias(1, 0, 31).isOk());
  int32_t used = session.blockPager().usedPages();
  ASSERT_TRUE(session.alias(1, 0, 28).isOk());
  EXPECT_EQ(session.blockPager().usedPages(), used);
  EXPECT_EQ(session.length(1), 28);
  pair.references[1] = pair.references[0];
  pair.references[1].trim(28);
  ASSERT_TRUE(pair.decode({4, 5, -1, -1}));
  pair.check();
}

TEST(FarSession, AFailedStepIsCutOffAgain) {
  Pair pair("workqueue", {0, 2, 0});
  ASSERT_TRUE(pair.prefill(0, std::vector<int>(20, 3)));
  ASSERT_TRUE(pair.prefill(1, std::vector<int>(16, 5)));
  Session &session = *pair.session;
  std::vector<int32_t> tokens = {toy::tokenSkipsLayer, 4, -1, -1};
  EXPECT_EQ(session.decode(tokens, pair.out.data()).code(),
            StatusCode::Internal);
  for (int slot : {0, 1})
    pair.references[size_t(slot)].collapse();
  pair.check();
  ASSERT_TRUE(pair.decode({5, 6, -1, -1}));
  // The third chunk fails; by then tokens from before the call have collapsed.
  std::vector<int32_t> prompt(28, 7);
  prompt[20] = toy::tokenSkipsLayer;
  EXPECT_EQ(session.prefill(0, prompt, nullptr).code(), StatusCode::Internal);
  EXPECT_EQ(session.length(0), session.farHistory()->leastLength(0));
  EXPECT_GT(session.farHistory()->collapsed(0), 21);
  // An empty slot is empty again.
  EXPECT_EQ(session.prefill(2, prompt, nullptr).code(), StatusCode::Internal);
  EXPECT_EQ(session.length(2), 0);
  EXPECT_TRUE(session.blockPager().pages(2).empty());
  EXPECT_TRUE(session.blockPager().checkInvariants().isOk());
  ASSERT_TRUE(pair.prefill(2, {1, 2, 3}));
}

TEST(FarSession, StepsDoNotAllocate) {
  Pair pair("workqueue", {0, 2, 0});
  std::vector<int32_t> prompt(23, 5);
  std::vector<int32_t> tokens = {1, -1, 2, 3};
  int64_t before = allocations.load();
  for (int round = 0; round < 3; ++round) {
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_TRUE(pair.session->prefill(slot, prompt, nullptr).isOk());
    for (int i = 0; i < 20; ++i)
      ASSERT_TRUE(pair.session->decode(tokens, pair.out.data()).isOk());
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_TRUE(pair.session->release(slot).isOk());
  }
  EXPECT_EQ(allocations.load(), before);
}
