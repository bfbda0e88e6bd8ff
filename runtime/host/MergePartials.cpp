//===- MergePartials.cpp - Partial softmax states to outputs --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/MergePartials.h"
#include "kvrm/runtime/abi/partial.h"
#include "kvrm/runtime/support/Check.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;

void kvrm::mergePartials(const float *partials, int32_t count,
                         int32_t queryRows, int32_t headDim, int32_t rows,
                         float *out, int64_t tokenStride, int32_t group) {
  KVRM_CHECK(count > 0 && rows >= 0 && rows <= queryRows && group > 0,
             "a merge has partials and rows");
  int64_t stride = kvrm_partial_floats(queryRows, headDim);
  for (int32_t r = 0; r < rows; ++r) {
    float *target =
        out + (r / group) * tokenStride + int64_t(r % group) * headDim;
    float most = partials[r];
    for (int32_t p = 1; p < count; ++p)
      most = std::max(most, partials[p * stride + r]);
    float sum = 0;
    for (int32_t p = 0; p < count; ++p)
      sum += std::exp2(partials[p * stride + r] - most) *
             partials[p * stride + queryRows + r];
    float scale = sum > 0 ? 1 / sum : 0;
    std::fill(target, target + headDim, 0.0f);
    for (int32_t p = 0; p < count; ++p) {
      float weight = std::exp2(partials[p * stride + r] - most) * scale;
      const float *acc =
          partials + p * stride + 2 * queryRows + int64_t(r) * headDim;
      for (int32_t d = 0; d < headDim; ++d)
        target[d] += weight * acc[d];
    }
  }
}
