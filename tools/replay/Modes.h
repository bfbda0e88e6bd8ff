//===- Modes.h - Decoders of one model, side by side ------------*- C++ -*-===//
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

#ifndef KVRM_TOOLS_REPLAY_MODES_H
#define KVRM_TOOLS_REPLAY_MODES_H

#include "Options.h"

#include <string>
#include <vector>

namespace kvrm::replay {

/// A mode that was checked; opened when its turn comes.
struct ModeSpec {
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
Expected<ModeSet> prepareModes(const Options &options);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_MODES_H
