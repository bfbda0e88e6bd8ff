//===- RowSquares.h - What norms need of whole rows, on a GPU ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A norm in front of a product needs one number of each whole row, the sum of
// its squares. The product that stores the rows has them in registers: each of
// its tiles adds up the squares of its columns, and the product behind the norm
// adds up the tiles' sums. So no kernel goes over the rows ahead of it, and
// each element is normalized where it is used.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_ROWSQUARES_H
#define KVRM_CODEGEN_NVVM_ROWSQUARES_H

#include "DeviceKernel.h"

#include "llvm/ADT/DenseMap.h"

namespace mlir::kvrm {

/// Buffers of f32 [M, parts]: sums of the squares of M rows, each of some of
/// the columns. Null where a product has none.
struct RowSquares {
  Value taken; ///< of the input, for the norm in front
  Value made;  ///< of the output

  /// Whether one kernel does for both: nothing but addresses differs.
  bool isLike(const RowSquares &other) const {
    auto typeOf = [](Value value) { return value ? value.getType() : Type(); };
    return typeOf(taken) == typeOf(other.taken) &&
           typeOf(made) == typeOf(other.made);
  }
};

/// The squares of the products of a step, on buffers, for all that have a norm
/// in front and a product that stores their rows. From others, and from those
/// of too many rows, the norm is taken out, a kvrm.rms_norm of its own.
llvm::DenseMap<Operation *, RowSquares>
shareRowSquares(func::FuncOp step, const DeviceOptions &options);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_ROWSQUARES_H
