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

class TextStream {
public:
  /// Without a tokenizer (null) tokens have no text.
  TextStream(const Tokenizer *tokenizer, std::vector<std::string> stops);

  /// The text that `token` brings.
  std::string push(int32_t token);
  std::string finish();
  /// Whether a stop text was there. Tokens after it bring nothing.
  bool isStopped() const { return filter.isStopped(); }

private:
  std::optional<StreamDecoder> decoder;
  StopFilter filter;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_TEXTSTREAM_H
