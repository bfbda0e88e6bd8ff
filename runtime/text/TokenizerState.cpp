//===- TokenizerState.cpp - Text to words, and words to ids -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TokenizerState.h"

#include "Utf8.h"

#include <algorithm>
#include <queue>

using namespace kvrm;

const AddedToken *Tokenizer::State::addedAt(std::string_view text,
                                            size_t trusted) const {
  for (const AddedToken &token : added[static_cast<unsigned char>(text[0])])
    if ((!token.special || token.content.size() <= trusted) &&
        text.starts_with(token.content))
      return &token;
  return nullptr;
}

//===----------------------------------------------------------------------===//
// Words
//===----------------------------------------------------------------------===//

namespace {
struct MatchDeleter {
  void operator()(pcre2_match_data *data) const { pcre2_match_data_free(data); }
};
} // namespace

/// Appends to `pieces` the matches of `pattern` in `text` and what is between
/// them.
static Status split(const Pattern &pattern, std::string_view text,
                    pcre2_match_data *match,
                    std::vector<std::string_view> &pieces) {
  auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t done = 0;
  size_t from = 0;
  auto take = [&](size_t end) {
    if (end > done)
      pieces.push_back(text.substr(done, end - done));
    done = end;
  };
  while (from < text.size()) {
    int result = pcre2_match(pattern.get(), subject, text.size(), from, 0,
                             match, nullptr);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
      result = pcre2_match(pattern.get(), subject, text.size(), from,
                           PCRE2_NO_JIT, match, nullptr);
    if (result == PCRE2_ERROR_NOMATCH)
      break;
    if (result < 0) {
      PCRE2_UCHAR message[120] = {};
      pcre2_get_error_message(result, message, sizeof(message));
      return makeError(StatusCode::InvalidArgument,
                       "the tokenizer's pattern failed on the text: ",
                       reinterpret_cast<const char *>(message));
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
    size_t begin = range[0];
    size_t end = range[1];
    if (end <= begin) { // an empty match splits nothing
      from = std::max(from, begin) + 1;
      continue;
    }
    take(begin);
    take(end);
    from = end;
  }
  take(text.size());
  return Status::ok();
}

Status
Tokenizer::State::splitWords(std::string_view text,
                             std::vector<std::string_view> &words) const {
  std::unique_ptr<pcre2_match_data, MatchDeleter> match(
      pcre2_match_data_create(1, nullptr));
  if (!match)
    return makeError(StatusCode::ResourceExhausted,
                     "no memory to split a text into words");
  words = {text};
  std::vector<std::string_view> pieces;
  for (const Pattern &pattern : patterns) {
    pieces.clear();
    for (std::string_view word : words)
      KVRM_TRY(split(pattern, word, match.get(), pieces));
    words.swap(pieces);
  }
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Byte pairs
//===----------------------------------------------------------------------===//

namespace {
/// Merges the tokens of one word, best pair first, the leftmost of equals.
class WordMerger {
public:
  explicit WordMerger(const std::unordered_map<uint64_t, Merge> &merges)
      : merges(merges) {}

  void add(int32_t token) {
    auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({token, index - 1, index + 1});
  }

  void run(std::vector<int32_t> &ids) {
    if (symbols.empty())
      return;
    symbols.back().next = -1;
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      consider(static_cast<int32_t>(i));
    while (!queue.empty()) {
      Candidate best = queue.top();
      queue.pop();
      Symbol &left = at(best.left);
      // Skip a candidate one of whose sides has changed since.
      if (left.token != best.leftToken || left.next < 0 ||
          at(left.next).token != best.rightToken)
        continue;
      Symbol &right = at(left.next);
      left.token = best.merged;
      left.next = right.next;
      right.token = -1;
      if (left.next >= 0)
        at(left.next).previous = best.left;
      if (left.previous >= 0)
        consider(left.previous);
      consider(best.left);
    }
    for (int32_t i = 0; i >= 0; i = at(i).next)
      ids.push_back(at(i).token);
  }

private:
  struct Symbol {
    int32_t token; ///< -1: merged into its left neighbour
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t left;
    int32_t leftToken;
    int32_t rightToken;
    int32_t merged;
    bool operator<(const Candidate &other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  Symbol &at(int32_t index) { return symbols[static_cast<size_t>(index)]; }

  void consider(int32_t left) {
    int32_t right = at(left).next;
    if (right < 0)
      return;
    auto it = merges.find(pairKey(at(left).token, at(right).token));
    if (it != merges.end())
      queue.push({it->second.rank, left, at(left).token, at(right).token,
                  it->second.token});
  }

  const std::unordered_map<uint64_t, Merge> &merges;
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate> queue;
};
} // namespace

Status Tokenizer::State::encodePlain(std::string_view text, bool isFirst,
                                     std::vector<int32_t> &ids) const {
  if (text.empty())
    return Status::ok();
  std::string normalized;
  if (!normalizer.changesNothing())
    text = normalized = normalizer.run(text, isFirst);
  std::vector<std::string_view> split;
  KVRM_TRY(splitWords(text, split));
  for (std::string_view word : split)
    encodeWord(word, ids);
  return Status::ok();
}

void Tokenizer::State::encodeWord(std::string_view word,
                                  std::vector<int32_t> &ids) const {
  if (ignoreMerges)
    if (auto it = words.find(std::string(word)); it != words.end()) {
      ids.push_back(it->second);
      return;
    }
  WordMerger merger(merges);
  auto addBytes = [&](std::string_view text) {
    for (char c : text)
      if (int32_t token = byteTokens[static_cast<unsigned char>(c)]; token >= 0)
        merger.add(token);
  };
  while (isOverCharacters && !word.empty()) {
    std::string_view character = word.substr(0, classifyUtf8(word).bytes);
    if (auto it = characters.find(std::string(character));
        it != characters.end())
      merger.add(it->second);
    else
      addBytes(character);
    word.remove_prefix(character.size());
  }
  addBytes(word);
  merger.run(ids);
}
