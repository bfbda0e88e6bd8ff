//===- PageRing.cpp - Copies of pages in flight ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PageRing.h"

using namespace mlir;
using namespace mlir::kvrm;

PageRing::PageRing(DeviceKernel &device, KernelOp kernel,
                   const DeviceOptions &options, int64_t stages, Value lane,
                   Value turn, Value turns, Value memory, Value barriers)
    : device(device), b(device.b), kernel(kernel), strip(kernel.getPool()),
      options(options), stages(stages), lane(lane), turn(turn), turns(turns),
      memory(memory), barriers(barriers), item(b) {
  if (options.isHopper()) {
    b.ifThen(b.equal(lane, 0), [&] {
      for (int64_t stage = 0; stage < stages; ++stage)
        b.initBarrier(b.add(barriers, 8 * stage), 1);
      b.fenceBarrierInit();
    });
    b.syncWarp();
  }
  for (Variable *field : {&itemIndex, &nextStrip, &stripEnd, &historyEnd,
                          &readEnd, &dealt, &tableIndex})
    *field = b.variable(b.getI32Type());
  for (int64_t page = 0; page < strip.pages(); ++page)
    tablePages.push_back(b.variable(b.getI32Type()));
  for (Variable *field :
       {&produceStage, &issued, &consumeStage, &consumeParity})
    *field = b.variable(b.i32(0));
}

Value PageRing::firstStripOf(const StripRange &range, Value dealt) {
  // Warps are a power of two in number. `dealt` is 0 in a cluster.
  Value place = b.bitAnd(b.sub(turn, dealt), b.sub(turns, 1));
  return b.add(range.begin, place);
}

void PageRing::begin(ItemReader &reader, const WorkItemVariables &first,
                     Value begin, Value end) {
  items = &reader;
  itemEnd = end;
  item.copy(first);
  itemIndex.set(begin);
  dealt.set(b.i32(0));
  nextStrip.set(b.i32(0));
  stripEnd.set(b.i32(0));
  historyEnd.set(b.i32(0));
  b.ifThen(b.lessThan(begin, end), [&] {
    enterItem();
    skipFinishedItems();
  });
}

/// Places the producer at this warp's first strip of the current item.
void PageRing::enterItem() {
  StripRange range = items->rangeOf(item);
  nextStrip.set(firstStripOf(range, dealt.get()));
  stripEnd.set(range.end);
  historyEnd.set(range.historyEnd);
  readEnd.set(range.readEnd);
  dealt.set(b.add(dealt.get(), b.sub(range.end, range.begin)));
  readTable();
}

/// Goes on to the next item in which this warp has a strip.
void PageRing::skipFinishedItems() {
  b.whileLoop(
      [&] {
        Value isDone = b.lessThan(b.sub(stripEnd.get(), 1), nextStrip.get());
        Value hasNext = b.lessThan(b.add(itemIndex.get(), 1), itemEnd);
        return b.bitAnd(isDone, hasNext);
      },
      [&] {
        Value next = b.add(itemIndex.get(), 1);
        itemIndex.set(next);
        items->setFromItem(item, next);
        enterItem();
      });
}

/// Each lane reads the pages of one of this warp's next 32 strips. Entries past
/// the history are -1 or stale, and are not used.
void PageRing::readTable() {
  tableIndex.set(b.i32(0));
  Value mine = b.add(nextStrip.get(), b.mul(lane, turns));
  Value perSlot = device.parameter(offsetof(kvrm_device_args, pages_per_slot));
  Value table = b.at(device.parameter(offsetof(kvrm_device_args, tables)),
                     b.shiftLeft(b.mul(b.widen(item.row.get()), perSlot), 2));
  Value firstPage = b.div(b.mul(mine, strip.tokens), strip.page);
  for (int64_t page = 0; page < strip.pages(); ++page) {
    Value index = b.widen(b.add(firstPage, page));
    if (isStaged()) {
      // Row r's page p lies at page r * pages_per_slot + p.
      Value first = b.mul(b.widen(item.row.get()), perSlot);
      tablePages[page].set(
          arith::TruncIOp::create(b, b.getI32Type(), b.add(first, index)));
      continue;
    }
    tablePages[page].set(b.i32(0));
    b.ifThen(b.lessThan(index, perSlot), [&] {
      tablePages[page].set(
          b.load(b.getI32Type(), b.at(table, b.shiftLeft(index, 2)), 4));
    });
  }
}

void PageRing::fill(bool onlyHistory) {
  auto produceAll = [&] {
    b.forLoop(b.i32(0), b.i32(stages), b.i32(1), [&](Value) {
      b.ifThen(b.lessThan(issued.get(), stages), [&] { produce(onlyHistory); });
    });
  };
  if (onlyHistory || !options.isHopper())
    return produceAll();
  // Few warps have room and work left: queries are waiting to be loaded.
  Value isLeft = b.bitAnd(b.lessThan(issued.get(), stages),
                          b.lessThan(nextStrip.get(), stripEnd.get()));
  b.ifThen(isLeft, produceAll);
}

/// Starts the copy of one strip, if there is one.
void PageRing::produce(bool onlyHistory) {
  Value end = onlyHistory ? historyEnd.get() : stripEnd.get();
  b.ifThen(b.lessThan(nextStrip.get(), end), [&] {
    copyStrip();
    produceStage.set(stageAfter(produceStage.get()));
    issued.set(b.add(issued.get(), 1));
    nextStrip.set(stripAfter(nextStrip.get()));
    Value index = b.add(tableIndex.get(), 1);
    tableIndex.set(index);
    b.ifThen(b.equal(index, kWarpLanes), [&] { readTable(); });
    skipFinishedItems();
  });
  if (!options.isHopper())
    b.commitCopies(); // an empty group where there was nothing
}

void PageRing::copyStrip() {
  Value stage = produceStage.get();
  Value address = stageAddress(stage);
  Value firstToken = b.mul(nextStrip.get(), strip.tokens);
  Value head = b.mul(b.widen(item.kvHead.get()),
                     device.parameter(offsetof(kvrm_device_args, head_stride)));
  // Where a strip is part of a page, from here in the page.
  Value inPage = b.i64(0);
  if (strip.tokens < strip.page)
    inPage = b.widen(b.mul(b.rem(firstToken, strip.page), strip.rowBytes()));
  Value scalesInPage;
  if (strip.hasScales())
    scalesInPage = b.widen(strip.scaleInPage(b, b.rem(firstToken, strip.page)));
  int64_t pageBytes = strip.halfBytes() / strip.pages();
  int64_t scalesBytes = strip.tokens / strip.pages() * strip.scaleBytes;

  struct Part {
    Value offset; ///< in the pool
    Value isThere;
    int64_t page; ///< of the strip
    Value scales; ///< like offset; null without them
  };
  SmallVector<Part> parts;
  Value bytes = b.i32(2 * (pageBytes + scalesBytes));
  for (int64_t page = 0; page < strip.pages(); ++page) {
    Value physical = b.shuffle(tablePages[page].get(), tableIndex.get());
    Value start = b.add(head, b.mul(b.widen(physical), strip.pageBytes()));
    Value offset = b.add(start, inPage), scales;
    if (strip.hasScales())
      scales = b.add(start, scalesInPage);
    Value isThere; // the first page always is
    if (page > 0) {
      isThere = b.lessThan(b.add(firstToken, page * strip.page), readEnd.get());
      bytes =
          b.add(bytes, b.select(isThere, b.i32(2 * (pageBytes + scalesBytes)),
                                b.i32(0)));
    }
    parts.push_back({offset, isThere, page, scales});
  }

  auto copy = [&](Value target, Value source, int64_t size) {
    if (options.isHopper()) {
      b.bulkCopy(target, source, b.i32(size), stageBarrier(stage));
      return;
    }
    Value chunk = b.shiftLeft(lane, 4);
    auto copyChunks = [&] {
      for (int64_t at = 0; at < size; at += KVRM_CHUNK_BYTES * kWarpLanes)
        b.copyChunk(b.add(b.add(target, chunk), at),
                    b.at(b.at(source, b.widen(chunk)), at));
    };
    // Rows are whole rounds of all lanes; scales are a few lanes' chunks.
    if (size % (KVRM_CHUNK_BYTES * kWarpLanes) == 0)
      copyChunks();
    else
      b.ifThen(b.lessThan(chunk, size), copyChunks);
  };
  auto copyHalf = [&](const Part &part, size_t pool, int64_t half) {
    Value source = device.parameter(pool);
    copy(b.add(address, half * strip.halfBytes() + part.page * pageBytes),
         b.at(source, part.offset), pageBytes);
    if (part.scales)
      copy(b.add(address, strip.scalesAt(half == 1) + part.page * scalesBytes),
           b.at(source, part.scales), scalesBytes);
  };
  auto copyParts = [&] {
    for (const Part &part : parts) {
      auto copyBoth = [&] {
        copyHalf(part,
                 isStaged() ? offsetof(kvrm_device_args, staged_k)
                            : offsetof(kvrm_device_args, k_pool),
                 0);
        copyHalf(part,
                 isStaged() ? offsetof(kvrm_device_args, staged_v)
                            : offsetof(kvrm_device_args, v_pool),
                 1);
      };
      if (part.isThere)
        b.ifThen(part.isThere, copyBoth);
      else
        copyBoth();
    }
  };
  if (!options.isHopper())
    return copyParts();
  b.ifThen(b.equal(lane, 0), [&] {
    b.expectBytes(stageBarrier(stage), bytes);
    copyParts();
  });
}

Value PageRing::waitForStrip() {
  Value stage = consumeStage.get();
  if (options.isHopper()) {
    b.waitBarrier(stageBarrier(stage), consumeParity.get());
  } else {
    b.waitCopies(stages - 1);
    b.syncWarp();
  }
  return stageAddress(stage);
}

void PageRing::release() {
  Value next = stageAfter(consumeStage.get());
  consumeParity.set(b.select(b.equal(next, 0), b.bitXor(consumeParity.get(), 1),
                             consumeParity.get()));
  consumeStage.set(next);
  produce(/*onlyHistory=*/false);
}
