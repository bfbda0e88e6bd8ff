//===- Clock.h - Time as the engine sees it ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_CLOCK_H
#define KVRM_RUNTIME_SUPPORT_CLOCK_H

#include "kvrm/runtime/support/Check.h"

#include <chrono>
#include <cstdint>

namespace kvrm {

/// Nanoseconds since some start. Never goes back.
class Clock {
public:
  virtual ~Clock() = default;
  virtual int64_t now() const = 0;
};

/// The machine's clock.
class SteadyClock final : public Clock {
public:
  int64_t now() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

/// Moves when it is told to, so that a whole engine runs the same each time.
class VirtualClock final : public Clock {
public:
  int64_t now() const override { return time; }
  void advance(int64_t nanoseconds) {
    KVRM_CHECK(nanoseconds >= 0, "time does not go back");
    time += nanoseconds;
  }

private:
  int64_t time = 0;
};

/// Nanoseconds of the machine's time since it was made.
class Stopwatch {
public:
  int64_t nanoseconds() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now() - start)
        .count();
  }

private:
  std::chrono::steady_clock::time_point start =
      std::chrono::steady_clock::now();
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_CLOCK_H
