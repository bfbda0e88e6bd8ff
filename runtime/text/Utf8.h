//===- Utf8.h - Characters in bytes -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_UTF8_H
#define KVRM_TEXT_UTF8_H

#include <cstdint>
#include <string>
#include <string_view>

namespace kvrm {

/// What the start of a text is.
struct Utf8Prefix {
  enum { Valid, Invalid, Incomplete } kind;
  size_t bytes; ///< of the character, or of the part to replace
};

/// Classifies the start of a text that is not empty. An invalid part is as long
/// as it could be the start of a character (Unicode 15, section 3.9, "maximal
/// subparts").
Utf8Prefix classifyUtf8(std::string_view text);

enum class Utf8End { Held, Replaced };
/// Moves what is complete from the start of `bytes` to `out`, with U+FFFD for
/// what is not valid. An incomplete character at the end is held back in
/// `bytes`, or replaced too.
void takeUtf8(std::string &bytes, std::string &out, Utf8End end);

/// Appends a character below U+0800.
void appendUtf8(std::string &out, uint32_t character);

} // namespace kvrm

#endif // KVRM_TEXT_UTF8_H
