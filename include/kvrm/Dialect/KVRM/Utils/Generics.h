//===- Generics.h - Reading the bodies of linalg.generic --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_UTILS_GENERICS_H
#define KVRM_DIALECT_KVRM_UTILS_GENERICS_H

#include "mlir/Dialect/Linalg/IR/Linalg.h"

namespace mlir::kvrm {

/// A tensor of f32 of a static, positive shape.
bool isF32Tensor(Value value, int64_t rank);

/// The input of `op` whose element, with this map, is the argument `element` of
/// its body; null if there is none.
Value getInputOfElement(linalg::GenericOp op, Value element, AffineMap map);

/// Whether `op` writes each element of one tensor once, at the place of its
/// iteration, and does not read what was there.
bool isElementwise(linalg::GenericOp op, unsigned rank);

/// What `value` is cast from, if it is rounded to nearest to f16 or bf16; else
/// itself.
Value stripRounding(Value value);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_GENERICS_H
