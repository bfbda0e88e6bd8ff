//===- Normalizer.cpp - A text as the BPE gets it ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Normalizer.h"

#include "Utf8.h"

#include <cstdlib>
#include <memory>
#include <utf8proc.h>

using namespace kvrm;

namespace {
struct Free {
  void operator()(utf8proc_uint8_t *text) const { std::free(text); }
};
} // namespace

static std::string composedCharacters(std::string_view text) {
  utf8proc_uint8_t *result = nullptr;
  utf8proc_ssize_t length = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t *>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &result,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  std::unique_ptr<utf8proc_uint8_t, Free> owner(result);
  if (length < 0)
    return std::string(text);
  return {reinterpret_cast<const char *>(result), static_cast<size_t>(length)};
}

/// Bytes at the start of `text` that are whole characters, or are none.
static size_t runBytes(std::string_view text, bool areCharacters) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    Utf8Prefix prefix = classifyUtf8(text.substr(bytes));
    if ((prefix.kind == Utf8Prefix::Valid) != areCharacters)
      break;
    bytes += prefix.bytes;
  }
  return bytes;
}

static std::string composed(std::string_view text) {
  std::string result;
  for (bool areCharacters = true; !text.empty();
       areCharacters = !areCharacters) {
    std::string_view run = text.substr(0, runBytes(text, areCharacters));
    result.append(areCharacters ? composedCharacters(run) : std::string(run));
    text.remove_prefix(run.size());
  }
  return result;
}

static std::string replaced(std::string_view text, std::string_view from,
                            std::string_view to) {
  std::string result;
  for (size_t at; (at = text.find(from)) != std::string_view::npos;
       text.remove_prefix(at + from.size()))
    result.append(text.substr(0, at)).append(to);
  return result.append(text);
}

std::string Normalizer::run(std::string_view text, bool isFirst) const {
  std::string result = toNFC ? composed(text) : std::string(text);
  if (!marksSpaces)
    return result;
  result = replaced(result, " ", spaceMark);
  bool isWanted = prefix == SpacePrefix::Always ||
                  prefix == SpacePrefix::Each ||
                  (prefix == SpacePrefix::First && isFirst);
  bool isThere = prefix != SpacePrefix::Always && result.starts_with(spaceMark);
  if (isWanted && !isThere && !result.empty())
    result.insert(0, spaceMark);
  return result;
}

std::string kvrm::unmarkSpaces(std::string_view text) {
  return replaced(text, spaceMark, " ");
}

/// Bytes of the character at the start of `text`, and whether it is one of
/// Unicode's White_Space.
static std::pair<size_t, bool> firstCharacter(std::string_view text) {
  utf8proc_int32_t point = -1;
  utf8proc_ssize_t bytes =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t *>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), &point);
  if (bytes <= 0)
    return {1, false};
  utf8proc_category_t category = utf8proc_category(point);
  bool isSpace = (point >= 0x09 && point <= 0x0d) || point == 0x85 ||
                 category == UTF8PROC_CATEGORY_ZS ||
                 category == UTF8PROC_CATEGORY_ZL ||
                 category == UTF8PROC_CATEGORY_ZP;
  return {static_cast<size_t>(bytes), isSpace};
}

size_t kvrm::countSpaceAtStart(std::string_view text) {
  size_t count = 0;
  while (count < text.size()) {
    auto [bytes, isSpace] = firstCharacter(text.substr(count));
    if (!isSpace)
      break;
    count += bytes;
  }
  return count;
}

std::string_view kvrm::withoutSpaceAtEnd(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    auto [bytes, isSpace] = firstCharacter(text.substr(at));
    at += bytes;
    if (!isSpace)
      end = at;
  }
  return text.substr(0, end);
}
