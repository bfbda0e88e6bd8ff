//===- Passes.td - Conversions out of the kvrm dialect -----*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CONVERSION_PASSES_TD
#define KVRM_CONVERSION_PASSES_TD

include "mlir/Pass/PassBase.td"

def ConvertKVRMToRuntimePass
    : Pass<"convert-kvrm-to-runtime", "::mlir::ModuleOp"> {
  let summary = "Convert steps to calls of the runtime's C ABI";
  let description = [{
    Each step becomes a function `kvrm_NAME(kvrm_step_args *)` (abi.h): commit,
    stage, append, attend and dispatch become calls through `kvrm_host_api`,
    weights and intermediate buffers constant offsets into two blocks of memory.
    Buffers whose lives do not overlap share memory; the size of the block is
    recorded as `kvrm.arena_bytes`. The weights' globals go away: their places
    are compiled in. Functions that a step dispatches take bare addresses; that
    something else calls one is an error, and all other functions stay.
  }];
  let statistics = [
    Statistic<"arenaBytes", "arena-bytes", "Bytes of intermediate buffers">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::LLVM::LLVMDialect"];
}

#endif // KVRM_CONVERSION_PASSES_TD
