//===- TokenizerChecks.h - What tokenizers of all files share ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_TOKENIZERCHECKS_H
#define KVRM_FRONTEND_TOKENIZERCHECKS_H

#include "kvrm/Frontend/Model.h"

namespace kvrm {

/// Whether `text`, which is UTF-8, has only the characters that stand for bytes
/// in GPT-2's alphabet: visible ones of Latin-1 for themselves, and those from
/// U+0100 on for the other 68.
bool isInByteAlphabet(llvm::StringRef text);

/// Chat forms close every turn with a mark of their own, which the files may
/// name nowhere: eos is the end of a text or of a turn, and of a GGUF file
/// there is one, whatever else the model was trained to end with.
void addEndMarks(const TokenizerData &data, DecoderConfig &config);

} // namespace kvrm

#endif // KVRM_FRONTEND_TOKENIZERCHECKS_H
