//===- SplitMix64.h - Random numbers, equal on every platform ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_SPLITMIX64_H
#define KVRM_RUNTIME_SUPPORT_SPLITMIX64_H

#include <cstdint>

namespace kvrm {

/// The generator of Steele, Lea and Flood (OOPSLA 2014).
class SplitMix64 {
public:
  explicit SplitMix64(uint64_t seed) : state(seed) {}

  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  /// The first number of a seed: a hash of it.
  static uint64_t mix(uint64_t seed) { return SplitMix64(seed).next(); }

private:
  uint64_t state;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_SPLITMIX64_H
