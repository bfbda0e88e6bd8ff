//===- LogSoftmax.h - How likely tokens are ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The natural logarithms of the probabilities that a model gives tokens: those
// of its logits as they are, before temperature, top-k and top-p. As for
// sampling (abi/sampling.h), only finite logits count.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SERVING_LOGSOFTMAX_H
#define KVRM_RUNTIME_SERVING_LOGSOFTMAX_H

#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

/// The most that a request may ask for of the likeliest tokens.
constexpr int32_t mostTopLogprobs = 20;

struct TokenLogprob {
  int32_t token = -1;
  double logprob = 0;
};

/// What a request may ask to know of a token that it gets.
struct TokenLogprobs {
  double logprob = 0; ///< of the token
  /// Of any at its place, the likeliest first and of equal ones the first;
  /// fewer than asked for if fewer have a probability.
  std::vector<TokenLogprob> likeliest;
};

class LogSoftmax {
public:
  /// Of one row of logits, which outlives it and has a finite one.
  explicit LogSoftmax(std::span<const float> logits);

  /// Of a token; minus infinity if its logit is not finite.
  double of(int32_t token) const;
  /// Puts the likeliest `count` tokens, 0..mostTopLogprobs, into `out`.
  void likeliest(int32_t count, std::vector<TokenLogprob> &out) const;

private:
  std::span<const float> logits;
  double most = 0;   ///< of the finite logits
  double logSum = 0; ///< of e^(logit - most)
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SERVING_LOGSOFTMAX_H
