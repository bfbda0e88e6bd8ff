//===- WorkItems.cpp - Finding a block's work -----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WorkItems.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvrm;

PageSlot::PageSlot(DeviceBuilder &b, PoolType pool, const Tables &tables,
                   Value row, Value token)
    : b(b), pool(pool), strip(pool), tables(tables), row(row) {
  SmallVector<Value> fields =
      b.loadWords(b.at(tables.rows, b.mul(b.widen(row), sizeof(kvrm_row))), 4);
  static_assert(offsetof(kvrm_row, count) == 8 &&
                offsetof(kvrm_row, length) == 12);
  place = b.add(b.sub(fields[3], fields[2]), token);
  active = b.lessThan(token, fields[2]);
}

/// The page of the pool that the token's is.
Value PageSlot::loadPage() {
  Value entry = b.add(b.mul(b.widen(row), tables.pagesPerSlot),
                      b.widen(b.div(place, strip.page)));
  return b.load(b.getI32Type(), b.at(tables.tables, b.shiftLeft(entry, 2)), 4);
}

Value PageSlot::offsetOfScale() {
  Value physical = loadPage();
  Value inPage = b.widen(b.rem(place, strip.page));
  return b.add(b.mul(b.widen(physical), pool.getPageBytes()),
               strip.scaleInPage(b, inPage));
}

Value PageSlot::offsetOfChunk(Value chunk) {
  Value physical = loadPage();
  Value inPage = b.rem(place, strip.page);
  Value target = b.add(b.mul(b.widen(physical), pool.getPageBytes()),
                       b.mul(b.widen(inPage), strip.rowBytes()));
  Value swizzled = b.bitXor(chunk, strip.swizzle(b, inPage));
  return b.add(target, b.widen(b.mul(swizzled, KVRM_CHUNK_BYTES)));
}

Value PageSlot::offsetOf(Value index) {
  int64_t inChunk = KVRM_CHUNK_BYTES / strip.elementBytes;
  Value byte = b.mul(b.rem(index, inChunk), strip.elementBytes);
  return b.add(offsetOfChunk(b.div(index, inChunk)), b.widen(byte));
}

WorkItemVariables::WorkItemVariables(DeviceBuilder &b) {
  for (Variable *field :
       {&row, &kvHead, &queryTile, &tileBegin, &tileEnd, &partial, &segment,
        &count, &length, &place, &summaries})
    *field = b.variable(b.getI32Type());
}

void WorkItemVariables::copy(const WorkItemVariables &other) const {
  row.set(other.row.get());
  kvHead.set(other.kvHead.get());
  queryTile.set(other.queryTile.get());
  tileBegin.set(other.tileBegin.get());
  tileEnd.set(other.tileEnd.get());
  partial.set(other.partial.get());
  segment.set(other.segment.get());
  count.set(other.count.get());
  length.set(other.length.get());
  place.set(other.place.get());
  summaries.set(other.summaries.get());
}

ItemReader::ItemReader(DeviceKernel &device, KernelOp kernel,
                       const StripShape &strip)
    : device(device), b(device.b), kernel(kernel), strip(strip) {}

void ItemReader::setFields(const WorkItemVariables &item, Value address) {
  static_assert(offsetof(kvrm_work_item, row) == 0 &&
                offsetof(kvrm_work_item, kv_head) == 4 &&
                offsetof(kvrm_work_item, query_tile) == 8 &&
                offsetof(kvrm_work_item, tile_begin) == 12 &&
                offsetof(kvrm_work_item, tile_end) == 16 &&
                offsetof(kvrm_work_item, partial) == 20 &&
                offsetof(kvrm_work_item, segment) == 24);
  SmallVector<Value> low = b.loadWords(address, 4);
  SmallVector<Value> high = b.loadWords(b.at(address, 16), 4);
  item.row.set(low[0]);
  item.kvHead.set(low[1]);
  item.queryTile.set(low[2]);
  item.tileBegin.set(low[3]);
  item.tileEnd.set(high[0]);
  item.partial.set(high[1]);
  item.segment.set(high[2]);
}

void ItemReader::setRow(const WorkItemVariables &item) {
  static_assert(offsetof(kvrm_row, count) == 8 &&
                offsetof(kvrm_row, length) == 12 &&
                offsetof(kvrm_row, summaries) == 24);
  Value at = b.at(device.parameter(offsetof(kvrm_device_args, rows)),
                  b.mul(b.widen(item.row.get()), sizeof(kvrm_row)));
  SmallVector<Value> words = b.loadWords(at, 4);
  item.count.set(words[2]);
  item.length.set(words[3]);
  item.place.set(b.sub(words[3], words[2]));
  if (kernel.getSessionType().getSummaries() > 0)
    item.summaries.set(
        b.load(b.getI32Type(), b.at(at, offsetof(kvrm_row, summaries)), 4));
}

std::pair<Value, Value> ItemReader::setFromShare(const WorkItemVariables &item,
                                                 Value index) {
  Value share = b.at(device.parameter(offsetof(kvrm_device_args, shares)),
                     b.mul(b.widen(index), sizeof(kvrm_share)));
  SmallVector<Value> bounds =
      b.loadWords(b.at(share, offsetof(kvrm_share, item_begin)), 2);
  setFields(item, b.at(share, offsetof(kvrm_share, first)));
  setRow(item); // row 0 in an empty share
  return {bounds[0], bounds[1]};
}

void ItemReader::setFromItem(const WorkItemVariables &item, Value index) {
  setFields(item, b.at(device.parameter(offsetof(kvrm_device_args, items)),
                       b.mul(b.widen(index), sizeof(kvrm_work_item))));
  setRow(item);
}

void ItemReader::setFromOutput(const WorkItemVariables &item, Value index) {
  int64_t queryTiles = llvm::divideCeil(kernel.getDescriptorType().getQueries(),
                                        kernel.getTile().getQ());
  int64_t heads = kernel.getPool().getKvHeads();
  Value pair = b.div(index, queryTiles);
  item.queryTile.set(b.sub(index, b.mul(pair, queryTiles)));
  Value row = b.div(pair, heads);
  item.kvHead.set(b.sub(pair, b.mul(row, heads)));
  item.row.set(row);
  item.partial.set(b.i32(-1));
  item.segment.set(b.i32(-1));
  item.tileBegin.set(b.i32(0));
  item.tileEnd.set(b.i32(KVRM_MAX_PAGES_PER_SLOT));
  setRow(item);
}

StripRange ItemReader::rangeOf(const WorkItemVariables &item) {
  int64_t queries = kernel.getTile().getQ();
  int64_t perTile = kernel.getTile().getKv() / strip.tokens;
  Value firstToken = b.mul(item.queryTile.get(), queries);
  StripRange range;
  range.firstPlace = b.add(item.place.get(), firstToken);
  // A query tile past the row's tokens has nothing to see.
  Value none = b.i32(0);
  Value seen = b.min(b.add(range.firstPlace, queries), item.length.get());
  Value isThere = b.lessThan(firstToken, item.count.get());
  range.visibleEnd = b.select(isThere, seen, none);
  range.readEnd = range.visibleEnd;
  if (SessionType session = kernel.getSessionType(); session.getIsPadded())
    range.readEnd =
        b.select(isThere, b.i32(session.getPages() * strip.page), none);
  range.begin = b.mul(item.tileBegin.get(), perTile);
  std::optional<uint64_t> window = kernel.getWindow();
  auto firstSeen = [&](Value end) {
    return b.max(b.sub(end, static_cast<int64_t>(*window)), none);
  };
  if (window)
    range.begin =
        b.max(range.begin,
              b.div(firstSeen(b.add(range.firstPlace, 1)), strip.tokens));
  range.end = b.min(b.mul(item.tileEnd.get(), perTile),
                    b.divUp(range.readEnd, strip.tokens));
  range.end = b.max(range.end, range.begin);
  range.fullEnd =
      b.min(range.end, b.div(b.add(range.firstPlace, 1), strip.tokens));
  range.windowEdge = range.begin;
  if (window) {
    Value edge = b.divUp(firstSeen(range.visibleEnd), strip.tokens);
    range.windowEdge = b.max(range.begin, b.min(range.fullEnd, edge));
  }
  range.historyEnd = b.min(range.end, b.div(item.place.get(), strip.tokens));
  range.summaryEnd = range.begin;
  if (int64_t entries = kernel.getSessionType().getSummaries()) {
    range.summaryPlaces = b.select(b.lessThan(none, item.summaries.get()),
                                   b.i32(static_cast<int32_t>(entries)), none);
    range.summaryEnd =
        b.min(range.fullEnd, b.divUp(range.summaryPlaces, strip.tokens));
    range.summaryEnd = b.max(range.begin, range.summaryEnd);
  }
  return range;
}

Value StripRange::boundOf(TileBound bound) const {
  switch (bound) {
  case TileBound::Begin:
    return begin;
  case TileBound::WindowEdge:
    return windowEdge;
  case TileBound::SummaryEnd:
    return summaryEnd;
  case TileBound::Full:
    return fullEnd;
  case TileBound::End:
    return end;
  }
  llvm_unreachable("no such bound");
}
