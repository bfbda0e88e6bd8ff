//===- CodedWeights.h - Matrices brought to blocks --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What `kvrmc --weight-type` does where it names a block format: each group of
// neighbours is rounded to the nearest codes, with the largest magnitude, or
// both ends of a group with a minimum, as it is. That is no more than rounding:
// tools that look at activations lose less.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_CODEDWEIGHTS_H
#define KVRM_FRONTEND_CODEDWEIGHTS_H

#include "kvrm/Frontend/Model.h"

namespace kvrm {

/// The format of a name that `--weight-type` takes, such as "q8_0"; none of
/// others. Formats of 256 elements are read from files, but not made.
std::optional<BlockFormat> codedFormat(llvm::StringRef name);

/// All names that it takes, for a message.
std::string codedFormatNames();

/// Brings all matrices of a model to blocks of a format; those of a seed have
/// codes of that seed instead, so that the runtime can make them, too. Errors:
/// a matrix whose columns are no whole blocks.
llvm::Error codeMatrices(DecoderModel &model, BlockFormat format);

} // namespace kvrm

#endif // KVRM_FRONTEND_CODEDWEIGHTS_H
