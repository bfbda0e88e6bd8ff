//===- Generics.cpp - Reading the bodies of linalg.generic ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/Generics.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace mlir::kvrm;

bool kvrm::isF32Tensor(Value value, int64_t rank) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && type.getElementType().isF32() &&
         kvrm::detail::isPositiveShape(type, rank);
}

Value kvrm::getInputOfElement(linalg::GenericOp op, Value element,
                              AffineMap map) {
  auto argument = dyn_cast<BlockArgument>(element);
  if (!argument || argument.getOwner() != op.getBody())
    return {};
  OpOperand *operand = op.getMatchingOpOperand(argument);
  return op.isDpsInput(operand) && op.getMatchingIndexingMap(operand) == map
             ? operand->get()
             : Value();
}

bool kvrm::isElementwise(linalg::GenericOp op, unsigned rank) {
  return op.hasPureTensorSemantics() && op.getNumDpsInits() == 1 &&
         op.getNumLoops() == rank && op.getNumParallelLoops() == rank &&
         op.getMatchingIndexingMap(op.getDpsInitOperand(0)).isIdentity() &&
         op.getRegionOutputArgs().front().use_empty();
}

Value kvrm::stripRounding(Value value) {
  auto cast = value.getDefiningOp<arith::TruncFOp>();
  if (!cast ||
      (cast.getRoundingmode() &&
       *cast.getRoundingmode() != arith::RoundingMode::to_nearest_even))
    return value;
  return cast.getIn();
}
