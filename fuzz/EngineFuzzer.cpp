//===- EngineFuzzer.cpp - A whole engine by seed --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Eight bytes are a seed of EngineSimulation.h. libFuzzer keeps those whose
// simulation takes new ways through the engine.
//
//===----------------------------------------------------------------------===//

#include "../runtime/test/EngineSimulation.h"
#include "Fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto seed = fuzz::Input(data, size).take<uint64_t>();
  simulation::Outcome outcome = simulation::simulate(seed, false);
  fuzz::check(outcome.failure.empty(), "a simulation goes well",
              "kvrm-simulate --replay " + std::to_string(seed) + ": " +
                  outcome.failure);
  return 0;
}
