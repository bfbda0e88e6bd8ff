//===- ModeDecoder.h - A mode that serves -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_MODEDECODER_H
#define KVRM_TOOLS_REPLAY_MODEDECODER_H

#include "BucketedDecoder.h"
#include "Modes.h"

#include <memory>
#include <vector>

namespace kvrm::replay {

/// KV memory at a moment.
struct KvUse {
  int64_t held = 0;         ///< by running requests and kept histories
  int64_t kept = 0;         ///< of that, by kept histories alone
  int64_t live = 0;         ///< tokens of running requests, shared ones once
  int64_t sharedTokens = 0; ///< tokens that sharing saves
};

/// A decoder of a mode, and how its KV memory is counted. What is under it goes
/// when it does.
class ModeDecoder {
public:
  /// `pager` is that of a paged `decoder`, null for a static one; `buckets` is
  /// the decoder itself if it has buckets.
  explicit ModeDecoder(std::unique_ptr<Decoder> decoder,
                       const BlockPager *pager = nullptr,
                       const BucketedDecoder *buckets = nullptr);

  Decoder &decoder() { return *served; }
  const BucketedDecoder *buckets() const { return bucketed; }

  /// What `running` requests use. Exact, also with shared pages: tokens are
  /// counted by physical page, as many as its fullest user has in it. A request
  /// of a static decoder holds its whole slot.
  KvUse use(int32_t running);

private:
  KvUse usePaged();

  std::unique_ptr<Decoder> served;
  const BlockPager *pager;
  const BucketedDecoder *bucketed;
  std::vector<int32_t> filled; ///< [pages] tokens that requests have in each
  std::vector<int32_t> touched;
};

/// Loads the packages of a mode, takes all memory and touches it: the system
/// commits pages at their first use, which takes time that is not the mode's.
Expected<std::unique_ptr<ModeDecoder>> openMode(const ModeSpec &mode,
                                                double warmupSeconds);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_MODEDECODER_H
