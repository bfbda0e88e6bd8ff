//===- SimulatedDecoder.h - A decoder whose KV can be read ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A decoder for deterministic simulation. Its pager is the real one; its "KV"
// of a token is the token itself, kept in simulated pages, and its logits are a
// hash of what attention would read through the block table. A page that was
// lost, shared too long, moved wrongly or overwritten thus changes a token.
// Calls take time on a virtual clock and fail when a seed says so. Steps that
// are for later are computed at once, and their tokens kept until they are
// awaited.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_SIMULATEDDECODER_H
#define KVRM_TEST_SIMULATEDDECODER_H

#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/support/Clock.h"
#include "kvrm/runtime/support/SplitMix64.h"

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace simulation {

class Random {
public:
  explicit Random(uint64_t seed) : numbers(seed) {}
  uint64_t next() { return numbers.next(); }
  /// In 0..bound-1.
  int32_t below(int32_t bound) {
    return static_cast<int32_t>(next() % static_cast<uint64_t>(bound));
  }
  /// In low..high.
  int32_t between(int32_t low, int32_t high) {
    return low + below(high - low + 1);
  }
  bool percent(int32_t chance) { return below(100) < chance; }

private:
  kvrm::SplitMix64 numbers;
};

/// Chances in percent that a call fails, before or after it has done its work.
struct Faults {
  int32_t allocation = 0; ///< a step finds no page, though there are some
  int32_t launch = 0;     ///< compiled code fails, before or after appending
  int32_t copy = 0;       ///< a history cannot be parked or fetched back
  int32_t slowStep = 0;   ///< a step takes a hundred times as long
};

class SimulatedDecoder final : public kvrm::Decoder {
public:
  /// `shape` is of a paged decoder. `parkingPages` may be 0 without places.
  SimulatedDecoder(const kvrm::DecoderShape &shape, int32_t parkingPages,
                   kvrm::VirtualClock &clock, uint64_t seed);

  void setFaults(const Faults &chances) { faults = chances; }
  int64_t faultsMade() const { return made; }
  /// Steps, prompts' among them, whose logits were wanted.
  int64_t stepsWithLogits() const { return withLogits; }
  int64_t stepsForLater() const { return forLater; }

  /// The token that follows `history`.
  static int32_t follows(std::span<const int32_t> history, int32_t vocabulary);
  /// The logits that do: of that token the greatest, and many equal ones.
  static std::vector<float> logitsAfter(std::span<const int32_t> history,
                                        int32_t vocabulary);

  const kvrm::DecoderShape &shape() const override { return bounds; }
  kvrm::Status prefill(int32_t slot, std::span<const int32_t> tokens,
                       const kvrm::StepOutputs &outputs) override;
  kvrm::Status decode(std::span<const int32_t> tokens,
                      const kvrm::StepOutputs &outputs) override;
  kvrm::Status mixedStep(std::span<const int32_t> tokens, int32_t slot,
                         std::span<const int32_t> prompt,
                         const kvrm::StepOutputs &outputs) override;
  kvrm::Status awaitStep(std::span<int32_t> next) override;
  void expect(int32_t slot, int32_t tokens) override;
  kvrm::Status release(int32_t history) override;
  kvrm::Status trim(int32_t history, int32_t length) override;
  kvrm::Status alias(int32_t target, int32_t source, int32_t tokens) override;
  kvrm::Status park(int32_t slot, int32_t place) override;
  kvrm::Status unpark(int32_t place, int32_t slot) override;
  kvrm::Status discard(int32_t place) override;
  int32_t length(int32_t history) const override {
    return pager->length(history);
  }
  int32_t pagesNeeded(int32_t slot, int32_t tokens) const override {
    return pager->pagesNeeded(slot, tokens);
  }
  int32_t freePages() const override { return pager->freePages(); }
  /// A token is a byte.
  int64_t reservedKvBytes() const override {
    return int64_t(bounds.poolPages) * bounds.pageTokens;
  }
  int64_t liveKvBytes() const override {
    return int64_t(pager->usedPages()) * bounds.pageTokens;
  }
  int64_t tokenKvBytes() const override { return 1; }
  const kvrm::StepStats &lastStep() const override { return last; }

  /// Of the pool and of parking memory.
  kvrm::Status checkInvariants() const;
  const kvrm::BlockPager &poolPager() const { return *pager; }
  int32_t parkedPages() const { return parking ? parking->usedPages() : 0; }

private:
  bool isFollowing(int32_t slot) const override {
    return following[static_cast<size_t>(slot)] >= 0;
  }
  void forget(int32_t history);
  std::vector<int32_t> fed(std::span<const int32_t> tokens) const;
  void start(const kvrm::StepOutputs &outputs, std::vector<int32_t> next);
  kvrm::Status append(std::span<const kvrm::AppendRequest> requests);
  bool strikes(int32_t chance);
  void spend(int64_t nanoseconds);
  int32_t &cell(int32_t slot, int32_t position);
  void write(int32_t slot, std::span<const int32_t> tokens);
  void compute(int32_t slot, int32_t row, const kvrm::StepOutputs &outputs);
  void computeRows(std::span<const kvrm::AppendRequest> requests,
                   std::span<const int32_t> tokens,
                   const kvrm::StepOutputs &outputs);
  void copy(const kvrm::PageCopy &copy);

  kvrm::DecoderShape bounds;
  kvrm::VirtualClock &clock;
  Random random;
  Faults faults;
  int64_t made = 0;
  int64_t withLogits = 0;
  int64_t forLater = 0;
  std::optional<kvrm::BlockPager> pager;
  std::optional<kvrm::BlockPager> parking;
  std::vector<int32_t> pool; ///< [pages][pageTokens]
  std::vector<int32_t> host; ///< [parking pages][pageTokens]
  /// Of steps for later: what they chose, and the last of them a slot, -1 =
  /// none.
  std::deque<std::vector<int32_t>> underWay;
  std::vector<int32_t> following;
  kvrm::StepStats last;
};

} // namespace simulation

#endif // KVRM_TEST_SIMULATEDDECODER_H
