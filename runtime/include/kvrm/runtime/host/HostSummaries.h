//===- HostSummaries.h - Far-history summaries in a host pool ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writes the summary entries that FarHistory.h decides on: means of keys and
// values, in float and rounded back to the pool's element, in all layers and
// heads, shared out over the workers. Entries lie in pages like tokens, keys
// transposed (see abi.h).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_HOST_HOSTSUMMARIES_H
#define KVRM_RUNTIME_HOST_HOSTSUMMARIES_H

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/paging/FarHistory.h"

#include <cstdint>
#include <span>

namespace kvrm {

/// A host pool: where it is and what it holds.
struct HostPool {
  std::span<uint8_t> bytes; ///< [layer][K or V][kv_head][page]
  int32_t layers = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;
  int32_t pageTokens = 0;
  int32_t pages = 0;
  kvrm_element element = KVRM_F16;
};

/// Writes zeros to `pages`: entries that are not in use must be finite.
void clearPages(const HostPool &pool, std::span<const int32_t> pages,
                ThreadPool &threads);

/// Makes the entries `writes`, in order, out of the tokens of page `source`.
/// Entry e is token e % page_tokens of page `summaries[e / page_tokens]`.
void writeSummaries(const HostPool &pool, std::span<const SummaryWrite> writes,
                    int32_t source, std::span<const int32_t> summaries,
                    ThreadPool &threads);

} // namespace kvrm

#endif // KVRM_RUNTIME_HOST_HOSTSUMMARIES_H
