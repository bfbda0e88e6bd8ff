//===- Utf8.cpp - Characters in bytes ---------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Utf8.h"

using namespace kvrm;

Utf8Prefix kvrm::classifyUtf8(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned char first = byte(0);
  if (first < 0x80)
    return {Utf8Prefix::Valid, 1};
  size_t length = first < 0xc2   ? 0
                  : first < 0xe0 ? 2
                  : first < 0xf0 ? 3
                  : first < 0xf5 ? 4
                                 : 0;
  if (length == 0)
    return {Utf8Prefix::Invalid, 1};
  // The second byte excludes overlong forms, surrogates and what is past
  // U+10FFFF.
  unsigned char low = 0x80;
  unsigned char high = 0xbf;
  if (first == 0xe0)
    low = 0xa0;
  else if (first == 0xed)
    high = 0x9f;
  else if (first == 0xf0)
    low = 0x90;
  else if (first == 0xf4)
    high = 0x8f;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size())
      return {Utf8Prefix::Incomplete, i};
    if (byte(i) < low || byte(i) > high)
      return {Utf8Prefix::Invalid, i};
    low = 0x80;
    high = 0xbf;
  }
  return {Utf8Prefix::Valid, length};
}

void kvrm::takeUtf8(std::string &bytes, std::string &out, Utf8End end) {
  constexpr std::string_view replacement = "\xef\xbf\xbd";
  std::string_view rest = bytes;
  while (!rest.empty()) {
    Utf8Prefix prefix = classifyUtf8(rest);
    if (prefix.kind == Utf8Prefix::Incomplete && end == Utf8End::Held)
      break;
    if (prefix.kind == Utf8Prefix::Valid)
      out.append(rest.substr(0, prefix.bytes));
    else
      out.append(replacement);
    rest.remove_prefix(prefix.bytes);
  }
  bytes.erase(0, bytes.size() - rest.size());
}

void kvrm::appendUtf8(std::string &out, uint32_t character) {
  if (character < 0x80) {
    out.push_back(static_cast<char>(character));
    return;
  }
  out.push_back(static_cast<char>(0xc0 | character >> 6));
  out.push_back(static_cast<char>(0x80 | (character & 0x3f)));
}
