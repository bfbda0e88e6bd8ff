//===- Text.cpp - Texts that know who wrote them --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Text.h"

#include "../Utf8.h"

#include <algorithm>
#include <utility>

using namespace kvrm;
using namespace kvrm::jinja;

void Text::append(const Text &other) {
  content += other.content;
  owners += other.owners;
}

Text Text::part(size_t byte, size_t count) const {
  Text out;
  out.content = content.substr(byte, count);
  out.owners = owners.substr(byte, count);
  return out;
}

Text Text::withBytes(std::string bytes) const {
  Text out;
  out.owners = owners;
  out.content = std::move(bytes);
  return out;
}

//===----------------------------------------------------------------------===//
// Characters
//===----------------------------------------------------------------------===//

size_t jinja::characterBytes(std::string_view text) {
  Utf8Prefix prefix = classifyUtf8(text);
  return prefix.kind == Utf8Prefix::Valid ? prefix.bytes : 1;
}

uint32_t jinja::characterAt(std::string_view text) {
  size_t bytes = characterBytes(text);
  auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (bytes == 1)
    return at(0);
  uint32_t character = at(0) & (0xffU >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i)
    character = character << 6 | (at(i) & 0x3fU);
  return character;
}

std::vector<size_t> jinja::characterStarts(std::string_view text) {
  std::vector<size_t> starts;
  starts.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); at += characterBytes(text.substr(at)))
    starts.push_back(at);
  starts.push_back(text.size());
  return starts;
}

bool jinja::isAscii(std::string_view text) {
  return std::ranges::none_of(
      text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

bool jinja::isSpace(uint32_t character) {
  return (character >= 0x09 && character <= 0x0d) ||
         (character >= 0x1c && character <= 0x20) || character == 0x85 ||
         character == 0xa0 || character == 0x1680 ||
         (character >= 0x2000 && character <= 0x200a) || character == 0x2028 ||
         character == 0x2029 || character == 0x202f || character == 0x205f ||
         character == 0x3000;
}

/// A byte that is no character is no white space, whatever its number.
static bool startsWithSpace(std::string_view text) {
  bool isCharacter =
      static_cast<unsigned char>(text[0]) < 0x80 || characterBytes(text) > 1;
  return isCharacter && isSpace(characterAt(text));
}

/// Bytes of the last character of `text`, which is not empty.
static size_t lastCharacterBytes(std::string_view text) {
  for (size_t bytes = 2; bytes <= std::min<size_t>(4, text.size()); ++bytes)
    if (characterBytes(text.substr(text.size() - bytes)) == bytes)
      return bytes;
  return 1;
}

template <typename Predicate>
static size_t countAtStart(std::string_view text, Predicate matches) {
  size_t bytes = 0;
  while (bytes < text.size() && matches(text.substr(bytes)))
    bytes += characterBytes(text.substr(bytes));
  return bytes;
}

template <typename Predicate>
static size_t countAtEnd(std::string_view text, Predicate matches) {
  size_t end = text.size();
  while (end > 0) {
    size_t bytes = lastCharacterBytes(text.substr(0, end));
    if (!matches(text.substr(end - bytes, bytes)))
      break;
    end -= bytes;
  }
  return text.size() - end;
}

size_t jinja::spaceAtStart(std::string_view text) {
  return countAtStart(text, startsWithSpace);
}

std::string_view jinja::withoutSpaceAtEnd(std::string_view text) {
  return text.substr(0, text.size() - countAtEnd(text, startsWithSpace));
}

//===----------------------------------------------------------------------===//
// Parts
//===----------------------------------------------------------------------===//

Text jinja::strip(const Text &text, Side side,
                  std::optional<std::string_view> set) {
  auto matches = [&](std::string_view at) {
    return set ? set->find(at.substr(0, characterBytes(at))) != set->npos
               : startsWithSpace(at);
  };
  std::string_view bytes = text.bytes();
  size_t begin = side == Side::Right ? 0 : countAtStart(bytes, matches);
  bytes.remove_prefix(begin);
  size_t atEnd = side == Side::Left ? 0 : countAtEnd(bytes, matches);
  return text.part(begin, bytes.size() - atEnd);
}

std::vector<Text> jinja::splitAtSpace(const Text &text, int64_t most) {
  std::vector<Text> parts;
  std::string_view bytes = text.bytes();
  size_t at = spaceAtStart(bytes);
  while (at < bytes.size()) {
    if (most >= 0 && parts.size() == static_cast<uint64_t>(most)) {
      parts.push_back(strip(text.part(at), Side::Right));
      break;
    }
    size_t length = countAtStart(bytes.substr(at), [](std::string_view rest) {
      return !startsWithSpace(rest);
    });
    parts.push_back(text.part(at, length));
    at += length;
    at += spaceAtStart(bytes.substr(at));
  }
  return parts;
}

std::vector<Text> jinja::splitAt(const Text &text, std::string_view separator,
                                 int64_t most, bool fromRight) {
  std::string_view bytes = text.bytes();
  std::vector<size_t> cuts; // in the order of the text
  auto isFull = [&] {
    return most >= 0 && cuts.size() >= static_cast<uint64_t>(most);
  };
  if (fromRight) {
    size_t end = bytes.size();
    while (!isFull()) {
      size_t at = bytes.substr(0, end).rfind(separator);
      if (at == bytes.npos)
        break;
      cuts.push_back(at);
      end = at;
    }
    std::ranges::reverse(cuts);
  } else {
    for (size_t at = bytes.find(separator); at != bytes.npos && !isFull();
         at = bytes.find(separator, at + separator.size()))
      cuts.push_back(at);
  }
  std::vector<Text> parts;
  size_t begin = 0;
  for (size_t cut : cuts) {
    parts.push_back(text.part(begin, cut - begin));
    begin = cut + separator.size();
  }
  parts.push_back(text.part(begin));
  return parts;
}

/// What Python's str.splitlines() breaks at.
static bool endsLine(std::string_view text) {
  uint32_t character = characterAt(text);
  if (character >= 0x80 && characterBytes(text) == 1)
    return false;
  return (character >= 0x0a && character <= 0x0d) ||
         (character >= 0x1c && character <= 0x1e) || character == 0x85 ||
         character == 0x2028 || character == 0x2029;
}

std::vector<Text> jinja::splitLines(const Text &text) {
  std::vector<Text> lines;
  std::string_view bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    size_t length = countAtStart(bytes.substr(at), [](std::string_view rest) {
      return !endsLine(rest);
    });
    lines.push_back(text.part(at, length));
    at += length;
    std::string_view rest = bytes.substr(at);
    if (!rest.empty())
      at += rest.starts_with("\r\n") ? 2 : characterBytes(rest);
  }
  return lines;
}

Text jinja::replace(const Text &text, std::string_view what, const Text &with,
                    int64_t most) {
  Text out;
  auto isFull = [&](int64_t count) { return most >= 0 && count >= most; };
  int64_t count = 0;
  if (!what.empty()) {
    for (const Text &part : splitAt(text, what, most, /*fromRight=*/false)) {
      if (count++ > 0)
        out.append(with);
      out.append(part);
    }
    return out;
  }
  std::vector<size_t> starts = characterStarts(text.bytes());
  for (size_t i = 0; i < starts.size(); ++i) {
    if (!isFull(count++))
      out.append(with);
    if (i + 1 < starts.size())
      out.append(text.part(starts[i], starts[i + 1] - starts[i]));
  }
  return out;
}
