//===- PacedDecoder.h - A model that takes its time -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_TEST_PACEDDECODER_H
#define KVRM_TOOLS_SERVE_TEST_PACEDDECODER_H

#include "SimulatedDecoder.h"
#include "serve/EngineThread.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace kvrm::serve {

/// What a test tells the decoder on another thread: how long a decode step
/// takes, and whether steps fail. The decoder is the simulated one, of 4 slots.
struct Pace {
  Pace() {
    shape.slots = shape.histories = 4;
    shape.capacity = 4000;
    shape.vocabulary = 50;
    shape.pageTokens = 16;
    shape.poolPages = 1000;
    shape.historyPages = 250;
    shape.prefillChunk = 16;
  }

  inline EngineThread::MakeDecoder maker();

  /// The `count` tokens that follow a prompt.
  static std::vector<int32_t> follow(std::vector<int32_t> history,
                                     int32_t count) {
    std::vector<int32_t> tokens;
    while (count-- > 0) {
      tokens.push_back(simulation::SimulatedDecoder::follows(history, 50));
      history.push_back(tokens.back());
    }
    return tokens;
  }

  DecoderShape shape;
  VirtualClock clock;
  std::atomic<int64_t> stepMicroseconds = 0;
  std::atomic<bool> fails = false;
};

class PacedDecoder final : public Decoder {
public:
  explicit PacedDecoder(Pace &pace)
      : pace(pace), inner(pace.shape, /*parkingPages=*/0, pace.clock,
                          /*seed=*/1) {}

  const DecoderShape &shape() const override { return inner.shape(); }
  Status prefill(int32_t slot, std::span<const int32_t> tokens,
                 const StepOutputs &outputs) override {
    KVRM_TRY(keepPace());
    return inner.prefill(slot, tokens, outputs);
  }
  Status decode(std::span<const int32_t> tokens,
                const StepOutputs &outputs) override {
    KVRM_TRY(keepPace());
    return inner.decode(tokens, outputs);
  }
  Status awaitStep(std::span<int32_t> next) override {
    return inner.awaitStep(next);
  }
  void expect(int32_t slot, int32_t tokens) override {
    inner.expect(slot, tokens);
  }
  Status release(int32_t history) override { return inner.release(history); }
  Status trim(int32_t history, int32_t length) override {
    return inner.trim(history, length);
  }
  Status alias(int32_t target, int32_t source, int32_t tokens) override {
    return inner.alias(target, source, tokens);
  }
  Status park(int32_t slot, int32_t place) override {
    return inner.park(slot, place);
  }
  Status unpark(int32_t place, int32_t slot) override {
    return inner.unpark(place, slot);
  }
  Status discard(int32_t place) override { return inner.discard(place); }
  int32_t length(int32_t history) const override {
    return inner.length(history);
  }
  int32_t pagesNeeded(int32_t slot, int32_t tokens) const override {
    return inner.pagesNeeded(slot, tokens);
  }
  int32_t freePages() const override { return inner.freePages(); }
  int64_t reservedKvBytes() const override { return inner.reservedKvBytes(); }
  int64_t liveKvBytes() const override { return inner.liveKvBytes(); }
  int64_t tokenKvBytes() const override { return inner.tokenKvBytes(); }
  const StepStats &lastStep() const override { return inner.lastStep(); }

private:
  Status keepPace() const {
    std::this_thread::sleep_for(
        std::chrono::microseconds(pace.stepMicroseconds));
    return pace.fails ? makeError(StatusCode::Internal, "the step failed")
                      : Status::ok();
  }

  Pace &pace;
  simulation::SimulatedDecoder inner;
};

EngineThread::MakeDecoder Pace::maker() {
  return [this]() -> Expected<std::unique_ptr<Decoder>> {
    return std::unique_ptr<Decoder>(std::make_unique<PacedDecoder>(*this));
  };
}

/// Whether `condition` comes true within ten seconds.
template <typename Condition> bool comes(Condition condition) {
  for (int i = 0; i < 10000; ++i) {
    if (condition())
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_TEST_PACEDDECODER_H
