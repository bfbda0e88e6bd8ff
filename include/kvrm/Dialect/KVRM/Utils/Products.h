//===- Products.h - What a library can run of a linear ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_UTILS_PRODUCTS_H
#define KVRM_DIALECT_UTILS_PRODUCTS_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

namespace mlir::kvrm {

/// Rows of activations up to which a kernel that streams the weight is ahead of
/// a library: measured, see docs/gpu-dense.md.
inline constexpr int64_t kStreamedRows = 32;

/// The same of a weight in blocks, which has to be unpacked for a library.
inline constexpr int64_t kStreamedBlockRows = 64;

/// Rows of a record of a weight in blocks: those of one half of an operand of
/// matrix units.
inline constexpr int64_t kMatrixPanel = 8;

/// Most parts of a linear that one tile of matrix units can hold rows of.
inline constexpr int64_t kTileParts = 2;

/// Rows of activations up to which the norm in front of a product is its
/// kernel's work. It reads them in f32, twice the bytes of normalized ones, for
/// all tiles that it has room for at once: with more a kernel for the norm is
/// ahead (docs/gpu-dense.md).
inline constexpr int64_t kNormalizedRows = 8;

/// Whether the weight is in blocks, whose values are not rounded: packed, or
/// the result of a kvrm.dequantize.
bool isInBlocks(LinearOp op);
bool isInBlocks(QKVProjectionOp op);

/// Whether operands are what matrix units take: f16 or bf16, what the product
/// reads and the weight the same; a depth of whole slices of 32. Of a weight in
/// blocks: parts or halves of heads of whole panels.
bool hasMatrixUnitShape(LinearOp op);
bool hasMatrixUnitShape(QKVProjectionOp op);

/// Whether they are what libraries are fast with, too: all columns a multiple
/// of 8.
bool hasProductShape(LinearOp op);
bool hasProductShape(QKVProjectionOp op);

/// Whether a kernel of a GPU takes a product together with the norm in front of
/// it. Says nothing of a product without a norm.
bool canNormalizeInKernel(LinearOp op);
bool canNormalizeInKernel(QKVProjectionOp op);

/// Puts a kvrm.rms_norm in front of a product that has a norm, which then has
/// none. `init` is what it stores to, a buffer or a tensor of the element that
/// the norm rounds to.
template <typename OpT> RmsNormOp takeNormOut(OpT op, Value init) {
  OpBuilder b(op);
  bool isTensor = isa<TensorType>(init.getType());
  auto norm =
      RmsNormOp::create(b, op.getLoc(), isTensor ? init.getType() : Type(),
                        op.getInput(), op.getGain(), init, op.getEpsilonAttr());
  op.getInputMutable().assign(isTensor ? norm.getResult() : init);
  op.getGainMutable().clear();
  op.removeEpsilonAttr();
  op.removeNormElementAttr();
  return norm;
}

/// Whether a library's product is all there is: no norm, and a body that
/// gives the sum to an f32 output or rounds it to one of the input's element,
/// or adds it to the one extra, all of [M, N] in f32. Says nothing of shapes.
bool hasProductBody(LinearOp op);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_UTILS_PRODUCTS_H
