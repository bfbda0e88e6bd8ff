//===- KVRMBlocks.cpp - Ops on weights in blocks --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FormVerifiers.h"

using namespace mlir;
using namespace mlir::kvrm;
using kvrmblocks::ActivationRecord;
using kvrmblocks::BlockShape;
using kvrmblocks::kStretch;

/// A positive shape of this rank; dimension `shared` may be dynamic, where the
/// operand is a share of rows or panels.
static LogicalResult verifyShare(Operation *op, StringRef name, Value value,
                                 unsigned rank, unsigned shared,
                                 StringRef meaning) {
  auto type = cast<ShapedType>(value.getType());
  bool isValid = type.hasRank() && type.getRank() == rank;
  for (unsigned i = 0; isValid && i < rank; ++i)
    isValid = type.isDynamicDim(i) ? i == shared : type.getDimSize(i) > 0;
  if (!isValid)
    return op->emitOpError(name)
           << " must have a positive shape " << meaning << ", static but for "
           << "dimension " << shared << ", got " << type;
  return verifyContiguousRows(op, name, type);
}

//===----------------------------------------------------------------------===//
// DequantizeOp
//===----------------------------------------------------------------------===//

LogicalResult DequantizeOp::verify() {
  auto blocks = getBlocks().getType(), result = getResult().getType();
  if (!kvrm::detail::isPositiveShape(blocks, 2) ||
      !kvrm::detail::isPositiveShape(result, 2))
    return emitOpError("takes and gives matrices of a static, positive shape, "
                       "got ")
           << blocks << " and " << result;
  int64_t elements = getShape(getFormat()).elements;
  if (result.getDimSize(0) != blocks.getDimSize(0) ||
      result.getDimSize(1) % elements ||
      result.getDimSize(1) / elements != blocks.getDimSize(1))
    return emitOpError("gives ")
           << result << " of " << blocks << ", whose blocks hold " << elements;
  return success();
}

//===----------------------------------------------------------------------===//
// UnpackBlocksOp
//===----------------------------------------------------------------------===//

void UnpackBlocksOp::getEffects(Effects &effects) {
  addEffects(*this, effects);
}

LogicalResult UnpackBlocksOp::verify() {
  if (failed(verifyRank(*this, "output", getOutput(), 2, "[rows, depth]")))
    return failure();
  return verifyRecords(*this, getFormat(), getWeight(), shapeOf(getOutput())[0],
                       shapeOf(getOutput())[1], "output");
}

//===----------------------------------------------------------------------===//
// QuantizeRowsOp
//===----------------------------------------------------------------------===//

void QuantizeRowsOp::getEffects(Effects &effects) {
  addEffects(*this, effects);
}

LogicalResult QuantizeRowsOp::verify() {
  if (failed(verifyShare(*this, "input", getInput(), 2, 0, "[rows, depth]")) ||
      failed(verifyShare(*this, "output", getOutput(), 3, 0,
                         "[rows, depth / 32, 48]")))
    return failure();
  ArrayRef<int64_t> input = shapeOf(getInput());
  if (input[1] % kStretch)
    return emitOpError("input has ")
           << input[1] << " columns, not a multiple of " << kStretch;
  ArrayRef<int64_t> output = shapeOf(getOutput());
  if (output[0] != input[0] || output[1] != input[1] / kStretch ||
      output[2] != ActivationRecord::bytes)
    return emitOpError("output is ")
           << getOutput().getType() << ", expected [rows, "
           << input[1] / kStretch << ", " << ActivationRecord::bytes
           << "] of the rows of " << getInput().getType();
  return success();
}

//===----------------------------------------------------------------------===//
// BlockProductOp
//===----------------------------------------------------------------------===//

/// The output is what products are added to.
void BlockProductOp::getEffects(Effects &effects) {
  addEffects(*this, effects);
  if (isa<MemRefType>(getOutput().getType()))
    effects.emplace_back(MemoryEffects::Read::get(), &getOutputMutable());
}

LogicalResult BlockProductOp::verify() {
  BlockProductOp op = *this;
  if (failed(verifyRank(op, "input", getInput(), isQuantized() ? 3 : 2,
                        isQuantized() ? "[rows, depth / 32, 48]"
                                      : "[rows, depth]")) ||
      failed(verifyShare(op, "weight", getWeight(), 3, 0,
                         "[panels, blocks, record]")) ||
      failed(verifyShare(op, "output", getOutput(), 2, 1,
                         "[rows, panels * panel]")))
    return failure();
  BlockShape shape = getShape(getFormat());
  auto panel = static_cast<int64_t>(getPanel());
  ArrayRef<int64_t> input = shapeOf(getInput()), weight = shapeOf(getWeight()),
                    output = shapeOf(getOutput());
  if (isQuantized() && input[2] != ActivationRecord::bytes)
    return emitOpError("input has records of ")
           << input[2] << " bytes, expected " << ActivationRecord::bytes;
  int64_t depth = isQuantized() ? input[1] * kStretch : input[1];
  if (depth % shape.elements || depth / shape.elements != weight[1])
    return emitOpError("input is ") << depth << " deep, weight " << weight[1]
                                    << " blocks of " << shape.elements;
  constexpr int64_t mostRows = 4096;
  if (panel > mostRows || weight[2] != shape.recordBytes(panel))
    return emitOpError("weight has records of ")
           << weight[2] << " bytes, which are not those of "
           << stringifyBlockFormat(getFormat()) << " in panels of " << panel;
  if (output[0] != input[0])
    return emitOpError("input has ")
           << input[0] << " rows, output " << output[0];
  if (!ShapedType::isDynamic(weight[0]) && !ShapedType::isDynamic(output[1]) &&
      (output[1] % panel || output[1] / panel != weight[0]))
    return emitOpError("output has ") << output[1] << " columns, weight "
                                      << weight[0] << " panels of " << panel;
  return success();
}
