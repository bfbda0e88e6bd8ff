//===- PaddedSession.h - The static baseline of a backend -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A static decoder over a backend that knows pages alone. Slot s has the pages
// [s * pagesPerSlot, (s + 1) * pagesPerSlot) for life, so that its KV lies in
// one piece, and every step reads all of it (PlanShape::isPadded). Kernels,
// graphs and commits are those of paged decoders: what the two differ by is
// padding.
//
// A row that is idle computes as an active one does; in a full slot, where it
// has no place to write to, it costs nothing.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_PADDEDSESSION_H
#define KVRM_RUNTIME_SESSION_PADDEDSESSION_H

#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/session/PlannedEntry.h"
#include "kvrm/runtime/session/Session.h"
#include "kvrm/runtime/session/StaticDecoder.h"

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvrm {

class PaddedSession final : public StaticDecoder {
public:
  /// `shape` is padded in its entries and has neither a window, nor kept
  /// histories, nor parking places; the backend has slots x pages a slot.
  /// Errors: InvalidArgument, ResourceExhausted.
  static Expected<std::unique_ptr<PaddedSession>>
  create(const SessionShape &shape, std::unique_ptr<Backend> backend);

  Status awaitStep(std::span<int32_t> next) override {
    return ahead.await(*runner, next);
  }
  int64_t reservedKvBytes() const override;
  int64_t tokenKvBytes() const override;
  std::string products() const override { return runner->info().products; }

  /// For tests.
  Backend &backend() { return *runner; }

private:
  PaddedSession() = default;

  Status reservePages(const PlanShape &shape);
  void fillRows(PlannedEntry &entry, const StepRows &rows);
  Status runStep(StepEntry which, const StepRows &rows,
                 const StepOutputs &outputs, StepStats &stats) override;
  Status copyTokens(int32_t target, int32_t source, int32_t tokens) override;

  std::unique_ptr<Backend> runner;
  std::optional<BlockPager> pager; ///< full from the start
  std::array<PlannedEntry, plannedEntries> entries;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_PADDEDSESSION_H
