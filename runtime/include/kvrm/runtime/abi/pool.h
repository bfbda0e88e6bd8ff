//===- pool.h - Order of elements in the KV pool ------------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// [layer][K or V][kv_head][page][page_tokens * head_dim elements]
//
// Inside a page, host packages keep V token-major ([token][head_dim]) and K
// transposed ([head_dim][token]), so that both products of attention run with
// vector lanes along the contiguous dimension. Kernels for NVIDIA GPUs keep
// both token-major, with each token's chunks of 16 bytes permuted, so that a
// bulk copy of a page lands in shared memory free of bank conflicts. Only
// generated kernels and the runtime's one import/export pair know this.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_POOL_H
#define KVRM_RUNTIME_ABI_POOL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Bytes of a chunk, the unit that the permutation moves.
#define KVRM_CHUNK_BYTES 16

/// Where chunk `chunk` of a page's token `token` lies in that token's row.
static inline int64_t kvrm_swizzled_chunk(int64_t token, int64_t chunk) {
  return chunk ^ (token & 7);
}

/// Tokens of a strip, what a warp of a device kernel attends to at once: the
/// head dimensions that device kernels take, and 0 for all others.
static inline int32_t kvrm_strip_tokens(int64_t head_dim) {
  return head_dim == 64 ? 32 : head_dim == 128 ? 16 : 0;
}

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_POOL_H
