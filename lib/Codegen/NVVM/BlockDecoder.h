//===- BlockDecoder.h - What a lane reads of blocks -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A weight in blocks lies in records of the blocks that 8 rows have at one
// place (kvrm/runtime/abi/block_format.h): 8 rows are what an operand of matrix
// units has of one half, so that a warp finds a stretch of 32 elements of them
// in words that follow one another, one a lane.
//
// Lane 4g + t has row g and of each stretch elements 4t to 4t + 3 and 16 + 4t
// to 16 + 4t + 3.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_BLOCKDECODER_H
#define KVRM_CODEGEN_NVVM_BLOCKDECODER_H

#include "F8Codes.h"

#include "kvrm/Dialect/KVRM/Utils/Products.h"

namespace mlir::kvrm {

class BlockDecoder {
public:
  /// Loads a value of a type, that many bytes from where the record starts.
  using Loader = function_ref<Value(Type, Value)>;

  /// `element`, f16 or bf16, is what codes become.
  BlockDecoder(DeviceBuilder &b, const DeviceOptions &options,
               BlockFormat format, Type element, Value lane)
      : b(b), shape(getShape(format)), element(element),
        floats(b, options, element), row(b.shiftRight(lane, 2)),
        quarter(b.bitAnd(lane, 3)) {}

  /// Four pairs of the lane's elements of a stretch of a record: codes less
  /// their offset, or what floats stand for; both are exact.
  SmallVector<Value, 4> codes(Value stretch, Loader load);
  /// What codes of a group are multiplied with, f32.
  Value scale(Value group, Loader load);
  /// What is then added, f32. Of formats with minima.
  Value minimum(Value group, Loader load);

private:
  Value halfAt(int64_t place, Loader load);
  Value ofGroup(int64_t place, Value group, Loader load);
  Value planeBits(Value plane, Value shift, int64_t mask);
  SmallVector<Value, 2> codeBytes(Value stretch, Loader load);
  Value pair(Value bytes, int64_t first);
  Value widePair(Value bytes, int64_t first);

  DeviceBuilder &b;
  kvrmblocks::BlockShape shape;
  Type element;
  F8Codes floats;
  Value row, quarter;
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_BLOCKDECODER_H
