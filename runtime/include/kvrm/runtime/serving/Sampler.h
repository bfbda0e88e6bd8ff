//===- Sampler.h - Which token comes next -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Picks a token from logits: the greatest one, or at random by temperature and
// nucleus (top-p). The same logits, settings and seed give the same token on
// every platform: the generator is the runtime's own (SplitMix64).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SERVING_SAMPLER_H
#define KVRM_RUNTIME_SERVING_SAMPLER_H

#include "kvrm/runtime/support/SplitMix64.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

struct SamplingSettings {
  float temperature = 0; ///< 0 = greedy; up to 100
  float topP = 1;        ///< keep the likeliest tokens up to this mass; 0..1
  uint64_t seed = 0;
};

class Sampler {
public:
  /// Takes the memory it needs. Errors: InvalidArgument for settings out of
  /// range or that are not numbers.
  static Expected<Sampler> create(int32_t vocabulary,
                                  const SamplingSettings &settings);

  /// The next token, or -1 if no logit is a finite number. Of equal logits the
  /// first wins. `logits` has vocabulary floats. Does not allocate.
  int32_t sample(std::span<const float> logits);

  /// Index of the greatest finite logit, -1 if there is none.
  static int32_t greedy(std::span<const float> logits);

private:
  struct Candidate {
    float weight;
    int32_t token;
  };

  Sampler() = default;
  double nextUniform();

  SamplingSettings settings;
  SplitMix64 random{0};
  std::vector<Candidate> candidates;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SERVING_SAMPLER_H
