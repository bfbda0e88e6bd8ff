//===- F8Codes.h - Codes of f8E4M3FN on a GPU ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Between the bytes of a cache, or of weights, and what matrix units take, f16
// or bf16, two to a register. sm_90 has instructions from codes to f16 and from
// f32 to codes; sm_80, and codes to bf16, are a few integer operations on both
// at once.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_F8CODES_H
#define KVRM_CODEGEN_NVVM_F8CODES_H

#include "DeviceKernel.h"

namespace mlir::kvrm {

class F8Codes {
public:
  /// `io` is f16 or bf16.
  F8Codes(DeviceBuilder &b, const DeviceOptions &options, Type io)
      : b(b), options(options), io(io) {}

  /// Of the four codes of a word: the values of bytes 0 and 1, and of bytes 2
  /// and 3, the first of each in the low half.
  std::array<Value, 2> widen(Value word);
  /// The codes of two f32, in an i16, the first in its low byte.
  Value narrow(Value low, Value high);
  /// The code of an f32, an i8.
  Value narrow(Value value);
  /// The same of a word of two values of `io`.
  Value narrowPair(Value word);

private:
  Value widenHigh(Value codes);

  DeviceBuilder &b;
  DeviceOptions options;
  Type io;
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_F8CODES_H
