//===- IRMutator.cpp - Mutations of IR that stay close to valid -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A byte changed at random leaves hardly any IR that parses. These change whole
// tokens and lines: a number becomes another, a name one of the same text or of
// the other parent, lines are dropped, doubled and swapped.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"

#include <cctype>
#include <random>
#include <string>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

namespace {

using Random = std::minstd_rand;

size_t below(Random &random, size_t limit) {
  return limit == 0 ? 0 : random() % limit;
}

template <typename T> const T &oneOf(Random &random, const std::vector<T> &of) {
  return of[below(random, of.size())];
}

/// Names and numbers, each with what binds it (% @ # !); all else a character.
std::vector<std::string> tokensOf(std::string_view text) {
  std::vector<std::string> tokens;
  auto isWord = [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '-';
  };
  for (size_t at = 0; at < text.size();) {
    size_t end = at + 1;
    bool binds = std::string_view("%@#!").find(text[at]) != text.npos;
    if (binds || isWord(static_cast<unsigned char>(text[at])))
      while (end < text.size() && isWord(static_cast<unsigned char>(text[end])))
        ++end;
    tokens.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return tokens;
}

/// Whether a token can stand for another: by how it starts.
int kindOf(const std::string &token) {
  auto c = static_cast<unsigned char>(token[0]);
  if (std::isdigit(c) || (c == '-' && token.size() > 1))
    return 1;
  if (std::isalpha(c))
    return 2;
  return token.size() > 1 ? c : 0;
}

void changeNumber(Random &random, std::string &token) {
  static const std::vector<std::string> numbers = {"0",
                                                   "1",
                                                   "2",
                                                   "3",
                                                   "4",
                                                   "7",
                                                   "8",
                                                   "15",
                                                   "16",
                                                   "17",
                                                   "31",
                                                   "32",
                                                   "48",
                                                   "64",
                                                   "65",
                                                   "128",
                                                   "256",
                                                   "511",
                                                   "512",
                                                   "513",
                                                   "1024",
                                                   "65536",
                                                   "2147483647",
                                                   "2147483648",
                                                   "-1",
                                                   "-16",
                                                   "-9223372036854775808",
                                                   "9223372036854775807",
                                                   "0.0",
                                                   "-0.0",
                                                   "1.0e+38",
                                                   "0x7F800000"};
  // Shapes within a type: 4x16xf32 is one token.
  size_t digits = 0;
  while (digits < token.size() &&
         std::isdigit(static_cast<unsigned char>(token[digits])))
    ++digits;
  token.replace(0, std::max<size_t>(digits, 1), oneOf(random, numbers));
}

std::string join(const std::vector<std::string> &parts) {
  std::string text;
  for (const std::string &part : parts)
    text += part;
  return text;
}

std::string mutateTokens(Random &random, std::string_view text,
                         std::string_view donor) {
  std::vector<std::string> tokens = tokensOf(text);
  std::vector<std::string> others = tokensOf(donor);
  if (tokens.empty())
    return std::string(text);
  for (size_t changes = 1 + below(random, 3); changes > 0; --changes) {
    size_t at = below(random, tokens.size());
    for (size_t tries = 0; tries < tokens.size() && kindOf(tokens[at]) == 0;
         ++tries)
      at = (at + 1) % tokens.size();
    int kind = kindOf(tokens[at]);
    if (kind == 1 && below(random, 2) == 0) {
      changeNumber(random, tokens[at]);
      continue;
    }
    std::vector<std::string> same;
    for (const auto *from : {&tokens, &others})
      for (const std::string &token : *from)
        if (kindOf(token) == kind && token != tokens[at])
          same.push_back(token);
    if (!same.empty())
      tokens[at] = oneOf(random, same);
  }
  return join(tokens);
}

std::string mutateLines(Random &random, std::string_view text,
                        std::string_view donor) {
  auto linesOf = [](std::string_view all) {
    std::vector<std::string> lines;
    while (!all.empty()) {
      size_t end = all.find('\n');
      end = end == all.npos ? all.size() : end + 1;
      lines.emplace_back(all.substr(0, end));
      all.remove_prefix(end);
    }
    return lines;
  };
  std::vector<std::string> lines = linesOf(text);
  std::vector<std::string> others = linesOf(donor);
  if (lines.empty())
    return std::string(text);
  auto at = static_cast<ptrdiff_t>(below(random, lines.size()));
  switch (below(random, 4)) {
  case 0:
    lines.erase(lines.begin() + at);
    break;
  case 1:
    lines.insert(lines.begin() + at, std::string(oneOf(random, lines)));
    break;
  case 2:
    std::swap(lines[static_cast<size_t>(at)],
              lines[below(random, lines.size())]);
    break;
  case 3:
    if (!others.empty())
      lines.insert(lines.begin() + at, oneOf(random, others));
    break;
  }
  return join(lines);
}

size_t store(const std::string &text, uint8_t *data, size_t most) {
  size_t size = std::min(text.size(), most);
  std::memcpy(data, text.data(), size);
  return size;
}

} // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size,
                                          size_t most, unsigned seed) {
  Random random(seed);
  std::string_view text = fuzz::textOf(data, size);
  switch (below(random, 16)) {
  case 0: // also words of the dictionary
    return LLVMFuzzerMutate(data, size, most);
  case 1:
  case 2:
  case 3:
    return store(mutateLines(random, text, text), data, most);
  default:
    return store(mutateTokens(random, text, {}), data, most);
  }
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t *first,
                                            size_t firstSize,
                                            const uint8_t *second,
                                            size_t secondSize, uint8_t *out,
                                            size_t most, unsigned seed) {
  Random random(seed);
  std::string_view text = fuzz::textOf(first, firstSize);
  std::string_view donor = fuzz::textOf(second, secondSize);
  return store(below(random, 2) == 0 ? mutateTokens(random, text, donor)
                                     : mutateLines(random, text, donor),
               out, most);
}
