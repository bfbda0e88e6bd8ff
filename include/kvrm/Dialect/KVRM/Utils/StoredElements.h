//===- StoredElements.h - Elements to f32 and back --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a cache holds, or blocks of a weight, as kernels compute with it. For 16
// bits there are instructions. For f8E4M3FN CPUs and older GPUs have none, and
// MLIR has no lowering of its casts, so that they are integer arithmetic here.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_UTILS_STOREDELEMENTS_H
#define KVRM_DIALECT_KVRM_UTILS_STOREDELEMENTS_H

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {

/// The type to load and store an element as: f8E4M3FN is an i8, as LLVM has no
/// such type.
Type getStoredType(Type element);

/// The values of one `element`, or of a vector of them, stored as above, in
/// f32.
Value widenElements(ImplicitLocOpBuilder &b, Value stored, Type element);

/// An f32, or a vector of them, rounded to `element`, to nearest even, and
/// stored as above. For f8E4M3FN what is over 448 is cut off there, and NaN
/// stays NaN.
Value narrowElements(ImplicitLocOpBuilder &b, Value values, Type element);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_STOREDELEMENTS_H
