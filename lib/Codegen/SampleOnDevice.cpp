//===- SampleOnDevice.cpp - Tokens leave a device, not logits -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_SAMPLEONDEVICEPASS
#include "kvrm/Codegen/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {
class SampleOnDevicePass
    : public kvrm::impl::SampleOnDevicePassBase<SampleOnDevicePass> {
public:
  void runOnOperation() override;
};
} // namespace

void SampleOnDevicePass::runOnOperation() {
  for (func::FuncOp step : getSteps(getOperation()))
    for (BlockArgument argument : step.getArguments()) {
      if (getArgumentRole(step, argument.getArgNumber()) !=
          ArgumentRole::Logits)
        continue;
      Operation *end = step.getBody().front().getTerminator();
      OpBuilder b(end);
      SampleOp::create(b, end->getLoc(), argument);
    }
}
