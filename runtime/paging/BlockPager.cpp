//===- BlockPager.cpp - Which physical pages hold which history -*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/abi/limits.h"

#include <algorithm>
#include <bit>

using namespace kvrm;

static int classOf(int32_t length) {
  return std::bit_width(static_cast<uint32_t>(length)) - 1;
}

Expected<BlockPager> BlockPager::create(const PagerLimits &limits) {
  KVRM_TRY(checkRange("pager: pages", limits.pages, 1, KVRM_MAX_POOL_PAGES));
  KVRM_TRY(checkRange("pager: slots", limits.slots, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkRange("pager: pagesPerSlot", limits.pagesPerSlot, 1,
                      KVRM_MAX_PAGES_PER_SLOT));
  KVRM_TRY(checkRange("pager: pageTokens", limits.pageTokens, 1,
                      KVRM_MAX_PAGE_TOKENS));
  BlockPager pager;
  pager.bounds = limits;
  pager.freeCount = limits.pages;
  pager.pool.resize(static_cast<size_t>(limits.pages));
  pager.slots.resize(static_cast<size_t>(limits.slots));
  pager.tables.assign(static_cast<size_t>(limits.slots) *
                          static_cast<size_t>(limits.pagesPerSlot),
                      -1);
  pager.writers.resize(static_cast<size_t>(limits.pages));
  pager.marked.resize(static_cast<size_t>(limits.slots));
  pager.lists.fill(-1);
  pager.insertExtent(0, limits.pages);
  return pager;
}

//===----------------------------------------------------------------------===//
// Free extents
//===----------------------------------------------------------------------===//

void BlockPager::insertExtent(int32_t first, int32_t length) {
  KVRM_CHECK(length > 0 && first >= 0 && first + length <= bounds.pages,
             "extent lies in the pool");
  pageAt(first).extent = length;
  pageAt(first + length - 1).extent = length;
  int list = classOf(length);
  int32_t &head = lists[static_cast<size_t>(list)];
  pageAt(first).next = head;
  pageAt(first).previous = -1;
  if (head >= 0)
    pageAt(head).previous = first;
  head = first;
  nonEmptyLists |= 1u << list;
}

void BlockPager::removeExtent(int32_t first) {
  const Page &page = pageAt(first);
  KVRM_CHECK(page.references == 0 && page.extent > 0, "page heads an extent");
  int list = classOf(page.extent);
  if (page.next >= 0)
    pageAt(page.next).previous = page.previous;
  if (page.previous >= 0) {
    pageAt(page.previous).next = page.next;
  } else {
    int32_t &head = lists[static_cast<size_t>(list)];
    KVRM_CHECK(head == first, "extent is in the list of its class");
    head = page.next;
    if (head < 0)
      nonEmptyLists &= ~(1u << list);
  }
}

/// Takes `preferred` if it is free, else the start of a new run that `wanted`
/// pages would like to fit in.
int32_t BlockPager::takePage(int32_t preferred, int32_t wanted) {
  KVRM_CHECK(freeCount > 0, "callers count pages before they take them");
  int32_t first = -1;
  int32_t offset = 0;
  if (preferred >= 0 && preferred < bounds.pages &&
      pageAt(preferred).references == 0) {
    // The page before it is somebody's, so it is the first of its extent.
    KVRM_CHECK(preferred > 0 && pageAt(preferred - 1).references > 0,
               "a preferred page follows one in use");
    first = preferred;
  } else {
    KVRM_CHECK(nonEmptyLists != 0, "free pages are in lists");
    int list = std::bit_width(nonEmptyLists) - 1;
    first = lists[static_cast<size_t>(list)];
    // Leave the pages after somebody's last page to that history, as far as
    // the run that is wanted now still fits.
    int32_t length = pageAt(first).extent;
    if (first > 0)
      offset = std::min(length / 2, std::max(length - wanted, 0));
  }
  takeFrom(first, offset);
  return first + offset;
}

/// Takes a page of the extent at `first`.
void BlockPager::takeFrom(int32_t first, int32_t offset) {
  int32_t length = pageAt(first).extent;
  removeExtent(first);
  if (offset > 0)
    insertExtent(first, offset);
  int32_t page = first + offset;
  int32_t rest = length - offset - 1;
  if (rest > 0)
    insertExtent(page + 1, rest);
  KVRM_CHECK(pageAt(page).references == 0, "no page has two first owners");
  pageAt(page).references = 1;
  --freeCount;
}

/// One table less names the page; frees it, joined to its free neighbours, when
/// that was the last.
void BlockPager::dropPage(int32_t page) {
  KVRM_CHECK(page >= 0 && page < bounds.pages, "page in range");
  KVRM_CHECK(pageAt(page).references > 0, "page is in use");
  if (--pageAt(page).references > 0)
    return;
  int32_t first = page;
  int32_t length = 1;
  if (page > 0 && pageAt(page - 1).references == 0) {
    first = page - pageAt(page - 1).extent;
    length += pageAt(page - 1).extent;
    removeExtent(first);
  }
  if (page + 1 < bounds.pages && pageAt(page + 1).references == 0) {
    length += pageAt(page + 1).extent;
    removeExtent(page + 1);
  }
  insertExtent(first, length);
  ++freeCount;
  KVRM_CHECK(freeCount <= bounds.pages, "capacity is conserved");
}

//===----------------------------------------------------------------------===//
// Operations
//===----------------------------------------------------------------------===//

Status BlockPager::checkSlot(int32_t slot) const {
  if (slot < 0 || slot >= bounds.slots)
    return invalidArgument("slot ", slot, " is outside 0..", bounds.slots - 1);
  return Status::ok();
}

Status BlockPager::checkAppend(int32_t slot, int32_t tokens) const {
  KVRM_TRY(checkSlot(slot));
  if (tokens < 0)
    return invalidArgument("slot ", slot, ": cannot append ", tokens,
                           " tokens");
  return Status::ok();
}

Status BlockPager::checkGrowth(int32_t slot, int32_t tokens) const {
  KVRM_TRY(checkAppend(slot, tokens));
  int64_t capacity = int64_t(bounds.pagesPerSlot) * bounds.pageTokens;
  int64_t length = int64_t(at(slot).length) + tokens;
  if (length > capacity)
    return invalidArgument("slot ", slot, ": ", length,
                           " tokens exceed the block table's ", capacity);
  return Status::ok();
}

bool BlockPager::isCopyNeeded(int32_t slot) const {
  int32_t length = at(slot).length;
  if (length % bounds.pageTokens == 0)
    return false;
  int32_t page = tables[tableBegin(slot) +
                        static_cast<size_t>(length / bounds.pageTokens)];
  return pageAt(page).references > 1;
}

int32_t BlockPager::pagesNeeded(int32_t slot, int32_t tokens) const {
  KVRM_CHECK(tokens >= 0, "tokens are not negative");
  if (tokens == 0)
    return 0;
  int32_t grown = pagesFor(int64_t(at(slot).length) + tokens) - at(slot).pages;
  return std::max(grown, 0) + (isCopyNeeded(slot) ? 1 : 0);
}

/// Takes pages until the table of `slot` has `pages`.
void BlockPager::grow(int32_t slot, int32_t pages) {
  Slot &state = at(slot);
  KVRM_CHECK(pages <= bounds.pagesPerSlot, "table has room");
  int32_t *table = &tables[tableBegin(slot)];
  while (state.pages < pages) {
    int32_t preferred = state.pages > 0 ? table[state.pages - 1] + 1 : -1;
    KVRM_CHECK(table[state.pages] == -1, "table entry is free");
    table[state.pages] =
        takePage(preferred, std::max(pages, state.expected) - state.pages);
    ++state.pages;
  }
}

Status BlockPager::reserve(int32_t slot, int32_t tokens) {
  KVRM_TRY(checkSlot(slot));
  int64_t capacity = int64_t(bounds.pagesPerSlot) * bounds.pageTokens;
  if (tokens < 0 || tokens > capacity)
    return invalidArgument("slot ", slot, ": cannot reserve ", tokens,
                           " tokens, outside 0..", capacity);
  int32_t pages = pagesFor(tokens);
  if (pages - at(slot).pages > freeCount)
    return {StatusCode::ResourceExhausted, "out of KV pages"};
  grow(slot, pages);
  return Status::ok();
}

void BlockPager::expect(int32_t slot, int32_t tokens) {
  KVRM_CHECK(tokens >= 0, "tokens are not negative");
  at(slot).expected = std::min(pagesFor(tokens), bounds.pagesPerSlot);
}

Status BlockPager::reservePages(int32_t slot, std::span<const int32_t> taken) {
  KVRM_TRY(checkSlot(slot));
  Slot &state = at(slot);
  if (taken.size() > static_cast<size_t>(bounds.pagesPerSlot - state.pages))
    return invalidArgument("slot ", slot, ": ", taken.size(), " pages after ",
                           state.pages, " exceed the block table's ",
                           bounds.pagesPerSlot);
  Status status;
  size_t checked = 0;
  for (int32_t page : taken) {
    if (page < 0 || page >= bounds.pages)
      status =
          invalidArgument("page ", page, " is outside 0..", bounds.pages - 1);
    else if (pageAt(page).references > 0 || writers[static_cast<size_t>(page)])
      status = invalidArgument("page ", page, " is not free");
    if (!status.isOk())
      break;
    writers[static_cast<size_t>(page)] = 1;
    ++checked;
  }
  for (int32_t page : taken.first(checked))
    writers[static_cast<size_t>(page)] = 0;
  KVRM_TRY(status);
  int32_t *table = &tables[tableBegin(slot)];
  for (int32_t page : taken) {
    int32_t first = page;
    while (first > 0 && pageAt(first - 1).references == 0)
      --first;
    takeFrom(first, page - first);
    table[state.pages++] = page;
  }
  return Status::ok();
}

PageCopy BlockPager::applyAppend(int32_t slot, int32_t tokens) {
  PageCopy copy;
  if (tokens == 0)
    return copy;
  Slot &state = at(slot);
  if (isCopyNeeded(slot)) {
    size_t index = static_cast<size_t>(state.length / bounds.pageTokens);
    int32_t *table = &tables[tableBegin(slot)];
    copy.source = table[index];
    int32_t wanted =
        std::max(pagesFor(int64_t(state.length) + tokens), state.expected) -
        static_cast<int32_t>(index);
    copy.target = takePage(index > 0 ? table[index - 1] + 1 : -1, wanted);
    dropPage(copy.source);
    KVRM_CHECK(pageAt(copy.source).references > 0,
               "a page is copied only while another names it");
    table[index] = copy.target;
    ++state.generation;
  }
  grow(slot, pagesFor(int64_t(state.length) + tokens));
  // No two writers: the pages that the new tokens go to are this slot's alone.
  KVRM_CHECK(
      pageAt(tables[tableBegin(slot) +
                    static_cast<size_t>(state.length / bounds.pageTokens)])
              .references == 1,
      "a page has one writer");
  state.length += tokens;
  return copy;
}

Status BlockPager::append(int32_t slot, int32_t tokens, PageCopy &copy) {
  copy = PageCopy();
  KVRM_TRY(checkGrowth(slot, tokens));
  if (pagesNeeded(slot, tokens) > freeCount)
    return {StatusCode::ResourceExhausted, "out of KV pages"};
  copy = applyAppend(slot, tokens);
  return Status::ok();
}

Expected<int64_t>
BlockPager::pagesNeeded(std::span<const AppendRequest> requests) {
  // Refuse what cannot be, and count pages exactly. Of the rows that write into
  // one page, the last is left alone with it if no other table names it, and
  // needs no copy.
  Status status;
  int64_t needed = 0;
  size_t checked = 0;
  for (const AppendRequest &request : requests) {
    status = checkAppend(request.slot, request.tokens);
    if (!status.isOk())
      break;
    uint8_t &mark = marked[static_cast<size_t>(request.slot)];
    if (mark) {
      status = invalidArgument("slot ", request.slot, " is appended to twice");
      break;
    }
    mark = 1;
    ++checked;
    if (request.tokens == 0)
      continue;
    const Slot &state = at(request.slot);
    int64_t grown = pagesFor(int64_t(state.length) + request.tokens);
    needed += std::max<int64_t>(grown - state.pages, 0);
    if (isCopyNeeded(request.slot)) {
      int32_t page =
          tables[tableBegin(request.slot) +
                 static_cast<size_t>(state.length / bounds.pageTokens)];
      if (++writers[static_cast<size_t>(page)] < pageAt(page).references)
        ++needed;
    }
  }
  for (const AppendRequest &request : requests.first(checked)) {
    marked[static_cast<size_t>(request.slot)] = 0;
    int32_t index = at(request.slot).length / bounds.pageTokens;
    if (index < at(request.slot).pages)
      writers[static_cast<size_t>(
          tables[tableBegin(request.slot) + static_cast<size_t>(index)])] = 0;
  }
  KVRM_TRY(status);
  return needed;
}

Status BlockPager::appendAll(std::span<const AppendRequest> requests,
                             std::span<PageCopy> copies, int32_t &copyCount) {
  copyCount = 0;
  KVRM_CHECK(copies.size() >= requests.size(), "one copy a request has room");
  for (const AppendRequest &request : requests)
    KVRM_TRY(checkGrowth(request.slot, request.tokens));
  Expected<int64_t> counted = pagesNeeded(requests);
  KVRM_TRY(counted.status());
  [[maybe_unused]] int64_t needed = *counted;
  if (needed > freeCount)
    return {StatusCode::ResourceExhausted, "out of KV pages"};

  [[maybe_unused]] int32_t freeBefore = freeCount;
  for (const AppendRequest &request : requests) {
    PageCopy copy = applyAppend(request.slot, request.tokens);
    if (copy.isNeeded())
      copies[static_cast<size_t>(copyCount++)] = copy;
  }
  KVRM_CHECK(freeBefore - freeCount == needed, "pages were counted exactly");
  return Status::ok();
}

Status BlockPager::alias(int32_t target, int32_t source, int32_t tokens) {
  KVRM_TRY(checkSlot(target));
  KVRM_TRY(checkSlot(source));
  if (target == source)
    return invalidArgument("slot ", target, " cannot share with itself");
  if (at(target).pages != 0)
    return invalidArgument("slot ", target, " is not empty");
  if (tokens < 0 || tokens > at(source).length)
    return invalidArgument("slot ", source, ": cannot share ", tokens,
                           " tokens, outside 0..", at(source).length);
  Slot &state = at(target);
  const int32_t *from = &tables[tableBegin(source)];
  int32_t *to = &tables[tableBegin(target)];
  int32_t pages = pagesFor(tokens);
  for (int32_t i = 0; i < pages; ++i) {
    KVRM_CHECK(pageAt(from[i]).references > 0 &&
                   pageAt(from[i]).references < bounds.slots,
               "a page has at most one table a slot");
    ++pageAt(from[i]).references;
    to[i] = from[i];
  }
  state.pages = pages;
  state.length = tokens;
  ++state.generation;
  return Status::ok();
}

Status BlockPager::trim(int32_t slot, int32_t length) {
  KVRM_TRY(checkSlot(slot));
  Slot &state = at(slot);
  if (length < 0 || length > state.length)
    return invalidArgument("slot ", slot, ": cannot trim to ", length,
                           " tokens, outside 0..", state.length);
  int32_t keep = pagesFor(length);
  int32_t *table = &tables[tableBegin(slot)];
  if (state.pages > keep)
    ++state.generation;
  while (state.pages > keep) {
    --state.pages;
    dropPage(table[state.pages]);
    table[state.pages] = -1;
  }
  state.length = length;
  return Status::ok();
}

void BlockPager::undoAppend(int32_t slot, int32_t length,
                            std::span<const PageCopy> copies) {
  Status trimmed = trim(slot, length);
  KVRM_CHECK(trimmed.isOk(), "a history can be cut to what it was");
  Slot &state = at(slot);
  if (state.pages == 0)
    return;
  int32_t &page =
      tables[tableBegin(slot) + static_cast<size_t>(state.pages) - 1];
  auto copy = std::ranges::find(copies, page, &PageCopy::target);
  if (copy == copies.end())
    return;
  KVRM_CHECK(pageAt(copy->source).references > 0,
             "a page that was copied is still held");
  dropPage(page);
  page = copy->source;
  ++pageAt(page).references;
  ++state.generation;
}

Status BlockPager::insertFront(int32_t slot, int32_t pages) {
  KVRM_TRY(checkSlot(slot));
  Slot &state = at(slot);
  if (pages < 0 || pages > bounds.pagesPerSlot - state.pages)
    return invalidArgument("slot ", slot, ": cannot put ", pages,
                           " pages before ", state.pages,
                           ", the block table has ", bounds.pagesPerSlot);
  if (pages > freeCount)
    return {StatusCode::ResourceExhausted, "out of KV pages"};
  if (pages == 0)
    return Status::ok();
  int32_t *table = &tables[tableBegin(slot)];
  std::copy_backward(table, table + state.pages, table + state.pages + pages);
  for (int32_t i = 0; i < pages; ++i)
    table[i] = takePage(i > 0 ? table[i - 1] + 1 : -1, pages - i);
  state.pages += pages;
  state.length += pages * bounds.pageTokens;
  ++state.generation;
  return Status::ok();
}

Status BlockPager::dropPages(int32_t slot, int32_t first, int32_t count) {
  KVRM_TRY(checkSlot(slot));
  Slot &state = at(slot);
  int32_t full = state.length / bounds.pageTokens;
  if (first < 0 || count < 0 || count > full - first)
    return invalidArgument("slot ", slot, ": cannot drop ", count,
                           " pages from ", first, " on, ", full, " are full");
  if (count == 0)
    return Status::ok();
  int32_t *table = &tables[tableBegin(slot)];
  for (int32_t i = first; i < first + count; ++i)
    dropPage(table[i]);
  std::copy(table + first + count, table + state.pages, table + first);
  std::fill(table + state.pages - count, table + state.pages, -1);
  state.pages -= count;
  state.length -= count * bounds.pageTokens;
  ++state.generation;
  return Status::ok();
}

Status BlockPager::release(int32_t slot) {
  KVRM_TRY(checkSlot(slot));
  at(slot).expected = 0;
  return trim(slot, 0);
}

int32_t BlockPager::references(int32_t page) const {
  KVRM_CHECK(page >= 0 && page < bounds.pages, "page in range");
  return pageAt(page).references;
}

//===----------------------------------------------------------------------===//
// Invariants
//===----------------------------------------------------------------------===//

Status BlockPager::checkInvariants() const {
  auto broken = [](const auto &...parts) {
    return makeError(StatusCode::Internal, "pager: ", parts...);
  };
  std::vector<int32_t> counts(pool.size());
  for (int32_t slot = 0; slot < bounds.slots; ++slot) {
    const Slot &state = at(slot);
    if (state.pages < pagesFor(state.length) ||
        state.pages > bounds.pagesPerSlot)
      return broken("slot ", slot, " has ", state.pages, " pages for ",
                    state.length, " tokens");
    for (int32_t i = 0; i < bounds.pagesPerSlot; ++i) {
      int32_t page = tables[tableBegin(slot) + static_cast<size_t>(i)];
      if (i >= state.pages) {
        if (page != -1)
          return broken("slot ", slot, " names page ", page, " past its end");
        continue;
      }
      if (page < 0 || page >= bounds.pages)
        return broken("slot ", slot, " names page ", page);
      ++counts[static_cast<size_t>(page)];
      if (i >= pagesFor(state.length) && pageAt(page).references != 1)
        return broken("reserved page ", page, " is shared");
    }
  }
  int32_t freeSeen = 0;
  for (int32_t page = 0; page < bounds.pages; ++page) {
    if (pageAt(page).references != counts[static_cast<size_t>(page)])
      return broken("page ", page, " has count ", pageAt(page).references,
                    " but ", counts[static_cast<size_t>(page)], " tables");
    freeSeen += pageAt(page).references == 0;
  }
  if (freeSeen != freeCount)
    return broken(freeSeen, " pages are free, ", freeCount, " are counted");
  int32_t listed = 0;
  for (int list = 0; list < classes; ++list) {
    int32_t previous = -1;
    int32_t first = lists[static_cast<size_t>(list)];
    if (((nonEmptyLists >> list) & 1) != (first >= 0 ? 1u : 0u))
      return broken("list ", list, " and its bit differ");
    for (; first >= 0; previous = first, first = pageAt(first).next) {
      int32_t length = pageAt(first).extent;
      if (length < 1 || classOf(length) != list ||
          first + length > bounds.pages)
        return broken("extent ", first, " of ", length, " is in list ", list);
      if (pageAt(first).previous != previous)
        return broken("extent ", first, " has a wrong link");
      if (pageAt(first + length - 1).extent != length)
        return broken("extent ", first, " has a wrong end");
      for (int32_t i = 0; i < length; ++i)
        if (pageAt(first + i).references != 0)
          return broken("extent ", first, " holds a page in use");
      if ((first > 0 && pageAt(first - 1).references == 0) ||
          (first + length < bounds.pages &&
           pageAt(first + length).references == 0))
        return broken("extent ", first, " is not maximal");
      listed += length;
      if (listed > freeCount)
        return broken("more pages in lists than free");
    }
  }
  if (listed != freeCount)
    return broken(listed, " pages in lists, ", freeCount, " free");
  return Status::ok();
}
