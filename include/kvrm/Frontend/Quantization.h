//===- Quantization.h - Block formats of GGML tensors -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The element formats of GGUF tensors and their conversion to float. Layouts
// are those of ggml-common.h (https://github.com/ggml-org/ggml).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_QUANTIZATION_H
#define KVRM_FRONTEND_QUANTIZATION_H

#include "kvrm/runtime/abi/block_format.h"

#include "llvm/ADT/StringRef.h"

#include <cstdint>

namespace kvrm {

using kvrmblocks::BlockFormat;
using kvrmblocks::BlockShape;
using kvrmblocks::kMaxBlockElements;
using kvrmblocks::kMaxBlockGroups;
using kvrmblocks::kStretch;
using kvrmblocks::shapeOf;

/// ggml_type. Only the values that kvrm can read.
enum class GGMLType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  BF16 = 30
};

struct GGMLTypeInfo {
  const char *name;
  int64_t blockElements;
  int64_t blockBytes;
  /// Converts `blocks` blocks.
  void (*toFloat)(const uint8_t *in, int64_t blocks, float *out);
};

/// Null if kvrm cannot read this ggml_type.
const GGMLTypeInfo *lookupGGMLType(uint32_t type);

/// Of a type that kvrm can read.
const GGMLTypeInfo &infoOf(GGMLType type);

/// The exact value of an IEEE half.
float halfToFloat(uint16_t bits);

/// Converts `count` elements, a multiple of the type's block.
void dequantize(GGMLType type, const uint8_t *in, int64_t count, float *out);

} // namespace kvrm

#endif // KVRM_FRONTEND_QUANTIZATION_H
