//===- Candidate.h - A package to compare -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_CANDIDATE_H
#define KVRM_TOOLS_REPLAY_CANDIDATE_H

#include "kvrm/runtime/package/Package.h"

#include <cstdint>
#include <string>

namespace kvrm::replay {

/// A package as the comparison sees it.
struct Candidate {
  std::string path;
  Manifest manifest;
  uint64_t fingerprint = 0; ///< of the weights, whatever the capacity
};

enum class CacheKind { Paged, Static };

/// `option` is what messages start with. Errors: InvalidArgument for a package
/// of the other kind, and those of Package::load().
Expected<Candidate> loadCandidate(const std::string &path, CacheKind kind,
                                  const std::string &option);

/// Whether two packages compute the same model. Errors: InvalidArgument.
Status checkSameModel(const Candidate &a, const Candidate &b);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_CANDIDATE_H
