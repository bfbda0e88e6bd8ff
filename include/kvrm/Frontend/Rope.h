//===- Rope.h - The angles of a rotary embedding ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The rotary embedding (Su et al., arXiv 2104.09864), and the ways in which
// models stretch it to contexts longer than those of their first training. All
// in double: a float's frequency is off by a radian after some millions of
// tokens.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_ROPE_H
#define KVRM_FRONTEND_ROPE_H

#include <cstdint>
#include <vector>

namespace kvrm {

struct Rope {
  int64_t dim = 0; ///< elements of a head that turn, in pairs
  /// Of each pair, in radians a token.
  std::vector<double> frequencies;
  /// What cosines and sines are multiplied with.
  double magnitude = 1.0;
};

/// Pair i of `dim` / 2 turns by theta^(-2i / dim).
Rope plainRope(double theta, int64_t dim);

/// Every frequency divided by `factor`.
void scaleLinear(Rope &rope, double factor);

/// Each frequency divided by a factor of its own.
void divideFrequencies(Rope &rope, const std::vector<double> &factors);

/// Llama 3.1: low frequencies are divided, high ones are not, and between the
/// two is a ramp.
struct Llama3Scaling {
  double factor = 1;
  double lowFrequencyFactor = 1;
  double highFrequencyFactor = 4;
  double originalContext = 0;
};
void scaleLlama3(Rope &rope, const Llama3Scaling &scaling);

/// YaRN (Peng et al., arXiv 2309.00071): a ramp over pairs, from the one that
/// turns `betaFast` times in the original context to that which turns
/// `betaSlow` times.
struct YarnScaling {
  double theta = 10000;
  double factor = 1;
  double originalContext = 0;
  double betaFast = 32;
  double betaSlow = 1;
  bool truncates = true; ///< the ramp's ends to whole pairs
};
void scaleYarn(Rope &rope, const YarnScaling &scaling);

/// The magnitude that YaRN takes by itself: 0.1 * scale * ln(factor) + 1.
double yarnMagnitude(double factor, double scale = 1.0);

/// The magnitude that LongRoPE (Ding et al., arXiv 2402.13753) takes by itself.
double longRopeMagnitude(double factor, double originalContext);

} // namespace kvrm

#endif // KVRM_FRONTEND_ROPE_H
