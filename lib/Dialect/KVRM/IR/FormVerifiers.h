//===- FormVerifiers.h - What the verifiers of forms share ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_IR_FORMVERIFIERS_H
#define KVRM_DIALECT_KVRM_IR_FORMVERIFIERS_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

namespace mlir::kvrm {

using Effects = SmallVectorImpl<MemoryEffects::EffectInstance>;

/// Reads of the operands that are buffers, and a write of the output.
inline void addEffects(DestinationStyleOpInterface form, Effects &effects) {
  for (OpOperand &operand : form->getOpOperands()) {
    if (!isa<MemRefType>(operand.get().getType()))
      continue;
    if (form.isDpsInit(&operand))
      effects.emplace_back(MemoryEffects::Write::get(), &operand);
    else
      effects.emplace_back(MemoryEffects::Read::get(), &operand);
  }
}

/// Threads of a target take neighbours of a row at once.
inline LogicalResult verifyContiguousRows(Operation *op, const Twine &name,
                                          Type type) {
  auto buffer = dyn_cast<MemRefType>(type);
  if (buffer && !buffer.isLastDimUnitStride())
    return op->emitOpError(name)
           << " is " << type << ", not contiguous in its last dimension";
  return success();
}

/// A static, positive shape; `meaning` names its dimensions.
inline LogicalResult verifyRank(Operation *op, StringRef name, Value operand,
                                int64_t rank, StringRef meaning) {
  auto type = cast<ShapedType>(operand.getType());
  if (!detail::isPositiveShape(type, rank))
    return op->emitOpError(name) << " must have a static, positive shape "
                                 << meaning << ", got " << type;
  return verifyContiguousRows(op, name, type);
}

inline ArrayRef<int64_t> shapeOf(Value operand) {
  return cast<ShapedType>(operand.getType()).getShape();
}

/// A weight of `rows` rows of `depth` columns, which are those of `deep`, in
/// records of blocks.
inline LogicalResult verifyRecords(Operation *op, BlockFormat format,
                                   Value weight, int64_t rows, int64_t depth,
                                   StringRef deep) {
  if (failed(verifyRank(op, "weight", weight, 3, "[panels, blocks, record]")))
    return failure();
  if (!getElementTypeOrSelf(weight).isInteger(8))
    return op->emitOpError("weight in blocks is of ")
           << getElementTypeOrSelf(weight) << ", expected bytes, i8";
  ArrayRef<int64_t> shape = shapeOf(weight);
  kvrmblocks::BlockShape block = getShape(format);
  if (depth % block.elements || depth / block.elements != shape[1])
    return op->emitOpError(deep) << " has " << depth << " columns, weight "
                                 << shape[1] << " blocks of " << block.elements;
  // All that a record has is as much as its panel has rows.
  int64_t panel = shape[2] / block.recordBytes(1);
  if (panel == 0 || shape[2] % block.recordBytes(1) ||
      llvm::divideCeil(rows, panel) != static_cast<uint64_t>(shape[0]))
    return op->emitOpError("weight has ")
           << shape[0] << " x " << shape[1] << " records of " << shape[2]
           << " bytes, which are not those of " << rows << " rows in "
           << stringifyBlockFormat(format);
  return success();
}

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_IR_FORMVERIFIERS_H
