//===- Activations.cpp - Nonlinear functions of a scalar ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Activations.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>
#include <numbers>

using namespace kvrm;
using namespace mlir;

static Value constant(ImplicitLocOpBuilder &b, double value) {
  return arith::ConstantOp::create(
      b, b.getF32FloatAttr(static_cast<float>(value)));
}

Value kvrm::silu(ImplicitLocOpBuilder &b, Value x) {
  Value one = constant(b, 1);
  Value power = math::ExpOp::create(b, arith::NegFOp::create(b, x));
  return arith::DivFOp::create(b, x, arith::AddFOp::create(b, power, one));
}

/// By x * sigmoid(2y), which is x / 2 * (1 + tanh(y)): no digits are lost where
/// tanh is near -1, and one exponential does.
Value kvrm::geluTanh(ImplicitLocOpBuilder &b, Value x) {
  double twice = 2 * std::sqrt(2 / std::numbers::pi);
  Value square = arith::MulFOp::create(b, x, x);
  Value inner = arith::AddFOp::create(
      b, arith::MulFOp::create(b, square, constant(b, twice * 0.044715)),
      constant(b, twice));
  Value power = math::ExpOp::create(
      b, arith::NegFOp::create(b, arith::MulFOp::create(b, x, inner)));
  return arith::DivFOp::create(b, x,
                               arith::AddFOp::create(b, power, constant(b, 1)));
}

Value kvrm::softcap(ImplicitLocOpBuilder &b, Value x, double cap) {
  Value part = arith::MulFOp::create(b, x, constant(b, 1 / cap));
  return arith::MulFOp::create(b, math::TanhOp::create(b, part),
                               constant(b, cap));
}
