//===- HostGroup.h - Collectives among ranks in one memory ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_HOST_HOSTGROUP_H
#define KVRM_RUNTIME_HOST_HOSTGROUP_H

#include "kvrm/runtime/session/RankGroup.h"
#include "kvrm/runtime/support/Status.h"

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace kvrm {

/// Every rank calls from a thread of its own, the same calls in the same order.
/// Sums are taken in the order of the ranks, and so have the same bits on each.
/// Errors: IoError once the group is aborted, Internal if ranks meet with
/// different calls; outputs hold anything then.
class HostGroup final : public RankGroup {
public:
  explicit HostGroup(int32_t ranks)
      : inputs(static_cast<size_t>(ranks)), counts(static_cast<size_t>(ranks)) {
  }

  int32_t ranks() const { return static_cast<int32_t>(inputs.size()); }

  /// out[i] = sum over ranks of in[i], for i below `count`.
  Status allReduce(int32_t rank, const float *in, float *out, int64_t count);
  /// out[r][i] = in[i] of rank r.
  Status allGather(int32_t rank, const float *in, float *out, int64_t count);
  void abort() override;

private:
  Status meet(int32_t rank, const float *in, int64_t count);
  Status waitForAll(bool canBeGivenUp);
  Status leave();

  std::mutex mutex;
  std::condition_variable changed;
  int32_t waiting = 0;
  uint64_t generation = 0; ///< of meetings
  bool isAborted = false;
  // What the ranks brought to the meeting.
  std::vector<const float *> inputs;
  std::vector<int64_t> counts; ///< negative for a sum
};

} // namespace kvrm

#endif // KVRM_RUNTIME_HOST_HOSTGROUP_H
