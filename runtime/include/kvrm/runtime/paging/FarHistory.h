//===- FarHistory.h - What becomes of tokens past a window ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Decides which pages of a history collapse and into which summary entries
// (KV-RM, arXiv 2605.09735: far-history summaries under a fixed interface). It
// keeps the counts and chooses; who moves the KV is HostSummaries.h or
// CudaSummaries.h, who moves the pages BlockPager.h.
//
// Before tokens are appended, whole pages collapse, oldest first, until the
// exact tokens and one more fit the window. A page becomes one entry, the mean
// key and the mean value of its tokens. When all entries are in use, two that
// follow each other in time are merged first, by weighted mean: the two that
// together stand for the fewest tokens, the oldest such pair. So entries cover
// the far history evenly.
//
// A history's first few tokens, its sinks, are entries of their own and never
// merge: attention leans on them whatever they say (StreamingLLM, arXiv
// 2309.17453), and a mean would take that away. If all entries are for sinks,
// the other tokens are dropped.
//
// All memory is taken by create(). A page costs time linear in the entries.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PAGING_FARHISTORY_H
#define KVRM_RUNTIME_PAGING_FARHISTORY_H

#include "kvrm/runtime/support/Check.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

/// What fixes far history for a session's life. Tokens, in whole pages.
struct FarShape {
  int32_t slots = 0;  ///< histories
  int32_t window = 0; ///< at least a page
  int32_t entries = 0;
  int32_t sinks = 0; ///< of the entries; all, or all but two and more
  int32_t pageTokens = 0;
};

/// One entry that a collapsing page makes. If `mergeInto` is set, entry `entry`
/// is first merged into that one, which becomes `keep` times itself and `add`
/// times `entry`.
struct SummaryWrite {
  int32_t entry = -1;
  int32_t firstToken = 0; ///< of the page: whose mean `entry` becomes
  int32_t tokens = 0;
  int32_t mergeInto = -1;
  float keep = 0;
  float add = 0;
};

class FarHistory {
public:
  /// Errors: InvalidArgument for a field out of range.
  static Expected<FarHistory> create(const FarShape &shape);

  const FarShape &shape() const { return bounds; }

  /// Tokens of the slot that are not exact any more, whole pages.
  int32_t collapsed(int32_t slot) const { return at(slot).collapsed; }
  /// Entries in use.
  int32_t inUse(int32_t slot) const { return at(slot).inUse; }
  /// Tokens that an entry stands for, 0 if it is not in use.
  int32_t tokensOf(int32_t slot, int32_t entry) const {
    return counts[index(slot, entry)];
  }
  /// Of all entries of the slot, as kvrm_descriptor_layout::summary_biases has
  /// them.
  std::span<const float> biases(int32_t slot) const {
    return {biasData.data() + index(slot, 0),
            static_cast<size_t>(bounds.entries)};
  }
  /// Pages at the front of the slot's table that hold entries.
  int32_t summaryPages(int32_t slot) const {
    return at(slot).collapsed > 0 ? bounds.entries / bounds.pageTokens : 0;
  }
  /// The tokens before position `collapsed` take so many places less in the
  /// table than they are; negative while there are fewer than entries.
  int32_t placesSaved(int32_t slot) const {
    return at(slot).collapsed - summaryPages(slot) * bounds.pageTokens;
  }

  /// Pages that must collapse before a slot with `exact` exact tokens takes
  /// more.
  int32_t pagesToCollapse(int32_t exact) const {
    return exact < bounds.window
               ? 0
               : (exact - bounds.window) / bounds.pageTokens + 1;
  }

  /// The fewest tokens that a slot may be cut to, but for none: with fewer a
  /// query would see less than the window promises (`#kvrm.far_history`).
  int32_t leastLength(int32_t slot) const {
    int32_t tokens = at(slot).collapsed;
    return tokens > 0 ? tokens + bounds.window - bounds.pageTokens : 0;
  }

  /// Pages that collapse leave nothing behind, so that the past of a history
  /// can be another's.
  bool dropsPages() const { return bounds.entries == 0; }
  /// Where pages are dropped: gives a slot that has none so many collapsed
  /// tokens, whole pages, which its other tokens follow.
  void setDropped(int32_t slot, int32_t tokens);

  /// Collapses the oldest exact page of the slot. Returns the entries that it
  /// makes, to be written in this order.
  std::span<const SummaryWrite> collapsePage(int32_t slot);

  /// Takes the last collapsePage() back, which was of this slot: its entries
  /// could not be written.
  void undoCollapse(int32_t slot);

  /// The slot starts anew.
  void forget(int32_t slot);

  /// Verifies that entries and tokens agree. For tests.
  Status checkInvariants() const;

private:
  struct Slot {
    int32_t collapsed = 0;
    int32_t inUse = 0;
  };

  FarHistory() = default;

  const Slot &at(int32_t slot) const {
    KVRM_CHECK(slot >= 0 && slot < bounds.slots, "slot in range");
    return slots[static_cast<size_t>(slot)];
  }
  size_t index(int32_t slot, int32_t entry) const {
    return static_cast<size_t>(slot) * static_cast<size_t>(bounds.entries) +
           static_cast<size_t>(entry);
  }
  SummaryWrite takeEntry(int32_t slot, int32_t firstToken, int32_t tokens);
  void setCount(int32_t slot, int32_t entry, int32_t tokens);

  FarShape bounds;
  std::vector<Slot> slots;
  std::vector<int32_t> counts;      ///< [slots][entries] tokens
  std::vector<int32_t> order;       ///< [slots][entries] those in use, by time
  std::vector<float> biasData;      ///< [slots][entries]
  std::vector<SummaryWrite> writes; ///< of one page

  /// What collapsePage() changed last, as it was before.
  struct Saved {
    int32_t slot = -1;
    Slot state;
    std::vector<int32_t> counts; ///< [entries]
    std::vector<int32_t> order;  ///< [entries]
  };
  Saved saved;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PAGING_FARHISTORY_H
