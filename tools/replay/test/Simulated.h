//===- Simulated.h - A replay without a model -----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_TEST_SIMULATED_H
#define KVRM_TOOLS_REPLAY_TEST_SIMULATED_H

#include "SimulatedDecoder.h"
#include "replay/Runner.h"

#include <gtest/gtest.h>

namespace kvrm::replay {

/// Waits by moving the decoder's clock.
class TestClock final : public WaitableClock {
public:
  int64_t now() const override { return clock.now(); }
  void wait(int64_t nanoseconds) override { clock.advance(nanoseconds); }

  VirtualClock clock;
};

/// A mode over the simulated decoder: 4 slots of 64 tokens, pages of 8.
struct Simulated {
  explicit Simulated(int32_t poolPages = 32) {
    shape.slots = shape.histories = 4;
    shape.capacity = 64;
    shape.vocabulary = 50;
    shape.pageTokens = 8;
    shape.poolPages = poolPages;
    shape.historyPages = 8;
    shape.prefillChunk = 16;
    spec.name = "kvrm";
    spec.packages = {"simulated"};
    spec.pageTokens = shape.pageTokens;
    settings.pageTokens = shape.pageTokens;
    settings.label = spec.name;
  }

  /// An empty decoder of the shape.
  std::unique_ptr<ModeDecoder> open() {
    auto decoder = std::make_unique<simulation::SimulatedDecoder>(
        shape, parkingPages, clock.clock, /*seed=*/1);
    decoder->setFaults(faults);
    spec.slots = shape.slots;
    spec.capacity = shape.capacity;
    spec.budgetBytes = decoder->reservedKvBytes();
    const BlockPager *pager = &decoder->poolPager();
    return std::make_unique<ModeDecoder>(std::move(decoder), pager);
  }

  Expected<ModeResult> run(const Workload &work) {
    std::unique_ptr<ModeDecoder> decoder = open();
    return runWorkload(spec, *decoder, work, settings, clock);
  }

  DecoderShape shape;
  int32_t parkingPages = 0;
  simulation::Faults faults;
  ModeSpec spec;
  RunSettings settings;
  TestClock clock;
};

inline Workload makeWork(const Options &options, WorkLimits limits = {64, 50}) {
  Expected<Workload> work = Workload::create(options, limits);
  EXPECT_TRUE(work) << work.status().message();
  return work.take();
}

/// A workload that a simulated mode serves.
inline Workload makeWork(const std::string &keys) {
  Options options;
  options.trace = "synthetic:" + keys;
  return makeWork(options);
}

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_TEST_SIMULATED_H
