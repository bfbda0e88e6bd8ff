//===- Tokenizer.h - Text to token ids and back -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Byte-level BPE, as GPT-2 and the models after it use it, loaded from a
// package's tokenizer.json (see docs/package.md).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_TOKENIZER_H
#define KVRM_TEXT_TOKENIZER_H

#include "kvrm/runtime/support/Status.h"
#include "kvrm/text/TextPart.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

class ChatTemplate;

/// Immutable once loaded: threads may share one.
class Tokenizer {
public:
  static Expected<Tokenizer> load(const std::string &path);
  /// `name` is what messages start with.
  static Expected<Tokenizer> parse(std::string_view json,
                                   const std::string &name);
  Tokenizer(Tokenizer &&) noexcept;
  Tokenizer &operator=(Tokenizer &&) noexcept;
  ~Tokenizer();

  /// The ids of `text`, which need not be valid UTF-8. Added tokens are matched
  /// verbatim; special ones only with `parseSpecial`. No BOS is put in front:
  /// see addBos. A byte that the vocabulary lacks is left out.
  Expected<std::vector<int32_t>> encode(std::string_view text,
                                        bool parseSpecial = true) const;
  /// The ids of parts in a row, which are one text.
  Expected<std::vector<int32_t>> encode(std::span<const TextPart> parts) const;

  /// The text of `ids`: valid UTF-8, with U+FFFD in the place of what is not.
  /// Ids without a text, and special tokens with `skipSpecial`, give nothing.
  std::string decode(std::span<const int32_t> ids,
                     bool skipSpecial = false) const;

  /// The bytes that a token stands for. Empty for an id without a text.
  std::string_view bytesOf(int32_t id) const;
  bool isSpecial(int32_t id) const;
  /// The id of the added token that reads `content`; -1 if there is none.
  int32_t addedToken(std::string_view content) const;
  /// One more than the greatest id.
  int32_t size() const;
  int32_t bos() const; ///< -1: none
  int32_t eos() const; ///< -1: none
  /// Whether the model expects BOS at the start of a prompt.
  bool addBos() const;
  /// The model's Jinja template for conversations; empty if it has none.
  const std::string &chatTemplate() const;
  /// The same, to be rendered. It lives as long as the tokenizer. Errors:
  /// InvalidArgument if there is none, or it is not done here.
  Expected<const ChatTemplate *> chatForm() const;

  struct State;

private:
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state;
};

/// Decodes tokens one at a time. Bytes that may be the start of a character are
/// held back until it is complete, so that every piece is valid UTF-8. All
/// pieces together are what Tokenizer::decode gives.
class StreamDecoder {
public:
  explicit StreamDecoder(const Tokenizer &tokenizer, bool skipSpecial = false)
      : tokenizer(&tokenizer), skipSpecial(skipSpecial) {}

  /// The text that `id` completes.
  std::string push(int32_t id);
  /// What is left at the end: nothing, or U+FFFD for an incomplete character.
  std::string finish();
  /// Whether the start of a character is held back.
  bool isHolding() const { return !held.empty(); }

private:
  const Tokenizer *tokenizer;
  bool skipSpecial;
  std::string held;
};

} // namespace kvrm

#endif // KVRM_TEXT_TOKENIZER_H
