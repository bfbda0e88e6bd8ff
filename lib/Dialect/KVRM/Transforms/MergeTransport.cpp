//===- MergeTransport.cpp - One stage op a step -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Transforms/Passes.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_MERGETRANSPORTPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {
class MergeTransportPass
    : public kvrm::impl::MergeTransportPassBase<MergeTransportPass> {
public:
  using MergeTransportPassBase::MergeTransportPassBase;

  void runOnOperation() override {
    WalkResult result = getOperation()->walk([&](FunctionOpInterface func) {
      return func->hasAttr(KVRMDialect::getStepAttrName()) ? mergeStep(func)
                                                           : WalkResult::skip();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }

private:
  WalkResult mergeStep(FunctionOpInterface func) {
    SmallVector<StageOp> stages;
    func.walk([&](StageOp op) { stages.push_back(op); });
    if (stages.empty())
      return WalkResult::skip();
    StageOp first = stages.front();
    for (StageOp stage : ArrayRef(stages).drop_front()) {
      if (stage.getTransport() == first.getTransport())
        continue;
      InFlightDiagnostic diag =
          stage.emitOpError("asks for another transport than the step's first");
      diag.attachNote(first.getLoc()) << "the first stage is here";
      return diag;
    }
    // A step commits once: stages of one batch have the same operands.
    Operation *commit = first.getDescriptor().getDefiningOp();
    if (!commit)
      return first.emitOpError("descriptor does not come from a commit");
    llvm::SmallDenseMap<Value, StageOp> ofBatch;
    for (StageOp stage : llvm::make_early_inc_range(stages)) {
      StageOp &merged = ofBatch[stage.getDescriptor()];
      if (!merged) {
        merged = stage;
        continue;
      }
      stage.replaceAllUsesWith(merged.getGroups());
      stage.erase();
      ++numMerged;
    }
    Operation *last = commit;
    for (Value descriptor : commit->getResults())
      if (StageOp merged = ofBatch.lookup(descriptor)) {
        merged->moveAfter(last);
        last = merged;
      }
    return WalkResult::skip();
  }
};
} // namespace
