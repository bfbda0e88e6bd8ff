//===- Figures.cpp - What a mode measured, as distributions -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Figures.h"

#include <functional>

using namespace kvrm;
using namespace kvrm::replay;

/// A figure of all steps.
template <typename Value>
static Distribution columnOf(const ModeResult &result, Value value) {
  std::vector<float> values;
  values.reserve(result.steps.size());
  for (const StepRecord &step : result.steps)
    values.push_back(static_cast<float>(std::invoke(value, step)));
  return Distribution(std::move(values));
}

Figures::Figures(const ModeResult &result)
    : result(result), ttft(result.ttft), itl(result.itl),
      wait(result.queueWait), step(columnOf(result, &StepRecord::milliseconds)),
      plan(columnOf(result, &StepRecord::planMicroseconds)),
      groups(columnOf(result, &StepRecord::groups)),
      pagesPerGroup(columnOf(result, pagesPerGroupOf)),
      committed(columnOf(result, &StepRecord::committedBytes)),
      stageCopies(columnOf(result, &StepRecord::stageCopies)) {}

double Figures::mean(Tenth tenth, double (*value)(const StepRecord &)) const {
  size_t count = (result.steps.size() + 9) / 10;
  size_t begin = tenth == Tenth::Last ? result.steps.size() - count : 0;
  double sum = 0;
  for (size_t i = begin; i < begin + count; ++i)
    sum += value(result.steps[i]);
  return count > 0 ? sum / static_cast<double>(count) : 0;
}
