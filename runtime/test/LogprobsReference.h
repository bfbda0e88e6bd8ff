//===- LogprobsReference.h - Log probabilities for tests --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// By the definition: each probability is e^logit over the sum of all, in
// float64, and the order is that of a stable sort. For logits that are finite
// and small enough for e^logit to be.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_LOGPROBSREFERENCE_H
#define KVRM_TEST_LOGPROBSREFERENCE_H

#include "kvrm/runtime/serving/LogSoftmax.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace reference {

/// What a request that asks for `count` of the likeliest is told of `token`.
template <typename Real>
kvrm::TokenLogprobs logprobsOf(const std::vector<Real> &logits, int32_t token,
                               int32_t count) {
  double sum = 0;
  for (Real logit : logits)
    sum += std::exp(static_cast<double>(logit));
  auto logprob = [&](int32_t id) {
    return std::log(
        std::exp(static_cast<double>(logits[static_cast<size_t>(id)])) / sum);
  };
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(ids, std::greater(), [&](int32_t id) {
    return logits[static_cast<size_t>(id)];
  });
  ids.resize(std::min(ids.size(), static_cast<size_t>(count)));
  kvrm::TokenLogprobs out{logprob(token), {}};
  for (int32_t id : ids)
    out.likeliest.push_back({id, logprob(id)});
  return out;
}

/// What is different, or nothing.
inline std::string difference(const kvrm::TokenLogprobs &got,
                              const kvrm::TokenLogprobs &want,
                              double tolerance) {
  auto isNear = [&](double a, double b) {
    return std::abs(a - b) <= tolerance;
  };
  if (!isNear(got.logprob, want.logprob))
    return "log probability " + std::to_string(got.logprob) + ", not " +
           std::to_string(want.logprob);
  if (got.likeliest.size() != want.likeliest.size())
    return std::to_string(got.likeliest.size()) + " of the likeliest, not " +
           std::to_string(want.likeliest.size());
  for (size_t i = 0; i < got.likeliest.size(); ++i)
    if (got.likeliest[i].token != want.likeliest[i].token ||
        !isNear(got.likeliest[i].logprob, want.likeliest[i].logprob))
      return "likeliest " + std::to_string(i) + " is token " +
             std::to_string(got.likeliest[i].token) + ", not " +
             std::to_string(want.likeliest[i].token);
  return {};
}

} // namespace reference

#endif // KVRM_TEST_LOGPROBSREFERENCE_H
