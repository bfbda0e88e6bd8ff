//===- RmsNorm.h - RMS normalization in linalg ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Root-mean-square normalization as three generics: the sum of each row's
// squares, the scale that it gives, and the rows times scale and gain.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RMSNORM_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RMSNORM_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

namespace mlir::kvrm {

/// A normalization that generics write out.
struct RmsNorm {
  Value input, gain;
  APFloat epsilon;
  linalg::GenericOp last; ///< its result is the normalization's

  /// What `apply`, which multiplies rows with scale and gain, is the end of;
  /// with a cast to f16 or bf16 that alone uses it. None if it is no such thing
  /// or if anything else uses what is between.
  static std::optional<RmsNorm> match(linalg::GenericOp apply);
};

/// Writes the three generics before `op`, and returns the result.
Value writeRmsNorm(RmsNormOp op);

} // namespace mlir::kvrm

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RMSNORM_H
