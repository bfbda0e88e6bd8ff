//===- Rotation.h - Rotary embedding in linalg ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The rotary embedding of heads in its half-split form, element i of a head
// turning with element i + head_dim / 2 (Su et al., arXiv 2104.09864), as one
// generic over `[tokens, heads, 2, head_dim / 2]`.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_UTILS_ROTATION_H
#define KVRM_DIALECT_KVRM_UTILS_ROTATION_H

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <optional>

namespace mlir::kvrm {

/// What a generic turns, and by which angles.
struct Rotation {
  Value pairs;          ///< f32 `[tokens, heads, 2, half]`
  Value cosines, sines; ///< f32 `[tokens, half]`

  /// None if `op` is anything but such a generic, its result in f32, or rounded
  /// once to f16 or bf16.
  static std::optional<Rotation> match(linalg::GenericOp op);

  /// Writes the generic, rounded to `element`; returns its result, of the shape
  /// of `pairs`.
  Value write(ImplicitLocOpBuilder &b, Type element) const;
};

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_ROTATION_H
