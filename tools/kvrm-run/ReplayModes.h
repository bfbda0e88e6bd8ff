//===- ReplayModes.h - Decoders of one model, side by side ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The decoders that a replay compares, each with its packages, and the checks
// that make them comparable: packages of one model, and KV memory that is equal
// to within one page or slot.
//
//   kvrm      a paged package; pages of the pool follow from the budget
//   max       a static package that reserves slots x capacity
//   bucketed  static packages of several capacities (BucketedDecoder.h)
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_REPLAYMODES_H
#define KVRM_TOOLS_RUN_REPLAYMODES_H

#include "BucketedDecoder.h"
#include "Commands.h"

#include <memory>
#include <string>
#include <vector>

namespace kvrm::run {

/// KV memory at a moment.
struct KvUse {
  int64_t held = 0;         ///< by running requests and kept histories
  int64_t kept = 0;         ///< of that, by kept histories alone
  int64_t live = 0;         ///< tokens of running requests, shared ones once
  int64_t sharedTokens = 0; ///< tokens that sharing saves
};

/// A decoder with the sessions under it. Their memory goes when it does.
class ModeDecoder {
public:
  Decoder &decoder() {
    return bucketed ? *bucketed : static_cast<Decoder &>(*session);
  }
  const BucketedDecoder *buckets() const { return bucketed.get(); }

  /// What `running` requests use. Exact, also with shared pages: tokens are
  /// counted by physical page, as many as its fullest user has in it. A request
  /// of a static decoder holds its whole slot.
  KvUse use(int32_t running);
  /// Bytes of a page; 0 if not paged.
  int64_t pageBytes() const;

private:
  friend class ModeSpec;
  std::unique_ptr<Session> session;
  std::unique_ptr<BucketedDecoder> bucketed;
  std::vector<int32_t> filled; ///< [pages] tokens that requests have in each
  std::vector<int32_t> touched;
};

/// A mode that was checked; opened when its turn comes.
class ModeSpec {
public:
  std::string name;
  std::vector<std::string> packages; ///< by capacity
  SessionConfig config;
  int32_t slots = 0;
  int32_t capacity = 0;
  int32_t pageTokens = 0; ///< 0 = static
  int32_t poolPages = 0;
  int64_t tokenBytes = 0;
  int64_t budgetBytes = 0; ///< most that it reserves

  bool isPaged() const { return pageTokens > 0; }

  /// Loads the packages, takes all memory and touches it: the system commits
  /// pages at their first use, which takes time that is not the mode's.
  Expected<std::unique_ptr<ModeDecoder>> open(double warmupSeconds) const;
};

struct ModeSet {
  std::vector<ModeSpec> modes; ///< in the order that they run
  std::string modelName;
  int32_t layers = 0;
  int32_t capacity = 0; ///< the least of all modes: one that all can serve
  int32_t vocabulary = 0;
  int32_t pageTokens = 0;  ///< of the paged package
  int64_t budgetBytes = 0; ///< asked for, or of the static packages

  const ModeSpec *find(const std::string &name) const;
};

/// Errors: InvalidArgument for packages that cannot be compared, and those of
/// Package::load().
Expected<ModeSet> prepareModes(const CommonOptions &common,
                               const ReplayOptions &options);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_REPLAYMODES_H
