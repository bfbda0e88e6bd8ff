//===- ShardedBackend.h - Several backends that are one ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Tensor parallelism: a backend a rank, each with its part of the KV heads of
// every page and of the weights, and a thread a rank that makes its calls. To a
// session the group is one backend. Pages have the same number on every rank,
// so that one plan, one set of tables and one commit say all of it; what a call
// does to a page each rank does to its part.
//
// A step, on all ranks at once:
//
//   1. each rank's descriptor takes over what the session's has planned;
//   2. each rank's backend commits its own, and runs the step, whose
//      collectives bring the ranks together;
//   3. the first rank's logits and tokens are the step's; the others have the
//      same.
//
// Errors. A call that fails on one rank fails, with "rank N: " in front. One
// that only moves pages changes nothing else. A step that fails, or does not
// end in time, leaves others waiting for the rank: the group is aborted, and
// every later call fails at once with what happened first. The session's
// histories are as they were before that step; a rank that does not even come
// back from an aborted call is left behind with all it owns.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_SHARDEDBACKEND_H
#define KVRM_RUNTIME_SESSION_SHARDEDBACKEND_H

#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/session/RankGroup.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

namespace kvrm {

/// What fixes the group for its life.
struct RankShape {
  int32_t ranks = 1;
  /// What entries are planned with; `shares` are the ranks'.
  std::array<PlanShape, plannedEntries> plans;
  int32_t vocabulary = 0;
  /// That any one call may take; then the ranks are given up.
  std::chrono::milliseconds timeout{30000};
};

class ShardedBackend final : public Backend {
public:
  /// Makes the backend of a rank, on its thread, all at the same time.
  using MakeRank =
      std::function<Expected<std::unique_ptr<Backend>>(int32_t rank)>;

  /// Starts the ranks. If one of them fails, the group is aborted. Errors:
  /// those of `makeRank`; Incompatible if ranks are not alike;
  /// ResourceExhausted.
  static Expected<std::unique_ptr<ShardedBackend>>
  create(const RankShape &shape, std::shared_ptr<RankGroup> group,
         MakeRank makeRank);
  ~ShardedBackend() override;

  const BackendInfo &info() const override { return facts; }
  Status copyPage(const PageCopy &copy) override;
  Status movePages(std::span<const PageRun> runs,
                   MoveDirection direction) override;
  Status collapsePage(const PageCollapse &collapse) override;
  Status runStep(const BackendStep &step, BackendStats &stats) override;
  Status awaitStep(std::span<int32_t> next) override;

  int32_t ranks() const { return static_cast<int32_t>(members.size()); }

  /// Whether this process has left a rank behind. Threads then still use the
  /// device and its libraries, whose ends at exit() they would not survive: end
  /// the process with _exit().
  static bool hasLeftRanks();

private:
  class Rank;
  struct Job;
  struct Board;

  explicit ShardedBackend(const RankShape &shape);

  Status join();
  Status takeOutputs();
  Job &newJob();
  Status run(bool isBounded = true);

  RankShape bounds;
  std::shared_ptr<Board> board;
  BackendInfo facts;
  std::vector<std::shared_ptr<Rank>> members;
  std::vector<std::thread> threads;
  Status lost; ///< ok while the ranks can go on
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_SHARDEDBACKEND_H
