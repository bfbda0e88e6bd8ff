//===- StepDescriptor.h - One step, as data ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A step descriptor says everything about one step that is not fixed at compile
// time (KV-RM, arXiv 2605.09735: one committed descriptor a step). The planner
// writes the planned copy; commit() makes it the committed one, which kernels
// read and whose address and layout never change (kvrm_descriptor_layout in
// abi.h). Only what differs since the last commit is copied, so the bytes of a
// commit follow the change and not the capacity.
//
// A descriptor that is read on a device has a second way to commit:
// collectDelta() makes the same step here, and writes down the words that it
// changed, for a copy elsewhere to follow.
//
// The block table, the biases, the tokens and the sampling of an idle row mean
// nothing: they are left as they were, so that a slot that skips a step costs
// nothing.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PAGING_STEPDESCRIPTOR_H
#define KVRM_RUNTIME_PAGING_STEPDESCRIPTOR_H

#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

/// Elements [begin, end) of a section that were written since the last commit.
struct DirtyRange {
  int32_t begin = 0;
  int32_t end = 0;

  bool isEmpty() const { return begin >= end; }
  void add(int32_t from, int32_t to) {
    if (from >= to)
      return;
    begin = isEmpty() ? from : std::min(begin, from);
    end = isEmpty() ? to : std::max(end, to);
  }
  void clear() { begin = end = 0; }
};

class StepDescriptor {
public:
  /// Takes the memory of both copies. Errors: InvalidArgument for a limit out
  /// of range, ResourceExhausted.
  static Expected<StepDescriptor> create(const kvrm_descriptor_limits &limits);

  const kvrm_descriptor_limits &limits() const { return bounds; }
  const kvrm_descriptor_layout &layout() const { return offsets; }

  // What the planner writes, and the session of tokens. Whoever writes marks
  // what was written.

  /// The planned header; magic, version, epoch, rows and shares are not the
  /// planner's.
  kvrm_descriptor_header &header() {
    return *reinterpret_cast<kvrm_descriptor_header *>(planned.data());
  }
  const kvrm_row &row(int32_t index) const {
    KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
    return reinterpret_cast<const kvrm_row *>(planned.data() +
                                              offsets.rows)[index];
  }
  /// Writes and marks a row if it differs.
  void setRow(int32_t index, const kvrm_row &value);
  /// Writes the new tokens of a row, at most `queries`, and zeros after them;
  /// marks what differs.
  void setTokens(int32_t index, std::span<const int32_t> tokens);
  /// The new token of a row of one query is the `source`th that the step before
  /// chose, which a device knows by itself (collectFed()).
  void setFed(int32_t index, int32_t source);
  /// Writes and marks how a row's next token is chosen, if that differs.
  void setSampling(int32_t index, const kvrm_sampling &value);
  std::span<int32_t> table(int32_t index) {
    KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
    return section<int32_t>(planned, offsets.tables,
                            int64_t(bounds.rows) * bounds.pages_per_slot)
        .subspan(static_cast<size_t>(index) *
                     static_cast<size_t>(bounds.pages_per_slot),
                 static_cast<size_t>(bounds.pages_per_slot));
  }
  void markTable(int32_t index, int32_t begin, int32_t end) {
    KVRM_CHECK(begin >= 0 && end <= bounds.pages_per_slot, "range in table");
    tableDirty[static_cast<size_t>(index)].add(begin, end);
  }
  /// Writes and marks those biases of a row's summaries that differ; one an
  /// entry of the row.
  void setSummaryBiases(int32_t index, std::span<const float> biases);
  std::span<kvrm_group> groups() {
    return section<kvrm_group>(planned, offsets.groups, bounds.max_groups);
  }
  std::span<kvrm_work_item> items() {
    return section<kvrm_work_item>(planned, offsets.items, bounds.max_items);
  }
  std::span<kvrm_merge_segment> segments() {
    return section<kvrm_merge_segment>(planned, offsets.segments,
                                       bounds.max_segments);
  }
  const kvrm_share &share(int32_t index) const {
    KVRM_CHECK(index >= 0 && index < bounds.max_shares, "share in range");
    return reinterpret_cast<const kvrm_share *>(planned.data() +
                                                offsets.shares)[index];
  }
  /// Writes and marks a share if it differs.
  void setShare(int32_t index, const kvrm_share &value);
  void markGroups(int32_t begin, int32_t end) { groupsDirty.add(begin, end); }
  void markItems(int32_t begin, int32_t end) { itemsDirty.add(begin, end); }
  void markSegments(int32_t begin, int32_t end) {
    segmentsDirty.add(begin, end);
  }

  /// Plans what `leader`, of the same limits, has planned since it last
  /// committed. One that follows all that its leader plans is a copy of it.
  void follow(const StepDescriptor &leader);

  /// Makes the planned copy the committed one and raises the epoch. Returns the
  /// bytes copied. No token is fed.
  int64_t commit();
  /// The same for a leader: who follows it runs the step, and may be fed.
  void commitFollowed();

  /// Which words collectDelta() writes down.
  struct DeltaOptions {
    /// All, for a copy of which nothing is known, not only what changed.
    bool isWhole = false;
    /// The groups section too; only the staged transport reads it. Without it
    /// the committed copy's groups are not kept up to date here either. The
    /// same in every call.
    bool hasGroups = true;
  };
  /// Commits as commit() does, and writes each word that this changed to `out`,
  /// in ascending order; a word is 4 bytes. Returns how many. `out` has room
  /// for deltaCapacity(options.hasGroups).
  int32_t collectDelta(std::span<kvrm_delta_word> out, DeltaOptions options);
  int32_t collectDelta(std::span<kvrm_delta_word> out) {
    return collectDelta(out, DeltaOptions());
  }
  /// After collectDelta(): writes the words of active rows whose token is fed,
  /// each with its source. Returns how many; both together are at most
  /// deltaCapacity().
  int32_t collectFed(std::span<kvrm_delta_word> out) const;
  /// Words of the whole descriptor, with the groups section or without.
  int64_t deltaCapacity(bool hasGroups = true) const {
    int64_t bytes = hasGroups
                        ? offsets.bytes
                        : offsets.bytes - (offsets.items - offsets.groups);
    return bytes / int64_t(sizeof(uint32_t));
  }

  // What kernels and the transport read.

  const uint8_t *committed() const { return current.data(); }
  const uint8_t *plannedBytes() const { return planned.data(); }
  const kvrm_descriptor_header &committedHeader() const {
    return *reinterpret_cast<const kvrm_descriptor_header *>(current.data());
  }
  std::span<const kvrm_row> committedRows() const {
    return section<const kvrm_row>(current, offsets.rows, bounds.rows);
  }
  /// [rows][queries].
  std::span<const int32_t> committedTokens() const {
    return section<const int32_t>(current, offsets.tokens,
                                  int64_t(bounds.rows) * bounds.queries);
  }
  std::span<const int32_t> committedTable(int32_t index) const {
    KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
    return {reinterpret_cast<const int32_t *>(current.data() + offsets.tables) +
                int64_t(index) * bounds.pages_per_slot,
            static_cast<size_t>(bounds.pages_per_slot)};
  }
  std::span<const float> committedSummaryBiases(int32_t index) const {
    KVRM_CHECK(index >= 0 && index < bounds.rows, "row in range");
    return section<const float>(current,
                                offsets.summary_biases +
                                    index * bounds.max_summaries *
                                        int64_t(sizeof(float)),
                                bounds.max_summaries);
  }
  std::span<const kvrm_group> committedGroups() const {
    return section<const kvrm_group>(current, offsets.groups,
                                     committedHeader().groups);
  }
  std::span<const kvrm_work_item> committedItems() const {
    return section<const kvrm_work_item>(current, offsets.items,
                                         committedHeader().items);
  }
  std::span<const kvrm_merge_segment> committedSegments() const {
    return section<const kvrm_merge_segment>(current, offsets.segments,
                                             committedHeader().segments);
  }

  /// One entry a share, empty ones included.
  std::span<const kvrm_share> committedShares() const {
    return section<const kvrm_share>(current, offsets.shares,
                                     bounds.max_shares);
  }

private:
  StepDescriptor() = default;

  template <typename T>
  static std::span<T> section(const AlignedBuffer &buffer, int64_t offset,
                              int64_t count) {
    return {reinterpret_cast<T *>(buffer.data() + offset),
            static_cast<size_t>(count)};
  }
  /// Raises the epoch, hands `copy` every range (offset, bytes) that may differ
  /// between the two copies, and forgets that it may.
  template <typename Copy> void commitRanges(Copy copy);

  kvrm_descriptor_limits bounds{};
  kvrm_descriptor_layout offsets{};
  AlignedBuffer planned;
  AlignedBuffer current;
  /// What stands here for a token that is fed.
  static constexpr int32_t fedToken = -2;

  std::vector<int32_t> fedFrom; ///< [rows], -1 = not fed
  std::vector<uint8_t> rowDirty;
  DirtyRange tokensDirty;
  std::vector<DirtyRange> tableDirty;
  std::vector<DirtyRange> biasDirty;
  DirtyRange samplingDirty;
  DirtyRange groupsDirty;
  DirtyRange itemsDirty;
  DirtyRange segmentsDirty;
  DirtyRange sharesDirty;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PAGING_STEPDESCRIPTOR_H
