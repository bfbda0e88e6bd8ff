//===- AttentionCases.h - Batches to measure attention with -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Names, lengths and seeds of the batches that `bench attention` and
// `calibrate` run. A seed gives the same lengths on every platform.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_ATTENTIONCASES_H
#define KVRM_TOOLS_RUN_ATTENTIONCASES_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::run {

/// Histories of one launch.
struct AttentionCase {
  std::string name;
  std::string family; ///< homogeneous, bimodal, uniform, zipf or bucketed
  uint64_t seed = 0;  ///< 0 = it has none
  std::vector<int32_t> lengths;
};

/// One history in four is long.
AttentionCase bimodalCase(int32_t rows, uint64_t seed);
AttentionCase uniformCase(int32_t rows, uint64_t seed);
AttentionCase zipfCase(int32_t rows, uint64_t seed);
/// One history, of a length that comes in turn with the seed.
AttentionCase bucketedCase(uint64_t seed);
AttentionCase homogeneousCase(int32_t rows, int32_t length);

/// The rows of `bench attention`.
std::vector<AttentionCase> benchCases(uint64_t seed);
/// What `--serving` runs: each family for each seed.
std::vector<AttentionCase> servingCases(const std::vector<uint64_t> &seeds);
/// What `calibrate` measures.
std::vector<AttentionCase> calibrationCases();

/// Those of `cases` that `names` lists, "all" or "none". Errors:
/// InvalidArgument with what `option` is called.
Expected<std::vector<AttentionCase>>
selectCases(std::vector<AttentionCase> cases, std::string_view names,
            std::string_view option);

/// Parts of "a,b,c"; none of an empty text.
std::vector<std::string> splitList(std::string_view text);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONCASES_H
