//===- KVRMDialect.cpp - The kvrm dialect ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

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

/// All ops of a step have a phase in common: `common` is what those so far
/// have, the last of which to narrow it was `witness`.
static LogicalResult narrowPhases(PhaseOpInterface op, Phase &common,
                                  PhaseOpInterface &witness) {
  Phase phases = op.getPhases();
  if ((common & phases) == common)
    return success();
  if (bitEnumContainsAny(common, phases)) {
    common = common & phases;
    witness = op;
    return success();
  }
  InFlightDiagnostic diag = op->emitOpError("of phase ")
                            << stringifyPhase(phases)
                            << " stands in a step of phase "
                            << stringifyPhase(common);
  diag.attachNote(witness.getLoc())
      << "'" << witness->getName() << "' sets the step's phase";
  return diag;
}

/// Ops of a paged step take the session and the descriptors of its one commit.
static LogicalResult verifyCommitted(Operation *user, CommitOp commit) {
  for (Value operand : user->getOperands()) {
    if (!isa<SessionType, DescriptorType>(operand.getType()))
      continue;
    if (!commit)
      return user->emitOpError("stands in a step that never commits");
    if (isa<SessionType>(operand.getType()) && operand != commit.getSession())
      return user->emitOpError(
          "takes a session other than the one its step commits");
    if (isa<DescriptorType>(operand.getType()) &&
        operand.getDefiningOp() != commit.getOperation())
      return user->emitOpError("takes a descriptor that its step did not "
                               "commit");
  }
  return success();
}

static LogicalResult verifyCommit(CommitOp commit, CommitOp first,
                                  FunctionOpInterface func) {
  if (first) {
    InFlightDiagnostic diag =
        commit.emitOpError("is the second of its step; a step commits once");
    diag.attachNote(first.getLoc()) << "the first commit is here";
    return diag;
  }
  if (commit->getBlock() != &func.getFunctionBody().front())
    return commit.emitOpError(
        "does not dominate the step: it must stand in its entry block");
  return success();
}

/// A step is in one phase, and a paged one commits exactly once, in its entry
/// block. MLIR verifies attributes of a function before the function and what
/// is in it, so that whatever is asked anything here is verified first.
static LogicalResult verifyStep(FunctionOpInterface func) {
  if (failed(func->getName().verifyInvariants(func)))
    return failure();
  if (func.isExternal())
    return success();
  Phase common = Phase::Static | Phase::Paged | Phase::Kernels;
  PhaseOpInterface witness;
  CommitOp commit;
  SmallVector<Operation *> users;
  WalkResult result = func.walk([&](PhaseOpInterface op) -> WalkResult {
    if (failed(op->getName().verifyInvariants(op)) ||
        failed(narrowPhases(op, common, witness)))
      return failure();
    users.push_back(op);
    auto thisCommit = dyn_cast<CommitOp>(*op);
    if (!thisCommit)
      return success();
    if (failed(verifyCommit(thisCommit, commit, func)))
      return failure();
    commit = thisCommit;
    return success();
  });
  return failure(result.wasInterrupted() ||
                 llvm::any_of(users, [&](Operation *user) {
                   return failed(verifyCommitted(user, commit));
                 }));
}

bool kvrm::isStep(Operation *op) {
  return op->hasAttr(KVRMDialect::getStepAttrName());
}

SmallVector<StepPlanAttr> kvrm::getStepPlans(Operation *step) {
  auto plans = step->getAttrOfType<ArrayAttr>(KVRMDialect::getPlansAttrName());
  return plans ? llvm::to_vector(plans.getAsRange<StepPlanAttr>())
               : SmallVector<StepPlanAttr>();
}

unsigned kvrm::getBatch(Value descriptor) {
  return cast<OpResult>(descriptor).getResultNumber();
}

std::optional<ArgumentRole> kvrm::getArgumentRole(FunctionOpInterface step,
                                                  unsigned index) {
  auto role = step.getArgAttrOfType<ArgumentRoleAttr>(
      index, KVRMDialect::getArgumentAttrName());
  return role ? std::optional(role.getValue()) : std::nullopt;
}

void kvrm::setArgumentRole(FunctionOpInterface step, unsigned index,
                           ArgumentRole role) {
  step.setArgAttr(index, KVRMDialect::getArgumentAttrName(),
                  ArgumentRoleAttr::get(step.getContext(), role));
}

template <typename AttrT>
static LogicalResult verifyOnFunction(Operation *op, NamedAttribute attr,
                                      StringRef expected) {
  if (!isa<FunctionOpInterface>(op))
    return op->emitOpError("has '")
           << attr.getName().getValue() << "', which belongs on a function";
  if (!isa<AttrT>(attr.getValue()))
    return op->emitOpError("has '")
           << attr.getName().getValue() << "', which takes " << expected;
  return success();
}

static LogicalResult verifyPlans(Operation *op, NamedAttribute attr) {
  auto plans = dyn_cast<ArrayAttr>(attr.getValue());
  if (plans && !llvm::all_of(plans, llvm::IsaPred<StepPlanAttr>))
    return op->emitOpError("has '")
           << attr.getName().getValue() << "' with what is no #kvrm.step_plan";
  return verifyOnFunction<ArrayAttr>(op, attr, "an array of #kvrm.step_plan");
}

/// The type of a weight is what its attribute says is stored.
static LogicalResult verifyWeight(Operation *op, Attribute value) {
  auto global = dyn_cast<ml_program::GlobalOp>(op);
  auto weight = dyn_cast<WeightAttr>(value);
  if (!global || !weight)
    return op->emitOpError("has '")
           << KVRMDialect::getWeightAttrName()
           << "', which is a #kvrm.weight on an ml_program.global";
  auto type = dyn_cast<RankedTensorType>(global.getType());
  if (!type || !type.hasStaticShape())
    return op->emitOpError("is a weight whose shape is not static: ")
           << global.getType();
  if (weight.getFormat() == WeightFormat::RowMajor)
    return success();
  int64_t panel = weight.getPanel();
  auto panels = static_cast<int64_t>(llvm::divideCeil(weight.getRows(), panel));
  if (weight.getFormat() == WeightFormat::Blocks) {
    int64_t record = getShape(weight.getBlock().getValue()).recordBytes(panel);
    if (type.getRank() != 3 || type.getDimSize(0) != panels ||
        type.getDimSize(2) != record || !type.getElementType().isInteger(8))
      return op->emitOpError("is a weight of ")
             << weight.getRows() << " rows in blocks of "
             << stringifyBlockFormat(weight.getBlock().getValue())
             << ", panels of " << panel << ", which is not " << type << " but "
             << panels << "xkx" << record << "xi8";
    return success();
  }
  if (type.getRank() != 3 || type.getDimSize(0) != panels ||
      type.getDimSize(2) != panel)
    return op->emitOpError("is a weight of ")
           << weight.getRows() << " rows in panels of " << panel
           << ", which is not " << type << " but " << panels << "xkx" << panel;
  return success();
}

static LogicalResult verifyParts(Operation *op, Attribute value) {
  auto parts = dyn_cast<ArrayAttr>(value);
  if (!isa<ml_program::GlobalOp>(op) || !parts ||
      !llvm::all_of(parts, llvm::IsaPred<WeightPartAttr>))
    return op->emitOpError("has '")
           << KVRMDialect::getPartsAttrName()
           << "', which is a list of #kvrm.weight_part on an "
              "ml_program.global";
  return success();
}

int64_t kvrm::getRanks(ModuleOp module) {
  auto ranks =
      module->getAttrOfType<IntegerAttr>(KVRMDialect::getRanksAttrName());
  return ranks ? ranks.getInt() : 1;
}

static LogicalResult verifyRanks(Operation *op, Attribute value) {
  auto ranks = dyn_cast<IntegerAttr>(value);
  if (!isa<ModuleOp>(op) || !ranks || !ranks.getType().isSignlessInteger(64) ||
      ranks.getInt() < 2 || ranks.getInt() > KVRM_MAX_RANKS)
    return op->emitOpError("has '")
           << KVRMDialect::getRanksAttrName() << "', which is an i64 of 2.."
           << int64_t{KVRM_MAX_RANKS} << " on a module";
  return success();
}

/// What a rank has are whole pieces of the parts, and all of them.
static LogicalResult verifyShard(Operation *op, Attribute value) {
  auto global = dyn_cast<ml_program::GlobalOp>(op);
  auto shard = dyn_cast<ShardAttr>(value);
  auto module = op->getParentOfType<ModuleOp>();
  int64_t ranks = module ? getRanks(module) : 1;
  if (!global || !shard || ranks < 2)
    return op->emitOpError("has '")
           << KVRMDialect::getShardAttrName()
           << "', which is a #kvrm.shard on an ml_program.global of a module "
              "with 'kvrm.ranks'";
  int64_t rows = 0;
  for (int64_t part : shard.getParts()) {
    if (part % ranks != 0)
      return op->emitOpError("has a part of ")
             << part << ", which " << ranks << " ranks do not divide";
    rows += part / ranks;
  }
  // Once it is packed, kvrm.weight says its rows.
  auto type = dyn_cast<RankedTensorType>(global.getType());
  auto weight = op->getAttrOfType<WeightAttr>(KVRMDialect::getWeightAttrName());
  bool isPacked = weight && weight.getFormat() == WeightFormat::Panels;
  int64_t rank = !type ? 0 : isPacked ? 2 : type.getRank();
  if (shard.getDim() >= rank)
    return op->emitOpError("has a shard of dimension ")
           << shard.getDim() << " of " << rank;
  int64_t size = isPacked && shard.getDim() == 0
                     ? weight.getRows()
                     : type.getDimSize(shard.getDim());
  if (size != rows)
    return op->emitOpError("has ") << size << " in dimension " << shard.getDim()
                                   << ", and its shard says " << rows;
  return success();
}

LogicalResult KVRMDialect::verifyOperationAttribute(Operation *op,
                                                    NamedAttribute attr) {
  if (attr.getName() == getStepAttrName())
    return failure(failed(verifyOnFunction<UnitAttr>(op, attr, "no value")) ||
                   failed(verifyStep(cast<FunctionOpInterface>(op))));
  if (attr.getName() == getPlansAttrName())
    return verifyPlans(op, attr);
  if (attr.getName() == getDeviceKernelAttrName())
    return verifyOnFunction<DeviceKernelAttr>(op, attr,
                                              "a #kvrm.device_kernel");
  if (attr.getName() == getArenaBytesAttrName())
    return verifyOnFunction<IntegerAttr>(op, attr, "an integer");
  if (attr.getName() == getWeightAttrName())
    return verifyWeight(op, attr.getValue());
  if (attr.getName() == getPartsAttrName())
    return verifyParts(op, attr.getValue());
  if (attr.getName() == getShardAttrName())
    return verifyShard(op, attr.getValue());
  if (attr.getName() == getRanksAttrName())
    return verifyRanks(op, attr.getValue());
  return success();
}

LogicalResult KVRMDialect::verifyRegionArgAttribute(Operation *op,
                                                    unsigned /*region*/,
                                                    unsigned index,
                                                    NamedAttribute attr) {
  if (attr.getName() == getNameAttrName()) {
    if (isa<StringAttr>(attr.getValue()))
      return success();
    return op->emitOpError("argument ")
           << index << " has '" << attr.getName().getValue()
           << "', which takes a string";
  }
  if (attr.getName() != getArgumentAttrName())
    return op->emitOpError("argument ")
           << index << " has '" << attr.getName().getValue()
           << "', which the dialect does not know";
  auto role = dyn_cast<ArgumentRoleAttr>(attr.getValue());
  if (!role)
    return op->emitOpError("argument ")
           << index << " has '" << attr.getName().getValue()
           << "', which takes a #kvrm.argument";
  Type type = cast<FunctionOpInterface>(op).getArgumentTypes()[index];
  if (isa<SessionType>(type) != (role.getValue() == ArgumentRole::Session))
    return op->emitOpError("argument ")
           << index << " of type " << type << " cannot be "
           << stringifyArgumentRole(role.getValue());
  return success();
}
