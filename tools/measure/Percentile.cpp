//===- Percentile.cpp - Percentiles by nearest rank -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Percentile.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;

size_t measure::nearestRank(size_t count, double percent) {
  // 99.9 is not a binary number: a rank that is whole stays so.
  double rank = std::ceil(percent / 100 * static_cast<double>(count) - 1e-9);
  return std::min(static_cast<size_t>(std::max(rank, 1.0)), count) - 1;
}

double measure::percentile(std::vector<int64_t> values, double percent) {
  if (values.empty())
    return 0;
  auto nth = values.begin() +
             static_cast<int64_t>(nearestRank(values.size(), percent));
  std::ranges::nth_element(values, nth);
  return static_cast<double>(*nth);
}
