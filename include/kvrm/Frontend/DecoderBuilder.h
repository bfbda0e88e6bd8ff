//===- DecoderBuilder.h - A decoder as phase-1 IR ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds the two entry points of a Llama decoder as static graphs:
//
//   decode_step  one token for each slot; the logits of every slot
//   prefill      a chunk of tokens for one slot; the logits of the last one
//
// The dense part is in linalg, attention is `kvrm.cached_attention`, weights
// are `ml_program` globals with the names of Model.h and no values. Activations
// are f32, matrices f16 or bf16, norms and RoPE tables f32.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_DECODERBUILDER_H
#define KVRM_FRONTEND_DECODERBUILDER_H

#include "kvrm/Frontend/Model.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace kvrm {

/// The sizes that a static graph fixes beside the model's own.
struct GraphShape {
  int64_t slots = 8;
  int64_t capacity = 2048;   ///< tokens a slot
  int64_t prefillChunk = 64; ///< query tokens of one prefill step
  bool bf16Cache = false;    ///< KV in bf16, else f16
  bool bf16Weights = false;  ///< matrices in bf16, else f16
};

/// Loads the dialects that the graph uses into `context` and builds it. Fails
/// on a model that the graph cannot express, and on a shape outside the limits
/// of abi.h.
llvm::Expected<mlir::OwningOpRef<mlir::ModuleOp>>
buildDecoder(mlir::MLIRContext &context, const DecoderConfig &config,
             const GraphShape &shape);

} // namespace kvrm

#endif // KVRM_FRONTEND_DECODERBUILDER_H
