//===- Steps.cpp - What belongs to the steps of a module ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Utils/Steps.h"

using namespace mlir;
using namespace mlir::kvrm;

SmallVector<func::FuncOp> kvrm::getSteps(ModuleOp module) {
  return llvm::filter_to_vector(
      module.getOps<func::FuncOp>(),
      [](func::FuncOp func) { return isStep(func) && !func.isExternal(); });
}

std::string kvrm::getArgumentName(func::FuncOp func, unsigned index) {
  if (auto name = func.getArgAttrOfType<StringAttr>(
          index, KVRMDialect::getNameAttrName()))
    return name.str();
  if (auto name = func.getArgument(index).getLoc()->findInstanceOf<NameLoc>())
    return name.getName().str();
  return ("arg" + Twine(index)).str();
}

SmallVector<DescriptorType> kvrm::getBatches(func::FuncOp step) {
  SmallVector<DescriptorType> batches;
  for (auto commit : step.getOps<CommitOp>())
    for (Value descriptor : commit.getDescriptors())
      batches.push_back(cast<DescriptorType>(descriptor.getType()));
  return batches;
}

static bool isTokens(func::FuncOp step, unsigned index) {
  return getArgumentRole(step, index) == ArgumentRole::Tokens;
}

unsigned kvrm::getBatchOfTokens(func::FuncOp step, unsigned index) {
  return llvm::count_if(llvm::seq(index),
                        [&](unsigned i) { return isTokens(step, i); });
}

LogicalResult kvrm::verifyTokens(func::FuncOp step) {
  SmallVector<DescriptorType> batches = getBatches(step);
  size_t most = std::max<size_t>(batches.size(), 1);
  for (unsigned i = 0; i < step.getNumArguments(); ++i) {
    if (!isTokens(step, i))
      continue;
    unsigned batch = getBatchOfTokens(step, i);
    if (batch >= most)
      return step.emitOpError("argument ")
             << i << " is tokens of a batch that the step has not; it has "
             << most;
    if (batches.empty())
      continue;
    auto type = cast<ShapedType>(step.getArgumentTypes()[i]);
    DescriptorType descriptor = batches[batch];
    if (type.getShape() !=
        ArrayRef({descriptor.getRows(), descriptor.getQueries()}))
      return step.emitOpError("argument ")
             << i << " is tokens of " << type << " for " << descriptor;
  }
  return success();
}

LogicalResult kvrm::verifyUsedBySteps(Operation *symbol,
                                      const SymbolUserMap &users) {
  for (Operation *user : users.getUsers(symbol)) {
    auto func = user->getParentOfType<func::FuncOp>();
    if (func && isStep(func))
      continue;
    InFlightDiagnostic diag = user->emitOpError("outside a step uses '@")
                              << SymbolTable::getSymbolName(symbol).getValue()
                              << "', which belongs to a step";
    diag.attachNote(symbol->getLoc()) << "defined here";
    return diag;
  }
  return success();
}

FailureOr<WeightLoads> kvrm::getWeights(ModuleOp module,
                                        ArrayRef<func::FuncOp> steps) {
  SymbolTableCollection symbols;
  llvm::DenseMap<Operation *, SmallVector<ml_program::GlobalLoadConstOp>> loads;
  for (func::FuncOp step : steps) {
    WalkResult result = step.walk([&](ml_program::GlobalLoadConstOp load) {
      Operation *global = symbols.lookupSymbolIn(module, load.getGlobalAttr());
      if (!isa_and_present<ml_program::GlobalOp>(global) ||
          global->getParentOp() != module) {
        load.emitOpError("names no global of the module: ") << load.getGlobal();
        return WalkResult::interrupt();
      }
      loads[global].push_back(load);
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      return failure();
  }

  SymbolUserMap users(symbols, module);
  WeightLoads weights;
  for (auto global : module.getOps<ml_program::GlobalOp>()) {
    auto found = loads.find(global);
    if (found == loads.end())
      continue;
    if (failed(verifyUsedBySteps(global, users)))
      return failure();
    for (Operation *user : users.getUsers(global))
      if (!isa<ml_program::GlobalLoadConstOp>(user))
        return user->emitOpError("uses the weight '@")
               << global.getSymName() << "'; a step may only load it";
    weights[global] = std::move(found->second);
  }
  return weights;
}
