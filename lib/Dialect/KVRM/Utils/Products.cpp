//===- Products.cpp - What a library can run of a linear ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/Products.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace mlir::kvrm;

bool kvrm::hasProductShape(LinearOp op) {
  Type element = getElementTypeOrSelf(op.getInput());
  auto columns = static_cast<int64_t>(op.getParts()) * op.getColumns();
  return (element.isF16() || element.isBF16()) &&
         getElementTypeOrSelf(op.getWeight()) == element &&
         op.getDepth() % 32 == 0 && columns % 8 == 0;
}

bool kvrm::hasProductBody(LinearOp op) {
  if (op.getParts() != 1)
    return false;
  Value sum = op.getSums().front();
  Value yielded =
      cast<YieldOp>(op.getBody().front().getTerminator()).getValue();
  Type output = getElementTypeOrSelf(op.getOutput());
  if (op.getExtras().empty()) {
    auto cast = yielded.getDefiningOp<arith::TruncFOp>();
    return yielded == sum || (cast && cast.getIn() == sum &&
                              output == getElementTypeOrSelf(op.getInput()));
  }
  auto add = yielded.getDefiningOp<arith::AddFOp>();
  if (!add || op.getExtras().size() != 1 || !output.isF32())
    return false;
  auto extra = cast<ShapedType>(op.getExtras().front().getType());
  Value addend = op.getExtraElements().front();
  return extra.getRank() == 2 && extra.getElementType().isF32() &&
         ((add.getLhs() == addend && add.getRhs() == sum) ||
          (add.getLhs() == sum && add.getRhs() == addend));
}
