//===- limits.h - Limits, element types and enums -----------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Hard limits, and the few enums that both sides name things by.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_LIMITS_H
#define KVRM_RUNTIME_ABI_LIMITS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Hard limits. Whatever crosses a boundary is checked against them.
enum {
  KVRM_MAX_ROWS = 1024,    ///< rows of one step
  KVRM_MAX_BATCHES = 2,    ///< of one step, each with its descriptor
  KVRM_MAX_QUERIES = 4096, ///< query tokens of one row in one step
  KVRM_MAX_PAGES_PER_SLOT = 65536,
  KVRM_MAX_POOL_PAGES = 1 << 24,
  KVRM_MAX_PAGE_TOKENS = 256,
  KVRM_MAX_LAYERS = 1024,
  KVRM_MAX_KV_HEADS = 256,
  KVRM_MAX_HEAD_DIM = 512,
  KVRM_MAX_THREADS = 256,
  KVRM_MAX_GROUP_PAGES = 64, ///< a transfer group is cut here
  KVRM_MAX_CLUSTER = 8,      ///< blocks of a cluster that attend together
  KVRM_MAX_RANKS = 64,       ///< that run one step together
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
  KVRM_SCHEDULE_ROWS = 0,      ///< one item each
  KVRM_SCHEDULE_SPLIT = 1,     ///< a fixed number of splits each
  KVRM_SCHEDULE_WORKQUEUE = 2, ///< all tiles in one line, cut in equal shares
  KVRM_SCHEDULE_CLUSTER = 3 ///< thread blocks that share one output tile (GPUs)
} kvrm_schedule;

/// Element type of the KV pool. KVRM_F8E4M3 is the e4m3 of OCP's 8-bit floating
/// point specification: a bias of 7, nothing over 448, no infinities, and NaN
/// as 0x7f and 0xff. Keys and values are rounded to it, and cut off at +-448,
/// when they are appended; what attends to them reads the values of the bytes.
/// KVRM_INT8 is an integer of -127..127, times a scale that the elements of one
/// token and KV head share: the least bf16 that lets the largest of them be
/// 127.
typedef enum kvrm_element {
  KVRM_F16 = 0,
  KVRM_BF16 = 1,
  KVRM_F8E4M3 = 2,
  KVRM_INT8 = 3
} kvrm_element;
enum { KVRM_ELEMENTS = 4 };

static inline int64_t kvrm_element_bytes(kvrm_element element) {
  return element == KVRM_F8E4M3 || element == KVRM_INT8 ? 1 : 2;
}

/// Whether elements are codes, which no kernel computes with as they are:
/// queries, new keys and values, and outputs are then of 16 bits or more.
static inline int kvrm_element_is_code(kvrm_element element) {
  return kvrm_element_bytes(element) == 1;
}

/// Bytes of the scale that a token's elements of one KV head share, of K and of
/// V each; 0 if there is none.
static inline int64_t kvrm_scale_bytes(kvrm_element element) {
  return element == KVRM_INT8 ? 2 : 0;
}

/// Bytes of K, or of V, of one token and KV head, with its scale.
static inline int64_t kvrm_token_bytes(int64_t head_dim, kvrm_element element) {
  return head_dim * kvrm_element_bytes(element) + kvrm_scale_bytes(element);
}

/// As manifests and command lines spell it.
static inline const char *kvrm_element_name(kvrm_element element) {
  switch (element) {
  case KVRM_F16:
    return "f16";
  case KVRM_BF16:
    return "bf16";
  case KVRM_F8E4M3:
    return "f8e4m3";
  case KVRM_INT8:
    return "int8";
  }
  return "?";
}

static inline int64_t kvrm_align_up(int64_t bytes) {
  return (bytes + KVRM_ALIGNMENT - 1) / KVRM_ALIGNMENT * KVRM_ALIGNMENT;
}

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_LIMITS_H
