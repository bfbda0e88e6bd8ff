//===- StepDescriptor.cpp - One step, as data -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/StepDescriptor.h"

#include <array>
#include <bit>
#include <cstring>

using namespace kvrm;

Expected<StepDescriptor>
StepDescriptor::create(const kvrm_descriptor_limits &limits) {
  constexpr int64_t most = INT32_MAX;
  KVRM_TRY(checkRange("descriptor: rows", limits.rows, 1, KVRM_MAX_ROWS));
  KVRM_TRY(
      checkRange("descriptor: queries", limits.queries, 1, KVRM_MAX_QUERIES));
  KVRM_TRY(checkRange("descriptor: pages_per_slot", limits.pages_per_slot, 1,
                      KVRM_MAX_PAGES_PER_SLOT));
  KVRM_TRY(checkRange("descriptor: max_groups", limits.max_groups, 1, most));
  KVRM_TRY(checkRange("descriptor: max_items", limits.max_items, 1, most));
  KVRM_TRY(
      checkRange("descriptor: max_segments", limits.max_segments, 0, most));
  KVRM_TRY(checkRange("descriptor: max_shares", limits.max_shares, 1, most));
  KVRM_TRY(checkRange("descriptor: max_summaries", limits.max_summaries, 0,
                      KVRM_MAX_SUMMARIES));

  StepDescriptor descriptor;
  descriptor.bounds = limits;
  descriptor.offsets = kvrm_descriptor_layout_of(limits);
  constexpr int64_t mostBytes = int64_t(INT32_MAX) * 4;
  if (descriptor.offsets.bytes > mostBytes)
    return invalidArgument("descriptor: ", descriptor.offsets.bytes,
                           " bytes exceed the limit ", mostBytes);
  Expected<AlignedBuffer> planned =
      AlignedBuffer::create(descriptor.offsets.bytes, "step descriptor");
  KVRM_TRY(planned.status());
  Expected<AlignedBuffer> current =
      AlignedBuffer::create(descriptor.offsets.bytes, "step descriptor");
  KVRM_TRY(current.status());
  descriptor.planned = planned.take();
  descriptor.current = current.take();
  descriptor.fedFrom.resize(static_cast<size_t>(limits.rows), -1);
  descriptor.rowDirty.resize(static_cast<size_t>(limits.rows));
  descriptor.tableDirty.resize(static_cast<size_t>(limits.rows));
  descriptor.biasDirty.resize(static_cast<size_t>(limits.rows));

  kvrm_descriptor_header &header = descriptor.header();
  header.magic = KVRM_DESCRIPTOR_MAGIC;
  header.abi_version = KVRM_ABI_VERSION;
  header.rows = limits.rows;
  header.shares = limits.max_shares;
  kvrm_row idle{};
  idle.slot = -1;
  idle.write_page = -1;
  for (int32_t i = 0; i < limits.rows; ++i) {
    descriptor.setRow(i, idle);
    std::ranges::fill(descriptor.table(i), -1);
  }
  // Both copies start equal; the rest of both is zero already.
  std::memcpy(descriptor.current.data(), descriptor.planned.data(),
              static_cast<size_t>(descriptor.offsets.groups));
  std::ranges::fill(descriptor.rowDirty, 0);
  return descriptor;
}

void StepDescriptor::setRow(int32_t index, const kvrm_row &value) {
  KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
  kvrm_row &target =
      reinterpret_cast<kvrm_row *>(planned.data() + offsets.rows)[index];
  if (std::memcmp(&target, &value, sizeof(kvrm_row)) == 0)
    return;
  target = value;
  rowDirty[static_cast<size_t>(index)] = 1;
}

void StepDescriptor::setTokens(int32_t index, std::span<const int32_t> tokens) {
  KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
  KVRM_CHECK(tokens.size() <= static_cast<size_t>(bounds.queries),
             "a row has room for its tokens");
  fedFrom[static_cast<size_t>(index)] = -1;
  auto *target = reinterpret_cast<int32_t *>(planned.data() + offsets.tokens);
  int32_t first = index * bounds.queries;
  for (int32_t i = 0; i < bounds.queries; ++i) {
    auto place = static_cast<size_t>(i);
    int32_t token = place < tokens.size() ? tokens[place] : 0;
    if (target[first + i] == token)
      continue;
    target[first + i] = token;
    tokensDirty.add(first + i, first + i + 1);
  }
}

void StepDescriptor::setFed(int32_t index, int32_t source) {
  KVRM_CHECK(bounds.queries == 1 && source >= 0, "one token is fed");
  setTokens(index, {&fedToken, 1});
  fedFrom[static_cast<size_t>(index)] = source;
}

void StepDescriptor::setSampling(int32_t index, const kvrm_sampling &value) {
  KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
  kvrm_sampling &target = reinterpret_cast<kvrm_sampling *>(
      planned.data() + offsets.sampling)[index];
  using Words = std::array<uint32_t, sizeof(kvrm_sampling) / 4>;
  if (std::bit_cast<Words>(target) == std::bit_cast<Words>(value))
    return;
  target = value;
  samplingDirty.add(index, index + 1);
}

void StepDescriptor::setSummaryBiases(int32_t index,
                                      std::span<const float> biases) {
  KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
  KVRM_CHECK(biases.size() == static_cast<size_t>(bounds.max_summaries),
             "one bias an entry");
  auto *target =
      reinterpret_cast<float *>(planned.data() + offsets.summary_biases) +
      int64_t(index) * bounds.max_summaries;
  DirtyRange &dirty = biasDirty[static_cast<size_t>(index)];
  for (int32_t i = 0; i < bounds.max_summaries; ++i) {
    float bias = biases[static_cast<size_t>(i)];
    if (target[i] == bias)
      continue;
    target[i] = bias;
    dirty.add(i, i + 1);
  }
}

void StepDescriptor::setShare(int32_t index, const kvrm_share &value) {
  KVRM_CHECK(index >= 0 && index < bounds.max_shares, "share in range");
  kvrm_share &target =
      reinterpret_cast<kvrm_share *>(planned.data() + offsets.shares)[index];
  if (std::memcmp(&target, &value, sizeof(kvrm_share)) == 0)
    return;
  target = value;
  sharesDirty.add(index, index + 1);
}

template <typename Copy> void StepDescriptor::commitRanges(Copy copy) {
  kvrm_descriptor_header &next = header();
  KVRM_CHECK(next.magic == KVRM_DESCRIPTOR_MAGIC &&
                 next.abi_version == KVRM_ABI_VERSION &&
                 next.rows == bounds.rows && next.shares == bounds.max_shares,
             "planner left the fixed header fields alone");
  KVRM_CHECK(next.groups >= 0 && next.groups <= bounds.max_groups &&
                 next.items >= 0 && next.items <= bounds.max_items &&
                 next.segments >= 0 && next.segments <= bounds.max_segments &&
                 next.active_rows >= 0 && next.active_rows <= bounds.rows,
             "counts stay within the descriptor");
  // What is not in use is not read, and is written before it is used again.
  auto copyRange = [&](int64_t offset, int64_t elementBytes, DirtyRange &range,
                       int32_t inUse) {
    int32_t end = std::min(range.end, inUse);
    if (range.begin < end) {
      int64_t from = offset + range.begin * elementBytes;
      int64_t bytes = (end - range.begin) * elementBytes;
      KVRM_CHECK(from >= 0 && from <= offsets.bytes - bytes,
                 "copy stays in the descriptor");
      copy(from, bytes);
    }
    range.clear();
  };
  ++next.epoch;
  copy(int64_t(0), int64_t(sizeof(kvrm_descriptor_header)));
  for (int32_t i = 0; i < bounds.rows; ++i)
    if (uint8_t &isDirty = rowDirty[static_cast<size_t>(i)]) {
      copy(offsets.rows + i * int64_t(sizeof(kvrm_row)),
           int64_t(sizeof(kvrm_row)));
      isDirty = 0;
    }
  copyRange(offsets.tokens, sizeof(int32_t), tokensDirty,
            bounds.rows * bounds.queries);
  int64_t tableBytes = int64_t(bounds.pages_per_slot) * sizeof(int32_t);
  for (int32_t i = 0; i < bounds.rows; ++i)
    if (DirtyRange &range = tableDirty[static_cast<size_t>(i)];
        !range.isEmpty())
      copyRange(offsets.tables + i * tableBytes, sizeof(int32_t), range,
                bounds.pages_per_slot);
  int64_t biasBytes = int64_t(bounds.max_summaries) * sizeof(float);
  for (int32_t i = 0; i < bounds.rows; ++i)
    if (DirtyRange &range = biasDirty[static_cast<size_t>(i)]; !range.isEmpty())
      copyRange(offsets.summary_biases + i * biasBytes, sizeof(float), range,
                bounds.max_summaries);
  copyRange(offsets.sampling, sizeof(kvrm_sampling), samplingDirty,
            bounds.rows);
  copyRange(offsets.groups, sizeof(kvrm_group), groupsDirty, next.groups);
  copyRange(offsets.items, sizeof(kvrm_work_item), itemsDirty, next.items);
  copyRange(offsets.segments, sizeof(kvrm_merge_segment), segmentsDirty,
            next.segments);
  copyRange(offsets.shares, sizeof(kvrm_share), sharesDirty, bounds.max_shares);
}

void StepDescriptor::follow(const StepDescriptor &leader) {
  KVRM_CHECK(std::memcmp(&bounds, &leader.bounds, sizeof(bounds)) == 0,
             "who follows is laid out alike");
  auto take = [&](int64_t offset, int64_t bytes) {
    std::memcpy(planned.data() + offset, leader.planned.data() + offset,
                static_cast<size_t>(bytes));
  };
  auto takeRange = [&](int64_t offset, int64_t elementBytes,
                       const DirtyRange &from, DirtyRange &to) {
    if (from.isEmpty())
      return;
    take(offset + from.begin * elementBytes,
         (from.end - from.begin) * elementBytes);
    to.add(from.begin, from.end);
  };
  uint64_t epoch = header().epoch;
  take(0, int64_t(sizeof(kvrm_descriptor_header)));
  header().epoch = epoch; // a commit raises it
  for (size_t i = 0; i < rowDirty.size(); ++i) {
    auto row = static_cast<int64_t>(i);
    if (leader.rowDirty[i] != 0) {
      take(offsets.rows + row * int64_t(sizeof(kvrm_row)),
           int64_t(sizeof(kvrm_row)));
      rowDirty[i] = 1;
    }
    takeRange(offsets.tables +
                  row * bounds.pages_per_slot * int64_t(sizeof(int32_t)),
              sizeof(int32_t), leader.tableDirty[i], tableDirty[i]);
    takeRange(offsets.summary_biases +
                  row * bounds.max_summaries * int64_t(sizeof(float)),
              sizeof(float), leader.biasDirty[i], biasDirty[i]);
  }
  takeRange(offsets.tokens, sizeof(int32_t), leader.tokensDirty, tokensDirty);
  takeRange(offsets.sampling, sizeof(kvrm_sampling), leader.samplingDirty,
            samplingDirty);
  takeRange(offsets.groups, sizeof(kvrm_group), leader.groupsDirty,
            groupsDirty);
  takeRange(offsets.items, sizeof(kvrm_work_item), leader.itemsDirty,
            itemsDirty);
  takeRange(offsets.segments, sizeof(kvrm_merge_segment), leader.segmentsDirty,
            segmentsDirty);
  takeRange(offsets.shares, sizeof(kvrm_share), leader.sharesDirty,
            sharesDirty);
  std::ranges::copy(leader.fedFrom, fedFrom.begin());
}

int64_t StepDescriptor::commit() {
  KVRM_CHECK(
      std::ranges::all_of(fedFrom, [](int32_t from) { return from < 0; }),
      "only a device feeds tokens");
  int64_t total = 0;
  commitRanges([&](int64_t offset, int64_t bytes) {
    std::memcpy(current.data() + offset, planned.data() + offset,
                static_cast<size_t>(bytes));
    total += bytes;
  });
  return total;
}

void StepDescriptor::commitFollowed() {
  commitRanges([&](int64_t offset, int64_t bytes) {
    std::memcpy(current.data() + offset, planned.data() + offset,
                static_cast<size_t>(bytes));
  });
}

int32_t StepDescriptor::collectDelta(std::span<kvrm_delta_word> out,
                                     DeltaOptions options) {
  KVRM_CHECK(static_cast<int64_t>(out.size()) >=
                 deltaCapacity(options.hasGroups),
             "a delta has room for every word");
  auto *to = reinterpret_cast<uint32_t *>(current.data());
  const auto *from = reinterpret_cast<const uint32_t *>(planned.data());
  kvrm_delta_word *write = out.data();
  auto indexOf = [](int64_t offset) {
    return static_cast<uint32_t>(offset / int64_t(sizeof(uint32_t)));
  };
  uint32_t groupsBegin = indexOf(offsets.groups);
  uint32_t groupsEnd = indexOf(offsets.items);
  // The device has the token, or had one when the row was last active.
  auto isFed = [&](uint32_t i) {
    return i >= indexOf(offsets.tokens) && i < indexOf(offsets.tables) &&
           from[i] == static_cast<uint32_t>(fedToken);
  };
  commitRanges([&](int64_t offset, int64_t bytes) {
    uint32_t begin = indexOf(offset);
    uint32_t end = indexOf(offset + bytes);
    // Scattered pools have groups by the ten thousand, and each new page moves
    // those behind it.
    if (!options.hasGroups && begin >= groupsBegin && begin < groupsEnd)
      return;
    bool isWritten = !options.isWhole;
    // Most of a range is as it was; equal blocks are passed over whole.
    constexpr uint32_t block = 16;
    for (uint32_t i = begin; i < end; ++i) {
      if (to[i] == from[i]) {
        while (i + block < end &&
               std::memcmp(to + i, from + i, block * sizeof(uint32_t)) == 0)
          i += block;
        if (to[i] == from[i])
          continue;
      }
      to[i] = from[i];
      if (isWritten && !isFed(i))
        *write++ = {i, from[i]};
    }
  });
  if (options.isWhole) {
    uint32_t words = indexOf(offsets.bytes);
    for (uint32_t i = 0; i < words; ++i)
      if ((options.hasGroups || i < groupsBegin || i >= groupsEnd) && !isFed(i))
        *write++ = {i, to[i]};
  }
  return static_cast<int32_t>(write - out.data());
}

int32_t StepDescriptor::collectFed(std::span<kvrm_delta_word> out) const {
  int32_t count = 0;
  for (int32_t i = 0; i < bounds.rows; ++i) {
    int32_t source = fedFrom[static_cast<size_t>(i)];
    if (source < 0 || row(i).count == 0)
      continue;
    KVRM_CHECK(static_cast<size_t>(count) < out.size(),
               "a delta has room for every word");
    out[static_cast<size_t>(count++)] = {
        static_cast<uint32_t>(offsets.tokens / int64_t(sizeof(uint32_t)) + i),
        static_cast<uint32_t>(source)};
  }
  return count;
}
