//===- TokenChoice.cpp - Which token comes next ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Compiled without contraction: a fused multiply-add would round otherwise than
// a device does.
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/TokenChoice.h"

#include "kvrm/runtime/support/Check.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

using namespace kvrm;

/// Orders finite logits as they are ordered themselves, equal ones alike;
/// INT32_MIN for what is not finite, which no other has. Without a branch, so
/// that compilers make vectors of it.
static int32_t orderOf(float logit) {
  auto bits = std::bit_cast<int32_t>(logit + 0.0f); // -0 is 0
  constexpr int32_t exponent = 0x7f800000;
  int32_t order = bits ^ ((bits >> 31) & INT32_MAX);
  return (bits & exponent) == exponent ? INT32_MIN : order;
}

/// The same from 0 on.
static uint32_t keyOf(float logit) {
  return static_cast<uint32_t>(orderOf(logit)) ^ 0x80000000u;
}

/// Index of the first of the greatest finite logits, -1 if there is none.
static int32_t greatestLogit(std::span<const float> logits) {
  int32_t most = INT32_MIN;
  for (float logit : logits)
    most = std::max(most, orderOf(logit));
  if (most == INT32_MIN)
    return -1;
  auto found = std::ranges::find(logits, most, orderOf);
  return static_cast<int32_t>(found - logits.begin());
}

/// 2^x for x <= 0, in units of 2^-KVRM_WEIGHT_BITS.
static uint64_t weightOf(float x) {
  if (!(x >= -KVRM_WEIGHT_BITS))
    return 0;
  float whole = std::floor(x);
  float part = x - whole;
  float power = kvrm_exp2_coefficients[KVRM_EXP2_DEGREE - 1];
  for (int i = KVRM_EXP2_DEGREE - 2; i >= 0; --i)
    power = power * part + kvrm_exp2_coefficients[i];
  power = power * part + 1.0f;
  auto mantissa = static_cast<uint32_t>(power * 0x1p23f);
  return (uint64_t(mantissa) << (KVRM_WEIGHT_BITS - 23)) >>
         static_cast<int32_t>(-whole);
}

namespace {

/// The tokens of one row that are still candidates.
class Candidates {
public:
  Candidates(std::span<const float> logits, float most, float scale)
      : logits(logits), most(most), scale(scale) {}

  /// Of the candidates, keeps those of the greatest logits: as few as measure
  /// `target` together, and all that are equal to the last of them. None goes
  /// if all measure less.
  template <typename Measure> void keep(uint64_t target, Measure measure);
  void keepCount(int32_t count) {
    keep(static_cast<uint64_t>(count), [](float) { return uint64_t(1); });
  }
  void keepMass(uint64_t mass) {
    keep(mass, [&](float logit) { return weight(logit); });
  }
  uint64_t mass() const;
  /// The first at which the sum of weights is over `mass`.
  int32_t at(uint64_t mass) const;

private:
  uint64_t weight(float logit) const {
    return weightOf((logit - most) * scale);
  }

  std::span<const float> logits;
  float most;
  float scale;
  uint32_t least = 1; ///< key of the least candidate
};

} // namespace

/// Finds the digits of the least key one by one, the highest first.
template <typename Measure>
void Candidates::keep(uint64_t target, Measure measure) {
  constexpr int32_t digitBits = 8;
  constexpr uint32_t digits = 1u << digitBits;
  uint32_t prefix = 0; // of the key, above the digit
  for (int32_t shift = 32 - digitBits; shift >= 0; shift -= digitBits) {
    std::array<uint64_t, digits> sums{};
    for (float logit : logits) {
      uint32_t key = keyOf(logit);
      bool isCounted = key >= least && (shift + digitBits == 32 ||
                                        key >> (shift + digitBits) == prefix);
      if (isCounted)
        sums[(key >> shift) % digits] += measure(logit);
    }
    uint32_t digit = digits - 1;
    while (sums[digit] < target) {
      target -= sums[digit];
      if (digit == 0)
        return; // all together are less
      --digit;
    }
    prefix = prefix << digitBits | digit;
  }
  least = std::max(least, prefix);
}

uint64_t Candidates::mass() const {
  uint64_t sum = 0;
  for (float logit : logits)
    if (keyOf(logit) >= least)
      sum += weight(logit);
  return sum;
}

int32_t Candidates::at(uint64_t mass) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (keyOf(logits[i]) < least)
      continue;
    sum += weight(logits[i]);
    if (sum > mass)
      return static_cast<int32_t>(i);
  }
  KVRM_CHECK(false, "a part of the mass lies before its end");
  return -1;
}

int32_t kvrm::chooseToken(std::span<const float> logits,
                          const kvrm_sampling &sampling) {
  int32_t best = greatestLogit(logits);
  if (best < 0 || sampling.scale == 0)
    return best;
  Candidates candidates(logits, logits[static_cast<size_t>(best)],
                        sampling.scale);
  if (sampling.top_k > 0)
    candidates.keepCount(sampling.top_k);
  if (sampling.top_p > 0) {
    uint64_t wanted = kvrm_fraction_of(candidates.mass(), sampling.top_p);
    candidates.keepMass(std::max<uint64_t>(wanted, 1));
  }
  return candidates.at(kvrm_fraction_of(candidates.mass(), sampling.random));
}
