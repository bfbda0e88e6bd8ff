//===- ScalarKernels.h - Ops on scalars, by name ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FUZZ_SCALARKERNELS_H
#define KVRM_FUZZ_SCALARKERNELS_H

#include "GraphInterpreter.h"

namespace fuzz {

/// What a kernel has to know of its op.
struct KernelInfo {
  /// Of integers, in bits: of the result, and of the first operand.
  unsigned width = 64, fromWidth = 64;
  uint64_t predicate = 0;
  /// The type that a real result is rounded to; null if it is not rounded.
  const llvm::fltSemantics *rounding = nullptr;
};

/// Null-terminated by convention of its op: as many operands as that has.
/// Clears `isDefined` where the op's result is not.
using Kernel = Scalar (*)(const KernelInfo &info, const Scalar *operands,
                          bool &isDefined);

/// Null for an op that is not known.
Kernel kernelOf(mlir::Operation &op);
KernelInfo infoOf(mlir::Operation &op, unsigned precision);

/// The number that the low bits of `value` are, as signed; of one bit 0 or 1.
int64_t wrap(int64_t value, unsigned width);

} // namespace fuzz

#endif // KVRM_FUZZ_SCALARKERNELS_H
