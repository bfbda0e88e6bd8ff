//===- Reshape.cpp - The same elements in another shape -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/Reshape.h"

#include "mlir/Dialect/Utils/ReshapeOpsUtils.h"

using namespace mlir;
using namespace mlir::kvrm;

/// In one op, if there is such an op; else null.
static Value reshapeAtOnce(ImplicitLocOpBuilder &b, Value value,
                           RankedTensorType result) {
  auto type = cast<RankedTensorType>(value.getType());
  if (type == result)
    return value;
  // What has no dims has no groups.
  std::optional<SmallVector<ReassociationIndices>> groups =
      SmallVector<ReassociationIndices>();
  if (type.getRank() > 0 && result.getRank() > 0)
    groups = getReassociationIndicesForReshape(type, result);
  if (!groups)
    return {};
  if (type.getRank() > result.getRank())
    return tensor::CollapseShapeOp::create(b, result, value, *groups);
  return tensor::ExpandShapeOp::create(b, result, value, *groups);
}

Value kvrm::reshape(ImplicitLocOpBuilder &b, Value value,
                    ArrayRef<int64_t> shape) {
  auto type = cast<RankedTensorType>(value.getType());
  RankedTensorType result = type.clone(shape);
  if (type.getRank() != result.getRank() || type == result)
    if (Value reshaped = reshapeAtOnce(b, value, result))
      return reshaped;
  // By way of the shape without sizes of one.
  SmallVector<int64_t> wide;
  llvm::copy_if(shape, std::back_inserter(wide),
                [](int64_t size) { return size != 1; });
  Value flat = reshapeAtOnce(b, value, type.clone(wide));
  assert(flat && "shapes differ in sizes of one");
  return reshapeAtOnce(b, flat, result);
}
