//===- Activations.h - Nonlinear functions of a scalar ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What bodies of elementwise ops say of one f32 element.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_ACTIVATIONS_H
#define KVRM_FRONTEND_ACTIVATIONS_H

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace kvrm {

/// x / (1 + e^-x)
mlir::Value silu(mlir::ImplicitLocOpBuilder &b, mlir::Value x);

/// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), which is GELU to
/// about 1e-3 (Hendrycks and Gimpel, arXiv 1606.08415).
mlir::Value geluTanh(mlir::ImplicitLocOpBuilder &b, mlir::Value x);

/// cap * tanh(x / cap)
mlir::Value softcap(mlir::ImplicitLocOpBuilder &b, mlir::Value x, double cap);

} // namespace kvrm

#endif // KVRM_FRONTEND_ACTIVATIONS_H
