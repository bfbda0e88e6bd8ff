//===- TextStream.cpp - Text that a client may see ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TextStream.h"

#include <algorithm>
#include <utility>

using namespace kvrm;
using namespace kvrm::serve;

/// Of the longest end of `held` that a stop text starts with.
size_t StopFilter::heldBytes() const {
  size_t most = 0;
  for (const std::string &stop : stops)
    for (size_t bytes = std::min(held.size(), stop.size() - 1); bytes > most;
         --bytes)
      if (std::string_view(stop).starts_with(
              std::string_view(held).substr(held.size() - bytes)))
        most = bytes;
  return most;
}

std::string StopFilter::push(std::string_view piece) {
  if (stopped)
    return {};
  held.append(piece);
  size_t end = std::string::npos; // of the stop text that is complete first
  size_t begin = std::string::npos;
  for (const std::string &stop : stops)
    if (size_t at = held.find(stop); at != std::string::npos)
      if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
        begin = at;
        end = at + stop.size();
      }
  stopped = begin != std::string::npos;
  size_t shown = stopped ? begin : held.size() - heldBytes();
  std::string text = held.substr(0, shown);
  held.erase(0, stopped ? held.size() : shown);
  return text;
}

std::string StopFilter::finish() { return std::exchange(held, {}); }

TextStream::TextStream(const Tokenizer *tokenizer,
                       std::vector<std::string> stops)
    : tokenizer(tokenizer), filter(std::move(stops)), isWhole(!tokenizer) {
  if (tokenizer)
    decoder.emplace(*tokenizer, /*skipSpecial=*/true);
}

static bool startsCharacter(char byte) { return (byte & 0xc0) != 0x80; }

size_t serve::countCharacters(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(text, startsCharacter));
}

TextPosition TextStream::placeOf(int32_t token) const {
  TextPosition place = decoded;
  if (!decoder || !decoder->isHolding() || tokenizer->isSpecial(token))
    return place;
  std::string_view bytes = tokenizer->bytesOf(token);
  // What is held is no character then, and U+FFFD takes its place.
  if (!bytes.empty() && startsCharacter(bytes.front())) {
    place.bytes += 3;
    ++place.characters;
  }
  return place;
}

/// What may be seen now that a piece of text is decoded.
std::string TextStream::filtered(const std::string &piece) {
  decoded.bytes += piece.size();
  decoded.characters += countCharacters(piece);
  std::string text = filter.push(piece);
  shownBytes += text.size();
  return text;
}

std::string TextStream::push(int32_t token) {
  return decoder ? filtered(decoder->push(token)) : std::string();
}

std::string TextStream::finish() {
  std::string text = decoder ? filtered(decoder->finish()) : std::string();
  isWhole = !isStopped();
  return text + filter.finish();
}
