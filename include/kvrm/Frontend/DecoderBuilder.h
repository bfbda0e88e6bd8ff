//===- DecoderBuilder.h - A decoder as phase-1 IR ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds the entry points of a Llama decoder as static graphs:
//
//   decode_step  one token for each slot; the logits of every slot
//   prefill      a chunk of tokens for one slot; the logits of the last one
//   mixed_step   both in one, so that the weights are read once; the logits of
//                every slot, then those of the chunk. On demand
//
// The dense part is in linalg, attention is `kvrm.cached_attention`, weights
// are `ml_program` globals with the names of Model.h and no values. Matrices
// are f16 or bf16, or in blocks, which `kvrm.dequantize` gives the values of;
// norms and RoPE tables are f32. Sums, the residual stream and
// logits are f32; what a product or attention reads is of the shape's
// `activations`.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_DECODERBUILDER_H
#define KVRM_FRONTEND_DECODERBUILDER_H

#include "kvrm/Frontend/Model.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace kvrm {

/// Elements of what products and attention read.
enum class ActivationType { F32, F16, BF16 };

/// The sizes that a static graph fixes beside the model's own.
struct GraphShape {
  int64_t slots = 8;
  int64_t capacity = 2048;       ///< tokens a slot
  int64_t prefillChunk = 64;     ///< query tokens of one prefill step
  bool mixes = false;            ///< there is a mixed_step
  kvrm_element cache = KVRM_F16; ///< of KV
  bool bf16Weights = false;      ///< matrices in bf16, else f16
  /// DecoderModel::matricesInBlocks(), to keep them in blocks.
  // Set, so that initializers may leave it out.
  // NOLINTNEXTLINE(readability-redundant-member-init)
  MatrixPieces pieces = {};
  /// CPUs take f32, GPUs the element of the cache, or either of 16 bits with a
  /// cache of 8: normalized rows, queries, keys, values, what attention
  /// returns, and the gated feed-forward.
  ActivationType activations = ActivationType::F32;
};

/// Loads the dialects that the graph uses into `context` and builds it. Fails
/// on a model that the graph cannot express, on a shape outside the limits of
/// abi.h, and on activations of 16 bits over a cache of 16 bits of another
/// element.
llvm::Expected<mlir::OwningOpRef<mlir::ModuleOp>>
buildDecoder(mlir::MLIRContext &context, const DecoderConfig &config,
             const GraphShape &shape);

} // namespace kvrm

#endif // KVRM_FRONTEND_DECODERBUILDER_H
