//===- Curves.h - What a report draws ---------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_CURVES_H
#define KVRM_TOOLS_REPLAY_CURVES_H

#include "Metrics.h"

#include <nlohmann/json.hpp>

namespace kvrm::replay {

/// Value and share of samples above it, at exact percentiles that lie closer
/// together towards the tail.
nlohmann::json tailOf(const Distribution &all);
/// Counts in bins that are a twentieth of a decade wide, from 1 us on.
nlohmann::json histogramOf(const Distribution &all);
/// Percentiles of what was sampled in each of some equal spans of time.
nlohmann::json windowsOf(const std::vector<Sample> &samples, double seconds);
/// Samples by time; of each stretch that is left out, the largest stays.
nlohmann::json pointsOf(std::vector<Sample> samples);
/// The state over time.
nlohmann::json seriesOf(const std::vector<StatePoint> &points);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_CURVES_H
