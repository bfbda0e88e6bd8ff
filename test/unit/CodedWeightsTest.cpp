//===- CodedWeightsTest.cpp - Tests of matrices brought to blocks ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/CodedWeights.h"

#include "kvrm/Frontend/BlockCodes.h"

#include "llvm/Support/Error.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <span>
#include <vector>

using namespace kvrm;

namespace {

constexpr const char *kMatrix = "blk.0.ffn_down";

/// Values of a matrix, as a file would have them.
class Values final : public WeightSource {
public:
  Values(int64_t rows, int64_t cols, std::vector<float> values)
      : rowCount(rows), colCount(cols), values(std::move(values)) {}

  int64_t rows() const override { return rowCount; }
  int64_t cols() const override { return colCount; }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    std::copy(values.begin() + begin * colCount,
              values.begin() + end * colCount, out);
  }

private:
  int64_t rowCount, colCount;
  std::vector<float> values;
};

DecoderModel synth() {
  SynthOptions options;
  options.hidden = 128;
  options.heads = 8;
  options.feedForward = 256;
  return llvm::cantFail(synthModel(options));
}

std::vector<float> valuesOf(const WeightSource &source) {
  std::vector<float> values(static_cast<size_t>(source.rows() * source.cols()));
  source.readRows(0, source.rows(), values.data());
  return values;
}

class CodedFormatTest : public testing::TestWithParam<const char *> {
protected:
  BlockFormat format() const { return *codedFormat(GetParam()); }
  /// ffn_down of a model, of which `values` are what a file has.
  std::vector<float> coded(std::vector<float> values) {
    DecoderModel model = synth();
    const WeightSource *old = model.lookup(kMatrix);
    model.set(kMatrix, std::make_shared<Values>(old->rows(), old->cols(),
                                                std::move(values)));
    llvm::cantFail(codeMatrices(model, format()));
    return valuesOf(*model.lookup(kMatrix));
  }
};

/// How far a value may be from its own, in steps of its group.
double allowedSteps(BlockShape shape) { return shape.hasMinima ? 0.51 : 1.01; }

TEST_P(CodedFormatTest, RoundsToTheNearest) {
  std::mt19937 random(std::random_device{}());
  std::normal_distribution<float> normal;
  std::vector<float> values(128 * 256);
  for (float &value : values)
    value = normal(random);
  std::fill_n(values.begin(), 128, 0.0f);
  std::vector<float> got = coded(values);
  BlockShape shape = shapeOf(format());
  for (size_t first = 0; first < values.size(); first += shape.group) {
    auto group = std::span(values).subspan(first, shape.group);
    auto [least, most] = std::ranges::minmax(group);
    float largest = std::max(-least, most);
    for (size_t i = first; i < first + shape.group; ++i) {
      double step = shape.hasMinima
                        ? (most - least) / ((1 << shape.codeBits) - 1)
                        : largest / static_cast<float>(shape.offset);
      double allowed = allowedSteps(shape) * step + 2e-3 * largest;
      if (shape.isFloat) // half a unit of 4 bits; of the least, of subnormals
        allowed = std::max(std::fabs(values[i]) / 15, largest / 448 * 0x1p-9f);
      ASSERT_NEAR(got[i], values[i], allowed) << "element " << i;
    }
  }
}

TEST_P(CodedFormatTest, WhatIsNotFiniteMakesNoScale) {
  std::vector<float> values(128 * 256, 1.0f);
  values[300] = std::numeric_limits<float>::infinity();
  DecoderModel model = synth();
  model.set(kMatrix, std::make_shared<Values>(128, 256, values));
  llvm::cantFail(codeMatrices(model, format()));
  std::vector<BlockCodes> codes(256 / shapeOf(format()).elements);
  model.lookup(kMatrix)->readCodes(1, codes.data());
  size_t block = 44 / shapeOf(format()).elements;
  EXPECT_FALSE(std::isfinite(halfToFloat(codes[block].scale)));
}

/// Seeded ones vary as those without blocks do.
TEST_P(CodedFormatTest, SeedsMakeCodes) {
  DecoderModel plain = synth(), model = synth();
  llvm::cantFail(codeMatrices(model, format()));
  auto deviation = [](const std::vector<float> &values) {
    double sum = 0;
    for (float value : values)
      sum += double(value) * value;
    return std::sqrt(sum / static_cast<double>(values.size()));
  };
  std::vector<float> got = valuesOf(*model.lookup(kMatrix));
  EXPECT_NEAR(deviation(got) / deviation(valuesOf(*plain.lookup(kMatrix))), 1,
              0.1);
  EXPECT_EQ(model.lookup(kMatrix)->blockFormat(), format());
}

INSTANTIATE_TEST_SUITE_P(All, CodedFormatTest,
                         testing::Values("q8_0", "q4_0", "q4_1", "q5_0", "q5_1",
                                         "int4_g128", "int4_g128_min",
                                         "fp8_g128"),
                         [](const testing::TestParamInfo<const char *> &info) {
                           return std::string(info.param);
                         });

TEST(CodedWeights, KnowsNoOtherNames) {
  for (const char *name : {"", "q4", "q4_k", "Q8_0", "f16"})
    EXPECT_FALSE(codedFormat(name)) << name;
}

TEST(CodedWeights, AMatrixThatIsSharedStaysShared) {
  SynthOptions options;
  options.hidden = 128;
  options.feedForward = 256;
  options.tiedEmbeddings = true;
  DecoderModel model = llvm::cantFail(synthModel(options));
  llvm::cantFail(codeMatrices(model, BlockFormat::Q8_0));
  EXPECT_EQ(model.lookup("output"), model.lookup("token_embd"));
}

TEST(CodedWeights, RefusesColumnsThatAreNoWholeBlocks) {
  SynthOptions options;
  options.hidden = 96;
  options.feedForward = 128;
  DecoderModel model = llvm::cantFail(synthModel(options));
  EXPECT_EQ(
      llvm::toString(codeMatrices(model, BlockFormat::INT4_G128)),
      "--weight-type: the rows of 'token_embd' have 96 columns, not whole "
      "blocks of 128");
}

} // namespace
