//===- partial.h - Softmax states that are not merged yet ---------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Where attention leaves the state of a part of an output tile, and the rule on
// which merging parts rests.
//
// Merge rule. Under KVRM_SCHEDULE_WORKQUEUE the parts of a merge segment lie in
// successive shares, one in each, and each part but the first is the first item
// of its share. A block that has done all its items, and posted their partials,
// merges the segment whose last part was its first item. So it waits for blocks
// of lower numbers alone, which have started, as blocks start in the order of
// their numbers, and which post before they wait: some block can always go on.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_PARTIAL_H
#define KVRM_RUNTIME_ABI_PARTIAL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// One partial state: with R = q_tile * (q_heads / kv_heads) query rows, in
/// floats, m[R], l[R], acc[R][head_dim]. m is in units of log2: a score is
/// scale * log2(e) * (q . k), and weights are 2^(score - m). A query row that
/// met no token has m = -1e30, l = 0, acc = 0. Query row r stands for query
/// token r / G and query head kv_head * G + r % G of its tile.
static inline int64_t kvrm_partial_floats(int64_t query_rows,
                                          int64_t head_dim) {
  return (query_rows * (head_dim + 2) + 15) / 16 * 16;
}

/// GPUs keep acc[R][head_dim] first. As a warp empties what it has awaited, and
/// merges 128 floats of rows at once, (m, l) are there once for each piece of a
/// row that is of one warp whatever the row: so many floats.
static inline int64_t kvrm_piece_floats(int64_t head_dim) {
  int64_t divisor = head_dim & -head_dim; // the largest power of two
  return divisor < 128 ? divisor : 128;
}

/// The same state in the memory of a GPU, acc[R][head_dim], then (m, l) of each
/// piece of the R rows.
static inline int64_t kvrm_device_partial_floats(int64_t query_rows,
                                                 int64_t head_dim) {
  int64_t pieces = head_dim / kvrm_piece_floats(head_dim);
  return (query_rows * (head_dim + 2 * pieces) + 15) / 16 * 16;
}

/// A word of a partial that nobody has written. Kernels never write it.
#define KVRM_EMPTY_PARTIAL 0xffffffffu

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_PARTIAL_H
