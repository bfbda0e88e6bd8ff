//===- Rope.cpp - The angles of a rotary embedding ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Rope.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

using namespace kvrm;

Rope kvrm::plainRope(double theta, int64_t dim) {
  Rope rope;
  rope.dim = dim;
  for (int64_t i = 0; i < dim / 2; ++i)
    rope.frequencies.push_back(std::pow(theta, -2.0 * static_cast<double>(i) /
                                                   static_cast<double>(dim)));
  return rope;
}

void kvrm::scaleLinear(Rope &rope, double factor) {
  for (double &frequency : rope.frequencies)
    frequency /= factor;
}

void kvrm::divideFrequencies(Rope &rope, const std::vector<double> &factors) {
  assert(factors.size() == rope.frequencies.size() && "one for each pair");
  for (size_t i = 0; i < factors.size(); ++i)
    rope.frequencies[i] /= factors[i];
}

void kvrm::scaleLlama3(Rope &rope, const Llama3Scaling &scaling) {
  for (double &frequency : rope.frequencies) {
    double turns = scaling.originalContext * frequency / (2 * std::numbers::pi);
    double ramp = (turns - scaling.lowFrequencyFactor) /
                  (scaling.highFrequencyFactor - scaling.lowFrequencyFactor);
    double kept = std::clamp(ramp, 0.0, 1.0);
    frequency *= kept + (1 - kept) / scaling.factor;
  }
}

void kvrm::scaleYarn(Rope &rope, const YarnScaling &scaling) {
  auto dim = static_cast<double>(rope.dim);
  // The pair, as a number, that turns so many times in the original context.
  auto pairOf = [&](double turns) {
    return dim *
           std::log(scaling.originalContext / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(scaling.theta));
  };
  double first = pairOf(scaling.betaFast), last = pairOf(scaling.betaSlow);
  if (scaling.truncates) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, dim - 1);
  if (first == last)
    last += 0.001;
  for (size_t i = 0; i < rope.frequencies.size(); ++i) {
    double ramp = (static_cast<double>(i) - first) / (last - first);
    double divided = std::clamp(ramp, 0.0, 1.0);
    rope.frequencies[i] *= divided / scaling.factor + (1 - divided);
  }
}

double kvrm::yarnMagnitude(double factor, double scale) {
  return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

double kvrm::longRopeMagnitude(double factor, double originalContext) {
  return factor <= 1
             ? 1.0
             : std::sqrt(1 + std::log(factor) / std::log(originalContext));
}
