//===- Reference.cpp - Attention in float64, to compare with --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/Reference.h"
#include "kvrm/runtime/support/Check.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

using namespace kvrm;

namespace {
/// Compilers make of these what the machine has.
constexpr int32_t lanes = 8;
typedef double Doubles __attribute__((vector_size(8 * lanes)));
typedef float Floats __attribute__((vector_size(4 * lanes)));
typedef uint32_t Words __attribute__((vector_size(4 * lanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * lanes)));
} // namespace

/// e4m3, from its definition.
static double valueOfF8(uint16_t bits) {
  int exponent = bits >> 3 & 15, units = bits & 7;
  if (exponent == 15 && units == 7)
    return NAN;
  // Units of the last place; numbers have a leading 1, denormal ones do not.
  double size = exponent == 0 ? std::ldexp(units, -9)
                              : std::ldexp(units + 8, exponent - 10);
  return bits & 0x80 ? -size : size;
}

/// To nearest, the even one of two; what is over 448 becomes that.
static uint16_t f8Of(double value) {
  auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x80 : 0);
  if (std::isnan(value))
    return sign | 0x7f;
  double size = std::min(std::abs(value), 448.0);
  int exponent = size == 0 ? -6 : std::max(std::ilogb(size), -6);
  // A carry moves the exponent.
  auto units = static_cast<int>(std::nearbyint(std::ldexp(size, 3 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 6) << 3) + units));
}

/// The least bf16 that is not below a quotient, which is not negative.
static uint16_t roundUpToBF16(float value) {
  if (std::isnan(value))
    return 0x7fc0;
  auto bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  while (std::bit_cast<float>(uint32_t(bits) << 16) < value)
    ++bits;
  return bits;
}

/// The scale of a row of KVRM_INT8, from its definition.
static uint16_t scaleOfRow(std::span<const float> row) {
  float largest = 0;
  for (float value : row) {
    if (std::isnan(value))
      return roundUpToBF16(value);
    largest = std::max(largest, std::abs(value));
  }
  // The quotient would be subnormal.
  if (largest < 127 * 0x1p-126f)
    return 0;
  return roundUpToBF16(largest / 127);
}

double kvrm::elementValue(kvrm_element element, uint16_t bits) {
  if (element == KVRM_INT8)
    return static_cast<int8_t>(bits);
  if (element == KVRM_F8E4M3)
    return valueOfF8(bits);
  if (element == KVRM_BF16)
    return static_cast<double>(std::bit_cast<float>(uint32_t(bits) << 16));
  if ((bits & 0x7c00) == 0x7c00) {
    double value = bits & 0x3ff ? NAN : HUGE_VAL;
    return bits & 0x8000 ? -value : value;
  }
  // The exponent's bias; denormal numbers come out right too.
  float value = std::bit_cast<float>(uint32_t(bits & 0x7fff) << 13) * 0x1p112f;
  return static_cast<double>(bits & 0x8000 ? -value : value);
}

uint16_t kvrm::elementOf(kvrm_element element, double value) {
  if (element == KVRM_INT8)
    return static_cast<uint8_t>(
        static_cast<int8_t>(std::clamp(std::nearbyint(value), -127.0, 127.0)));
  if (element == KVRM_F8E4M3)
    return f8Of(value);
  if (element == KVRM_BF16) {
    auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    bits += 0x7fff + (bits >> 16 & 1);
    return static_cast<uint16_t>(bits >> 16);
  }
  auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  double size = std::abs(value);
  if (std::isnan(value))
    return 0x7e00;
  if (size >= 65520)
    return static_cast<uint16_t>(sign | 0x7c00);
  int exponent = size == 0 ? -14 : std::max(std::ilogb(size), -14);
  // In units of the last place, rounded to even; a carry moves the exponent.
  auto units =
      static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + units));
}

static void checkRow(kvrm_element element, size_t values, size_t bytes) {
  KVRM_CHECK(static_cast<int64_t>(bytes) ==
                 kvrm_token_bytes(static_cast<int64_t>(values), element),
             "the bytes are of the row");
}

void kvrm::encodeRow(kvrm_element element, std::span<const float> row,
                     std::span<uint8_t> bytes) {
  checkRow(element, row.size(), bytes.size());
  auto size = static_cast<size_t>(kvrm_element_bytes(element));
  uint16_t scale = scaleOfRow(row);
  auto factor = static_cast<float>(elementValue(KVRM_BF16, scale));
  for (size_t i = 0; i < row.size(); ++i) {
    uint16_t bits = 0;
    if (element != KVRM_INT8)
      bits = elementOf(element, double(row[i]));
    else if (factor > 0 && std::isfinite(factor))
      bits = elementOf(element, double(row[i] / factor));
    std::memcpy(&bytes[i * size], &bits, size); // of a byte, the low one
  }
  if (element == KVRM_INT8)
    std::memcpy(&bytes[row.size()], &scale, sizeof(scale));
}

void kvrm::decodeRow(kvrm_element element, std::span<const uint8_t> bytes,
                     std::span<float> row) {
  checkRow(element, row.size(), bytes.size());
  auto size = static_cast<size_t>(kvrm_element_bytes(element));
  float factor = 1;
  if (element == KVRM_INT8) {
    uint16_t scale = 0;
    std::memcpy(&scale, &bytes[row.size()], sizeof(scale));
    factor = static_cast<float>(elementValue(KVRM_BF16, scale));
  }
  for (size_t i = 0; i < row.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, &bytes[i * size], size);
    row[i] = static_cast<float>(elementValue(element, bits)) * factor;
  }
}

/// Finite elements to numbers. By reference, as vectors are not passed alike on
/// all machines.
static void widen(kvrm_element element, const uint16_t *from, Doubles &to) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  Words bits = __builtin_convertvector(halves, Words);
  Floats value;
  if (element == KVRM_BF16) {
    value = (Floats)(bits << 16);
  } else {
    // The exponent's bias; denormal numbers come out right too.
    value = (Floats)((bits & 0x7fff) << 13) * 0x1p112f;
    value = (Floats)((Words)value | (bits & 0x8000) << 16);
  }
  to = __builtin_convertvector(value, Doubles);
}

void kvrm::attendReference(const ReferenceAttention &work,
                           std::span<double> out) {
  auto dim = static_cast<size_t>(work.headDim);
  size_t queries = work.queries.size();
  KVRM_CHECK(work.headDim > 0 && work.headDim % lanes == 0 &&
                 work.visible.size() == queries && out.size() == queries * dim,
             "shapes agree");
  if (queries == 0)
    return;
  size_t parts = dim / lanes;
  auto tokens = static_cast<size_t>(*std::ranges::max_element(work.visible));
  KVRM_CHECK(*std::ranges::min_element(work.visible) > 0 &&
                 tokens * dim <= work.keys.size() &&
                 tokens * dim <= work.values.size(),
             "queries see a part of the history");
  // Kept by each thread, as checks come by the thousands.
  thread_local std::vector<Doubles> q, row, sums;
  thread_local std::vector<double> scores, totals;
  q.resize(queries * parts);
  row.resize(parts);
  sums.assign(queries * parts, Doubles{});
  scores.resize(queries * tokens);
  totals.assign(queries, 0);
  auto load = [&](const float *from) {
    for (size_t p = 0; p < parts; ++p) {
      Floats values;
      std::memcpy(&values, from + p * lanes, sizeof(values));
      row[p] = __builtin_convertvector(values, Doubles);
    }
  };
  for (size_t i = 0; i < queries; ++i)
    for (size_t p = 0; p < parts; ++p)
      widen(work.element, work.queries[i] + p * lanes, q[i * parts + p]);

  double scale = 1 / std::sqrt(double(work.headDim));
  for (size_t t = 0; t < tokens; ++t) {
    load(&work.keys[t * dim]);
    for (size_t i = 0; i < queries; ++i) {
      const Doubles *query = &q[i * parts];
      Doubles dot{};
      for (size_t p = 0; p < parts; ++p)
        dot += query[p] * row[p];
      double sum = 0;
      for (int lane = 0; lane < lanes; ++lane)
        sum += dot[lane];
      scores[i * tokens + t] = sum * scale;
    }
  }
  for (size_t i = 0; i < queries; ++i) {
    auto begin = scores.begin() + static_cast<ptrdiff_t>(i * tokens);
    auto end = begin + work.visible[i];
    double most = *std::max_element(begin, end);
    std::fill(end, begin + static_cast<ptrdiff_t>(tokens), 0.0);
    for (auto score = begin; score != end; ++score)
      totals[i] += *score = std::exp(*score - most);
  }
  for (size_t t = 0; t < tokens; ++t) {
    load(&work.values[t * dim]);
    for (size_t i = 0; i < queries; ++i) {
      double weight = scores[i * tokens + t];
      Doubles *sum = &sums[i * parts];
      for (size_t p = 0; p < parts; ++p)
        sum[p] += weight * row[p];
    }
  }
  for (size_t i = 0; i < queries; ++i)
    for (size_t p = 0; p < parts; ++p)
      for (size_t lane = 0; lane < lanes; ++lane)
        out[i * dim + p * lanes + lane] =
            sums[i * parts + p][static_cast<int>(lane)] / totals[i];
}

void ErrorStats::add(kvrm_element element, std::span<const uint16_t> got,
                     std::span<const double> wanted) {
  KVRM_CHECK(got.size() == wanted.size(), "a number for each element");
  for (size_t i = 0; i < got.size(); ++i) {
    double value = elementValue(element, got[i]);
    if (!std::isfinite(value)) {
      ++poisoned;
      continue;
    }
    double error = std::abs(value - wanted[i]);
    most = std::max(most, error);
    sum += error;
    ++count;
  }
}

void ErrorStats::merge(const ErrorStats &other) {
  most = std::max(most, other.most);
  sum += other.sum;
  count += other.count;
  poisoned += other.poisoned;
}
