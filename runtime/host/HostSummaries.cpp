//===- HostSummaries.cpp - Far-history summaries in a host pool -*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/HostSummaries.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/support/F8E4M3.h"
#include "kvrm/runtime/support/ScaledCodes.h"

#include <algorithm>
#include <array>
#include <bit>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Elements
//===----------------------------------------------------------------------===//

namespace {

/// IEEE half precision, whatever the CPU has instructions for.
struct F16 {
  using Storage = uint16_t;
  static float widen(uint16_t half) {
    uint32_t bits = uint32_t(half & 0x7fff) << 13;
    // Scaling makes numbers of subnormals as well; infinities and NaN stay.
    float value = bits >= 0x0f800000 ? std::bit_cast<float>(bits | 0x7f800000)
                                     : std::bit_cast<float>(bits) * 0x1p112f;
    return (half & 0x8000) != 0 ? -value : value;
  }
  /// To nearest, ties to even.
  static uint16_t narrow(float value) {
    auto bits = std::bit_cast<uint32_t>(value);
    uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits >= 0x47800000) // 65536 and more, infinities, NaN
      return static_cast<uint16_t>(sign |
                                   (bits > 0x7f800000 ? 0x7e00 : 0x7c00));
    if (bits < 0x38800000) { // subnormal: the addition rounds
      float shifted = std::bit_cast<float>(bits) + 0.5f;
      return static_cast<uint16_t>(
          sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
    }
    bits += 0xc8000fff + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | bits >> 13);
  }
};

struct BF16 {
  using Storage = uint16_t;
  static float widen(uint16_t value) {
    return std::bit_cast<float>(uint32_t(value) << 16);
  }
  static uint16_t narrow(float value) {
    auto bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
      return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
};

struct F8E4M3 {
  using Storage = uint8_t;
  static float widen(uint8_t value) { return f8E4M3ToFloat(value); }
  static uint8_t narrow(float value) { return floatToF8E4M3(value); }
};

struct Int8 {
  using Storage = int8_t;
};

/// A row of one token.
using Row = std::array<float, KVRM_MAX_HEAD_DIM>;

/// Tokens of one page of one head, K or V: element d of token t at
/// data[t * tokenStride + d * elementStride].
template <typename Element> struct PageView {
  using Storage = Element::Storage;
  static constexpr bool isScaled = std::is_same_v<Element, Int8>;

  Storage *data;
  int64_t tokenStride;
  int64_t elementStride;
  uint16_t *scales; ///< of elements that have some

  float value(int64_t token, int64_t d) const {
    if constexpr (isScaled)
      return static_cast<float>(at(token, d)) * scaleToFloat(scales[token]);
    else
      return Element::widen(at(token, d));
  }
  void store(int64_t token, std::span<const float> row) const {
    if constexpr (isScaled)
      scales[token] = scaleOf(row);
    for (size_t d = 0; d < row.size(); ++d) {
      Storage &to = at(token, static_cast<int64_t>(d));
      if constexpr (isScaled)
        to = scaledCode(row[d], scales[token]);
      else
        to = Element::narrow(row[d]);
    }
  }

private:
  Storage &at(int64_t token, int64_t d) const {
    return data[token * tokenStride + d * elementStride];
  }
};

/// What the workers share.
struct Task {
  const HostPool &pool;
  std::span<const SummaryWrite> writes;
  int32_t source;
  std::span<const int32_t> summaries; ///< pages
};

} // namespace

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

static int64_t headsOf(const HostPool &pool) {
  return int64_t(pool.layers) * 2 * pool.kvHeads;
}

static kvrm_page_layout layoutOf(const HostPool &pool) {
  return kvrm_page_layout_of(pool.pageTokens, pool.headDim, pool.element);
}

/// Page `page` of head `head`, counted over layers, K and V.
static std::span<uint8_t> pageBytes(const HostPool &pool, int64_t head,
                                    int32_t page) {
  int64_t bytes = layoutOf(pool).bytes;
  int64_t offset = (head * pool.pages + page) * bytes;
  KVRM_CHECK(page >= 0 && page < pool.pages &&
                 offset + bytes <= static_cast<int64_t>(pool.bytes.size()),
             "pages lie in the pool");
  return pool.bytes.subspan(static_cast<size_t>(offset),
                            static_cast<size_t>(bytes));
}

template <typename Element>
static PageView<Element> viewOf(const HostPool &pool, int64_t head,
                                int32_t page) {
  bool isKey = head / pool.kvHeads % 2 == 0;
  uint8_t *bytes = pageBytes(pool, head, page).data();
  auto *data = reinterpret_cast<Element::Storage *>(bytes);
  auto *scales = reinterpret_cast<uint16_t *>(bytes + layoutOf(pool).scales);
  return isKey ? PageView<Element>{data, 1, pool.pageTokens, scales}
               : PageView<Element>{data, pool.headDim, 1, scales};
}

template <typename Element>
static void writeHead(const Task &task, int64_t head) {
  const HostPool &pool = task.pool;
  int32_t page = pool.pageTokens;
  auto source = viewOf<Element>(pool, head, task.source);
  auto viewOfEntry = [&](int32_t entry) {
    return viewOf<Element>(pool, head,
                           task.summaries[static_cast<size_t>(entry / page)]);
  };
  Row values;
  std::span<float> row(values.data(), static_cast<size_t>(pool.headDim));
  for (const SummaryWrite &write : task.writes) {
    auto target = viewOfEntry(write.entry);
    int32_t at = write.entry % page;
    if (write.mergeInto >= 0) {
      auto merged = viewOfEntry(write.mergeInto);
      int32_t into = write.mergeInto % page;
      for (int32_t d = 0; d < pool.headDim; ++d)
        values[static_cast<size_t>(d)] = write.keep * merged.value(into, d) +
                                         write.add * target.value(at, d);
      merged.store(into, row);
    }
    float share = 1 / static_cast<float>(write.tokens);
    for (int32_t d = 0; d < pool.headDim; ++d) {
      float sum = 0;
      for (int32_t t = 0; t < write.tokens; ++t)
        sum += source.value(write.firstToken + t, d);
      values[static_cast<size_t>(d)] = sum * share;
    }
    target.store(at, row);
  }
}

static void writeHead(const Task &task, int64_t head) {
  switch (task.pool.element) {
  case KVRM_F16:
    return writeHead<F16>(task, head);
  case KVRM_BF16:
    return writeHead<BF16>(task, head);
  case KVRM_F8E4M3:
    return writeHead<F8E4M3>(task, head);
  case KVRM_INT8:
    return writeHead<Int8>(task, head);
  }
}

void kvrm::clearPages(const HostPool &pool, std::span<const int32_t> pages,
                      ThreadPool &threads) {
  Task task{pool, {}, -1, pages};
  threads.parallelFor(
      headsOf(pool),
      [](void *context, int64_t begin, int64_t end) {
        auto &job = *static_cast<Task *>(context);
        for (int64_t head = begin; head < end; ++head)
          for (int32_t page : job.summaries)
            std::ranges::fill(pageBytes(job.pool, head, page), 0);
      },
      &task);
}

void kvrm::writeSummaries(const HostPool &pool,
                          std::span<const SummaryWrite> writes, int32_t source,
                          std::span<const int32_t> summaries,
                          ThreadPool &threads) {
  if (writes.empty())
    return;
  Task task{pool, writes, source, summaries};
  threads.parallelFor(
      headsOf(pool),
      [](void *context, int64_t begin, int64_t end) {
        auto &job = *static_cast<Task *>(context);
        for (int64_t head = begin; head < end; ++head)
          writeHead(job, head);
      },
      &task);
}
