//===- sampling.h - How a row's next token is chosen --------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The next token of a row as a function of its logits and of 16 bytes, defined
// so that a host and a device choose the same one whatever the order in which
// they add up: scalars are computed in f32, each operation rounded, and all
// sums are of integers.
//
//   1. Only finite logits count. `best` is the first of the greatest; there is
//      no token, -1, if there is none.
//   2. With scale 0 the token is `best`.
//   3. The weight of a token is 2^x for x = (logit - logit of best) * scale, in
//      units of 2^-KVRM_WEIGHT_BITS and rounded down: with n = floor(x) and p
//      the polynomial kvrm_exp2_coefficients of x - n it is
//      integer(p * 2^23) << (KVRM_WEIGHT_BITS - 23) >> -n, and 0 if
//      x < -KVRM_WEIGHT_BITS.
//   4. top_k keeps that many tokens of the greatest logits, and those that are
//      as great as the last of them.
//   5. top_p keeps, of these, the fewest tokens of the greatest logits whose
//      weights add up to the fraction top_p / 2^32 of all of these, rounded
//      down and 1 at least, and those that are as great as the last of them.
//   6. The kept weights add up to `mass`. The token is the first, in the order
//      of the vocabulary, at which the sum of kept weights up to and with it is
//      over mass * random / 2^32, rounded down.
//
// A fraction of a mass is kvrm_fraction_of().
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_SAMPLING_H
#define KVRM_RUNTIME_ABI_SAMPLING_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// How the token of one row is chosen in one step.
typedef struct kvrm_sampling {
  float scale;     ///< log2(e) / temperature, positive and finite; 0 = greedy
  uint32_t top_p;  ///< in units of 2^-32; 0 = all
  int32_t top_k;   ///< 0 = all
  uint32_t random; ///< uniform
} kvrm_sampling;   // 16 bytes

/// Bits of a weight after the point. That of `best` is 1, and with at most 2^24
/// tokens no sum is over 64 bits.
#define KVRM_WEIGHT_BITS 38

/// 2^f - 1 for f in [0, 1] is f * (c[0] + f * (c[1] + ...)), to 9e-8; a
/// polynomial of degree 6 through Chebyshev's points.
#define KVRM_EXP2_DEGREE 6
static const float kvrm_exp2_coefficients[KVRM_EXP2_DEGREE] = {
    0.6931471824645996f,   0.24022720754146576f,   0.05549602210521698f,
    0.009652195498347282f, 0.0012692166492342949f, 0.0002081791462842375f};

/// mass * fraction / 2^32, rounded down, for a mass below 2^63.
static inline uint64_t kvrm_fraction_of(uint64_t mass, uint32_t fraction) {
  return (mass >> 32) * fraction + (((mass & 0xffffffffu) * fraction) >> 32);
}

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_SAMPLING_H
