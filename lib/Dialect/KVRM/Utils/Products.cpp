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

/// Of values that are not rounded: those of a library's product are.
template <typename OpT> static bool isInBlocksImpl(OpT op) {
  auto values = op.getWeight().template getDefiningOp<DequantizeOp>();
  return op.getFormat() ||
         (values && getElementTypeOrSelf(values.getResult()).isF32());
}

bool kvrm::isInBlocks(LinearOp op) { return isInBlocksImpl(op); }
bool kvrm::isInBlocks(QKVProjectionOp op) { return isInBlocksImpl(op); }

/// Rows of a weight in blocks lie in panels, of which a tile takes whole ones.
static bool hasWholePanels(LinearOp op) {
  return op.getParts() == 1 || op.getColumns() % kMatrixPanel == 0;
}
static bool hasWholePanels(QKVProjectionOp op) {
  return op.getHeadDim() / 2 % kMatrixPanel == 0;
}

static bool isMatrixUnitElement(Type element) {
  return element.isF16() || element.isBF16();
}

template <typename OpT> static bool fitsMatrixUnitsImpl(OpT op) {
  Type element = op.getMultiplicandElement();
  return isMatrixUnitElement(element) && op.getDepth() % 32 == 0 &&
         (isInBlocks(op) ? hasWholePanels(op)
                         : getElementTypeOrSelf(op.getWeight()) == element);
}

static int64_t weightRows(LinearOp op) {
  return static_cast<int64_t>(op.getParts()) * op.getColumns();
}
static int64_t weightRows(QKVProjectionOp op) { return op.getColumns(); }

/// A library has no parts or heads, so that panels do not matter to it.
template <typename OpT> static bool hasProductShapeImpl(OpT op) {
  bool fits = isInBlocks(op) ? isMatrixUnitElement(op.getMultiplicandElement())
                             : fitsMatrixUnitsImpl(op);
  return fits && weightRows(op) % 8 == 0;
}

template <typename OpT> static bool canNormalizeImpl(OpT op) {
  return fitsMatrixUnitsImpl(op) && op.getRows() <= kNormalizedRows;
}

bool kvrm::hasProductShape(LinearOp op) { return hasProductShapeImpl(op); }
bool kvrm::hasProductShape(QKVProjectionOp op) {
  return hasProductShapeImpl(op);
}
bool kvrm::hasMatrixUnitShape(LinearOp op) { return fitsMatrixUnitsImpl(op); }
bool kvrm::hasMatrixUnitShape(QKVProjectionOp op) {
  return fitsMatrixUnitsImpl(op);
}
bool kvrm::canNormalizeInKernel(LinearOp op) {
  return static_cast<int64_t>(op.getParts()) <= kTileParts &&
         canNormalizeImpl(op);
}
bool kvrm::canNormalizeInKernel(QKVProjectionOp op) {
  return canNormalizeImpl(op);
}

bool kvrm::hasProductBody(LinearOp op) {
  if (op.getParts() != 1 || op.getGain())
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
