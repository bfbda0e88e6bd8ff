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
// An i8 is a code, and its scale that of a row: the largest magnitude over 127,
// rounded up to bf16, so that no code is over 127. Where a magnitude is
// infinite or NaN the scale is, too, and where all are below 127 * 2^-126, so
// that it would be subnormal, it is 0; codes are then 0. CPUs and GPUs, which
// do not treat subnormals alike, thus agree bit for bit.
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
/// f32; of i8 the codes.
Value widenElements(ImplicitLocOpBuilder &b, Value stored, Type element);

/// An f32, or a vector of them, rounded to `element`, to nearest even, and
/// stored as above. For f8E4M3FN what is over 448 is cut off there, and NaN
/// stays NaN. Not for i8, which are of a row.
Value narrowElements(ImplicitLocOpBuilder &b, Value values, Type element);

// Rows of i8 and their scales, which are the bits of a bf16 in an i16.
/// What orders the magnitudes of an f32, or of a vector of them: i32, NaN above
/// all numbers.
Value magnitudesOf(ImplicitLocOpBuilder &b, Value values);
/// The scale of a row whose largest magnitude that is.
Value scaleOfRow(ImplicitLocOpBuilder &b, Value largestMagnitude);
/// A scale, or a vector of them, in f32.
Value widenScales(ImplicitLocOpBuilder &b, Value scales);
/// An f32, or a vector of them, of a row with that scale, an f32: codes, i8, to
/// nearest even.
Value narrowScaled(ImplicitLocOpBuilder &b, Value values, Value scale);

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_UTILS_STOREDELEMENTS_H
