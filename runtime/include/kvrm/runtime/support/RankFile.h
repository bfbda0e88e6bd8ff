//===- RankFile.h - Files that each rank has of its own ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_RANKFILE_H
#define KVRM_RUNTIME_SUPPORT_RANKFILE_H

#include <cstdint>
#include <string>

namespace kvrm {

/// `stem.extension` of the first rank, which is the only one of most packages,
/// and `stem.N.extension` of rank N.
inline std::string rankFile(const char *stem, const char *extension,
                            int64_t rank) {
  std::string name = stem;
  if (rank > 0)
    name += "." + std::to_string(rank);
  return name + "." + extension;
}

inline std::string weightsFile(int64_t rank) {
  return rankFile("weights", "safetensors", rank);
}

inline std::string seedsFile(int64_t rank) {
  return rankFile("seeds", "json", rank);
}

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_RANKFILE_H
