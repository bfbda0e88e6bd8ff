//===- PrefixIndex.cpp - Which histories start alike ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/PrefixIndex.h"
#include "kvrm/runtime/support/SplitMix64.h"

#include <bit>

using namespace kvrm;

PrefixIndex::PrefixIndex(int32_t histories, int32_t pages, int32_t pageTokens)
    : pagesPerHistory(pages), pageTokens(pageTokens) {
  KVRM_CHECK(histories > 0 && pages > 0 && pageTokens > 0,
             "sizes are positive");
  auto count = static_cast<size_t>(histories) * static_cast<size_t>(pages);
  nodes.resize(count);
  counts.resize(static_cast<size_t>(histories));
  buckets.assign(std::bit_ceil(count), -1);
}

/// The hash of a prefix from that of the pages before and its last page.
static uint64_t extend(uint64_t hash, std::span<const int32_t> page) {
  for (int32_t token : page)
    hash = SplitMix64::mix(hash + static_cast<uint32_t>(token));
  return hash;
}

int32_t PrefixIndex::lookUp(uint64_t hash) const {
  int32_t node = buckets[bucketOf(hash)];
  while (node >= 0 && nodes[static_cast<size_t>(node)].hash != hash)
    node = nodes[static_cast<size_t>(node)].next;
  return node;
}

PrefixIndex::Match PrefixIndex::find(std::span<const int32_t> tokens) const {
  Match match;
  if (nodes.empty())
    return match;
  auto page = static_cast<size_t>(pageTokens);
  uint64_t hash = 0;
  for (size_t end = page; end <= tokens.size(); end += page) {
    hash = extend(hash, tokens.subspan(end - page, page));
    int32_t node = lookUp(hash);
    if (node < 0)
      break;
    match = {node / pagesPerHistory, match.pages + 1};
  }
  return match;
}

void PrefixIndex::add(int32_t history, std::span<const int32_t> page) {
  KVRM_CHECK(page.size() == static_cast<size_t>(pageTokens),
             "whole pages are added");
  int32_t &count = counts[static_cast<size_t>(history)];
  KVRM_CHECK(count < pagesPerHistory, "a history has so many pages");
  int32_t index = history * pagesPerHistory + count;
  Node &node = nodes[static_cast<size_t>(index)];
  uint64_t before =
      count > 0 ? nodes[static_cast<size_t>(index) - 1].hash : uint64_t(0);
  node.hash = extend(before, page);
  int32_t &head = buckets[bucketOf(node.hash)];
  node.next = head;
  node.previous = -1;
  if (head >= 0)
    nodes[static_cast<size_t>(head)].previous = index;
  head = index;
  ++count;
}

void PrefixIndex::remove(int32_t history) {
  int32_t &count = counts[static_cast<size_t>(history)];
  while (count > 0) {
    --count;
    const Node &node = nodes[static_cast<size_t>(history) *
                                 static_cast<size_t>(pagesPerHistory) +
                             static_cast<size_t>(count)];
    if (node.next >= 0)
      nodes[static_cast<size_t>(node.next)].previous = node.previous;
    if (node.previous >= 0)
      nodes[static_cast<size_t>(node.previous)].next = node.next;
    else
      buckets[bucketOf(node.hash)] = node.next;
  }
}
