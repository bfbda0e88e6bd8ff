//===- BlockCodes.h - What is in the blocks of GGML tensors -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_BLOCKCODES_H
#define KVRM_FRONTEND_BLOCKCODES_H

#include "kvrm/Frontend/Quantization.h"

#include <cstdint>
#include <optional>

namespace kvrm {

/// The format of a type in blocks; none of others.
std::optional<BlockFormat> blockFormatOf(GGMLType type);

/// The GGML type of a format.
GGMLType typeOf(BlockFormat format);

/// One block, field by field. What a format has not is not written.
struct BlockCodes {
  uint8_t codes[kMaxBlockElements]; ///< unsigned, with the format's offset
  uint16_t scale, minimum;          ///< halves
  int8_t subScales[kMaxBlockGroups];
  int8_t subMinima[kMaxBlockGroups];
};

/// Reads a block as GGUF stores it.
void unpackBlock(BlockFormat format, const uint8_t *in, BlockCodes &out);

} // namespace kvrm

#endif // KVRM_FRONTEND_BLOCKCODES_H
