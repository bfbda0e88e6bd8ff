//===- descriptor.h - The step descriptor -------------------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What one step is told about its rows: a header and sections at offsets that
// kvrm_descriptor_layout_of gives, fixed by a few capacities.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_DESCRIPTOR_H
#define KVRM_RUNTIME_ABI_DESCRIPTOR_H

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/sampling.h"
#include "kvrm/runtime/abi/version.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVRM_DESCRIPTOR_MAGIC 0x44525643u /* "CVRD" in a little-endian dump */

/// First bytes of a step descriptor.
typedef struct kvrm_descriptor_header {
  uint32_t magic;       ///< KVRM_DESCRIPTOR_MAGIC
  uint32_t abi_version; ///< KVRM_ABI_VERSION
  uint64_t epoch;       ///< grows by one a commit
  int32_t rows;         ///< capacity of the rows section
  int32_t active_rows;  ///< rows with count > 0
  int32_t groups;       ///< transfer groups in use
  int32_t items;        ///< work items in use
  int32_t segments;     ///< merge segments in use
  int32_t partials;     ///< partial states the items write
  int32_t shares;       ///< capacity of the shares section
  int32_t reserved[5];
} kvrm_descriptor_header; // 64 bytes

/// One row of the step. An idle row has count 0, length 0, and slot -1.
///
/// A token's place is its position unless the row's far history is collapsed:
/// the table then starts with the pages of all `max_summaries` entries, of
/// which `summaries` are in use, and goes on with those of the exact tokens.
/// The new tokens are always the last places, from length - count on.
typedef struct kvrm_row {
  int32_t slot;         ///< slot whose history this row reads and extends
  int32_t position;     ///< position of the row's first new token
  int32_t count;        ///< new tokens in this step (0 = idle row)
  int32_t length;       ///< places in use after this step's append
  int32_t write_page;   ///< physical page of the first new token
  int32_t write_offset; ///< its offset in that page, in tokens
  int32_t summaries;    ///< far-history summary entries in use (0 = none)
  int32_t reserved;
} kvrm_row; // 32 bytes

/// A maximal run of physically adjacent pages of one row, at most
/// KVRM_MAX_GROUP_PAGES long. The unit in which KV moves.
typedef struct kvrm_group {
  int32_t row;
  int32_t logical_page;  ///< first page, counted in the row's history
  int32_t physical_page; ///< where that page lies in the pool
  int32_t pages;         ///< length of the run
} kvrm_group;            // 16 bytes

/// The share of attention that one call of a kernel computes: queries
/// [query_tile * q_tile, ...) of one row and KV head over KV tiles
/// [tile_begin, tile_end).
typedef struct kvrm_work_item {
  int32_t row;
  int32_t kv_head;
  int32_t query_tile;
  int32_t tile_begin;
  int32_t tile_end;
  int32_t partial; ///< where the state goes; -1 = item is whole, write output
  int32_t segment; ///< merge segment the partial belongs to, or -1
  int32_t reserved;
} kvrm_work_item; // 32 bytes

/// Partials [first_partial, first_partial + partials) make up one output tile.
typedef struct kvrm_merge_segment {
  int32_t row;
  int32_t kv_head;
  int32_t query_tile;
  int32_t first_partial;
  int32_t partials;
  int32_t reserved[3];
} kvrm_merge_segment; // 32 bytes

/// Where one worker, or one block of a persistent grid, starts: items
/// [item_begin, item_end). Which shares the parts of a segment lie in, the
/// merge rule says (partial.h). `first` repeats items[item_begin], so that a
/// block finds its first pages one load earlier; it means nothing in an empty
/// share.
typedef struct kvrm_share {
  kvrm_work_item first;
  int32_t item_begin;
  int32_t item_end;
  int32_t reserved[6];
} kvrm_share; // 64 bytes

/// Added to the score of a summary entry that is not in use: below any score,
/// and finite, so that differences of two such stay defined.
#define KVRM_UNUSED_SUMMARY (-1e30f)

/// Capacities that fix a descriptor's layout.
typedef struct kvrm_descriptor_limits {
  int32_t rows;           ///< rows of the step
  int32_t queries;        ///< tokens of a row at most
  int32_t pages_per_slot; ///< length of one block table
  int32_t max_groups;
  int32_t max_items;
  int32_t max_segments;
  int32_t max_shares;
  int32_t max_summaries; ///< far-history summary entries of a row; 0 = off
} kvrm_descriptor_limits;

/// Byte offsets of a descriptor's sections from its start, and its size. The
/// header is at 0, and rows, tokens, block tables and biases come next, so that
/// their offsets depend only on what a compiler knows: `rows`, `queries`,
/// `pages_per_slot` and `max_summaries`.
typedef struct kvrm_descriptor_layout {
  int64_t rows; ///< kvrm_row[rows]
  /// int32_t[rows][queries]: the new tokens of each row, then zeros. Those of
  /// an idle row are tokens of the vocabulary, whichever.
  int64_t tokens;
  int64_t tables; ///< int32_t[rows][pages_per_slot], physical pages; -1 = none
  /// float[rows][max_summaries]: log2 of the tokens that an entry stands for,
  /// KVRM_UNUSED_SUMMARY if it is not in use. Means nothing in a row without
  /// summaries.
  int64_t summary_biases;
  int64_t sampling; ///< kvrm_sampling[rows]; of an idle row anything
  int64_t groups;   ///< kvrm_group[max_groups]
  int64_t items;    ///< kvrm_work_item[max_items]
  int64_t segments; ///< kvrm_merge_segment[max_segments]
  int64_t shares;   ///< kvrm_share[max_shares]
  int64_t bytes;    ///< whole descriptor, a multiple of KVRM_ALIGNMENT
} kvrm_descriptor_layout;

static inline kvrm_descriptor_layout
kvrm_descriptor_layout_of(kvrm_descriptor_limits limits) {
  kvrm_descriptor_layout layout;
  layout.rows = kvrm_align_up((int64_t)sizeof(kvrm_descriptor_header));
  layout.tokens =
      kvrm_align_up(layout.rows + limits.rows * (int64_t)sizeof(kvrm_row));
  layout.tables =
      kvrm_align_up(layout.tokens + (int64_t)limits.rows * limits.queries *
                                        (int64_t)sizeof(int32_t));
  layout.summary_biases = kvrm_align_up(
      layout.tables +
      (int64_t)limits.rows * limits.pages_per_slot * (int64_t)sizeof(int32_t));
  layout.sampling = kvrm_align_up(layout.summary_biases +
                                  (int64_t)limits.rows * limits.max_summaries *
                                      (int64_t)sizeof(float));
  layout.groups = kvrm_align_up(layout.sampling +
                                limits.rows * (int64_t)sizeof(kvrm_sampling));
  layout.items = kvrm_align_up(layout.groups +
                               limits.max_groups * (int64_t)sizeof(kvrm_group));
  layout.segments = kvrm_align_up(
      layout.items + limits.max_items * (int64_t)sizeof(kvrm_work_item));
  layout.shares =
      kvrm_align_up(layout.segments +
                    limits.max_segments * (int64_t)sizeof(kvrm_merge_segment));
  layout.bytes = kvrm_align_up(layout.shares +
                               limits.max_shares * (int64_t)sizeof(kvrm_share));
  return layout;
}

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_DESCRIPTOR_H
