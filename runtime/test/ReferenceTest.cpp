//===- ReferenceTest.cpp - Tests of what kernels are compared with --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/Reference.h"

#include <bit>
#include <cmath>
#include <gtest/gtest.h>
#include <random>
#include <vector>

using namespace kvrm;

TEST(Reference, KnowsEveryElement) {
  for (uint32_t bits = 0; bits < 1 << 16; ++bits) {
    auto half = static_cast<uint16_t>(bits);
    for (kvrm_element element : {KVRM_F16, KVRM_BF16}) {
      double value = elementValue(element, half);
      if (std::isnan(value)) {
        EXPECT_TRUE(
            std::isnan(elementValue(element, elementOf(element, value))));
        continue;
      }
      EXPECT_EQ(elementOf(element, value), half) << bits;
    }
  }
  EXPECT_EQ(elementValue(KVRM_F16, 0x3c00), 1);
  EXPECT_EQ(elementValue(KVRM_F16, 0x0001), std::ldexp(1, -24));
  EXPECT_EQ(elementValue(KVRM_F16, 0xfbff), -65504);
  EXPECT_EQ(elementValue(KVRM_BF16, 0xbf80), -1);
  // Ties go to even, and over the largest is infinite.
  EXPECT_EQ(elementOf(KVRM_F16, 1 + std::ldexp(1, -11)), 0x3c00);
  EXPECT_EQ(elementOf(KVRM_F16, 1 + std::ldexp(3, -11)), 0x3c02);
  EXPECT_EQ(elementOf(KVRM_F16, 65519), 0x7bff);
  EXPECT_EQ(elementOf(KVRM_F16, 65520), 0x7c00);
  EXPECT_EQ(elementOf(KVRM_BF16, 1 + std::ldexp(1, -8)), 0x3f80);
  EXPECT_EQ(elementOf(KVRM_F16, std::ldexp(1, -26)), 0);
}

TEST(Reference, KnowsEveryByte) {
  int numbers = 0;
  for (uint16_t bits = 0; bits < 256; ++bits) {
    double value = elementValue(KVRM_F8E4M3, bits);
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_EQ(elementOf(KVRM_F8E4M3, value) & 0x7f, 0x7f);
      continue;
    }
    ++numbers;
    EXPECT_EQ(elementOf(KVRM_F8E4M3, value), bits);
    // Elements of 16 bits hold them all.
    for (kvrm_element wide : {KVRM_F16, KVRM_BF16})
      EXPECT_EQ(elementValue(wide, elementOf(wide, value)), value);
  }
  EXPECT_EQ(numbers, 254);
  EXPECT_EQ(elementValue(KVRM_F8E4M3, 0x38), 1);
  EXPECT_EQ(elementValue(KVRM_F8E4M3, 0x01), std::ldexp(1, -9));
  EXPECT_EQ(elementValue(KVRM_F8E4M3, 0xfe), -448);
  // Ties go to even, and over the largest is the largest.
  EXPECT_EQ(elementOf(KVRM_F8E4M3, 1 + std::ldexp(1, -4)), 0x38);
  EXPECT_EQ(elementOf(KVRM_F8E4M3, 1 + std::ldexp(3, -4)), 0x3a);
  EXPECT_EQ(elementOf(KVRM_F8E4M3, std::ldexp(1, -10)), 0);
  EXPECT_EQ(elementOf(KVRM_F8E4M3, 464), 0x7e);
  EXPECT_EQ(elementOf(KVRM_F8E4M3, 1e300), 0x7e);
  EXPECT_EQ(elementOf(KVRM_F8E4M3, -HUGE_VAL), 0xfe);
}

TEST(Reference, KnowsEveryInteger) {
  for (int code = -127; code <= 127; ++code) {
    uint16_t bits = elementOf(KVRM_INT8, code);
    EXPECT_LT(bits, 256);
    EXPECT_EQ(elementValue(KVRM_INT8, bits), code);
  }
  EXPECT_EQ(elementOf(KVRM_INT8, 2.5), 2);
  EXPECT_EQ(elementOf(KVRM_INT8, -3.5), 0xfc);
  EXPECT_EQ(elementOf(KVRM_INT8, 1e9), 127);
}

static std::vector<uint8_t> encoded(kvrm_element element,
                                    const std::vector<float> &row) {
  std::vector<uint8_t> bytes(static_cast<size_t>(
      kvrm_token_bytes(static_cast<int64_t>(row.size()), element)));
  encodeRow(element, row, bytes);
  return bytes;
}

static std::vector<float>
decoded(kvrm_element element, const std::vector<uint8_t> &bytes, size_t count) {
  std::vector<float> row(count);
  decodeRow(element, bytes, row);
  return row;
}

TEST(Reference, RowsAreTheirElements) {
  const std::vector<float> row = {0.1f, -3, 0, 65, 1e-9f, 0.25f};
  for (kvrm_element element : {KVRM_F16, KVRM_BF16, KVRM_F8E4M3}) {
    std::vector<float> back =
        decoded(element, encoded(element, row), row.size());
    for (size_t i = 0; i < row.size(); ++i)
      EXPECT_EQ(double(back[i]),
                elementValue(element, elementOf(element, double(row[i]))));
  }
}

TEST(Reference, RowsOfIntegersShareAScale) {
  // 127 * 2^-3 is exact; half way between two codes the even one is taken.
  using Bytes = std::vector<uint8_t>;
  EXPECT_EQ(encoded(KVRM_INT8, {15.875f, -15.875f, 0.1875f, 0.3125f, 0}),
            (Bytes{127, 0x81, 2, 2, 0, 0x00, 0x3e}));
  // The next bf16 up from 1 / 127 is 0x3c02: 1 is 126 of it.
  EXPECT_EQ(encoded(KVRM_INT8, {1, -0.5f, 0}),
            (Bytes{126, 0xc1, 0, 0x02, 0x3c}));
  EXPECT_EQ(encoded(KVRM_INT8, {0, -0.0f}), (Bytes{0, 0, 0, 0}));
  // What is no number shows in the whole row; what is next to nothing is 0.
  EXPECT_EQ(encoded(KVRM_INT8, {1, HUGE_VALF}), (Bytes{0, 0, 0x80, 0x7f}));
  EXPECT_EQ(encoded(KVRM_INT8, {1, NAN, HUGE_VALF}),
            (Bytes{0, 0, 0, 0xc0, 0x7f}));
  for (float value : decoded(KVRM_INT8, encoded(KVRM_INT8, {1, HUGE_VALF}), 2))
    EXPECT_TRUE(std::isnan(value));
  constexpr float least = 127 * 0x1p-126f;
  EXPECT_EQ(encoded(KVRM_INT8, {least, -least}),
            (Bytes{127, 0x81, 0x80, 0x00}));
  EXPECT_EQ(encoded(KVRM_INT8, {std::nextafter(least, 0.0f)}),
            (Bytes{0, 0, 0}));
  std::mt19937 random(2);
  for (int round = 0; round < 10000; ++round) {
    std::vector<float> row(64);
    double size = std::ldexp(1, static_cast<int>(random() % 200) - 100);
    for (float &value : row)
      value = static_cast<float>(size * (double(random()) / 0x80000000u - 1));
    std::vector<uint8_t> bytes = encoded(KVRM_INT8, row);
    std::vector<float> back = decoded(KVRM_INT8, bytes, row.size());
    double scale = elementValue(
        KVRM_BF16, static_cast<uint16_t>(bytes[64] | bytes[65] << 8));
    for (size_t i = 0; i < row.size(); ++i)
      EXPECT_LE(std::abs(double(back[i]) - double(row[i])),
                scale * (0.5 + 1e-5));
  }
}

TEST(Reference, IsTheDefinition) {
  std::mt19937 random(1);
  for (kvrm_element element : {KVRM_F16, KVRM_BF16})
    for (size_t dim : {8u, 64u, 128u}) {
      constexpr size_t tokens = 77;
      auto fill = [&](size_t count, double size) {
        std::vector<uint16_t> elements(count * dim);
        for (uint16_t &bits : elements)
          bits =
              elementOf(element, size * (double(random() % 2001) / 1000 - 1));
        return elements;
      };
      std::vector<uint16_t> k = fill(tokens, 1), v = fill(tokens, 1);
      std::vector<uint16_t> q = fill(3, 20);
      // Denormal numbers count too.
      q[0] = k[0] = v[0] = 0x0003;
      auto numbersOf = [&](const std::vector<uint16_t> &elements) {
        std::vector<float> numbers;
        for (uint16_t bits : elements)
          numbers.push_back(static_cast<float>(elementValue(element, bits)));
        return numbers;
      };
      std::vector<float> keys = numbersOf(k), values = numbersOf(v);
      std::vector<const uint16_t *> queries = {&q[0], &q[dim], &q[2 * dim]};
      std::vector<int32_t> visible = {1, 77, 30};
      std::vector<double> out(3 * dim);
      attendReference(
          {element, static_cast<int32_t>(dim), keys, values, queries, visible},
          out);
      for (size_t i = 0; i < 3; ++i) {
        std::vector<double> want(dim);
        double total = 0;
        for (size_t t = 0; t < static_cast<size_t>(visible[i]); ++t) {
          double score = 0;
          for (size_t d = 0; d < dim; ++d)
            score += elementValue(element, queries[i][d]) *
                     elementValue(element, k[t * dim + d]);
          double weight = std::exp(score / std::sqrt(double(dim)));
          total += weight;
          for (size_t d = 0; d < dim; ++d)
            want[d] += weight * elementValue(element, v[t * dim + d]);
        }
        for (size_t d = 0; d < dim; ++d)
          EXPECT_NEAR(out[i * dim + d], want[d] / total, 1e-12);
      }
    }
}

TEST(Reference, CountsErrors) {
  ErrorStats stats;
  std::vector<uint16_t> got = {0x3c00, 0x0000, 0xffff, 0x7c00};
  stats.add(KVRM_F16, got, std::vector<double>{1.001, 0, 0, 0});
  EXPECT_EQ(stats.poisoned, 2);
  EXPECT_EQ(stats.count, 2);
  EXPECT_NEAR(stats.most, 1e-3, 1e-9);
  EXPECT_NEAR(stats.mean(), 5e-4, 1e-9);
  EXPECT_FALSE(stats.isGood(KVRM_F16));
  ErrorStats good;
  good.add(KVRM_F16, std::span(got).first(2), std::vector<double>{1, 0});
  EXPECT_TRUE(good.isGood(KVRM_F16));
  good.merge(stats);
  EXPECT_EQ(good.poisoned, 2);
  EXPECT_EQ(good.count, 4);
}
