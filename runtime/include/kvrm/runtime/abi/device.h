//===- device.h - Generated kernels of a GPU ----------------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// How a commit travels to a device, and what its kernels are launched with.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_DEVICE_H
#define KVRM_RUNTIME_ABI_DEVICE_H

#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/abi/partial.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// One word of a commit: descriptor word `index` (of 4 bytes) becomes `value`.
typedef struct kvrm_delta_word {
  uint32_t index;
  uint32_t value;
} kvrm_delta_word; // 8 bytes

/// A commit as it travels to a device: this header, then `words` delta words
/// and `fed` others, each index once. The value of a fed word is an index in
/// `next`: the descriptor's word becomes the token there, which the step before
/// chose and the host need not know yet; 0 if it found none. One copy moves the
/// commit; the commit kernel, first in a captured step, applies it.
typedef struct kvrm_delta_header {
  uint32_t words;
  uint32_t fed;
  uint64_t next;     ///< int32_t[], a device address; 0 without fed words
} kvrm_delta_header; // 16 bytes

/// One entry that a collapsing page makes on a device: the mean of `tokens`
/// tokens of that page. What the entry was is first merged into another, which
/// becomes `keep` times itself and `add` times it; not if merge_page is -1.
/// Entries are said by the pages that they lie in.
typedef struct kvrm_collapse_write {
  int32_t page;
  int32_t token;
  int32_t first_token;
  int32_t tokens;
  int32_t merge_page;
  int32_t merge_token;
  float keep;
  float add;
} kvrm_collapse_write; // 32 bytes

/// A collapse as it travels to a device: this header, `writes` writes, which
/// take effect in their order, and int32_t[cleared], pages that are zeroed
/// before.
typedef struct kvrm_collapse {
  int32_t source; ///< page
  int32_t writes;
  int32_t cleared;
  int32_t reserved;
} kvrm_collapse; // 16 bytes

/// What a device kernel is launched with. Each field is one 8-byte kernel
/// parameter, in this order, for every kernel alike; pointers are device
/// addresses. All of it is fixed when a step is captured. Elements of q, out, k
/// and v are those of the pool.
typedef struct kvrm_device_args {
  /// kvrm_delta_header and its words; of a kernel that collapses a page, a
  /// kvrm_collapse.
  uint64_t delta;
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
  /// Partial p at p * kvrm_device_partial_floats(...), in floats. Mailboxes:
  /// between launches every word is KVRM_EMPTY_PARTIAL. The runtime fills them
  /// so once; kernels leave them so.
  uint64_t partials;
  int64_t head_stride; ///< bytes from one KV head's pages to the next's
  int64_t pages_per_slot;
  /// For KVRM_TRANSPORT_STAGED, else 0: like k_pool, with page p of row r at
  /// page r * pages_per_slot + p.
  uint64_t staged_k;
  uint64_t staged_v;
} kvrm_device_args;

enum {
  KVRM_MAX_PEERS = 8, ///< ranks that have mailboxes
  KVRM_MAILBOXES = 3  ///< of a rank for each other
};

/// Where a rank's kernels find the mailboxes of a group, of one number. A
/// mailbox is 32-bit words, one a value, all KVRM_EMPTY_PARTIAL between
/// launches that use it. Addresses are of device memory but for `aborted`.
typedef struct kvrm_peers {
  uint64_t rank;
  uint64_t aborted; ///< int32_t in host memory: not 0 when nobody is to wait
  uint64_t inboxes[KVRM_MAX_PEERS];  ///< here, by the rank that writes it
  uint64_t outboxes[KVRM_MAX_PEERS]; ///< this rank's, by the rank that reads it
} kvrm_peers;

#define KVRM_DEVICE_ARGS (sizeof(kvrm_device_args) / sizeof(uint64_t))

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_DEVICE_H
