//===- Passes.td - Kernel generation -----------------------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_PASSES_TD
#define KVRM_CODEGEN_PASSES_TD

include "mlir/Pass/PassBase.td"

def GenerateKernelsPass : Pass<"kvrm-generate-kernels", "::mlir::ModuleOp"> {
  let summary = "Write the tile programs and launch them";
  let description = [{
    Takes each step from phase 2 to phase 3. For every distinct head shape,
    tile, transport, element type and layout it writes one `kvrm.kernel`: an
    online-softmax attention over KV tiles (Flash-Decoding), and one that
    appends. `kvrm.attend` and `kvrm.append` become launches of them; the
    schedule stays behind on the step, as `kvrm.schedule`, for the runtime's
    planner. The tile programs are the same for every target.
  }];
  let statistics = [
    Statistic<"numKernels", "kernels", "Number of kernels written">,
    Statistic<"numLaunches", "launches", "Number of launches made">,
  ];
  let dependentDialects = ["::mlir::kvrm::KVRMDialect",
                           "::mlir::scf::SCFDialect",
                           "::mlir::tensor::TensorDialect"];
}

def LowerKernelsToHostPass
    : Pass<"kvrm-lower-kernels-to-host", "::mlir::ModuleOp"> {
  let summary = "Lower tile programs to vector code for a CPU";
  let description = [{
    Turns each `kvrm.kernel` into a function with the signature of
    `kvrm_attention_kernel` or `kvrm_append_kernel` (abi.h). Lanes run along
    tokens for scores (keys lie transposed in a page) and along head_dim for the
    weighted sum, so that a K or V element is loaded and widened once for all
    query rows and no dot product needs a horizontal sum. Scores, weights and
    the softmax state live in the worker's scratch memory, which stays in the
    first-level cache; accumulators are in registers within a tile.

    The pool must have the layout `transposed_keys`.
  }];
  let options = [
    Option<"lanes", "lanes", "int64_t", /*default=*/"16",
           "f32 lanes of a vector register: 16 for AVX-512, 8 for AVX2">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::math::MathDialect",
    "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

#endif // KVRM_CODEGEN_PASSES_TD
