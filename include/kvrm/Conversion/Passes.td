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

def StaticBaselinePass : Pass<"kvrm-static-baseline", "::mlir::ModuleOp"> {
  let summary = "Lower static attention without the runtime";
  let description = [{
    The reference for correctness and the baseline for every claim: reserved
    contiguous KV, and attention over the whole capacity under a mask. Every
    `kvrm.cached_attention` becomes a dispatch, one task a row and KV head, of a
    function that writes the new keys and values into the caches, scores the
    query rows against all `capacity` tokens, masks, and takes the weighted sum
    of all values. Its cost does not depend on how long requests really are.
  }];
  let options = [
    Option<"lanes", "lanes", "int64_t", /*default=*/"16",
           "f32 lanes of a vector register">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::kvrm::KVRMDialect",
    "::mlir::math::MathDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect",
    "::mlir::vector::VectorDialect"];
}

def PackWeightsPass : Pass<"kvrm-pack-weights", "::mlir::ModuleOp"> {
  let summary = "Lay weights out in the order that kernels read them";
  let description = [{
    A matrix that is only ever the transposed right-hand side of `linalg.matmul`
    is retyped from `[n][k]` to panels, `[n / panel][k][panel]`, and its matmuls
    to contractions over panels: vector lanes then run along n, each weight is
    read once and in address order, and no dot product needs a horizontal sum.
    Rows that the last panel lacks are zeros; the extra columns are cut off
    after the contraction.

    Every weight then gets its place in the package's data section
    (`kvrm.offset`, in bytes). Nothing is copied here: the package writer reads
    the two attributes.

    A weight is a global that a step loads. Other globals and functions stay as
    they are, and a weight that something outside the steps uses is an error.
  }];
  let options = [
    Option<"panel", "panel", "int64_t", /*default=*/"32",
           "Rows of a panel, a multiple of the vector lanes">,
  ];
  let statistics = [
    Statistic<"numPacked", "weights-packed", "Number of matrices packed">,
  ];
  let dependentDialects = ["::mlir::linalg::LinalgDialect",
                           "::mlir::tensor::TensorDialect"];
}

def BufferizeStepPass : Pass<"kvrm-bufferize-step", "::mlir::ModuleOp"> {
  let summary = "Turn the tensors of each step into buffers";
  let description = [{
    One-shot bufferization of each step with its boundary fixed: inputs are
    read-only buffers, caches are written in place, the result is written to a
    buffer that is a new last argument, and weights are views of one block of
    memory. Each argument's meaning is recorded as `kvrm.argument`.
  }];
  let dependentDialects = ["::mlir::bufferization::BufferizationDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::memref::MemRefDialect",
                           "::mlir::kvrm::KVRMDialect"];
}

def OutlineDispatchesPass : Pass<"kvrm-outline-dispatches", "::mlir::ModuleOp"> {
  let summary = "Outline the dense part and lower it to loops";
  let description = [{
    Each linalg op of a bufferized step becomes a function of a task range and
    its buffers; equal ones become one function, so that code size does not grow
    with the number of layers. A contraction over a packed weight is lowered to
    a register-tiled vector kernel with a task a panel, and takes over the
    zero-fill before it. Anything else is lowered to loops, a task an outermost
    iteration. Work worth sharing is a `kvrm.dispatch`, the rest a plain call.
  }];
  let options = [
    Option<"lanes", "lanes", "int64_t", /*default=*/"16",
           "f32 lanes of a vector register">,
    Option<"parallelWork", "parallel-work", "int64_t", /*default=*/"32768",
           "Iterations from which an op is shared among workers">,
  ];
  let statistics = [
    Statistic<"numOutlined", "ops-outlined", "Number of ops outlined">,
    Statistic<"numFunctions", "functions", "Number of functions made">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::kvrm::KVRMDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

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

def ApproximateMathPass : Pass<"kvrm-approximate-math"> {
  let summary = "Expand exponentials and conversions of bfloat16";
  let description = [{
    Replaces `math.exp` by its polynomial approximation of a few units in the
    last place, which vectorises; a call of the C library would not. Conversions
    between `f32` and `bf16` become integer arithmetic, with rounding to nearest
    even: without AVX512-BF16 they would be calls of the compiler's library, one
    for each element, and a package is linked with none.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::math::MathDialect",
                           "::mlir::vector::VectorDialect"];
}

#endif // KVRM_CONVERSION_PASSES_TD
