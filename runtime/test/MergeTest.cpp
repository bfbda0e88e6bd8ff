//===- MergeTest.cpp - Merging partial softmax states -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/abi/partial.h"
#include "kvrm/runtime/host/MergePartials.h"

#include <cmath>
#include <gtest/gtest.h>
#include <random>

using namespace kvrm;

/// Cuts random scores into parts, and compares their merge to float64 softmax
/// over all.
static void checkMerge(uint32_t seed, int parts, int queryRows, int headDim,
                       int group, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  int64_t stride = kvrm_partial_floats(queryRows, headDim);
  std::vector<float> partials(static_cast<size_t>(stride) * parts, NAN);
  std::vector<std::vector<double>> want(
      static_cast<size_t>(queryRows),
      std::vector<double>(static_cast<size_t>(headDim)));
  for (int r = 0; r < queryRows; ++r) {
    std::vector<std::vector<float>> scores(static_cast<size_t>(parts));
    std::vector<std::vector<std::vector<float>>> values(
        static_cast<size_t>(parts));
    double most = -1e300;
    for (int p = 0; p < parts; ++p) {
      // Some parts are empty for some rows, as causality makes them.
      int tokens = (p + r) % 4 == 3 ? 0 : 1 + static_cast<int>(random() % 9);
      float *state = partials.data() + p * stride;
      float m = -1e30f;
      for (int t = 0; t < tokens; ++t) {
        scores[size_t(p)].push_back(normal(random) * spread);
        values[size_t(p)].emplace_back();
        for (int d = 0; d < headDim; ++d)
          values[size_t(p)].back().push_back(normal(random));
        m = std::max(m, scores[size_t(p)].back());
        most = std::max(most, double(scores[size_t(p)].back()));
      }
      float l = 0;
      float *acc = state + 2 * queryRows + r * headDim;
      std::fill(acc, acc + headDim, 0.0f);
      for (int t = 0; t < tokens; ++t) {
        float w = std::exp2(scores[size_t(p)][size_t(t)] - m);
        l += w;
        for (int d = 0; d < headDim; ++d)
          acc[d] += w * values[size_t(p)][size_t(t)][size_t(d)];
      }
      state[r] = m;
      state[queryRows + r] = l;
    }
    double sum = 0;
    for (int p = 0; p < parts; ++p)
      for (size_t t = 0; t < scores[size_t(p)].size(); ++t) {
        double w = std::exp2(double(scores[size_t(p)][t]) - most);
        sum += w;
        for (int d = 0; d < headDim; ++d)
          want[size_t(r)][size_t(d)] += w * values[size_t(p)][t][size_t(d)];
      }
    for (double &value : want[size_t(r)])
      value = sum > 0 ? value / sum : 0;
  }
  int rows = queryRows - group; // the last token is past the chunk
  int64_t tokenStride = int64_t(group) * headDim + 7;
  std::vector<float> out(static_cast<size_t>(tokenStride) * (queryRows / group),
                         NAN);
  mergePartials(partials.data(), parts, queryRows, headDim, rows, out.data(),
                tokenStride, group);
  for (int r = 0; r < queryRows; ++r)
    for (int d = 0; d < headDim; ++d) {
      float got = out[static_cast<size_t>(r / group * tokenStride +
                                          r % group * headDim + d)];
      if (r >= rows)
        EXPECT_TRUE(std::isnan(got)) << "row " << r << " is not ours to write";
      else
        EXPECT_NEAR(got, want[size_t(r)][size_t(d)], 2e-6)
            << "row " << r << " of " << parts << " parts";
    }
}

TEST(Merge, MatchesFloat64) {
  uint32_t seed = 0;
  for (int parts : {1, 2, 3, 7, 33})
    for (int group : {1, 3, 4})
      for (float spread : {1.0f, 30.0f, 2000.0f})
        checkMerge(++seed, parts, 4 * group, 64, group, spread);
}

TEST(Merge, ARowThatMetNothingIsZero) {
  int64_t stride = kvrm_partial_floats(1, 4);
  std::vector<float> partials(static_cast<size_t>(stride) * 2, 0.0f);
  partials[0] = partials[static_cast<size_t>(stride)] = -1e30f;
  float out[4] = {NAN, NAN, NAN, NAN};
  mergePartials(partials.data(), 2, 1, 4, 1, out, 4, 1);
  for (float value : out)
    EXPECT_EQ(value, 0.0f);
}
