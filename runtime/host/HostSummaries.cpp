//===- HostSummaries.cpp - Far-history summaries in a host pool -*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/HostSummaries.h"
#include "kvrm/runtime/support/F8E4M3.h"

#include <algorithm>
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

/// Tokens of one page of one head, K or V: element d of token t at
/// data[t * tokenStride + d * elementStride].
template <typename Storage> struct PageView {
  Storage *data;
  int64_t tokenStride;
  int64_t elementStride;

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

/// Page `page` of head `head`, counted over layers, K and V.
static std::span<uint8_t> pageBytes(const HostPool &pool, int64_t head,
                                    int32_t page) {
  int64_t bytes = int64_t(pool.pageTokens) * pool.headDim *
                  kvrm_element_bytes(pool.element);
  int64_t offset = (head * pool.pages + page) * bytes;
  KVRM_CHECK(page >= 0 && page < pool.pages &&
                 offset + bytes <= static_cast<int64_t>(pool.bytes.size()),
             "pages lie in the pool");
  return pool.bytes.subspan(static_cast<size_t>(offset),
                            static_cast<size_t>(bytes));
}

template <typename Storage>
static PageView<Storage> viewOf(const HostPool &pool, int64_t head,
                                int32_t page) {
  bool isKey = head / pool.kvHeads % 2 == 0;
  auto *data = reinterpret_cast<Storage *>(pageBytes(pool, head, page).data());
  return isKey ? PageView<Storage>{data, 1, pool.pageTokens}
               : PageView<Storage>{data, pool.headDim, 1};
}

template <typename Element>
static void writeHead(const Task &task, int64_t head) {
  using Storage = Element::Storage;
  const HostPool &pool = task.pool;
  int32_t page = pool.pageTokens;
  auto source = viewOf<Storage>(pool, head, task.source);
  auto viewOfEntry = [&](int32_t entry) {
    return viewOf<Storage>(pool, head,
                           task.summaries[static_cast<size_t>(entry / page)]);
  };
  for (const SummaryWrite &write : task.writes) {
    auto target = viewOfEntry(write.entry);
    int32_t at = write.entry % page;
    if (write.mergeInto >= 0) {
      auto merged = viewOfEntry(write.mergeInto);
      int32_t into = write.mergeInto % page;
      for (int32_t d = 0; d < pool.headDim; ++d) {
        Storage &value = merged.at(into, d);
        value = Element::narrow(write.keep * Element::widen(value) +
                                write.add * Element::widen(target.at(at, d)));
      }
    }
    float share = 1 / static_cast<float>(write.tokens);
    for (int32_t d = 0; d < pool.headDim; ++d) {
      float sum = 0;
      for (int32_t t = 0; t < write.tokens; ++t)
        sum += Element::widen(source.at(write.firstToken + t, d));
      target.at(at, d) = Element::narrow(sum * share);
    }
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
