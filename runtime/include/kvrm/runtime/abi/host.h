//===- host.h - Compiled steps and kernels of a CPU ---------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What code.so of a host package exports and calls.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_HOST_H
#define KVRM_RUNTIME_ABI_HOST_H

#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/partial.h"
#include "kvrm/runtime/abi/pool.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvrm_kernel_args;

/// Where a staged KV tile has its pages: those of K one after the other, then
/// those of V, each area kv_tile tokens long. Offsets in bytes.
typedef struct kvrm_stage_layout {
  int64_t k;
  int64_t v;
  int64_t bytes;
} kvrm_stage_layout;

static inline kvrm_stage_layout kvrm_stage_layout_of(int64_t kv_tile,
                                                     int64_t page_tokens,
                                                     int64_t head_dim,
                                                     kvrm_element element) {
  kvrm_stage_layout layout;
  int64_t area = kv_tile / page_tokens *
                 kvrm_page_layout_of(page_tokens, head_dim, element).bytes;
  layout.k = 0;
  layout.v = area;
  layout.bytes = 2 * area;
  return layout;
}

/// Copies the pages of KV tile `tile` of `item`, run by run of their transfer
/// groups, into `stage`. Pages that the row does not have are left alone.
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

/// What a compiled step calls. `session` is kvrm_step_args::session; `batch` is
/// one of the step's.
typedef struct kvrm_host_api {
  /// Makes what is planned for all batches what is committed. Exactly one call
  /// a step, before any of `stage`, `append` and `attend`.
  void (*commit)(void *session);
  /// Announces a batch's transfer groups to the transport. One call a batch.
  void (*stage)(void *session, int32_t batch, int32_t transport);
  /// Runs `kernel` once, with `layer`'s pool and the new K and V rows.
  void (*append)(void *session, int32_t batch, int32_t layer,
                 kvrm_append_kernel kernel, const float *k, const float *v);
  /// Runs `kernel` over all work items of a batch and merges the partials.
  void (*attend)(void *session, int32_t batch, int32_t layer,
                 kvrm_attention_kernel kernel, const float *q, float *out);
  /// Runs tasks [0, count) over the workers, a contiguous range each, and
  /// returns when all are done.
  void (*parallel)(void *session, kvrm_parallel_fn fn, void *context,
                   int64_t count);
  /// Packages of several ranks only, each of which makes the same calls in the
  /// same order: out[i] = sum over ranks of in[i], and out[r][i] = in[i] of
  /// rank r, for `count` elements of in. They share no memory. If the call
  /// fails, as when another rank has, out holds anything.
  void (*all_reduce)(void *session, const float *in, float *out, int64_t count);
  void (*all_gather)(void *session, const float *in, float *out, int64_t count);
} kvrm_host_api;

/// Arguments of a compiled step. Everything is owned by the caller.
typedef struct kvrm_step_args {
  const kvrm_host_api *api;
  void *session;
  const uint8_t *weights; ///< data section of weights.safetensors, aligned
  uint8_t *arena;         ///< intermediate values, size from the manifest
  /// Paged packages only: the committed descriptor of each batch. What is in
  /// them is of this step once it has committed.
  const uint8_t *descriptors[KVRM_MAX_BATCHES];
  /// [rows][queries] of each batch. Of a paged step, those of its descriptors.
  const int32_t *tokens[KVRM_MAX_BATCHES];
  float *logits; ///< [rows of all batches][vocabulary]
  /// Static packages only; a paged step reads these from its descriptor.
  const int32_t *positions; ///< [rows] position of the first new token
  const int32_t *counts;    ///< [rows] new tokens (prefill only)
  const int32_t *slots;     ///< [rows] slot of each row (prefill only)
  /// [layer][slot][kv_head][capacity], and of each token [head_dim] elements,
  /// then its scale if the element has scales.
  uint8_t *k_cache;
  uint8_t *v_cache; ///< like k_cache
} kvrm_step_args;

/// Type of the entry points of code.so: `kvrm_decode_step`, `kvrm_prefill` and,
/// if there is one, `kvrm_mixed_step`.
typedef void (*kvrm_step_fn)(const kvrm_step_args *args);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_HOST_H
