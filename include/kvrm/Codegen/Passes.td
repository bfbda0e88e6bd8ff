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
    tile, schedule and transport stay behind on the step, as `kvrm.plans`, for
    the runtime's planner. The tile programs are the same for every target.
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

    The pool must have the layout `transposed_keys`. Any `head_dim` goes that is
    a multiple of the lanes, and so do pages.
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

def LowerKernelsToNVVMPass
    : Pass<"kvrm-lower-kernels-to-nvvm", "::mlir::ModuleOp"> {
  let summary = "Lower tile programs to kernels for NVIDIA GPUs";
  let description = [{
    Adds `gpu.module @kvrm_kernels`, with kernels in the LLVM, NVVM and SCF
    dialects. Each takes the fields of `kvrm_device_args` (abi.h). For a tile
    program that attends there are two: `_workqueue`, a persistent grid over the
    shares that the runtime planned, and `_cluster`, in which one cluster of
    blocks attends to one row, KV head and query tile; both write final results,
    merging partial softmax states on the way. A tile program that appends
    becomes one kernel, and one more, `commit`, applies what changed in a step's
    descriptor. The tile programs stay: steps launch kernels by their names.

    Warps attend to strips of 16 or 32 tokens on their own, with matrix units
    (`nvvm.mma.sync`), out of a ring of shared memory that copies from pages
    keep full: bulk copies that complete on an mbarrier for `sm_90`, `cp.async`
    for `sm_80`. On `sm_90` kernels use programmatic dependent launch, and fetch
    history before the kernels that make the queries have finished. The pool
    must have the layout `swizzled`.
  }];
  let options = [
    Option<"arch", "arch", "std::string", /*default=*/[{"sm_90"}],
           "GPU architecture: sm_80 or sm_90">,
    Option<"warps", "warps", "int64_t", /*default=*/"0",
           "Warps of an attention block, a power of two; 0: as suits head_dim">,
    Option<"stages", "stages", "int64_t", /*default=*/"0",
           "Strips that a warp keeps in flight; 0: what shared memory allows">,
    Option<"blocksPerSM", "blocks-per-sm", "int64_t", /*default=*/"1",
           "Attention blocks that share a multiprocessor">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::gpu::GPUDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect",
    "::mlir::scf::SCFDialect"];
}

def LowerDenseToNVVMPass
    : Pass<"kvrm-lower-dense-to-nvvm", "::mlir::ModuleOp"> {
  let summary = "Lower the dense part of steps to kernels for NVIDIA GPUs";
  let description = [{
    Every `kvrm.linear`, `kvrm.qkv_projection`, `kvrm.rms_norm` and linalg op of
    a bufferized step becomes a `kvrm.device_dispatch` of a kernel in the
    `gpu.module` that `kvrm-lower-kernels-to-nvvm` made; equal ops share one. A
    linear of 2-byte elements runs on matrix units, its weights streamed through
    shared memory before the kernel waits for its input (`sm_90`). An op that no
    other kernel takes becomes loops, a thread an element: no step is refused
    for one. The kernel of `kvrm.sample` is written too.

    A projection's kernel stores keys and values straight to their pages where
    an append follows that alone uses them; the launch of the append goes.
    A norm in front of a product is part of its kernel where another product of
    at most 8 rows has stored all that it reads: that one's kernel then adds up
    the squares of what it stores, too. Other norms become kernels. Norms in
    front of products that matrix units do not take, and such projections, are
    errors: `kvrm-split-products` makes them ops of their own.

    A linear of more than 32 rows that is a product and at most a cast or an
    addend, which `kvrm-split-products` sees to, becomes a
    `kvrm.device_product`: a library's where the runtime has one, and that same
    kernel where not.
  }];
  let options = [
    Option<"arch", "arch", "std::string", /*default=*/[{"sm_90"}],
           "GPU architecture: sm_80 or sm_90">,
  ];
  let statistics = [
    Statistic<"numLowered", "ops-lowered", "Number of ops lowered">,
    Statistic<"numKernels", "kernels", "Number of kernels written">,
    Statistic<"numAppends", "appends",
              "Number of appends that went into projections">,
    Statistic<"numProducts", "products",
              "Number of ops lowered that a library can run">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::kvrm::KVRMDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::math::MathDialect",
    "::mlir::memref::MemRefDialect", "::mlir::NVVM::NVVMDialect",
    "::mlir::scf::SCFDialect"];
}

def SampleOnDevicePass
    : Pass<"kvrm-sample-on-device", "::mlir::ModuleOp"> {
  let summary = "End steps with the choice of their rows' next tokens";
  let description = [{
    Adds a `kvrm.sample` of the logits to the end of each bufferized step that
    has some, so that tokens leave the device and logits only if somebody wants
    them.
  }];
  let dependentDialects = ["::mlir::kvrm::KVRMDialect"];
}

def LowerDenseToHostPass
    : Pass<"kvrm-lower-dense-to-host", "::mlir::ModuleOp"> {
  let summary = "Lower the functions of the dense part to a CPU";
  let description = [{
    Lowers the linalg ops of the functions that steps dispatch. A contraction
    with a weight in panels, as `kvrm-pack-weights` writes it, is recognised by
    its maps and body and becomes a register-tiled vector kernel, which takes
    over a zero-fill before it; so does a `kvrm.block_product`, whose codes are
    unpacked in registers. Anything else becomes loops.

    `dot` says what multiplies codes of eight bits: `vnni`, four products and
    their sum at once; `maddubs`, two; or `none`, where a product of quantised
    activations is an error.
  }];
  let options = [
    Option<"lanes", "lanes", "int64_t", /*default=*/"16",
           "f32 lanes of a vector register">,
    Option<"dot", "dot", "std::string", /*default=*/[{"vnni"}],
           "What multiplies codes: vnni, maddubs or none">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::LLVM::LLVMDialect",
    "::mlir::math::MathDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

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

#endif // KVRM_CODEGEN_PASSES_TD
