//===- ByteAlphabet.cpp - The GPT-2 byte alphabet ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ByteAlphabet.h"
#include "Utf8.h"

using namespace kvrm;

/// The character that stands for `byte` in vocabulary and merges: itself where
/// it is visible, else one from U+0100 on.
static uint32_t characterOfByte(int byte) {
  auto visible = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  if (visible(byte))
    return static_cast<uint32_t>(byte);
  uint32_t hidden = 0;
  for (int b = 0; b < byte; ++b)
    hidden += visible(b) ? 0 : 1;
  return 0x100 + hidden;
}

ByteAlphabet::ByteAlphabet() {
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) {
    uint32_t character = characterOfByte(byte);
    bytes[character] = static_cast<int16_t>(byte);
    appendUtf8(texts[static_cast<size_t>(byte)], character);
  }
}

std::optional<std::string> ByteAlphabet::decode(std::string_view text) const {
  std::string out;
  while (!text.empty()) {
    Utf8Prefix prefix = classifyUtf8(text);
    if (prefix.kind != Utf8Prefix::Valid || prefix.bytes > 2)
      return std::nullopt;
    uint32_t character =
        prefix.bytes == 1 ? static_cast<unsigned char>(text[0])
                          : (static_cast<unsigned char>(text[0]) & 0x1fu) << 6 |
                                (static_cast<unsigned char>(text[1]) & 0x3fu);
    if (character >= bytes.size() || bytes[character] < 0)
      return std::nullopt;
    out.push_back(static_cast<char>(bytes[character]));
    text.remove_prefix(prefix.bytes);
  }
  return out;
}
