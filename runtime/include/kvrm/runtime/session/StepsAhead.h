//===- StepsAhead.h - Steps that are started and not awaited ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a decoder remembers of steps that it started for later: how many nobody
// has awaited, and where the backend has the token that the last of them
// chooses for a slot, so that the next can be fed it. That token is the slot's
// only as long as the slot's history is what the step left, and no other step
// has overwritten it.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_STEPSAHEAD_H
#define KVRM_RUNTIME_SESSION_STEPSAHEAD_H

#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/support/Status.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

class StepsAhead {
public:
  /// For a decoder of `slots`, whose backend goes `most` steps ahead.
  void create(int32_t slots, int32_t most);

  /// Whether another step can be started. Errors: InvalidArgument.
  Status check(const StepOutputs &outputs) const;
  /// Notes that a decode step of `tokens` was started, for later or not; in a
  /// mixed one `promptSlot` has a row behind the slots'.
  void started(std::span<const int32_t> tokens, const StepOutputs &outputs,
               int32_t promptSlot = -1);
  /// Notes that a step failed: it may have run, and chosen, all the same.
  void failed() { std::ranges::fill(rows, -1); }
  /// Notes that a history changes otherwise, which need not be a slot's.
  void forget(int32_t history);
  /// Notes that a prompt is computed on its own: its row is overwritten.
  void promptComputed() { std::ranges::replace(rows, promptRow(), -1); }

  /// The row of a step whose token follows the slot's history; -1 = none.
  int32_t rowOf(int32_t slot) const { return rows[static_cast<size_t>(slot)]; }

  /// Decoder::awaitStep().
  Status await(Backend &backend, std::span<int32_t> next);

private:
  int32_t promptRow() const { return static_cast<int32_t>(rows.size()); }

  int32_t most = 0;
  int32_t underWay = 0;
  std::vector<int32_t> rows; ///< [slots]
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_STEPSAHEAD_H
