//===- ByteAlphabet.h - The GPT-2 byte alphabet -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_BYTEALPHABET_H
#define KVRM_TEXT_BYTEALPHABET_H

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvrm {

/// Vocabularies and merges are written in an alphabet of one visible character
/// a byte. All characters are below U+0180, and so one or two bytes long.
class ByteAlphabet {
public:
  ByteAlphabet();

  const std::string &textOf(int byte) const {
    return texts[static_cast<size_t>(byte)];
  }
  /// The bytes that `text` stands for; nothing if it leaves the alphabet.
  std::optional<std::string> decode(std::string_view text) const;

private:
  std::array<int16_t, 0x180> bytes; ///< by character, -1 = none
  std::array<std::string, 256> texts;
};

} // namespace kvrm

#endif // KVRM_TEXT_BYTEALPHABET_H
