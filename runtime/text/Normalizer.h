//===- Normalizer.h - A text as the BPE gets it -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_NORMALIZER_H
#define KVRM_TEXT_NORMALIZER_H

#include <string>
#include <string_view>

namespace kvrm {

/// Where a text between added tokens gets a space in front.
enum class SpacePrefix {
  None,
  First, ///< at the beginning of all, unless one is there
  Each,  ///< behind added tokens too
  Always ///< and even if one is there
};

/// What is done to a text before it is split into words.
struct Normalizer {
  bool toNFC = false;
  /// Spaces become U+2581, as SentencePiece has it.
  bool marksSpaces = false;
  SpacePrefix prefix = SpacePrefix::None;

  bool changesNothing() const { return !toNFC && !marksSpaces; }
  /// `isFirst`: no token is in front. What is not UTF-8 stays as it is.
  std::string run(std::string_view text, bool isFirst) const;
};

inline constexpr std::string_view spaceMark = "\xe2\x96\x81";

/// The text with a space for each mark.
std::string unmarkSpaces(std::string_view text);

/// Bytes of the white space at the start of a text.
size_t countSpaceAtStart(std::string_view text);

/// A text up to the white space at its end.
std::string_view withoutSpaceAtEnd(std::string_view text);

} // namespace kvrm

#endif // KVRM_TEXT_NORMALIZER_H
