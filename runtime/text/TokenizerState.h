//===- TokenizerState.h - What a tokenizer knows ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_TOKENIZERSTATE_H
#define KVRM_TEXT_TOKENIZERSTATE_H

#include "Normalizer.h"

#include "kvrm/text/ChatTemplate.h"
#include "kvrm/text/Tokenizer.h"

#include <array>
#include <unordered_map>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace kvrm {

struct CodeDeleter {
  void operator()(pcre2_code *code) const { pcre2_code_free(code); }
};
using Pattern = std::unique_ptr<pcre2_code, CodeDeleter>;

/// What two neighbouring tokens become. A lower rank goes first.
struct Merge {
  int32_t rank;
  int32_t token;
};

struct AddedToken {
  std::string content;
  int32_t id;
  bool special;
  /// White space before or behind it is of the token.
  bool stripsBefore = false;
  bool stripsBehind = false;
};

inline uint64_t pairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
         static_cast<uint32_t>(right);
}

struct Tokenizer::State {
  std::vector<std::string> bytes; ///< of each id
  std::vector<bool> special;      ///< of each id
  Normalizer normalizer;
  std::array<int32_t, 256> byteTokens; ///< -1: there is none
  /// Over characters, those that are tokens; a byte of others is a token.
  bool isOverCharacters = false;
  std::unordered_map<std::string, int32_t> characters;
  std::unordered_map<uint64_t, Merge> merges;
  /// Whole words, as they are normalized. Only filled with `ignoreMerges`.
  std::unordered_map<std::string, int32_t> words;
  bool ignoreMerges = false;
  /// By first byte; longest first.
  std::array<std::vector<AddedToken>, 256> added;
  std::vector<Pattern> patterns;
  int32_t bos = -1;
  int32_t eos = -1;
  bool addBos = false;
  std::string chatTemplate;
  Expected<ChatTemplate> chatForm =
      invalidArgument("the package has no chat template");

  /// The added token at the start of `text`, or null. A special one has to be
  /// within the first `trusted` bytes.
  const AddedToken *addedAt(std::string_view text, size_t trusted) const;
  Status splitWords(std::string_view text,
                    std::vector<std::string_view> &words) const;
  Status encodePlain(std::string_view text, bool isFirst,
                     std::vector<int32_t> &ids) const;
  void encodeWord(std::string_view word, std::vector<int32_t> &ids) const;
};

/// Fills a state from a tokenizer.json. `name` is what messages start with.
/// Errors: Corrupt.
Status loadState(std::string_view text, const std::string &name,
                 Tokenizer::State &state);

} // namespace kvrm

#endif // KVRM_TEXT_TOKENIZERSTATE_H
