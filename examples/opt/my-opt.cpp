//===- my-opt.cpp - kvrm in somebody else's mlir-opt ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   my-opt examples/decoder.mlir --kvrm-page-cache --count-appends
//
// Links the dialect and the passes, and looks at their ops in a pass of its
// own.
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/InitAll.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"

namespace {
class CountAppends
    : public mlir::PassWrapper<CountAppends,
                               mlir::OperationPass<mlir::func::FuncOp>> {
public:
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(CountAppends)

  llvm::StringRef getArgument() const final { return "count-appends"; }
  llvm::StringRef getDescription() const final {
    return "Remark on the layers that a step appends to";
  }
  void runOnOperation() final {
    int64_t count = 0;
    getOperation()->walk([&](mlir::kvrm::AppendOp) { ++count; });
    getOperation()->emitRemark() << "appends to " << count << " layers";
  }
};
} // namespace

int main(int argc, char **argv) {
  mlir::kvrm::registerAllKVRMPasses();
  mlir::PassRegistration<CountAppends>();
  mlir::DialectRegistry registry;
  registry.insert<mlir::arith::ArithDialect, mlir::func::FuncDialect,
                  mlir::linalg::LinalgDialect, mlir::math::MathDialect,
                  mlir::ml_program::MLProgramDialect,
                  mlir::tensor::TensorDialect>();
  mlir::kvrm::registerAllKVRMDialects(registry);
  return mlir::asMainReturnCode(
      mlir::MlirOptMain(argc, argv, "an mlir-opt with kvrm\n", registry));
}
