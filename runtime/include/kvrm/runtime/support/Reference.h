//===- Reference.h - Attention in float64, to compare with ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What tests and benchmarks of attention kernels compare with: the definition,
// computed in float64 from the numbers that the kernels read, at the speed that
// tens of thousands of checked steps need. Nothing here is of what it judges.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_REFERENCE_H
#define KVRM_RUNTIME_SUPPORT_REFERENCE_H

#include "kvrm/runtime/abi/limits.h"

#include <cstdint>
#include <span>

namespace kvrm {

/// The number that an element stands for; of 8 bits, the low ones.
double elementValue(kvrm_element element, uint16_t bits);
/// The element nearest to a number, the even one of two. One of KVRM_F8E4M3 is
/// cut off at +-448, and one of KVRM_INT8, without its scale, at +-127.
uint16_t elementOf(kvrm_element element, double value);

/// The bytes that a cache of `element` has of a row of one token and KV head,
/// kvrm_token_bytes of them: its elements, then its scale if they have one.
void encodeRow(kvrm_element element, std::span<const float> row,
               std::span<uint8_t> bytes);
/// The numbers that such bytes stand for; floats hold them all.
void decodeRow(kvrm_element element, std::span<const uint8_t> bytes,
               std::span<float> row);

/// Queries over the history of one KV head.
struct ReferenceAttention {
  kvrm_element element = KVRM_F16; ///< of queries; of 16 bits
  int32_t headDim = 0;             ///< a multiple of 8
  std::span<const float> keys;     ///< [tokens][headDim], finite
  std::span<const float> values;   ///< like keys
  /// Each is headDim elements long.
  std::span<const uint16_t *const> queries;
  /// Tokens that each query sees, from the first on; at least 1.
  std::span<const int32_t> visible;
};

/// Writes a query's result after the other, headDim numbers each. The scale is
/// 1 / sqrt(headDim).
void attendReference(const ReferenceAttention &work, std::span<double> out);

/// Errors of elements, gathered.
struct ErrorStats {
  double most = 0;
  double sum = 0;
  int64_t count = 0;
  int64_t poisoned = 0; ///< NaN or infinite; not in the others

  void add(kvrm_element element, std::span<const uint16_t> got,
           std::span<const double> wanted);
  void merge(const ErrorStats &other);
  double mean() const {
    return count > 0 ? sum / static_cast<double>(count) : 0;
  }
  /// Whether kernels with elements of that type may be so far off, for values
  /// in -1..1.
  bool isGood(kvrm_element element) const {
    return poisoned == 0 && most < mostOf(element) && mean() < meanOf(element);
  }
  static double mostOf(kvrm_element element) {
    return element == KVRM_BF16 ? 1.6e-2 : 2e-3;
  }
  static double meanOf(kvrm_element element) {
    return element == KVRM_BF16 ? 2.5e-3 : 3e-4;
  }
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_REFERENCE_H
