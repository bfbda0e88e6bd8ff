//===- Percentile.h - Percentiles by nearest rank ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_MEASURE_PERCENTILE_H
#define KVRM_TOOLS_MEASURE_PERCENTILE_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvrm::measure {

/// The index of a percentile among `count` sorted values, one or more: of the
/// smallest value that `percent` of 100 of all do not exceed.
size_t nearestRank(size_t count, double percent);

/// A percentile of `values`; 0 without values.
double percentile(std::vector<int64_t> values, double percent);

} // namespace kvrm::measure

#endif // KVRM_TOOLS_MEASURE_PERCENTILE_H
