//===- QuantizationTest.cpp - Tests of dequantisation ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Quantization.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

using namespace kvrm;

namespace {
#include "DequantGolden.inc"

struct Golden {
  GGMLType type;
  std::span<const uint8_t> bytes;
  std::span<const float> floats;
};

class Dequantize : public testing::TestWithParam<Golden> {};

TEST_P(Dequantize, MatchesTheGGUFPackage) {
  const Golden &golden = GetParam();
  std::vector<float> out(golden.floats.size());
  dequantize(golden.type, golden.bytes.data(), static_cast<int64_t>(out.size()),
             out.data());
  for (size_t i = 0; i < out.size(); ++i)
    // Up to what a fused multiply-add may change.
    EXPECT_NEAR(out[i], golden.floats[i], 1e-6f) << "element " << i;
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Dequantize,
    testing::Values(Golden{GGMLType::Q4_0, bytesQ4_0, floatsQ4_0},
                    Golden{GGMLType::Q4_1, bytesQ4_1, floatsQ4_1},
                    Golden{GGMLType::Q5_0, bytesQ5_0, floatsQ5_0},
                    Golden{GGMLType::Q5_1, bytesQ5_1, floatsQ5_1},
                    Golden{GGMLType::Q8_0, bytesQ8_0, floatsQ8_0},
                    Golden{GGMLType::Q4_K, bytesQ4_K, floatsQ4_K},
                    Golden{GGMLType::Q5_K, bytesQ5_K, floatsQ5_K},
                    Golden{GGMLType::Q6_K, bytesQ6_K, floatsQ6_K}),
    [](const testing::TestParamInfo<Golden> &info) {
      return std::string(infoOf(info.param.type).name);
    });

TEST(Quantization, Floats) {
  const float values[] = {1.5f, -2.25f, 0.0f};
  uint8_t bytes[sizeof(values)];
  std::memcpy(bytes, values, sizeof(values));
  float out[3];
  dequantize(GGMLType::F32, bytes, 3, out);
  EXPECT_TRUE(std::ranges::equal(out, values));

  const uint8_t half[] = {0x00, 0x3e, 0x00, 0xc0}; // 1.5, -2
  dequantize(GGMLType::F16, half, 2, out);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[1], -2.0f);

  const uint8_t brain[] = {0xc0, 0x3f, 0x00, 0xc0};
  dequantize(GGMLType::BF16, brain, 2, out);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[1], -2.0f);
}

TEST(Quantization, HalfToFloat) {
  EXPECT_EQ(halfToFloat(0x0000), 0.0f);
  EXPECT_TRUE(std::signbit(halfToFloat(0x8000)));
  EXPECT_EQ(halfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(halfToFloat(0x03ff), 1023 * 0x1p-24f);
  EXPECT_EQ(halfToFloat(0x0400), 0x1p-14f);
  EXPECT_EQ(halfToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(halfToFloat(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(halfToFloat(0x7c01)));
}

TEST(Quantization, UnknownTypesHaveNoInfo) {
  for (uint32_t type : {4u, 5u, 9u, 10u, 11u, 16u, 24u, 31u, 0xffffffffu})
    EXPECT_EQ(lookupGGMLType(type), nullptr) << type;
}
} // namespace
