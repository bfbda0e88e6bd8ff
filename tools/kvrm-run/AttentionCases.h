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
  std::string family; ///< homogeneous, bimodal, uniform, zipf, bucketed,
                      ///< ragged, given
  uint64_t seed = 0;  ///< 0 = it has none
  std::vector<int32_t> lengths;
};

/// One history in four is long.
AttentionCase bimodalCase(int32_t rows, uint64_t seed);
AttentionCase uniformCase(int32_t rows, uint64_t seed);
AttentionCase zipfCase(int32_t rows, uint64_t seed);
/// One history, of a length that comes in turn with the seed.
AttentionCase bucketedCase(uint64_t seed);
AttentionCase raggedCase(int32_t rows, int32_t low, int32_t high,
                         uint64_t seed);
AttentionCase homogeneousCase(int32_t rows, int32_t length);

/// The rows of `bench attention`.
std::vector<AttentionCase> benchCases(uint64_t seed);
/// What `--serving` runs: each family for each seed.
std::vector<AttentionCase> servingCases(const std::vector<uint64_t> &seeds);
/// What `calibrate` measures.
std::vector<AttentionCase> calibrationCases();

/// The rows that --rows asks for, in its order. Each text is a list of entries
/// with semicolons between; an entry is either names of benchCases(seed), "all"
/// or "none", with commas between, or a row of its own:
///
///   name=lengths     lengths, with commas between, each of the forms
///     17             a history of 17 tokens
///     17*8           eight of them
///     1..4000*128@3  128 of 1 to 4000 tokens, drawn by seed 3; without, by
///                    `seed`
///
/// Errors: InvalidArgument with what `option` is called.
Expected<std::vector<AttentionCase>>
parseRows(const std::vector<std::string> &texts, uint64_t seed,
          std::string_view option);

/// Parts of "a,b,c"; none of an empty text.
std::vector<std::string> splitList(std::string_view text, char between = ',');

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONCASES_H
