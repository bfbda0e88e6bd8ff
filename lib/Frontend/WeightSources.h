//===- WeightSources.h - Weights made of tensors ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What stands between the tensors of a file and the weights of Model.h. A
// vector of n is a column here, [n][1], so that what orders rows orders it too.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_WEIGHTSOURCES_H
#define KVRM_FRONTEND_WEIGHTSOURCES_H

#include "kvrm/Frontend/Model.h"

#include <memory>
#include <vector>

namespace kvrm {

using SourcePtr = std::unique_ptr<WeightSource>;

/// Matrices of one width, one below the other.
SourcePtr concatRows(std::vector<SourcePtr> parts);

/// The same rows, where element e of each of the first `heads` heads of
/// order.size() rows is row order[e] of the head.
SourcePtr reorderHeads(SourcePtr source, int64_t heads,
                       std::vector<int64_t> order);

/// Values that are in memory, as a column.
SourcePtr columnOf(std::vector<float> values, std::string origin);

/// A column [n][1] as the row [1][n], `added` to each element.
SourcePtr columnToRow(SourcePtr column, float added = 0.0f);

} // namespace kvrm

#endif // KVRM_FRONTEND_WEIGHTSOURCES_H
