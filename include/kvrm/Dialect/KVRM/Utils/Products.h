//===- Products.h - What a library can run of a linear ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_UTILS_PRODUCTS_H
#define KVRM_DIALECT_UTILS_PRODUCTS_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

namespace mlir::kvrm {

/// Rows of activations up to which a kernel that streams the weight is ahead of
/// a library: measured, see docs/gpu-dense.md.
inline constexpr int64_t kStreamedRows = 32;

/// Whether operands are what libraries are fast with: f16 or bf16, both the
/// same; a depth of whole slices of 32, all columns a multiple of 8.
bool hasProductShape(LinearOp op);

/// Whether the body is all in a library's product: a sum to an f32 output or
/// rounded to an output of the input's element, or added to the one extra, all
/// of [M, N] in f32. Says nothing of shapes.
bool hasProductBody(LinearOp op);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_UTILS_PRODUCTS_H
