//===- KVRMDialect.cpp - The kvrm dialect ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace mlir::kvrm;

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.cpp.inc"

void KVRMDialect::initialize() {
  registerAttributes();
  registerTypes();
  addOperations<
#define GET_OP_LIST
#include "kvrm/Dialect/KVRM/IR/KVRMOps.cpp.inc"
      >();
}

/// The ops that define a phase; 0 for those that more than one phase has.
static int phaseOf(Operation *op) {
  if (isa<CachedAttentionOp>(op))
    return 1;
  if (isa<AppendOp, AttendOp>(op))
    return 2;
  if (isa<LaunchOp, DispatchOp>(op))
    return 3;
  return 0;
}

/// A step is in one phase, and a paged one commits exactly once, in its entry
/// block.
static LogicalResult verifyStep(FunctionOpInterface func) {
  if (func.isExternal())
    return success();
  Operation *phaseWitness = nullptr;
  CommitOp commit;
  SmallVector<Operation *> users;
  WalkResult result = func.walk([&](Operation *op) -> WalkResult {
    if (int phase = phaseOf(op)) {
      if (!phaseWitness) {
        phaseWitness = op;
      } else if (phase != phaseOf(phaseWitness)) {
        InFlightDiagnostic diag = op->emitOpError("of phase ")
                                  << phase << " stands in a step of phase "
                                  << phaseOf(phaseWitness);
        diag.attachNote(phaseWitness->getLoc())
            << "'" << phaseWitness->getName() << "' sets the step's phase";
        return diag;
      }
    }
    if (isa<AppendOp, AttendOp, LaunchOp, StageOp, PositionsOp, CountsOp>(op))
      users.push_back(op);
    auto thisCommit = dyn_cast<CommitOp>(op);
    if (!thisCommit)
      return success();
    if (commit) {
      InFlightDiagnostic diag =
          op->emitOpError("is the second of its step; a step commits once");
      diag.attachNote(commit.getLoc()) << "the first commit is here";
      return diag;
    }
    commit = thisCommit;
    if (op->getBlock() != &func.getFunctionBody().front())
      return op->emitOpError(
          "does not dominate the step: it must stand in its entry block");
    return success();
  });
  if (result.wasInterrupted())
    return failure();
  if (commit && phaseWitness && phaseOf(phaseWitness) == 1)
    return commit.emitOpError("stands in a static step (phase 1)");
  for (Operation *user : users) {
    if (!commit)
      return user->emitOpError("stands in a step that never commits");
    for (Value operand : user->getOperands()) {
      if (isa<SessionType>(operand.getType()) && operand != commit.getSession())
        return user->emitOpError(
            "takes a session other than the one its step commits");
      if (isa<DescriptorType>(operand.getType()) &&
          operand != commit.getDescriptor())
        return user->emitOpError(
            "takes a descriptor that its step did not commit");
    }
  }
  return success();
}

LogicalResult KVRMDialect::verifyOperationAttribute(Operation *op,
                                                    NamedAttribute attr) {
  if (attr.getName() == getStepAttrName()) {
    auto func = dyn_cast<FunctionOpInterface>(op);
    if (!func)
      return op->emitOpError("has '")
             << getStepAttrName() << "', which belongs on a function";
    if (!isa<UnitAttr>(attr.getValue()))
      return op->emitOpError("has '")
             << getStepAttrName() << "', which takes no value";
    return verifyStep(func);
  }
  if (attr.getName() == getPanelAttrName()) {
    auto panel = dyn_cast<IntegerAttr>(attr.getValue());
    if (!panel || !panel.getType().isSignlessInteger(64) || panel.getInt() < 1)
      return op->emitOpError("needs a positive i64 as '")
             << getPanelAttrName() << "'";
    return success();
  }
  return success();
}
