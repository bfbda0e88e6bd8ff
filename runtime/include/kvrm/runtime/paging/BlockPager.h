//===- BlockPager.h - Which physical pages hold which history ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The block pager maps the logical history of each slot to physical pages, as
// in vLLM's PagedAttention (arXiv 2309.06180): fixed-size pages, a block table
// a slot, a count a page, copy-on-write where two histories share one. It moves
// no KV itself: where a page must be copied it says so.
//
// Unlike a plain free list it keeps histories in long runs of adjacent pages,
// because a run, not a page, is what KV moves in (KV-RM, arXiv 2605.09735).
// Free pages form extents, maximal runs of them, kept with boundary tags in
// lists by power-of-two length. A history that grows takes the page after its
// last one if that is free, which is then the first page of an extent.
// Otherwise it starts a new run in the longest class of extents, at its middle:
// what lies before the extent is a history that may want to grow too. All of
// this is a constant number of memory accesses a page.
//
// All memory is taken by create(); no operation allocates, loops over the pool
// or leaves a failed operation half done.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PAGING_BLOCKPAGER_H
#define KVRM_RUNTIME_PAGING_BLOCKPAGER_H

#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

/// A page whose content the backend must copy, in all layers, K and V, all
/// heads, before the next step writes.
struct PageCopy {
  int32_t source = -1;
  int32_t target = -1;
  bool isNeeded() const { return target >= 0; }
};

/// One history to extend in an all-or-nothing batch.
struct AppendRequest {
  int32_t slot = -1;
  int32_t tokens = 0;
};

/// Sizes that fix a pager for its life.
struct PagerLimits {
  int32_t pages = 0;        ///< physical pages, 1..KVRM_MAX_POOL_PAGES
  int32_t slots = 0;        ///< histories, 1..KVRM_MAX_ROWS
  int32_t pagesPerSlot = 0; ///< block table, 1..KVRM_MAX_PAGES_PER_SLOT
  int32_t pageTokens = 0;   ///< tokens a page, 1..KVRM_MAX_PAGE_TOKENS
};

class BlockPager {
public:
  /// Errors: InvalidArgument for a limit out of range.
  static Expected<BlockPager> create(const PagerLimits &limits);

  /// Takes pages so that `slot` can hold `tokens` tokens in all. Later appends
  /// up to there need no page, but for at most one copy-on-write. Never
  /// shrinks. Errors: InvalidArgument, ResourceExhausted; then nothing changed.
  Status reserve(int32_t slot, int32_t tokens);

  /// The same with `taken`, free pages in this order, instead of pages of the
  /// pager's choice. For tests and benchmarks that need a pool in a certain
  /// state: takes time linear in the extents that the pages lie in. Errors:
  /// InvalidArgument; then nothing changed.
  Status reservePages(int32_t slot, std::span<const int32_t> taken);

  /// Says that the history of `slot` will grow to `tokens`. Takes no page: a
  /// new run of it will be chosen where the rest fits. Forgotten by release().
  void expect(int32_t slot, int32_t tokens);

  /// Extends the history of `slot` by `tokens` >= 0. If its last page is partly
  /// filled and shared, that page is replaced and `copy` says which to copy.
  /// Errors: InvalidArgument, ResourceExhausted; then nothing changed.
  Status append(int32_t slot, int32_t tokens, PageCopy &copy);

  /// Extends several different slots, all or none. `copies` has room for one a
  /// request; `copyCount` says how many are needed. The pages needed are
  /// counted exactly, also when several requests write into one shared page.
  Status appendAll(std::span<const AppendRequest> requests,
                   std::span<PageCopy> copies, int32_t &copyCount);

  /// Takes an append() or an appendAll() back whose step failed: cuts `slot` to
  /// `length` like trim(), and where its last page is the target of one of
  /// `copies`, puts the page back that it was copied from. Others still hold
  /// that one, as nothing came in between but undoing.
  void undoAppend(int32_t slot, int32_t length,
                  std::span<const PageCopy> copies);

  /// Makes the empty slot `target` share the first `tokens` tokens of `source`.
  /// Errors: InvalidArgument. Never needs a page.
  Status alias(int32_t target, int32_t source, int32_t tokens);

  /// Cuts a history to `length` tokens and gives up the pages behind, reserved
  /// ones too. Errors: InvalidArgument if `length` is longer than the history.
  Status trim(int32_t slot, int32_t length);

  /// Puts `pages` new pages before the others of `slot`, a run where there is
  /// one; its length grows by the tokens that fill them. Errors:
  /// InvalidArgument, ResourceExhausted; then nothing changed.
  Status insertFront(int32_t slot, int32_t pages);

  /// Takes `count` pages, full of tokens, out of the table of `slot` from index
  /// `first` on, and gives them up; what is behind moves up. Errors:
  /// InvalidArgument; then nothing changed.
  Status dropPages(int32_t slot, int32_t first, int32_t count);

  /// Gives up all pages of a slot.
  Status release(int32_t slot);

  /// Pages that append(slot, tokens) would take now.
  int32_t pagesNeeded(int32_t slot, int32_t tokens) const;
  /// Pages that appendAll(requests) would take now, if block tables had room:
  /// a far history may make that first. Errors: those of appendAll() but for
  /// tables that are full and ResourceExhausted.
  Expected<int64_t> pagesNeeded(std::span<const AppendRequest> requests);
  /// Whether the next token of `slot` would be written into a shared page.
  bool isCopyNeeded(int32_t slot) const;

  const PagerLimits &limits() const { return bounds; }
  int32_t length(int32_t slot) const { return at(slot).length; }
  /// Physical pages of a slot in order, those reserved ahead included.
  std::span<const int32_t> pages(int32_t slot) const {
    return {&tables[tableBegin(slot)], static_cast<size_t>(at(slot).pages)};
  }
  /// Pages that hold tokens of the slot.
  int32_t filledPages(int32_t slot) const { return pagesFor(length(slot)); }
  /// Changes whenever a table does otherwise than by growing at its end, so
  /// that a reader of tables knows what it may keep.
  uint64_t generation(int32_t slot) const { return at(slot).generation; }
  int32_t freePages() const { return freeCount; }
  int32_t usedPages() const { return bounds.pages - freeCount; }
  int32_t references(int32_t page) const;

  /// Verifies every invariant, in time linear in pool and tables: a page is in
  /// exactly one free extent or has a count equal to the tables that name it;
  /// extents are maximal; capacity is conserved; a page that a slot may write
  /// next without a copy is its own. For tests and debugging.
  Status checkInvariants() const;

private:
  struct Page {
    int32_t references = 0; ///< tables that name it; 0 = free
    int32_t extent = 0;     ///< at both ends of a free extent: its length
    int32_t next = -1;      ///< at an extent's first page: list of its class
    int32_t previous = -1;
  };
  struct Slot {
    int32_t length = 0;
    int32_t pages = 0;
    int32_t expected = 0; ///< pages that the history will have
    uint64_t generation = 0;
  };
  static constexpr int classes = 25; ///< floor(log2(length)) up to 2^24

  BlockPager() = default;

  const Slot &at(int32_t slot) const {
    KVRM_CHECK(slot >= 0 && slot < bounds.slots, "slot in range");
    return slots[static_cast<size_t>(slot)];
  }
  Slot &at(int32_t slot) {
    return const_cast<Slot &>(std::as_const(*this).at(slot));
  }
  Page &pageAt(int32_t page) { return pool[static_cast<size_t>(page)]; }
  const Page &pageAt(int32_t page) const {
    return pool[static_cast<size_t>(page)];
  }
  size_t tableBegin(int32_t slot) const {
    return static_cast<size_t>(slot) * static_cast<size_t>(bounds.pagesPerSlot);
  }
  int32_t pagesFor(int64_t tokens) const {
    return static_cast<int32_t>((tokens + bounds.pageTokens - 1) /
                                bounds.pageTokens);
  }
  Status checkSlot(int32_t slot) const;
  Status checkAppend(int32_t slot, int32_t tokens) const;
  Status checkGrowth(int32_t slot, int32_t tokens) const;
  void grow(int32_t slot, int32_t pages);
  PageCopy applyAppend(int32_t slot, int32_t tokens);
  int32_t takePage(int32_t preferred, int32_t wanted);
  void takeFrom(int32_t first, int32_t offset);
  void dropPage(int32_t page);
  void insertExtent(int32_t first, int32_t length);
  void removeExtent(int32_t first);

  PagerLimits bounds;
  int32_t freeCount = 0;
  std::vector<Page> pool;
  std::vector<Slot> slots;
  std::vector<int32_t> tables;  ///< [slots][pagesPerSlot], -1 = none
  std::vector<int32_t> writers; ///< [pages] scratch of appendAll, zero between
  std::vector<uint8_t> marked;  ///< [slots] scratch of appendAll, zero between
  std::array<int32_t, classes> lists{};
  uint32_t nonEmptyLists = 0;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PAGING_BLOCKPAGER_H
