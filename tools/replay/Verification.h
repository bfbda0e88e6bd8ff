//===- Verification.h - Tokens of a run against those alone -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_VERIFICATION_H
#define KVRM_TOOLS_REPLAY_VERIFICATION_H

#include "Progress.h"

namespace kvrm::replay {

struct Verification {
  int64_t requests = 0;
  int64_t mismatches = 0;
  std::string first; ///< where the first one differs
};

/// Runs up to `count` of the requests that have `tokens`, spread evenly, one by
/// one, each alone on a fresh engine, and compares their tokens. `progress` may
/// be null. Errors: what the engine returns.
Expected<Verification>
verifyTokens(Decoder &decoder, const Workload &work,
             const std::vector<std::vector<int32_t>> &tokens, int64_t count,
             ProgressObserver *progress);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_VERIFICATION_H
