//===- OutputCheck.h - Outputs of attention, computed again -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_OUTPUTCHECK_H
#define KVRM_TOOLS_RUN_OUTPUTCHECK_H

#include "AttentionLab.h"

#include "kvrm/runtime/support/Reference.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace kvrm::run {

/// Some outputs of the last layer, those of a (row, KV head) each, as the host
/// computes them from the pages on the device.
class OutputCheck {
public:
  /// All must outlive this. `queries` are those on the device, [rows][queries]
  /// [heads][head_dim].
  OutputCheck(AttentionLab &lab, AttentionStep &gpu,
              std::span<const uint16_t> queries, uint64_t seed)
      : lab(lab), gpu(gpu), queries(queries), seed(seed) {}

  /// Computes what some outputs must be of rows of these lengths.
  Status prepare(std::span<const int32_t> lengths);
  /// (Row, KV head) pairs whose outputs are known; 0 before prepare().
  size_t pairCount() const { return pairs.size(); }
  /// Compares the outputs to what prepare() made.
  Expected<ErrorStats> compare() const;

private:
  struct Pair {
    int32_t row = 0;
    int32_t head = 0;
    int32_t length = 0;
    int64_t keys = 0; ///< where its pages of K are in pinned memory
    int64_t values = 0;
    std::vector<double> wanted; ///< [group heads][head_dim]
  };
  /// Scratch memory of a thread: K, then V, of a pair in order of tokens.
  using Sides = std::array<std::vector<float>, 2>;

  void choosePairs(std::span<const int32_t> lengths);
  std::span<const int32_t> pagesOf(const Pair &pair) const;
  Expected<const uint8_t *> readPages();
  Status readSide(const Pair &pair, bool isValue, uint8_t *to) const;
  void readPagesOf(const uint8_t *memory, size_t pages,
                   std::vector<float> &rows) const;
  void compute(Pair &pair, const uint8_t *memory, Sides &sides) const;

  AttentionLab &lab;
  AttentionStep &gpu;
  std::span<const uint16_t> queries;
  uint64_t seed;
  size_t rows = 0;
  std::vector<Pair> pairs;
};

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_OUTPUTCHECK_H
