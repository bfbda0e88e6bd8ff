//===- LogSoftmax.cpp - How likely tokens are -----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/LogSoftmax.h"

#include "kvrm/runtime/support/Check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <ranges>

using namespace kvrm;

/// Sums of 32 bits would lose what a large vocabulary's unlikely tokens have
/// together, and e^logit overflows: the greatest logit is taken off first.
LogSoftmax::LogSoftmax(std::span<const float> logits) : logits(logits) {
  most = -std::numeric_limits<double>::infinity();
  for (float logit : logits)
    if (std::isfinite(logit))
      most = std::max<double>(most, logit);
  KVRM_CHECK(std::isfinite(most), "a chosen token has a finite logit");
  double sum = 0;
  for (float logit : logits)
    if (std::isfinite(logit))
      sum += std::exp(logit - most);
  logSum = std::log(sum);
}

double LogSoftmax::of(int32_t token) const {
  float logit = logits[static_cast<size_t>(token)];
  return std::isfinite(logit) ? (logit - most) - logSum
                              : -std::numeric_limits<double>::infinity();
}

void LogSoftmax::likeliest(int32_t count,
                           std::vector<TokenLogprob> &out) const {
  KVRM_CHECK(count >= 0 && count <= mostTopLogprobs, "counts are checked");
  auto logit = [&](int32_t token) {
    return logits[static_cast<size_t>(token)];
  };
  // By logits: unequal ones may have equal probabilities once rounded.
  auto isBefore = [&](int32_t a, int32_t b) {
    return logit(a) > logit(b) || (logit(a) == logit(b) && a < b);
  };
  auto tokens = std::views::iota(0, static_cast<int32_t>(logits.size())) |
                std::views::filter(
                    [&](int32_t token) { return std::isfinite(logit(token)); });
  std::array<int32_t, mostTopLogprobs> best{};
  auto found = std::span(best).first(static_cast<size_t>(count));
  auto end = std::ranges::partial_sort_copy(tokens, found, isBefore).out;
  out.clear();
  for (int32_t token : std::ranges::subrange(found.begin(), end))
    out.push_back({token, of(token)});
}
