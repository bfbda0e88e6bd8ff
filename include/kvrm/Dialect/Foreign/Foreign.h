//===- Foreign.h - Ops of other frontends -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_FOREIGN_FOREIGN_H
#define KVRM_DIALECT_FOREIGN_FOREIGN_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "kvrm/Dialect/Foreign/iree_linalg_ext.h.inc"
#include "kvrm/Dialect/Foreign/stablehlo.h.inc"
#include "kvrm/Dialect/Foreign/tm_tensor.h.inc"

#define GET_OP_CLASSES
#include "kvrm/Dialect/Foreign/ForeignOps.h.inc"

namespace mlir::kvrm {

/// Adds the dialects of other frontends, with the few ops that are read, except
/// those that are known to `registry` already.
void registerForeignDialects(DialectRegistry &registry);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_FOREIGN_FOREIGN_H
