//===- abi.h - What the compiler and the runtime share ----------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one header that both sides of kvrm include. The compiler takes every
// offset and size from it (offsetof, sizeof, kvrm_descriptor_layout_of), so
// that generated code and runtime cannot drift. Plain C11; no dependency.
//
// Any change of a struct, an enum or a meaning here raises KVRM_ABI_VERSION. A
// package records the version it was compiled for and is refused on a mismatch.
//
// Words used throughout:
//   slot     a fixed place for one request in the decode batch
//   row      one line of one step: decode has a row per slot, prefill has one
//   page     KVRM page_tokens consecutive tokens of one request, all layers
//   tile     kv_tile consecutive tokens that a kernel attends to at once
//   place    where a token stands in its row's block table: token t of table
//            entry p is at place p * page_tokens + t
//   summary  one KV entry that stands for several tokens of the far history
//   partial  the softmax state (m, l, acc) of one work item, not yet merged
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_H
#define KVRM_RUNTIME_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVRM_ABI_VERSION 3
#define KVRM_DESCRIPTOR_MAGIC 0x44525643u /* "CVRD" in a little-endian dump */

/// Hard limits. Whatever crosses a boundary is checked against them.
enum {
  KVRM_MAX_ROWS = 1024,   ///< rows of one step
  KVRM_MAX_QUERIES = 512, ///< query tokens of one row in one step
  KVRM_MAX_PAGES_PER_SLOT = 65536,
  KVRM_MAX_POOL_PAGES = 1 << 24,
  KVRM_MAX_PAGE_TOKENS = 256,
  KVRM_MAX_LAYERS = 1024,
  KVRM_MAX_KV_HEADS = 256,
  KVRM_MAX_HEAD_DIM = 512,
  KVRM_MAX_THREADS = 256,
  KVRM_MAX_GROUP_PAGES = 64, ///< a transfer group is cut here
  KVRM_MAX_CLUSTER = 8,      ///< blocks of a cluster that attend together
  KVRM_MAX_SUMMARIES = 4096, ///< far-history summary entries of one slot
  KVRM_ALIGNMENT = 64        ///< of pools, arenas, weights, descriptors
};

/// How history pages reach a kernel.
typedef enum kvrm_transport {
  KVRM_TRANSPORT_NATIVE = 0, ///< the kernel reads pages through the block table
  KVRM_TRANSPORT_STAGED = 1  ///< groups are copied to a contiguous tile first
} kvrm_transport;

/// How (row, KV head, query tile) work is cut into items.
typedef enum kvrm_schedule {
  KVRM_SCHEDULE_ROWS = 0,     ///< one item each
  KVRM_SCHEDULE_SPLIT = 1,    ///< a fixed number of splits each
  KVRM_SCHEDULE_WORKQUEUE = 2 ///< all tiles in one line, cut in equal shares
} kvrm_schedule;

/// Element type of the KV pool.
typedef enum kvrm_element { KVRM_F16 = 0, KVRM_BF16 = 1 } kvrm_element;

//===----------------------------------------------------------------------===//
// Step descriptor
//===----------------------------------------------------------------------===//

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
/// [item_begin, item_end). Under KVRM_SCHEDULE_WORKQUEUE the parts of a segment
/// lie in successive shares, one in each; its last is the first item of its
/// share. `first` repeats items[item_begin], so that a block
/// finds its first pages one load earlier; it means nothing in an empty share.
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
  int32_t pages_per_slot; ///< length of one block table
  int32_t max_groups;
  int32_t max_items;
  int32_t max_segments;
  int32_t max_shares;
  int32_t max_summaries; ///< far-history summary entries of a row; 0 = off
} kvrm_descriptor_limits;

/// Byte offsets of a descriptor's sections from its start, and its size. The
/// header is at 0, and rows, block tables and biases come next, so that their
/// offsets depend only on what a compiler knows: `rows`, `pages_per_slot` and
/// `max_summaries`.
typedef struct kvrm_descriptor_layout {
  int64_t rows;   ///< kvrm_row[rows]
  int64_t tables; ///< int32_t[rows][pages_per_slot], physical pages; -1 = none
  /// float[rows][max_summaries]: log2 of the tokens that an entry stands for,
  /// KVRM_UNUSED_SUMMARY if it is not in use. Means nothing in a row without
  /// summaries.
  int64_t summary_biases;
  int64_t groups;   ///< kvrm_group[max_groups]
  int64_t items;    ///< kvrm_work_item[max_items]
  int64_t segments; ///< kvrm_merge_segment[max_segments]
  int64_t shares;   ///< kvrm_share[max_shares]
  int64_t bytes;    ///< whole descriptor, a multiple of KVRM_ALIGNMENT
} kvrm_descriptor_layout;

static inline int64_t kvrm_align_up(int64_t bytes) {
  return (bytes + KVRM_ALIGNMENT - 1) / KVRM_ALIGNMENT * KVRM_ALIGNMENT;
}

static inline kvrm_descriptor_layout
kvrm_descriptor_layout_of(kvrm_descriptor_limits limits) {
  kvrm_descriptor_layout layout;
  layout.rows = kvrm_align_up((int64_t)sizeof(kvrm_descriptor_header));
  layout.tables =
      kvrm_align_up(layout.rows + limits.rows * (int64_t)sizeof(kvrm_row));
  layout.summary_biases = kvrm_align_up(
      layout.tables +
      (int64_t)limits.rows * limits.pages_per_slot * (int64_t)sizeof(int32_t));
  layout.groups = kvrm_align_up(layout.summary_biases +
                                (int64_t)limits.rows * limits.max_summaries *
                                    (int64_t)sizeof(float));
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

//===----------------------------------------------------------------------===//
// KV pool
//===----------------------------------------------------------------------===//
//
// [layer][K or V][kv_head][page][page_tokens * head_dim elements]
//
// Inside a page, host packages keep V token-major ([token][head_dim]) and K
// transposed ([head_dim][token]), so that both products of attention run with
// vector lanes along the contiguous dimension. Kernels for NVIDIA GPUs keep
// both token-major, with the 16-byte chunk c of token t at chunk c ^ (t & 7),
// so that a bulk copy of a page lands in shared memory free of bank conflicts.
// Only generated kernels and the runtime's one import/export pair know this.

//===----------------------------------------------------------------------===//
// Generated kernels
//===----------------------------------------------------------------------===//

struct kvrm_kernel_args;

/// Copies the pages of KV tile `tile` of `item`, run by run of their transfer
/// groups, into `stage`: K pages one after the other, then V pages, each area
/// kv_tile tokens long. Pages that the row does not have are left alone.
typedef void (*kvrm_stage_tile_fn)(const struct kvrm_kernel_args *args,
                                   const kvrm_work_item *item, int32_t tile,
                                   uint8_t *stage);

/// What a generated append or attention kernel is given. Filled by the runtime
/// once a launch; the kernel owns nothing in it.
typedef struct kvrm_kernel_args {
  const uint8_t *descriptor; ///< the committed step descriptor
  uint8_t *k_pool;           ///< this layer's K: [kv_head][page][...]
  uint8_t *v_pool;           ///< this layer's V
  int64_t head_stride;       ///< bytes from one KV head's pages to the next's
  const float *q;            ///< [rows][queries][q_heads][head_dim]
  float *out;                ///< like q
  const float *k;            ///< [rows][queries][kv_heads][head_dim], to append
  const float *v;            ///< like k
  float *partials;           ///< partial p at p * kvrm_partial_floats(...)
  kvrm_stage_tile_fn stage_tile; ///< for KVRM_TRANSPORT_STAGED, else null
  void *context;                 ///< the runtime's, for stage_tile
} kvrm_kernel_args;

/// One partial state: with R = q_tile * (q_heads / kv_heads) query rows, in
/// floats, m[R], l[R], acc[R][head_dim]. m is in units of log2: a score is
/// scale * log2(e) * (q . k), and weights are 2^(score - m). A query row that
/// met no token has m = -1e30, l = 0, acc = 0. Query row r stands for query
/// token r / G and query head kv_head * G + r % G of its tile.
static inline int64_t kvrm_partial_floats(int64_t query_rows,
                                          int64_t head_dim) {
  return (query_rows * (head_dim + 2) + 15) / 16 * 16;
}

/// Attends one work item, whole, tile by tile. If item->partial is -1 the
/// normalised result goes to args->out, else the state goes to that partial.
/// `scratch` and `stage` (null under KVRM_TRANSPORT_NATIVE) are private to the
/// calling worker; the manifest gives their sizes.
typedef void (*kvrm_attention_kernel)(const kvrm_kernel_args *args,
                                      const kvrm_work_item *item,
                                      float *scratch, uint8_t *stage);

/// Appends the new tokens of every row of the step to the pool.
typedef void (*kvrm_append_kernel)(const kvrm_kernel_args *args);

/// Runs tasks [begin, end) of a parallel region.
typedef void (*kvrm_parallel_fn)(void *context, int64_t begin, int64_t end);

//===----------------------------------------------------------------------===//
// Generated device kernels
//===----------------------------------------------------------------------===//

/// One word of a commit: descriptor word `index` (of 4 bytes) becomes `value`.
typedef struct kvrm_delta_word {
  uint32_t index;
  uint32_t value;
} kvrm_delta_word; // 8 bytes

/// A commit as it travels to a device: this header, then `words` delta words,
/// each index once. One copy moves it; the commit kernel, first in a captured
/// step, applies it.
typedef struct kvrm_delta_header {
  uint32_t words;
  uint32_t reserved[3];
} kvrm_delta_header; // 16 bytes

/// What a device kernel is launched with. Each field is one 8-byte kernel
/// parameter, in this order, for every kernel alike; pointers are device
/// addresses. All of it is fixed when a step is captured. Elements of q, out, k
/// and v are those of the pool.
typedef struct kvrm_device_args {
  uint64_t delta;      ///< kvrm_delta_header and its words
  uint64_t descriptor; ///< the committed descriptor, and its sections:
  uint64_t rows;       ///< kvrm_row[rows]
  uint64_t tables;     ///< int32_t[rows][pages_per_slot]
  uint64_t groups;     ///< kvrm_group[]
  uint64_t items;      ///< kvrm_work_item[]
  uint64_t segments;   ///< kvrm_merge_segment[]
  uint64_t shares;     ///< kvrm_share[], one a block of the persistent grid
  uint64_t k_pool;     ///< this layer's K: [kv_head][page][page bytes]
  uint64_t v_pool;     ///< this layer's V
  uint64_t q;          ///< [rows][queries][q_heads][head_dim]
  uint64_t out;        ///< like q
  uint64_t k;          ///< [rows][queries][kv_heads][head_dim], to append
  uint64_t v;          ///< like k
  /// Partial p at p * kvrm_partial_floats(...), in floats: acc[R][head_dim],
  /// then (m, l)[R]. Mailboxes: between launches every word is
  /// KVRM_EMPTY_PARTIAL. The runtime fills them so once; kernels leave them so.
  uint64_t partials;
  int64_t head_stride; ///< bytes from one KV head's pages to the next's
  int64_t pages_per_slot;
  /// For KVRM_TRANSPORT_STAGED, else 0: like k_pool, with page p of row r at
  /// page r * pages_per_slot + p.
  uint64_t staged_k;
  uint64_t staged_v;
} kvrm_device_args;

/// A word of a partial that nobody has written. Kernels never write it.
#define KVRM_EMPTY_PARTIAL 0xffffffffu

//===----------------------------------------------------------------------===//
// The compiled step
//===----------------------------------------------------------------------===//

/// What a compiled step calls. `session` is kvrm_step_args::session.
typedef struct kvrm_host_api {
  /// Makes the planned descriptor the committed one and returns it. Exactly one
  /// call a step, before any other of `append` and `attend`.
  const uint8_t *(*commit)(void *session);
  /// Announces the step's transfer groups to the transport. One call a step.
  void (*stage)(void *session, int32_t transport);
  /// Runs `kernel` once, with `layer`'s pool and the new K and V rows.
  void (*append)(void *session, int32_t layer, kvrm_append_kernel kernel,
                 const float *k, const float *v);
  /// Runs `kernel` over all work items and merges the partials.
  void (*attend)(void *session, int32_t layer, kvrm_attention_kernel kernel,
                 const float *q, float *out);
  /// Runs tasks [0, count) over the workers, a contiguous range each, and
  /// returns when all are done.
  void (*parallel)(void *session, kvrm_parallel_fn fn, void *context,
                   int64_t count);
} kvrm_host_api;

/// Arguments of a compiled step. Everything is owned by the caller.
typedef struct kvrm_step_args {
  const kvrm_host_api *api;
  void *session;
  const uint8_t *weights; ///< data section of weights.safetensors, aligned
  uint8_t *arena;         ///< intermediate values, size from the manifest
  const int32_t *tokens;  ///< [rows][queries]
  float *logits;          ///< [rows][vocabulary]
  /// Static packages only; a paged step reads these from its descriptor.
  const int32_t *positions; ///< [rows] position of the first new token
  const int32_t *counts;    ///< [rows] new tokens (prefill only)
  const int32_t *slots;     ///< [rows] slot of each row (prefill only)
  uint8_t *k_cache;         ///< [layer][slot][kv_head][capacity][head_dim]
  uint8_t *v_cache;         ///< like k_cache
} kvrm_step_args;

/// Type of the entry points `kvrm_decode_step` and `kvrm_prefill` of code.so.
typedef void (*kvrm_step_fn)(const kvrm_step_args *args);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_H
