//===- FolderTokenizer.h - Tokenizers in Hugging Face folders ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_FOLDERTOKENIZER_H
#define KVRM_FRONTEND_FOLDERTOKENIZER_H

#include "kvrm/Frontend/Model.h"

namespace kvrm {

/// Gives `model`, whose config is read, the tokenizer of its folder:
/// tokenizer.json and tokenizer_config.json. One that is not there or does what
/// the runtime does not leaves a note; what is malformed is an error.
llvm::Error readFolderTokenizer(llvm::StringRef folder, DecoderModel &model);

} // namespace kvrm

#endif // KVRM_FRONTEND_FOLDERTOKENIZER_H
