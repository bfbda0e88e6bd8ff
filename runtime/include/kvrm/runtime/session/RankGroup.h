//===- RankGroup.h - What ranks hand each other values through --*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Ranks run the same steps at the same time and meet in collectives, in which
// each waits for all others. HostGroup.h and CudaGroup.h are such groups; what
// both have in common is that they can be given up.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_RANKGROUP_H
#define KVRM_RUNTIME_SESSION_RANKGROUP_H

namespace kvrm {

class RankGroup {
public:
  virtual ~RankGroup() = default;
  RankGroup(const RankGroup &) = delete;
  RankGroup &operator=(const RankGroup &) = delete;

  /// Makes every collective fail that is under way or begins later, and lets go
  /// who waits in one. For good; a second call does nothing. Any thread may
  /// call it while others are in collectives.
  virtual void abort() = 0;

protected:
  RankGroup() = default;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_RANKGROUP_H
