//===- PrefixIndex.h - Which histories start alike --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Finds the history that shares the longest prefix of whole pages with a
// prompt. Each page is known by a hash of all tokens up to its end, as in
// vLLM's automatic prefix caching, so that one look-up a page walks down the
// prefix. A hash is a hint: the caller compares the tokens.
//
// All memory is taken by create(). Adding, removing and finding take constant
// time a page.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SERVING_PREFIXINDEX_H
#define KVRM_RUNTIME_SERVING_PREFIXINDEX_H

#include "kvrm/runtime/support/Check.h"

#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

class PrefixIndex {
public:
  PrefixIndex() = default;
  /// For `histories` histories of up to `pages` pages of `pageTokens` tokens.
  PrefixIndex(int32_t histories, int32_t pages, int32_t pageTokens);

  struct Match {
    int32_t history = -1;
    int32_t pages = 0;
  };

  /// The history with the longest prefix in common with `tokens`, and how many
  /// whole pages that is if no two hashes are equal by chance.
  Match find(std::span<const int32_t> tokens) const;

  /// Adds the next page of a history.
  void add(int32_t history, std::span<const int32_t> page);
  /// Forgets all pages of a history.
  void remove(int32_t history);
  /// Pages that were added to a history.
  int32_t pages(int32_t history) const {
    return counts[static_cast<size_t>(history)];
  }

private:
  struct Node {
    uint64_t hash = 0;
    int32_t next = -1; ///< of the bucket's list
    int32_t previous = -1;
  };

  size_t bucketOf(uint64_t hash) const { return hash & (buckets.size() - 1); }
  int32_t lookUp(uint64_t hash) const;

  int32_t pagesPerHistory = 0;
  int32_t pageTokens = 0;
  std::vector<Node> nodes;      ///< [histories][pages]
  std::vector<int32_t> counts;  ///< [histories]
  std::vector<int32_t> buckets; ///< a power of two; first node or -1
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SERVING_PREFIXINDEX_H
