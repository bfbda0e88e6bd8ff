//===- AheadTwins.h - A decoder ahead, and one that waits -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Two decoders of one package that do the same: one waits for each step, the
// other starts the next one first, and is fed. Their tokens are to be equal.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_AHEADTWINS_H
#define KVRM_TEST_AHEADTWINS_H

#include "kvrm/runtime/session/Decoder.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace kvrm::test {

using Tokens = std::vector<int32_t>;

inline void expectOk(const Status &status) {
  EXPECT_TRUE(status.isOk()) << status.message();
}

class Twins {
public:
  struct Way {
    int32_t steps = 100;
    int32_t longestPrompt = 1; ///< tokens
    uint32_t seed = 1;
  };

  Twins(std::unique_ptr<Decoder> one, std::unique_ptr<Decoder> other)
      : waits(std::move(one)), goesAhead(std::move(other)),
        slots(waits->slots()), fed(size_t(slots), -1), last(size_t(slots), -1),
        sampling(size_t(slots) + 1), parked(size_t(places()), -1) {
    for (size_t i = 0; i < sampling.size(); ++i)
      if (i % 3 > 0)
        sampling[i] = {1.5F, i % 2 ? 1u << 31 : 0, i % 4 == 2 ? 7 : 0,
                       0x9e3779b9u * uint32_t(i)};
  }

  Decoder &patient() { return *waits; }
  Decoder &hasty() { return *goesAhead; }
  int64_t stepsTaken() const { return taken; }

  /// Slots come and go, grow, share and park at random.
  void wander(const Way &way) {
    random.seed(way.seed);
    for (int32_t i = 0; i < way.steps && !testing::Test::HasFailure(); ++i)
      act(way.longestPrompt);
    while (!wanted.empty())
      await();
  }

private:
  struct Wanted {
    Tokens next;
    std::vector<bool> rows;
  };

  int32_t places() const { return waits->shape().parkingPlaces; }
  uint32_t below(int64_t bound) {
    return static_cast<uint32_t>(random() % static_cast<uint64_t>(bound));
  }
  int32_t &lastOf(int32_t slot) { return last[size_t(slot)]; }
  bool isEmpty(int32_t slot) { return lastOf(slot) < 0; }

  template <typename Call> void both(Call call) {
    expectOk(call(*waits));
    expectOk(call(*goesAhead));
  }

  Tokens drawPrompt(int32_t longest) {
    Tokens tokens(1 + below(longest));
    for (int32_t &token : tokens)
      token = static_cast<int32_t>(below(waits->vocabulary()));
    return tokens;
  }

  void act(int32_t longestPrompt) {
    auto slot = static_cast<int32_t>(below(slots));
    int32_t room = waits->capacity() - waits->length(slot);
    if (isEmpty(slot) ? arrive(slot, longestPrompt)
                      : leave(slot, room <= longestPrompt))
      return;
    std::vector<bool> active(size_t(slots), false);
    for (int32_t each = 0; each < slots; ++each)
      active[size_t(each)] = each != slot && !isEmpty(each) &&
                             waits->length(each) < waits->capacity() &&
                             below(8) != 0;
    if (std::ranges::find(active, true) == active.end())
      return;
    bool joins = isEmpty(slot) && waits->shape().mixes;
    int32_t most = std::min(longestPrompt, waits->shape().prefillChunk);
    step(active, joins ? slot : -1, joins ? drawPrompt(most) : Tokens());
  }

  /// Fills an empty slot in some way. False if it stays as it is.
  bool arrive(int32_t slot, int32_t longestPrompt) {
    auto place = std::ranges::find_if(parked, [](int32_t t) { return t >= 0; });
    auto source = static_cast<int32_t>(below(slots));
    switch (below(6)) {
    case 0:
    case 1:
      prefill(slot, drawPrompt(longestPrompt));
      return true;
    case 2:
      if (place == parked.end())
        return false;
      both([&](Decoder &d) {
        return d.unpark(static_cast<int32_t>(place - parked.begin()), slot);
      });
      lastOf(slot) = std::exchange(*place, -1);
      return true;
    case 3:
      if (isEmpty(source))
        return false;
      both([&](Decoder &d) {
        return d.alias(slot, source, waits->length(source));
      });
      lastOf(slot) = static_cast<int32_t>(below(waits->vocabulary()));
      return true;
    default:
      return false;
    }
  }

  /// Empties a slot in some way, or cuts its end off. False if it stays.
  bool leave(int32_t slot, bool isFull) {
    int32_t half = (waits->length(slot) + 1) / 2;
    auto place = std::ranges::find(parked, -1);
    switch (isFull ? 0 : below(40)) {
    case 0:
      both([&](Decoder &d) { return d.release(slot); });
      break;
    case 1:
      if (place == parked.end())
        return false;
      // The host has to know what it parks.
      while (!wanted.empty())
        await();
      both([&](Decoder &d) {
        return d.park(slot, static_cast<int32_t>(place - parked.begin()));
      });
      *place = lastOf(slot);
      break;
    case 2: {
      // Where pages were dropped, too few tokens may be left: refused by both.
      Status patient = waits->trim(slot, half);
      EXPECT_EQ(goesAhead->trim(slot, half).message(), patient.message());
      if (waits->shape().window == 0)
        expectOk(patient);
      if (patient.isOk())
        fed[size_t(slot)] = -1;
      return true;
    }
    default:
      return false;
    }
    lastOf(slot) = fed[size_t(slot)] = -1;
    return true;
  }

  /// A prompt that is computed while a step may be under way.
  void prefill(int32_t slot, const Tokens &prompt) {
    Tokens next(2, -7);
    expectOk(waits->prefill(slot, prompt, {&sampling[1], &next[0]}));
    expectOk(goesAhead->prefill(slot, prompt, {&sampling[1], &next[1]}));
    EXPECT_EQ(next[0], next[1]);
    lastOf(slot) = next[0];
    // A prompt of a mixed step has its token where this one's is now.
    if (joined >= 0)
      fed[size_t(std::exchange(joined, -1))] = -1;
  }

  /// Slots decode what the last step chose for them, where `active` says so,
  /// and `slot`, if there is one, computes `prompt` beside them.
  void step(const std::vector<bool> &active, int32_t slot,
            const Tokens &prompt) {
    Tokens known(size_t(slots), -1), tokens(size_t(slots), -1);
    for (size_t i = 0; i < active.size(); ++i)
      if (active[i]) {
        known[i] = last[i];
        tokens[i] = fed[i] >= 0 ? followingToken : last[i];
      }
    Tokens next(size_t(slots) + 1, -7);
    const StepOutputs now(sampling.data(), next.data());
    const StepOutputs later = StepOutputs::later(sampling.data());
    if (slot >= 0) {
      expectOk(waits->mixedStep(known, slot, prompt, now));
      expectOk(goesAhead->mixedStep(tokens, slot, prompt, later));
    } else {
      expectOk(waits->decode(known, now));
      expectOk(goesAhead->decode(tokens, later));
    }
    std::ranges::fill(fed, -1);
    for (size_t i = 0; i < active.size(); ++i)
      if (active[i])
        fed[i] = last[i] = next[i];
    joined = slot;
    if (slot >= 0)
      fed[size_t(slot)] = lastOf(slot) = next.back();
    wanted.push_back({next, active});
    wanted.back().rows.push_back(slot >= 0);
    ++taken;
    if (wanted.size() > static_cast<size_t>(goesAhead->shape().stepsAhead))
      await();
  }

  void await() {
    Tokens got(size_t(slots) + 1, -7);
    expectOk(goesAhead->awaitStep(got));
    for (size_t i = 0; i < got.size(); ++i)
      if (wanted.front().rows[i]) {
        EXPECT_EQ(got[i], wanted.front().next[i]) << "row " << i;
      }
    wanted.pop_front();
  }

  std::unique_ptr<Decoder> waits, goesAhead;
  int32_t slots;
  Tokens fed;  ///< [slots] the token that the device has too, -1 = none
  Tokens last; ///< [slots] the token that follows, -1 = empty
  std::vector<kvrm_sampling> sampling; ///< [slots], then of a prompt
  Tokens parked;                       ///< [places] what `last` was
  std::mt19937 random;
  int32_t joined = -1; ///< the slot whose prompt was in the last step
  std::deque<Wanted> wanted;
  int64_t taken = 0;
};

} // namespace kvrm::test

#endif // KVRM_TEST_AHEADTWINS_H
