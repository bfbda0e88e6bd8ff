//===- OutputCheck.cpp - Outputs of attention, computed again -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "OutputCheck.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <random>

using namespace kvrm;
using namespace kvrm::run;

/// Tokens of all (row, KV head) pairs that are computed on the host.
static constexpr int64_t checkedTokens = 1 << 17;

/// Row numbers: the longest, the shortest and the last, then all at random.
static std::vector<int32_t> rowOrder(std::span<const int32_t> lengths,
                                     uint64_t seed) {
  std::vector<int32_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(seed);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random() % i]);
  auto lengthOf = [&](int32_t row) {
    return lengths[static_cast<size_t>(row)];
  };
  order.insert(order.begin(), {std::ranges::max(order, {}, lengthOf),
                               std::ranges::min(order, {}, lengthOf),
                               static_cast<int32_t>(lengths.size()) - 1});
  return order;
}

/// As far as their tokens can be computed soon.
void OutputCheck::choosePairs(std::span<const int32_t> lengths) {
  pairs.clear();
  int32_t heads = gpu.info().kvHeads;
  int64_t left = checkedTokens;
  auto isThere = [&](int32_t row, int32_t head) {
    return std::ranges::any_of(pairs, [&](const Pair &pair) {
      return pair.row == row && pair.head == head;
    });
  };
  // A head of each row, then another of each.
  const std::vector<int32_t> order = rowOrder(lengths, seed);
  for (int32_t round = 0; round < heads; ++round)
    for (int32_t row : order) {
      int32_t head = (row + round * 3 + heads - 1) % heads;
      int32_t length = lengths[static_cast<size_t>(row)];
      if (isThere(row, head) || (!pairs.empty() && length > left))
        continue;
      Pair &pair = pairs.emplace_back();
      pair.row = row;
      pair.head = head;
      pair.length = length;
      left -= length;
    }
}

std::span<const int32_t> OutputCheck::pagesOf(const Pair &pair) const {
  return gpu.pager().pages(pair.row).first(
      static_cast<size_t>(gpu.pager().filledPages(pair.row)));
}

/// A copy for each run of pages that follow each other in the pool.
Status OutputCheck::readSide(const Pair &pair, bool isValue,
                             uint8_t *to) const {
  int32_t layer = gpu.shape().layers - 1;
  std::span<const int32_t> pages = pagesOf(pair);
  for (size_t at = 0; at < pages.size();) {
    size_t run = 1;
    while (at + run < pages.size() &&
           pages[at + run] == pages[at] + static_cast<int32_t>(run))
      ++run;
    DeviceSpan from = gpu.page({layer, isValue, pair.head, pages[at]});
    from.bytes = static_cast<int64_t>(run) * gpu.info().pageBytes();
    KVRM_TRY(gpu.stream().copyOut(to, from));
    to += from.bytes;
    at += run;
  }
  return Status::ok();
}

/// Brings the pages of all pairs to pinned memory.
Expected<const uint8_t *> OutputCheck::readPages() {
  int64_t total = 0;
  for (Pair &pair : pairs) {
    int64_t half = gpu.pager().filledPages(pair.row) * gpu.info().pageBytes();
    pair.keys = total;
    pair.values = total + half;
    total += 2 * half;
  }
  Expected<uint8_t *> memory = lab.pinned(total);
  KVRM_TRY(memory.status());
  for (const Pair &pair : pairs) {
    KVRM_TRY(readSide(pair, /*isValue=*/false, *memory + pair.keys));
    KVRM_TRY(readSide(pair, /*isValue=*/true, *memory + pair.values));
  }
  KVRM_TRY(gpu.synchronize());
  return *memory;
}

/// Brings pages, one behind the other, to [token][head_dim] numbers.
void OutputCheck::readPagesOf(const uint8_t *memory, size_t pages,
                              std::vector<float> &rows) const {
  const AttentionInfo &m = gpu.info();
  auto dim = static_cast<size_t>(m.headDim);
  auto tokens = static_cast<size_t>(m.pageTokens);
  auto pageBytes = static_cast<size_t>(m.pageBytes());
  auto elementBytes = static_cast<size_t>(kvrm_element_bytes(m.element)) * dim;
  auto scaleBytes = static_cast<size_t>(kvrm_scale_bytes(m.element));
  auto scales = static_cast<size_t>(m.pageShape().pageLayout().scales);
  rows.resize(pages * tokens * dim);
  std::vector<uint8_t> page(pageBytes), row(elementBytes + scaleBytes);
  for (size_t token = 0; token < pages * tokens; ++token) {
    size_t inPage = token % tokens;
    if (inPage == 0)
      unpackPage(m.pageShape(),
                 {memory + token / tokens * pageBytes, pageBytes}, page);
    std::memcpy(row.data(), &page[inPage * elementBytes], elementBytes);
    std::memcpy(row.data() + elementBytes,
                page.data() + scales + inPage * scaleBytes, scaleBytes);
    decodeRow(m.element, row, {&rows[token * dim], dim});
  }
}

void OutputCheck::compute(Pair &pair, const uint8_t *memory,
                          Sides &sides) const {
  const AttentionInfo &m = gpu.info();
  size_t pages = pagesOf(pair).size();
  for (size_t side = 0; side < 2; ++side)
    readPagesOf(memory + (side == 0 ? pair.keys : pair.values), pages,
                sides[side]);
  auto group = static_cast<size_t>(m.groupHeads());
  auto dim = static_cast<size_t>(m.headDim);
  size_t firstHead = static_cast<size_t>(pair.row) *
                         static_cast<size_t>(m.queries) *
                         static_cast<size_t>(m.heads) +
                     static_cast<size_t>(pair.head) * group;
  std::vector<const uint16_t *> ownQueries;
  for (size_t g = 0; g < group; ++g)
    ownQueries.push_back(&queries[(firstHead + g) * dim]);
  std::vector<int32_t> visible(group, pair.length);
  pair.wanted.resize(group * dim);
  attendReference({m.io, m.headDim, sides[0], sides[1], ownQueries, visible},
                  pair.wanted);
}

Status OutputCheck::prepare(std::span<const int32_t> lengths) {
  rows = lengths.size();
  choosePairs(lengths);
  Expected<const uint8_t *> memory = readPages();
  KVRM_TRY(memory.status());

  struct Context {
    OutputCheck &check;
    const uint8_t *memory;
    std::atomic<size_t> next{0};
  } context{*this, *memory};
  auto work = [](void *opaque, int32_t) {
    auto &shared = *static_cast<Context *>(opaque);
    std::vector<Pair> &pairs = shared.check.pairs;
    Sides sides;
    for (size_t i; (i = shared.next++) < pairs.size();)
      shared.check.compute(pairs[i], shared.memory, sides);
  };
  lab.threads().run(work, &context);
  return Status::ok();
}

Expected<ErrorStats> OutputCheck::compare() const {
  const AttentionInfo &m = gpu.info();
  DeviceSpan span = gpu.tensor(AttentionTensor::Out, gpu.shape().layers - 1);
  std::vector<uint16_t> out(static_cast<size_t>(span.bytes / 2));
  KVRM_TRY(gpu.read({reinterpret_cast<uint8_t *>(out.data()),
                     static_cast<size_t>(span.bytes)},
                    span));
  ErrorStats stats;
  auto outputElements =
      static_cast<size_t>(m.heads) * static_cast<size_t>(m.headDim);
  auto rowElements = outputElements * static_cast<size_t>(m.queries);
  // No output may be left as it was, sampled or not.
  for (size_t row = 0; row < rows; ++row)
    for (size_t i = 0; i < outputElements; ++i)
      stats.poisoned += out[row * rowElements + i] == 0xffff;
  if (stats.poisoned > 0)
    return stats;
  for (const Pair &pair : pairs) {
    size_t at = static_cast<size_t>(pair.row) * rowElements +
                static_cast<size_t>(pair.head * m.groupHeads() * m.headDim);
    stats.add(m.io, {&out[at], pair.wanted.size()}, pair.wanted);
  }
  return stats;
}
