//===- GGUFTokenizer.h - Tokenizers in GGUF files ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_GGUFTOKENIZER_H
#define KVRM_FRONTEND_GGUFTOKENIZER_H

#include "kvrm/Frontend/GGUF.h"
#include "kvrm/Frontend/Model.h"

namespace kvrm {

/// Gives `model`, whose config is read, the tokenizer of its file. One that is
/// not there or of another kind leaves a note; what is malformed is an error.
llvm::Error readTokenizer(const GGUFFile &file, DecoderModel &model);

} // namespace kvrm

#endif // KVRM_FRONTEND_GGUFTOKENIZER_H
