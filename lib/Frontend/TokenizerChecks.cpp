//===- TokenizerChecks.cpp - What tokenizers of all files share -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TokenizerChecks.h"

#include "llvm/ADT/STLExtras.h"

using namespace kvrm;
using llvm::StringRef;

bool kvrm::isInByteAlphabet(StringRef text) {
  const char *at = text.begin();
  while (at != text.end()) {
    auto first = static_cast<unsigned char>(*at++);
    unsigned character = first;
    if (first >= 0x80) {
      if (first >= 0xe0)
        return false;
      character = (first & 0x1fu) << 6 | (static_cast<unsigned>(*at++) & 0x3fu);
    }
    bool isVisible = (character >= '!' && character <= '~') ||
                     (character >= 0xa1 && character <= 0xff);
    bool isSoftHyphen = character == 0xad;
    bool isStandIn = character >= 0x100 && character < 0x100 + 68;
    if (!(isVisible && !isSoftHyphen) && !isStandIn)
      return false;
  }
  return true;
}

void kvrm::addEndMarks(const TokenizerData &data, DecoderConfig &config) {
  static constexpr StringRef marks[] = {
      // Of turns.
      "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>",
      // Of texts.
      "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"};
  auto isAdded = [](TokenizerData::Kind kind) {
    return kind == TokenizerData::Kind::Special ||
           kind == TokenizerData::Kind::UserDefined;
  };
  for (auto [id, token, kind] : llvm::enumerate(data.tokens, data.kinds))
    if (isAdded(kind) && llvm::is_contained(marks, StringRef(token)))
      config.addEnd(static_cast<int32_t>(id));
}
