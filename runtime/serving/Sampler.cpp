//===- Sampler.cpp - Which token comes next ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Sampler.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;

Expected<Sampler> Sampler::create(int32_t vocabulary,
                                  const SamplingSettings &settings) {
  KVRM_CHECK(vocabulary > 0, "a vocabulary has tokens");
  // Written so that NaN fails.
  if (!(settings.temperature >= 0 && settings.temperature <= 100))
    return invalidArgument(
        "temperature: ", std::to_string(settings.temperature),
        " is outside 0..100");
  if (!(settings.topP >= 0 && settings.topP <= 1))
    return invalidArgument("top-p: ", std::to_string(settings.topP),
                           " is outside 0..1");
  Sampler sampler;
  sampler.settings = settings;
  sampler.random = SplitMix64(settings.seed);
  if (settings.temperature > 0)
    sampler.candidates.reserve(static_cast<size_t>(vocabulary));
  return sampler;
}

int32_t Sampler::greedy(std::span<const float> logits) {
  int32_t best = -1;
  float most = -INFINITY;
  for (size_t i = 0; i < logits.size(); ++i)
    if (std::isfinite(logits[i]) && (best < 0 || logits[i] > most)) {
      most = logits[i];
      best = static_cast<int32_t>(i);
    }
  return best;
}

/// Uniform in [0, 1).
double Sampler::nextUniform() {
  return static_cast<double>(random.next() >> 11) * 0x1p-53;
}

int32_t Sampler::sample(std::span<const float> logits) {
  int32_t best = greedy(logits);
  if (best < 0 || settings.temperature == 0)
    return best;
  // Weights are relative to the greatest, so that none overflows.
  float most = logits[static_cast<size_t>(best)];
  float scale = 1 / settings.temperature;
  double total = 0;
  for (float logit : logits)
    if (std::isfinite(logit))
      total += std::exp((logit - most) * scale);
  // A token below this cannot be part of the nucleus: all tokens that are
  // together make up less than what is cut off.
  double floor = settings.topP < 1 ? total * (1 - double(settings.topP)) /
                                         static_cast<double>(logits.size())
                                   : 0;
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i]))
      continue;
    float weight = std::exp((logits[i] - most) * scale);
    if (weight >= floor || static_cast<int32_t>(i) == best) {
      KVRM_CHECK(candidates.size() < candidates.capacity(),
                 "logits are of the vocabulary");
      candidates.push_back({weight, static_cast<int32_t>(i)});
    }
  }
  double mass = 0;
  if (settings.topP < 1) {
    std::ranges::sort(candidates, [](const Candidate &a, const Candidate &b) {
      return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
    });
    size_t kept = 0;
    while (kept < candidates.size() &&
           (kept == 0 || mass < double(settings.topP) * total))
      mass += candidates[kept++].weight;
    candidates.resize(kept);
  } else {
    for (const Candidate &candidate : candidates)
      mass += candidate.weight;
  }
  double at = nextUniform() * mass;
  for (const Candidate &candidate : candidates) {
    at -= candidate.weight;
    if (at < 0)
      return candidate.token;
  }
  return candidates.back().token;
}
