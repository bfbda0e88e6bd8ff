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

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_IR_FORMVERIFIERS_H
