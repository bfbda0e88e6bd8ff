//===- DecodeBenchTest.cpp - Tests of timed decode steps ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "measure/DecodeBench.h"
#include "SimulatedDecoder.h"
#include "ToyModel.h"
#include "ToyPackage.h"
#include "kvrm/runtime/session/CreateDecoder.h"

#include <filesystem>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::measure;

namespace {

class DecodeBenchTest : public testing::TestWithParam<const char *> {
protected:
  void SetUp() override {
    toy::PackageOptions options;
    options.mode = GetParam();
    folder = toy::makePackage(options);
    Expected<std::shared_ptr<const Package>> package = Package::load(folder);
    ASSERT_TRUE(package) << package.status().message();
    Expected<std::unique_ptr<Decoder>> created =
        createDecoder(package.take(), {.threads = 1});
    ASSERT_TRUE(created) << created.status().message();
    session = created.take();
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::string folder;
  std::unique_ptr<Decoder> session;
};

} // namespace

/// A seed whose tokens are none that break the toy module.
static constexpr uint64_t soundSeed = 65;

TEST_P(DecodeBenchTest, TimesEachStepFromItsContext) {
  DecodeBench bench(*session,
                    {.active = 2, .steps = 6, .warmup = 1, .seed = soundSeed});
  Expected<Measurement> first = bench.measure(10);
  ASSERT_TRUE(first) << first.status().message();
  EXPECT_EQ(first->context, 10);
  EXPECT_EQ(first->prefillTokens, 20);
  EXPECT_EQ(first->stepNanoseconds.size(), 6u);
  EXPECT_EQ(first->planNanoseconds.size(), 6u);
  EXPECT_EQ(first->last.activeRows, 2);
  EXPECT_EQ(session->length(0), 17);
  EXPECT_EQ(session->length(1), 17);
  EXPECT_EQ(session->length(2), 0);
  EXPECT_EQ(first->liveBytes, session->liveKvBytes());

  // What is there grows, and what is longer is cut.
  Expected<Measurement> second = bench.measure(19);
  ASSERT_TRUE(second) << second.status().message();
  EXPECT_EQ(second->prefillTokens, 4);
  Expected<Measurement> third = bench.measure(5);
  ASSERT_TRUE(third) << third.status().message();
  EXPECT_EQ(third->prefillTokens, 0);
  EXPECT_EQ(session->length(0), 12);
}

TEST_P(DecodeBenchTest, SpreadsRaggedHistories) {
  DecodeBench bench(*session, {.active = 4,
                               .steps = 1,
                               .warmup = 0,
                               .isRagged = true,
                               .seed = soundSeed});
  Expected<Measurement> result = bench.measure(20);
  ASSERT_TRUE(result) << result.status().message();
  for (int32_t slot = 0; slot < 4; ++slot)
    EXPECT_EQ(session->length(slot), 5 * (slot + 1) + 1);
  EXPECT_EQ(result->prefillTokens, 5 + 10 + 15 + 20);
}

TEST_P(DecodeBenchTest, AnErrorOfTheSessionEndsIt) {
  DecodeBench bench(*session, {.active = 1, .steps = 1, .warmup = 0});
  EXPECT_EQ(bench.measure(toy::capacity + 1).status().code(),
            StatusCode::InvalidArgument);
}

TEST_P(DecodeBenchTest, SlotsMayHaveLengthsOfTheirOwn) {
  DecodeBench bench(*session, {.active = 3,
                               .steps = 2,
                               .warmup = 1,
                               .lengths = {5, 20, 1},
                               .seed = soundSeed});
  Expected<Measurement> result = bench.measure(20);
  ASSERT_TRUE(result) << result.status().message();
  EXPECT_EQ(result->prefillTokens, 26);
  EXPECT_EQ(session->length(0), 5 + 3);
  EXPECT_EQ(session->length(1), 20 + 3);
  EXPECT_EQ(session->length(2), 1 + 3);
  EXPECT_EQ(session->length(3), 0);
}

TEST(DecodeBenchAhead, TimesStepsThatAreStartedEarly) {
  DecoderShape shape;
  shape.slots = shape.histories = 2;
  shape.pageTokens = 4;
  shape.poolPages = 20;
  shape.capacity = 40;
  shape.vocabulary = 50;
  shape.prefillChunk = 16;
  shape.stepsAhead = 1;
  VirtualClock clock;
  simulation::SimulatedDecoder decoder(shape, 0, clock, 1);
  DecodeBench bench(decoder, {.active = 2, .steps = 6, .warmup = 1});
  Expected<Measurement> result = bench.measure(10);
  ASSERT_TRUE(result) << result.status().message();
  EXPECT_EQ(result->stepNanoseconds.size(), 6u);
  EXPECT_EQ(result->planNanoseconds.size(), 6u);
  EXPECT_EQ(result->hostNanoseconds.size(), 5u) << "beside a step";
  EXPECT_EQ(decoder.length(0), 17);
  EXPECT_EQ(decoder.length(1), 17);
}

INSTANTIATE_TEST_SUITE_P(Modes, DecodeBenchTest,
                         testing::Values("paged", "static"));
