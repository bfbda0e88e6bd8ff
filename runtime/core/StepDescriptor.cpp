//===- StepDescriptor.cpp - One step, as data -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/StepDescriptor.h"

#include <cstring>

using namespace kvrm;

static Status checkLimit(const char *name, int64_t value, int64_t low,
                         int64_t high) {
  if (value < low || value > high)
    return invalidArgument("descriptor: ", name, ": ", value, " is outside ",
                           low, "..", high);
  return Status::ok();
}

Expected<StepDescriptor>
StepDescriptor::create(const kvrm_descriptor_limits &limits) {
  constexpr int64_t most = INT32_MAX;
  KVRM_TRY(checkLimit("rows", limits.rows, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkLimit("pages_per_slot", limits.pages_per_slot, 1,
                      KVRM_MAX_PAGES_PER_SLOT));
  KVRM_TRY(checkLimit("max_groups", limits.max_groups, 1, most));
  KVRM_TRY(checkLimit("max_items", limits.max_items, 1, most));
  KVRM_TRY(checkLimit("max_segments", limits.max_segments, 0, most));

  StepDescriptor descriptor;
  descriptor.bounds = limits;
  descriptor.offsets = kvrm_descriptor_layout_of(limits);
  Expected<AlignedBuffer> planned =
      AlignedBuffer::create(descriptor.offsets.bytes, "step descriptor");
  KVRM_TRY(planned.status());
  Expected<AlignedBuffer> current =
      AlignedBuffer::create(descriptor.offsets.bytes, "step descriptor");
  KVRM_TRY(current.status());
  descriptor.planned = planned.take();
  descriptor.current = current.take();
  descriptor.rowDirty.resize(static_cast<size_t>(limits.rows));
  descriptor.tableDirty.resize(static_cast<size_t>(limits.rows));

  kvrm_descriptor_header &header = descriptor.header();
  header.magic = KVRM_DESCRIPTOR_MAGIC;
  header.abi_version = KVRM_ABI_VERSION;
  header.rows = limits.rows;
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

int64_t StepDescriptor::copy(int64_t offset, int64_t bytes) {
  KVRM_CHECK(offset >= 0 && bytes >= 0 && offset + bytes <= offsets.bytes,
             "copy stays in the descriptor");
  std::memcpy(current.data() + offset, planned.data() + offset,
              static_cast<size_t>(bytes));
  return bytes;
}

int64_t StepDescriptor::copyRange(int64_t offset, int64_t elementBytes,
                                  DirtyRange &range, int32_t inUse) {
  // What is not in use is not read, and is written before it is used again.
  int32_t end = std::min(range.end, inUse);
  int64_t bytes = 0;
  if (range.begin < end)
    bytes = copy(offset + range.begin * elementBytes,
                 (end - range.begin) * elementBytes);
  range.clear();
  return bytes;
}

int64_t StepDescriptor::commit() {
  kvrm_descriptor_header &next = header();
  KVRM_CHECK(next.magic == KVRM_DESCRIPTOR_MAGIC &&
                 next.abi_version == KVRM_ABI_VERSION &&
                 next.rows == bounds.rows,
             "planner left the fixed header fields alone");
  KVRM_CHECK(next.groups >= 0 && next.groups <= bounds.max_groups &&
                 next.items >= 0 && next.items <= bounds.max_items &&
                 next.segments >= 0 && next.segments <= bounds.max_segments &&
                 next.active_rows >= 0 && next.active_rows <= bounds.rows,
             "counts stay within the descriptor");
  ++next.epoch;
  int64_t bytes = copy(0, sizeof(kvrm_descriptor_header));
  for (int32_t i = 0; i < bounds.rows; ++i) {
    auto index = static_cast<size_t>(i);
    if (rowDirty[index]) {
      bytes +=
          copy(offsets.rows + i * int64_t(sizeof(kvrm_row)), sizeof(kvrm_row));
      rowDirty[index] = 0;
    }
    if (!tableDirty[index].isEmpty())
      bytes +=
          copyRange(offsets.tables + int64_t(i) * bounds.pages_per_slot *
                                         int64_t(sizeof(int32_t)),
                    sizeof(int32_t), tableDirty[index], bounds.pages_per_slot);
  }
  bytes +=
      copyRange(offsets.groups, sizeof(kvrm_group), groupsDirty, next.groups);
  bytes +=
      copyRange(offsets.items, sizeof(kvrm_work_item), itemsDirty, next.items);
  bytes += copyRange(offsets.segments, sizeof(kvrm_merge_segment),
                     segmentsDirty, next.segments);
  return bytes;
}
