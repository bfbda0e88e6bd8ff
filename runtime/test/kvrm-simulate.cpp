//===- kvrm-simulate.cpp - Many seeds, or one again -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// usage: kvrm-simulate [FIRST_SEED [SEEDS]]     (default: 1 10000)
//        kvrm-simulate --replay SEED
//
// The first form runs many simulations and stops at the first that fails; the
// second runs one and tells all that happens.
//
//===----------------------------------------------------------------------===//

#include "EngineSimulation.h"

#include <charconv>
#include <cstdio>
#include <cstring>

static bool parse(const char *text, uint64_t &value) {
  const char *end = text + std::strlen(text);
  auto [rest, error] = std::from_chars(text, end, value);
  return error == std::errc() && rest == end && rest != text;
}

static int fail(const char *what) {
  std::fprintf(stderr, "kvrm-simulate: error: %s\n", what);
  return 1;
}

int main(int argc, char **argv) {
  uint64_t first = 1;
  uint64_t seeds = 10000;
  if (argc == 3 && std::strcmp(argv[1], "--replay") == 0) {
    if (!parse(argv[2], first))
      return fail("the seed is not a number");
    simulation::Outcome outcome = simulation::simulate(first, true);
    std::printf("seed %llu: %s, digest %016llx\n",
                static_cast<unsigned long long>(first),
                outcome.failure.empty() ? "ok" : outcome.failure.c_str(),
                static_cast<unsigned long long>(outcome.digest));
    return outcome.failure.empty() ? 0 : 1;
  }
  if (argc > 3 || (argc > 1 && !parse(argv[1], first)) ||
      (argc > 2 && !parse(argv[2], seeds)))
    return fail("usage: kvrm-simulate [FIRST_SEED [SEEDS]] | --replay SEED");
  simulation::Outcome sums;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    simulation::Outcome outcome = simulation::simulate(seed, false);
    if (!outcome.failure.empty()) {
      std::fprintf(stderr,
                   "kvrm-simulate: seed %llu: %s\n"
                   "kvrm-simulate: again with: kvrm-simulate --replay %llu\n",
                   static_cast<unsigned long long>(seed),
                   outcome.failure.c_str(),
                   static_cast<unsigned long long>(seed));
      return 1;
    }
    sums.calls += outcome.calls;
    sums.faults += outcome.faults;
    sums.submitted += outcome.submitted;
    sums.refused += outcome.refused;
    sums.cancelled += outcome.cancelled;
    sums.finished += outcome.finished;
    sums.parked += outcome.parked;
    sums.recomputed += outcome.recomputed;
    sums.evicted += outcome.evicted;
    sums.sharedTokens += outcome.sharedTokens;
  }
  std::printf("%llu seeds ok: %lld calls, %lld faults; %lld requests, %lld "
              "refused, %lld cancelled, %lld ended; %lld parked, %lld "
              "recomputed, %lld kept histories evicted, %lld tokens shared\n",
              static_cast<unsigned long long>(seeds),
              static_cast<long long>(sums.calls),
              static_cast<long long>(sums.faults),
              static_cast<long long>(sums.submitted),
              static_cast<long long>(sums.refused),
              static_cast<long long>(sums.cancelled),
              static_cast<long long>(sums.finished),
              static_cast<long long>(sums.parked),
              static_cast<long long>(sums.recomputed),
              static_cast<long long>(sums.evicted),
              static_cast<long long>(sums.sharedTokens));
  return 0;
}
