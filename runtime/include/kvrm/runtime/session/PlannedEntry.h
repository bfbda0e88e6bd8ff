//===- PlannedEntry.h - An entry point as sessions drive it -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The planner and the descriptor of an entry's batch, and the rows of its next
// step: a step is to fill in rows and tokens, to plan, and to run. A mixed step
// plans two and runs once.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_PLANNEDENTRY_H
#define KVRM_RUNTIME_SESSION_PLANNEDENTRY_H

#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/session/Decoder.h"

#include <optional>
#include <span>
#include <vector>

namespace kvrm {

/// Whether a step's tokens are wanted, and the backend chooses them.
inline bool isChosenThere(const BackendInfo &info, const StepOutputs &outputs) {
  return outputs.isLater || (info.choosesTokens && outputs.next);
}

class PlannedEntry {
public:
  /// Takes all memory. `shape` gets the shares of the backend. Errors:
  /// InvalidArgument, ResourceExhausted.
  Status create(StepEntry which, PlanShape shape, const BackendInfo &info);

  StepEntry which() const { return entry; }
  std::span<PlanRow> rows() { return planRows; }
  /// Sets the new tokens of row `row`, as many as the row counts.
  void setTokens(int32_t row, std::span<const int32_t> tokens) {
    descriptor->setTokens(row, tokens);
  }

  /// Sets the token of row `row` of a decode step: the one that row `source` of
  /// the step before chose.
  void setFed(int32_t row, int32_t source) { descriptor->setFed(row, source); }

  /// Plans the rows. `sampling` is theirs, null if no token is to be chosen.
  /// Adds to `stats` what the plan tells.
  void plan(const BlockPager &pager, const kvrm_sampling *sampling,
            StepStats &stats);
  /// What is planned.
  StepDescriptor &planned() { return *descriptor; }

  /// Plans the rows and runs a step of them alone. `logits` is where those go,
  /// null if they are not wanted of a backend that chooses tokens; only there
  /// `outputs.next` is set. Adds to `stats` what the plan and the backend tell.
  /// Errors: the backend's.
  Status run(Backend &backend, const BlockPager &pager, int32_t schedule,
             const StepOutputs &outputs, float *logits, StepStats &stats);

private:
  StepEntry entry = StepEntry::Decode;
  std::optional<Planner> planner;
  std::optional<StepDescriptor> descriptor;
  std::vector<PlanRow> planRows;
};

/// Runs a step whose batches are planned, and adds to `stats` what the backend
/// tells. Errors: the backend's.
Status runPlanned(Backend &backend, const BackendStep &step, StepStats &stats);

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_PLANNEDENTRY_H
