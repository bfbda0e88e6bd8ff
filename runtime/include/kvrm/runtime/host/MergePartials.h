//===- MergePartials.h - Partial softmax states to outputs ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Online softmax (arXiv 1805.02867) over the states that abi/partial.h lays
// out.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_HOST_MERGEPARTIALS_H
#define KVRM_RUNTIME_HOST_MERGEPARTIALS_H

#include <cstdint>

namespace kvrm {

/// Merges `count` adjacent partial states of `queryRows` rows each into rows of
/// head_dim floats: with M = max m and w = 2^(m - M), out = sum w acc / sum w
/// l. `rows` of them are written, row r to out + offsets(r). A row that met no
/// token at all becomes zeros.
void mergePartials(const float *partials, int32_t count, int32_t queryRows,
                   int32_t headDim, int32_t rows, float *out,
                   int64_t tokenStride, int32_t group);

} // namespace kvrm

#endif // KVRM_RUNTIME_HOST_MERGEPARTIALS_H
