//===- Text.h - Texts that know who wrote them ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Strings of a template. Whatever a template does to a string, each byte stays
// known as the template's own or as one of a message: only the first kind may
// become special tokens. Positions and counts are those of characters, as in
// Python, where it says so, else bytes. A byte that is no UTF-8 is a character.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_TEXT_H
#define KVRM_TEXT_JINJA_TEXT_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::jinja {

enum class Owner : char { Template, Message };

class Text {
public:
  Text() = default;
  explicit Text(std::string_view bytes, Owner owner = Owner::Template)
      : content(bytes), owners(bytes.size(), static_cast<char>(owner)) {}

  const std::string &bytes() const { return content; }
  size_t size() const { return content.size(); }
  bool isEmpty() const { return content.empty(); }
  Owner ownerAt(size_t byte) const { return static_cast<Owner>(owners[byte]); }

  void append(const Text &other);
  Text part(size_t byte, size_t count = std::string::npos) const;
  /// The text with other bytes of the same number and owners.
  Text withBytes(std::string bytes) const;

  bool operator==(const Text &other) const { return content == other.content; }

private:
  std::string content;
  std::string owners; ///< one a byte
};

/// Bytes of the character at the start of `text`, which is not empty.
size_t characterBytes(std::string_view text);
/// The character at the start of `text`; a byte that is none stands for itself.
uint32_t characterAt(std::string_view text);
/// Where each character starts, and the end.
std::vector<size_t> characterStarts(std::string_view text);
bool isAscii(std::string_view text);

/// White space as Python's str.isspace() has it.
bool isSpace(uint32_t character);
/// Bytes of white space at the start, and the text up to that at the end.
size_t spaceAtStart(std::string_view text);
std::string_view withoutSpaceAtEnd(std::string_view text);

enum class Side { Left, Right, Both };
/// Without white space, or without any of the characters of `set`, at a side.
Text strip(const Text &text, Side side,
           std::optional<std::string_view> set = std::nullopt);
/// The parts between white space; at most `most` cuts unless that is negative.
std::vector<Text> splitAtSpace(const Text &text, int64_t most);
/// The parts between `separator`, which is not empty. `fromRight` counts the
/// cuts from the end.
std::vector<Text> splitAt(const Text &text, std::string_view separator,
                          int64_t most, bool fromRight);
std::vector<Text> splitLines(const Text &text);
/// With `with` for `what`, which may be empty: then it is put between all
/// characters. At most `most` times unless that is negative.
Text replace(const Text &text, std::string_view what, const Text &with,
             int64_t most);

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_TEXT_H
