//===- TextStream.h - Text that a client may see ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Tokens to pieces of text. What may still turn out to be the start of a stop
// text, or of a character, is held back: nothing that was given out has to be
// taken back.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_TEXTSTREAM_H
#define KVRM_TOOLS_SERVE_TEXTSTREAM_H

#include "kvrm/text/Tokenizer.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::serve {

/// Ends a text before the stop text that is complete first; of two that end
/// together, before the longer one. How the text comes in pieces does not
/// matter.
class StopFilter {
public:
  explicit StopFilter(std::vector<std::string> stops)
      : stops(std::move(stops)) {}

  /// What may be seen now that `piece` is there; nothing once it has stopped.
  std::string push(std::string_view piece);
  /// The text is at its end: what was held back.
  std::string finish();
  bool isStopped() const { return stopped; }

private:
  size_t heldBytes() const;

  std::vector<std::string> stops; ///< none empty
  std::string held;               ///< the start of a stop text, no whole one
  bool stopped = false;
};

/// A place in the text that tokens have.
struct TextPosition {
  size_t bytes = 0;
  size_t characters = 0;
};

/// Characters of valid UTF-8.
size_t countCharacters(std::string_view text);

class TextStream {
public:
  /// Without a tokenizer (null) tokens have no text.
  TextStream(const Tokenizer *tokenizer, std::vector<std::string> stops);

  /// The text that `token` brings.
  std::string push(int32_t token);
  std::string finish();
  /// Whether a stop text was there. Tokens after it bring nothing.
  bool isStopped() const { return filter.isStopped(); }

  /// Where the text of `token` begins if it is the next, whether what is before
  /// it was given out or not. Tokens of one character are at its place.
  TextPosition placeOf(int32_t token) const;
  /// Whether text behind a place was given out, or none is left to be.
  bool isShown(const TextPosition &place) const {
    return place.bytes < shownBytes || isWhole;
  }

private:
  std::string filtered(const std::string &piece);

  const Tokenizer *tokenizer;
  std::optional<StreamDecoder> decoder;
  TextPosition decoded;
  size_t shownBytes = 0;
  StopFilter filter;
  bool isWhole = false; ///< tokens have no text, or all of it was given out
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_TEXTSTREAM_H
