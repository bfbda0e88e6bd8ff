//===- Sampler.cpp - How a request's tokens are chosen --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/serving/Sampler.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numbers>

using namespace kvrm;

Expected<Sampler> Sampler::create(const SamplingSettings &settings) {
  // Written so that NaN fails.
  if (!(settings.temperature >= 0 && settings.temperature <= 100))
    return invalidArgument(
        "temperature: ", std::to_string(settings.temperature),
        " is outside 0..100");
  if (!(settings.topP >= 0 && settings.topP <= 1))
    return invalidArgument("top-p: ", std::to_string(settings.topP),
                           " is outside 0..1");
  if (settings.topK < 0)
    return invalidArgument("top-k: ", settings.topK, " is below 0");
  Sampler sampler;
  sampler.random = SplitMix64(settings.seed);
  if (settings.temperature == 0)
    return sampler;
  kvrm_sampling &rule = sampler.rule;
  rule.scale =
      std::min(std::numbers::log2e_v<float> / settings.temperature, FLT_MAX);
  if (settings.topP < 1)
    rule.top_p =
        std::max(static_cast<uint32_t>(double(settings.topP) * 0x1p32), 1u);
  rule.top_k = settings.topK;
  sampler.advance();
  return sampler;
}

void Sampler::advance() {
  if (rule.scale != 0)
    rule.random = static_cast<uint32_t>(random.next() >> 32);
}
