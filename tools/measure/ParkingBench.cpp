//===- ParkingBench.cpp - Speed of pages to host memory ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ParkingBench.h"
#include "Percentile.h"

#include "kvrm/runtime/support/Clock.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::measure;

static double rateOf(int64_t bytes, const std::vector<int64_t> &nanoseconds) {
  double median = percentile(nanoseconds, 50);
  return median > 0 ? static_cast<double>(bytes) / median : 0;
}

double ParkingMeasurement::parkRate() const {
  return rateOf(bytes, parkNanoseconds);
}

double ParkingMeasurement::unparkRate() const {
  return rateOf(bytes, unparkNanoseconds);
}

/// Runs of `pages` pages that fill the parking memory, one page apart in the
/// pool, the last ones of it first: nothing of the order helps.
static std::vector<PageRun> groupsOf(const BackendInfo &info, int32_t pages) {
  std::vector<PageRun> groups;
  int32_t there = 0;
  for (int32_t end = info.pages;
       end - pages >= 0 && there + pages <= info.parkingPages;
       end -= pages + 1, there += pages)
    groups.push_back(
        {.poolPage = end - pages, .parkingPage = there, .pages = pages});
  return groups;
}

Expected<ParkingMeasurement>
measure::measureParking(Backend &backend, int32_t groupPages, int32_t rounds) {
  const BackendInfo &info = backend.info();
  if (groupPages < 1 || groupPages > std::min(info.pages, info.parkingPages))
    return invalidArgument("groups of ", groupPages, " pages are outside 1..",
                           std::min(info.pages, info.parkingPages));
  std::vector<PageRun> groups = groupsOf(info, groupPages);
  ParkingMeasurement out;
  out.groupPages = groupPages;
  out.bytes = static_cast<int64_t>(groups.size()) * groupPages * info.pageBytes;
  SteadyClock clock;
  // The first round touches the memory and is not counted.
  for (int32_t round = 0; round <= rounds; ++round) {
    int64_t start = clock.now();
    KVRM_TRY(backend.movePages(groups, MoveDirection::ToParking));
    int64_t middle = clock.now();
    KVRM_TRY(backend.movePages(groups, MoveDirection::FromParking));
    int64_t end = clock.now();
    if (round == 0)
      continue;
    out.parkNanoseconds.push_back(middle - start);
    out.unparkNanoseconds.push_back(end - middle);
  }
  return out;
}
