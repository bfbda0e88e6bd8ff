//===- Sampler.h - How a request's tokens are chosen ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What abi/sampling.h calls sampling, token by token, from the settings of a
// request: the greatest logit, or one at random by temperature, top-k and
// nucleus (top-p). The same logits, settings and seed give the same token on
// every platform and device.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SERVING_SAMPLER_H
#define KVRM_RUNTIME_SERVING_SAMPLER_H

#include "kvrm/runtime/abi/sampling.h"
#include "kvrm/runtime/support/SplitMix64.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>

namespace kvrm {

struct SamplingSettings {
  float temperature = 0; ///< 0 = greedy; up to 100
  float topP = 1;        ///< keep the likeliest tokens up to this mass; 0..1
  int32_t topK = 0;      ///< keep so many of the likeliest; 0 = all
  uint64_t seed = 0;
};

class Sampler {
public:
  /// Errors: InvalidArgument for settings out of range or that are not numbers.
  static Expected<Sampler> create(const SamplingSettings &settings);

  /// How the next token is to be chosen. Stays the same until advance(), so
  /// that a step that failed can be made again.
  const kvrm_sampling &next() const { return rule; }
  /// The next token is there; goes on to the one after it.
  void advance();

private:
  Sampler() = default;

  kvrm_sampling rule{};
  SplitMix64 random{0};
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SERVING_SAMPLER_H
