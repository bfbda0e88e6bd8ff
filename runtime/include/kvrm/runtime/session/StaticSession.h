//===- StaticSession.h - The static baseline of the host --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A static decoder on the CPU. There are no pages, no plans and no descriptor;
// a step reads positions and counts from its arguments.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_STATICSESSION_H
#define KVRM_RUNTIME_SESSION_STATICSESSION_H

#include "kvrm/runtime/abi/host.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/session/StaticDecoder.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>

namespace kvrm {

class StaticSession final : public StaticDecoder {
public:
  /// Takes all memory and starts the workers; 0 `threads` = one a usable CPU.
  /// Errors: InvalidArgument if the package is not static or not the host's,
  /// ResourceExhausted.
  static Expected<std::unique_ptr<StaticSession>>
  create(std::shared_ptr<const Package> package, int32_t threads);

  int64_t reservedKvBytes() const override {
    return kCache.size() + vCache.size();
  }
  int64_t tokenKvBytes() const override;

  /// Makes the empty `slot` a copy of the same slot of `source`, a session of
  /// the same model with another capacity.
  Status copyHistory(const StaticSession &source, int32_t slot);

private:
  StaticSession() = default;

  Status runStep(StepEntry which, const StepRows &rows,
                 const StepOutputs &outputs, StepStats &stats) override;
  Status copyTokens(int32_t target, int32_t source, int32_t tokens) override;

  const Manifest &manifest() const { return package->manifest(); }
  int64_t headTokenBytes() const;
  int64_t offsetOf(int64_t layer, int32_t slot, int64_t head) const;
  void copyTokensOf(const StaticSession &from, int32_t source, int32_t target,
                    int32_t tokens);

  std::shared_ptr<const Package> package;
  std::unique_ptr<ThreadPool> pool;
  AlignedBuffer kCache;
  AlignedBuffer vCache;
  AlignedBuffer arena;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_STATICSESSION_H
