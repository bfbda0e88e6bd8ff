//===- pool.h - Order of elements in the KV pool ------------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// [layer][K or V][kv_head][page]
//
// A page has page_tokens * head_dim elements and, if the element has scales,
// those behind, one a token. Whatever moves whole pages moves both.
//
// Of elements, host packages keep V token-major ([token][head_dim]) and K
// transposed ([head_dim][token]), so that both products of attention run with
// vector lanes along the contiguous dimension. Kernels for NVIDIA GPUs keep
// both token-major, with each token's chunks of 16 bytes permuted, so that a
// bulk copy of a page lands in shared memory free of bank conflicts. Only
// generated kernels and the runtime's one import/export pair know this.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_POOL_H
#define KVRM_RUNTIME_ABI_POOL_H

#include "kvrm/runtime/abi/limits.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Bytes of a chunk, the unit that the permutation moves.
#define KVRM_CHUNK_BYTES 16

/// Where a page of one KV head, K or V, has what. In bytes.
typedef struct kvrm_page_layout {
  int64_t scales; ///< behind the elements: bf16, in the order of tokens
  int64_t bytes;  ///< with scales, whole chunks
} kvrm_page_layout;

static inline kvrm_page_layout kvrm_page_layout_of(int64_t page_tokens,
                                                   int64_t head_dim,
                                                   kvrm_element element) {
  kvrm_page_layout layout;
  layout.scales = page_tokens * head_dim * kvrm_element_bytes(element);
  layout.bytes = layout.scales;
  if (kvrm_scale_bytes(element) > 0) {
    layout.bytes += page_tokens * kvrm_scale_bytes(element);
    layout.bytes = (layout.bytes + KVRM_CHUNK_BYTES - 1) / KVRM_CHUNK_BYTES *
                   KVRM_CHUNK_BYTES;
  }
  return layout;
}

/// What device kernels make of a head dimension.
typedef struct kvrm_head_shape {
  int32_t head_dim;     ///< a multiple of 32
  int32_t strip_tokens; ///< that a warp attends to at once, a multiple of 16
  int32_t query_rows;   ///< of a tile at most: its sums stay in registers
  int32_t warps;        ///< of a block: their strips share its memory
} kvrm_head_shape;

/// Warps of a block at most that share the tiles of a prompt, each with
/// query_rows rows of its own.
#define KVRM_MAX_PROMPT_WARPS 8

/// The head dimensions that device kernels take, and as errors list them.
static const kvrm_head_shape kvrm_head_shapes[] = {
    {64, 32, 16, 8}, {96, 16, 16, 8}, {128, 16, 16, 8}, {256, 16, 8, 4}};
#define KVRM_HEAD_SHAPES_TEXT "64, 96, 128 and 256"

/// The shape of a head dimension; null if device kernels do not take it.
static inline const kvrm_head_shape *kvrm_head_shape_of(int64_t head_dim) {
  for (uint64_t i = 0;
       i < sizeof(kvrm_head_shapes) / sizeof(kvrm_head_shapes[0]); ++i)
    if (kvrm_head_shapes[i].head_dim == head_dim)
      return &kvrm_head_shapes[i];
  return 0;
}

/// Tokens of a strip whose elements have so many bytes. Of single bytes there
/// are 32 at least: what a strip costs beside its bytes is then that of two
/// strips of 16.
static inline int32_t kvrm_strip_tokens(const kvrm_head_shape *shape,
                                        int64_t element_bytes) {
  return element_bytes == 1 && shape->strip_tokens < 32 ? 32
                                                        : shape->strip_tokens;
}

/// The permutation of a page's token `token`, whose row has `row_bytes`: its
/// chunks are XORed with (token & 7) >> kvrm_swizzle_shift(row_bytes).
///
/// A matrix load reads one chunk of eight successive tokens, and is free of
/// conflicts if these lie in different eighths of the 128 bytes that a line of
/// banks has. Where rows are whole lines, XOR with 0 to 7 does that. A row of
/// an odd number of half lines begins in the first half for even tokens and in
/// the second for odd ones, so that pairs of tokens must differ in a half line
/// alone: XOR with 0 to 3, which also stays within the row. Rows of an odd
/// number of quarter lines begin in four places, each of them two eighths, and
/// token t where t + 4 does: XOR with 0 and 1.
static inline int32_t kvrm_swizzle_shift(int64_t row_bytes) {
  return row_bytes % 128 == 0 ? 0 : row_bytes % 64 == 0 ? 1 : 2;
}

/// Where chunk `chunk` of a page's token `token` lies in that token's row.
static inline int64_t kvrm_swizzled_chunk(int64_t row_bytes, int64_t token,
                                          int64_t chunk) {
  return chunk ^ ((token & 7) >> kvrm_swizzle_shift(row_bytes));
}

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_POOL_H
