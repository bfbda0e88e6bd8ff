//===- ParkingBench.h - Speed of pages to host memory -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// How fast a backend moves pages between its pool and parking memory, by the
// length of the runs that they lie in. A group is what a history is parked in;
// groups of one page are what a pool that is fragmented to the last leaves.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_MEASURE_PARKINGBENCH_H
#define KVRM_TOOLS_MEASURE_PARKINGBENCH_H

#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <vector>

namespace kvrm::measure {

/// Groups of one size, all pages of the parking memory at a time.
struct ParkingMeasurement {
  int32_t groupPages = 0;
  int64_t bytes = 0; ///< moved in each direction
  // One value a round:
  std::vector<int64_t> parkNanoseconds;
  std::vector<int64_t> unparkNanoseconds;

  /// Of the median round, in GB/s.
  double parkRate() const;
  double unparkRate() const;
};

/// Moves the whole parking memory of `backend` out and back `rounds` times, in
/// groups of `groupPages` that are adjacent to no other in the pool; or as much
/// of it as the pool has room for such groups. Pages hold anything before and
/// after. Errors: InvalidArgument if not one group fits, the backend's.
Expected<ParkingMeasurement> measureParking(Backend &backend,
                                            int32_t groupPages, int32_t rounds);

} // namespace kvrm::measure

#endif // KVRM_TOOLS_MEASURE_PARKINGBENCH_H
