//===- ParkingBenchTest.cpp - Tests of moves by transfer group ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "measure/ParkingBench.h"

#include <algorithm>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::measure;

namespace {

/// Writes down what it is to move.
class Recorder final : public Backend {
public:
  Recorder() {
    facts.pages = 40;
    facts.parkingPages = 16;
    facts.pageBytes = 1000;
  }
  const BackendInfo &info() const override { return facts; }
  Status copyPage(const PageCopy &) override { return Status::ok(); }
  Status movePages(std::span<const PageRun> runs,
                   MoveDirection direction) override {
    parks += direction == MoveDirection::ToParking;
    unparks += direction == MoveDirection::FromParking;
    moved.assign(runs.begin(), runs.end());
    return status;
  }
  Status collapsePage(const PageCollapse &) override { return Status::ok(); }
  Status runStep(const BackendStep &, BackendStats &) override {
    return Status::ok();
  }

  BackendInfo facts;
  Status status;
  int parks = 0, unparks = 0;
  std::vector<PageRun> moved;
};

} // namespace

TEST(ParkingBench, GroupsFillTheParkingMemoryAndTouchNoOther) {
  for (int32_t group : {1, 2, 3, 8, 16}) {
    Recorder backend;
    Expected<ParkingMeasurement> row = measureParking(backend, group, 5);
    ASSERT_TRUE(row) << row.status().message();
    EXPECT_EQ(backend.parks, 6) << "one round more than is counted";
    EXPECT_EQ(backend.unparks, 6);
    EXPECT_EQ(row->parkNanoseconds.size(), 5u);
    EXPECT_EQ(row->unparkNanoseconds.size(), 5u);
    ASSERT_EQ(backend.moved.size(), size_t(16 / group));
    EXPECT_EQ(row->bytes, 16 / group * group * 1000);
    for (size_t i = 0; i < backend.moved.size(); ++i) {
      const PageRun &run = backend.moved[i];
      EXPECT_EQ(run.pages, group);
      EXPECT_GE(run.poolPage, 0);
      EXPECT_LE(run.poolPage + group, 40);
      EXPECT_EQ(run.parkingPage, int32_t(i) * group);
      if (i == 0)
        continue;
      EXPECT_LT(run.poolPage + group, backend.moved[i - 1].poolPage)
          << "a page lies between two groups";
    }
  }
}

TEST(ParkingBench, TellsWhatFails) {
  Recorder backend;
  EXPECT_EQ(measureParking(backend, 0, 1).status().message(),
            "groups of 0 pages are outside 1..16");
  EXPECT_EQ(measureParking(backend, 17, 1).status().message(),
            "groups of 17 pages are outside 1..16");
  backend.status = makeError(StatusCode::Internal, "the device is lost");
  EXPECT_EQ(measureParking(backend, 2, 1).status().message(),
            "the device is lost");
}
