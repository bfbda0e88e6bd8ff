//===- ShardStep.cpp - Steps that several ranks run together --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Shard/StepSharder.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_SHARDSTEPPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {
class ShardStepPass : public kvrm::impl::ShardStepPassBase<ShardStepPass> {
public:
  using ShardStepPassBase::ShardStepPassBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    if (ranks < 1 || ranks > KVRM_MAX_RANKS) {
      module.emitError("ranks: ")
          << ranks.getValue() << " is outside 1.." << int64_t{KVRM_MAX_RANKS};
      return signalPassFailure();
    }
    SmallVector<func::FuncOp> steps = getSteps(module);
    if (ranks == 1 || steps.empty())
      return;
    if (getRanks(module) != 1) {
      module.emitError("is sharded already, for ")
          << getRanks(module) << " ranks";
      return signalPassFailure();
    }
    FailureOr<WeightLoads> weights = getWeights(module, steps);
    if (failed(weights))
      return signalPassFailure();
    module->setAttr(KVRMDialect::getRanksAttrName(),
                    OpBuilder(module).getI64IntegerAttr(ranks));
    DenseMap<Value, Split> found; // of loads
    for (func::FuncOp step : steps) {
      StepSharder sharder(step, ranks);
      if (failed(sharder.run()))
        return signalPassFailure();
      numReduced += sharder.numReduced;
      numGathered += sharder.numGathered;
      step.walk([&](ml_program::GlobalLoadConstOp load) {
        if (const Split *split = sharder.splitOf(load.getResult()))
          found[load.getResult()] = *split;
      });
    }
    // The dead loads went with the inits.
    weights = getWeights(module, steps);
    if (failed(weights))
      return signalPassFailure();
    for (auto &[weight, loads] : *weights)
      if (failed(shardWeight(weight, loads, found)))
        return signalPassFailure();
  }

private:
  /// Gives a weight the type of a rank's, if its loads have that.
  LogicalResult shardWeight(ml_program::GlobalOp weight,
                            ArrayRef<ml_program::GlobalLoadConstOp> loads,
                            const DenseMap<Value, Split> &found) {
    auto splitOf = [&](ml_program::GlobalLoadConstOp load) {
      auto split = found.find(load.getResult());
      return split == found.end() ? nullptr : &split->second;
    };
    const Split *split = splitOf(loads.front());
    for (ml_program::GlobalLoadConstOp load : loads) {
      const Split *other = splitOf(load);
      if ((split == nullptr) != (other == nullptr) ||
          (split && !(*split == *other)))
        return load.emitOpError("loads '@")
               << weight.getSymName()
               << "' in other parts than another load of it";
    }
    if (!split)
      return success();
    ml_program::GlobalLoadConstOp first = loads.front();
    Type type = first.getType();
    weight.setTypeAttr(TypeAttr::get(type));
    if (isa_and_present<ml_program::ExternAttr>(weight.getValueAttr()))
      weight.setValueAttr(ml_program::ExternAttr::get(&getContext(), type));
    weight->setAttr(KVRMDialect::getShardAttrName(),
                    ShardAttr::get(&getContext(), split->dim, split->parts));
    ++numSharded;
    return success();
  }
};
} // namespace
