//===- DenseKernels.cpp - What dense kernels share ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DenseKernels.h"

#include "mlir/Dialect/Math/IR/Math.h"

#include <numbers>

using namespace mlir;
using namespace mlir::kvrm;

Value StridedBuffer::at(DeviceBuilder &b, ValueRange index) const {
  SmallVector<int64_t> strides = type.getStridesAndOffset().first;
  Value element = b.i64(0);
  for (auto [value, stride] : llvm::zip_equal(index, strides))
    element = b.add(element, b.mul(value, stride));
  int64_t bytes = type.getElementTypeBitWidth() / 8;
  return b.at(pointer, b.mul(element, bytes));
}

/// e^x as a power of two: exact to a few units in the last place over what
/// activations span.
static Value expandExp(DeviceBuilder &b, Value x) {
  return b.exp2(b.fmul(x, b.f32(std::numbers::log2e_v<float>)));
}

SmallVector<Value>
kvrm::cloneScalars(DeviceBuilder &b, Block &body, ValueRange arguments,
                   function_ref<Value(Operation &, IRMapping &)> replace) {
  IRMapping mapping;
  mapping.map(body.getArguments(), arguments);
  for (Operation &op : body.without_terminator()) {
    if (Value value = replace(op, mapping)) {
      mapping.map(op.getResult(0), value);
      continue;
    }
    if (auto exp = dyn_cast<math::ExpOp>(op); exp && exp.getType().isF32()) {
      mapping.map(exp.getResult(),
                  expandExp(b, mapping.lookup(exp.getOperand())));
      continue;
    }
    b.clone(op, mapping);
  }
  return llvm::map_to_vector(
      body.getTerminator()->getOperands(),
      [&](Value value) { return mapping.lookupOrDefault(value); });
}
