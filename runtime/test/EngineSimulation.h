//===- EngineSimulation.h - A whole engine by seed --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One simulation is one seed: it fixes the decoder's shape, the engine's
// settings, what requests come and when they are cancelled, and every fault. A
// seed that fails does so again in the same way.
//
// After every call all invariants of engine and pagers are verified. At the end
// faults stop, and every request must have ended exactly once, with the tokens
// that it gets alone, and every page must be free.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_ENGINESIMULATION_H
#define KVRM_TEST_ENGINESIMULATION_H

#include <cstdint>
#include <string>

namespace simulation {

struct Outcome {
  std::string failure; ///< empty = all is well
  int64_t calls = 0;   ///< of the engine
  int64_t faults = 0;
  int64_t submitted = 0;
  int64_t refused = 0;
  int64_t cancelled = 0;
  int64_t finished = 0;
  int64_t mixedSteps = 0;
  int64_t logprobs = 0; ///< tokens that came with theirs
  int64_t parked = 0;
  int64_t recomputed = 0;
  int64_t evicted = 0;
  int64_t sharedTokens = 0;
  uint64_t digest = 0; ///< of everything that happened, in order
};

/// Runs one seed. `isTelling` prints what happens to standard error.
Outcome simulate(uint64_t seed, bool isTelling);

} // namespace simulation

#endif // KVRM_TEST_ENGINESIMULATION_H
