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
