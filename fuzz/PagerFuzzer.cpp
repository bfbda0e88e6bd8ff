//===- PagerFuzzer.cpp - Bytes as operations on a block pager -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The pool holds a number a token, as a backend would hold its K and V; a model
// beside it holds every history as a list. After every operation all invariants
// are verified and every history is read through its table. A refused operation
// must have changed nothing.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/paging/BlockPager.h"

#include <vector>

using namespace kvrm;

namespace {

class Machine {
public:
  explicit Machine(BlockPager created) : pager(std::move(created)) {
    const PagerLimits &limits = pager.limits();
    memory.resize(static_cast<size_t>(limits.pages) *
                  static_cast<size_t>(limits.pageTokens));
    histories.resize(static_cast<size_t>(limits.slots));
  }

  void step(fuzz::Input &input) {
    int32_t slots = pager.limits().slots;
    // One past the last, to be refused.
    int32_t slot = input.below(slots + 1);
    int32_t tokens = takeCount(input);
    const BlockPager before = pager;
    Status status;
    switch (input.below(11)) {
    case 0:
    case 1:
      status = append(slot, tokens);
      break;
    case 2:
      status = appendAll(input);
      break;
    case 3:
      status = alias(slot, input.below(slots + 1), tokens);
      break;
    case 4:
      status = pager.trim(slot, tokens);
      if (status.isOk())
        history(slot).resize(static_cast<size_t>(tokens));
      break;
    case 5:
      status = pager.release(slot);
      if (status.isOk())
        history(slot).clear();
      break;
    case 6:
      status = pager.reserve(slot, tokens);
      break;
    case 7:
      if (slot < slots && tokens >= 0)
        pager.expect(slot, tokens);
      break;
    case 8:
      status = reservePages(slot, input);
      break;
    case 9:
      status = insertFront(slot, tokens);
      break;
    default:
      status = dropPages(slot, tokens, takeCount(input));
      break;
    }
    if (!status.isOk()) {
      fuzz::checkFailure(status);
      checkSame(before);
    }
    verify();
  }

private:
  using History = std::vector<uint32_t>;

  /// A number of tokens or pages; negative ones are to be refused.
  static int32_t takeCount(fuzz::Input &input) {
    return input.take<uint8_t>() - 128;
  }

  History &history(int32_t slot) {
    return histories[static_cast<size_t>(slot)];
  }
  uint32_t *pageAt(int32_t page) {
    return &memory[static_cast<size_t>(page) *
                   static_cast<size_t>(pager.limits().pageTokens)];
  }
  uint32_t &tokenAt(int32_t slot, size_t position) {
    auto pageTokens = static_cast<size_t>(pager.limits().pageTokens);
    return pageAt(
        pager.pages(slot)[position / pageTokens])[position % pageTokens];
  }

  /// What a backend does after an append: copies, then writes.
  void copy(const PageCopy &copy) {
    std::copy_n(pageAt(copy.source), pager.limits().pageTokens,
                pageAt(copy.target));
  }
  void write(int32_t slot, int32_t tokens) {
    for (int32_t i = 0; i < tokens; ++i) {
      history(slot).push_back(++written);
      tokenAt(slot, history(slot).size() - 1) = written;
    }
  }

  Status append(int32_t slot, int32_t tokens) {
    int32_t needed = slot < pager.limits().slots && tokens >= 0
                         ? pager.pagesNeeded(slot, tokens)
                         : 0;
    int32_t before = pager.freePages();
    PageCopy needsCopy;
    KVRM_TRY(pager.append(slot, tokens, needsCopy));
    fuzz::check(before - pager.freePages() == needed,
                "pages needed are pages taken");
    if (needsCopy.isNeeded())
      copy(needsCopy);
    write(slot, tokens);
    return Status::ok();
  }

  Status appendAll(fuzz::Input &input) {
    std::vector<AppendRequest> requests(static_cast<size_t>(input.below(6)));
    for (AppendRequest &request : requests) {
      request.slot = input.below(pager.limits().slots + 1);
      request.tokens = takeCount(input);
    }
    std::vector<PageCopy> copies(requests.size());
    int32_t count = 0;
    int32_t before = pager.freePages();
    Expected<int64_t> needed = pager.pagesNeeded(requests);
    Status status = pager.appendAll(requests, copies, count);
    fuzz::check(bool(needed) || needed.status().message() == status.message(),
                "pages are counted where they can be taken");
    KVRM_TRY(status);
    fuzz::check(before - pager.freePages() == *needed,
                "pages needed are pages taken");
    // All copies are made before anything is written.
    for (int32_t i = 0; i < count; ++i)
      copy(copies[static_cast<size_t>(i)]);
    for (const AppendRequest &request : requests)
      write(request.slot, request.tokens);
    return Status::ok();
  }

  Status alias(int32_t target, int32_t source, int32_t tokens) {
    KVRM_TRY(pager.alias(target, source, tokens));
    const History &from = history(source);
    history(target).assign(from.begin(), from.begin() + tokens);
    return Status::ok();
  }

  Status reservePages(int32_t slot, fuzz::Input &input) {
    std::vector<int32_t> pages(static_cast<size_t>(input.below(4)));
    for (int32_t &page : pages)
      page = input.below(pager.limits().pages + 2) - 1;
    return pager.reservePages(slot, pages);
  }

  Status insertFront(int32_t slot, int32_t pages) {
    KVRM_TRY(pager.insertFront(slot, pages));
    auto tokens = static_cast<size_t>(pages) *
                  static_cast<size_t>(pager.limits().pageTokens);
    History &all = history(slot);
    all.insert(all.begin(), tokens, 0);
    for (size_t i = 0; i < tokens; ++i)
      tokenAt(slot, i) = all[i] = ++written;
    return Status::ok();
  }

  Status dropPages(int32_t slot, int32_t first, int32_t count) {
    KVRM_TRY(pager.dropPages(slot, first, count));
    History &all = history(slot);
    auto begin = all.begin() + first * pager.limits().pageTokens;
    all.erase(begin, begin + count * pager.limits().pageTokens);
    return Status::ok();
  }

  void checkSame(const BlockPager &before) {
    bool isSame = pager.freePages() == before.freePages();
    for (int32_t slot = 0; slot < pager.limits().slots; ++slot)
      isSame &= pager.length(slot) == before.length(slot) &&
                pager.generation(slot) == before.generation(slot) &&
                std::ranges::equal(pager.pages(slot), before.pages(slot));
    fuzz::check(isSame, "a refused operation changes nothing");
  }

  void verify() {
    Status status = pager.checkInvariants();
    fuzz::check(status.isOk(), "invariants hold", status.message());
    for (int32_t slot = 0; slot < pager.limits().slots; ++slot) {
      const History &wanted = history(slot);
      fuzz::check(static_cast<size_t>(pager.length(slot)) == wanted.size(),
                  "a history has its length");
      for (size_t i = 0; i < wanted.size(); ++i)
        fuzz::check(tokenAt(slot, i) == wanted[i], "a history has its tokens");
    }
  }

  BlockPager pager;
  std::vector<uint32_t> memory; ///< [pages][pageTokens]
  std::vector<History> histories;
  uint32_t written = 0;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz::Input input(data, size);
  PagerLimits limits;
  limits.pages = input.below(40); // 0 is refused
  limits.slots = 1 + input.below(6);
  limits.pagesPerSlot = 1 + input.below(16);
  limits.pageTokens = 1 + input.below(8);
  Expected<BlockPager> pager = BlockPager::create(limits);
  if (!pager) {
    fuzz::checkFailure(pager.status());
    return 0;
  }
  Machine machine(pager.take());
  for (int step = 0; step < 200 && !input.isEmpty(); ++step)
    machine.step(input);
  return 0;
}
