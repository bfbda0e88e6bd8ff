//===- TensorPartsTest.cpp - Weights as views of tensors ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/TensorParts.h"

#include "gtest/gtest.h"

#include <numeric>

using namespace kvrm;

namespace {

/// Elements 0, 1, 2 and so on.
StoredTensor count(int64_t elements) {
  auto values = std::make_shared<std::vector<float>>(elements);
  std::iota(values->begin(), values->end(), 0.0f);
  return {SafetensorsType::F32,
          reinterpret_cast<const uint8_t *>(values->data()), elements, values,
          "file: count"};
}

std::vector<float> readAll(const WeightSource &source) {
  std::vector<float> values(source.rows() * source.cols());
  source.readRows(0, source.rows(), values.data());
  return values;
}

TEST(TensorPartsTest, ReadsTransposedMatrices) {
  // [2][3] as [3][2].
  auto source = joinParts({{count(6), 0, {{3, 1}}, {{2, 3}}}});
  EXPECT_EQ(source->rows(), 3);
  EXPECT_EQ(source->cols(), 2);
  EXPECT_EQ(readAll(*source), (std::vector<float>{0, 3, 1, 4, 2, 5}));
}

TEST(TensorPartsTest, ReadsRowsOfSeveralDims) {
  // [2][2][3]: rows along the last and the first dim, columns along the middle.
  auto source = joinParts({{count(12), 0, {{3, 1}, {2, 6}}, {{2, 3}}}});
  EXPECT_EQ(readAll(*source),
            (std::vector<float>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}));
}

TEST(TensorPartsTest, ReadsColumnsOfSeveralDims) {
  auto source = joinParts({{count(12), 1, {{1, 0}}, {{2, 6}, {2, 2}}}});
  EXPECT_EQ(readAll(*source), (std::vector<float>{1, 3, 7, 9}));
}

TEST(TensorPartsTest, JoinsRowsAndReadsAnyOfThem) {
  auto source = joinParts(
      {{count(4), 0, {{2, 2}}, {{2, 1}}}, {count(8), 4, {{2, 1}}, {{2, 2}}}});
  EXPECT_EQ(source->rows(), 4);
  EXPECT_EQ(readAll(*source), (std::vector<float>{0, 1, 2, 3, 4, 6, 5, 7}));
  float middle[4];
  source->readRows(1, 3, middle);
  EXPECT_EQ(std::vector<float>(middle, middle + 4),
            (std::vector<float>{2, 3, 4, 6}));
  EXPECT_EQ(source->origin(3), "file: count");
}

TEST(TensorPartsTest, KnowsWhatIsOutside) {
  TensorPart part{count(6), 0, {{2, 3}}, {{3, 1}}};
  EXPECT_TRUE(part.isInside());
  part.offset = 1;
  EXPECT_FALSE(part.isInside());
  part.offset = -1;
  EXPECT_FALSE(part.isInside());
  part.offset = 0;
  part.rows = {{INT64_MAX, INT64_MAX}};
  EXPECT_FALSE(part.isInside());
  part.rows = {{0, 1}};
  EXPECT_FALSE(part.isInside());
}

} // namespace
