//===- Figures.h - What a mode measured, as distributions -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_FIGURES_H
#define KVRM_TOOLS_REPLAY_FIGURES_H

#include "Metrics.h"

namespace kvrm::replay {

/// The distributions of a mode, sorted once.
struct Figures {
  explicit Figures(const ModeResult &result);

  const ModeResult &result;
  Distribution ttft, itl, wait;        ///< ms
  Distribution step;                   ///< ms
  Distribution plan;                   ///< us
  Distribution groups, pagesPerGroup;  ///< a step
  Distribution committed, stageCopies; ///< a step

  enum class Tenth { First, Last };
  /// Mean of a figure over the first or last tenth of the steps.
  double mean(Tenth tenth, double (*value)(const StepRecord &)) const;

  static double groupsOf(const StepRecord &step) { return step.groups; }
  static double pagesPerGroupOf(const StepRecord &step) {
    return step.groups > 0 ? static_cast<double>(step.pages) / step.groups : 0;
  }
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_FIGURES_H
