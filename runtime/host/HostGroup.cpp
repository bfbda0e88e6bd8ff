//===- HostGroup.cpp - Collectives among ranks in one memory --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/HostGroup.h"

#include <algorithm>
#include <span>

using namespace kvrm;

/// Returns when every rank has called it, or the group is given up and
/// `canBeGivenUp`.
Status HostGroup::waitForAll(bool canBeGivenUp) {
  std::unique_lock lock(mutex);
  // Those that have left would be counted among them, and their inputs read.
  if (canBeGivenUp && isAborted)
    return makeError(StatusCode::IoError, "another rank failed");
  uint64_t mine = generation;
  if (++waiting == ranks()) {
    waiting = 0;
    ++generation;
    changed.notify_all();
  }
  changed.wait(
      lock, [&] { return generation != mine || (canBeGivenUp && isAborted); });
  // Whoever saw the meeting end before the group was given up goes on.
  if (generation == mine)
    return makeError(StatusCode::IoError, "another rank failed");
  return Status::ok();
}

Status HostGroup::meet(int32_t rank, const float *in, int64_t count) {
  auto index = static_cast<size_t>(rank);
  KVRM_CHECK(index < inputs.size(), "a rank of the group");
  inputs[index] = in;
  counts[index] = count;
  KVRM_TRY(waitForAll(/*canBeGivenUp=*/true));
  if (std::ranges::any_of(counts,
                          [&](int64_t other) { return other != count; }))
    return makeError(StatusCode::Internal,
                     "ranks meet with different collectives");
  return Status::ok();
}

/// Returns when nobody reads an input any more. Also if the group is given up:
/// all have met, and come here without waiting for anything else.
Status HostGroup::leave() { return waitForAll(/*canBeGivenUp=*/false); }

Status HostGroup::allReduce(int32_t rank, const float *in, float *out,
                            int64_t count) {
  KVRM_TRY(meet(rank, in, -count));
  std::copy_n(inputs[0], count, out);
  for (const float *other : std::span(inputs).subspan(1))
    for (int64_t i = 0; i < count; ++i)
      out[i] += other[i];
  return leave();
}

Status HostGroup::allGather(int32_t rank, const float *in, float *out,
                            int64_t count) {
  KVRM_TRY(meet(rank, in, count));
  for (const float *other : inputs)
    out = std::copy_n(other, count, out);
  return leave();
}

void HostGroup::abort() {
  std::lock_guard lock(mutex);
  isAborted = true;
  changed.notify_all();
}
