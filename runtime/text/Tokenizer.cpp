//===- Tokenizer.cpp - Text to token ids and back ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Tokenizer.h"
#include "TokenizerState.h"
#include "Utf8.h"

#include <cstdio>

using namespace kvrm;

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer &&) noexcept = default;
Tokenizer &Tokenizer::operator=(Tokenizer &&) noexcept = default;
Tokenizer::~Tokenizer() = default;

/// The ids of a text, whose trusted bytes behind byte i go on up to
/// `trustedEnd(i)`.
template <typename Function>
static Expected<std::vector<int32_t>> encodeText(const Tokenizer::State &state,
                                                 std::string_view text,
                                                 Function trustedEnd) {
  std::vector<int32_t> ids;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const AddedToken *token = state.addedAt(text.substr(i), trustedEnd(i) - i);
    if (!token) {
      ++i;
      continue;
    }
    std::string_view plain = text.substr(start, i - start);
    if (token->stripsBefore)
      plain = withoutSpaceAtEnd(plain);
    KVRM_TRY(state.encodePlain(plain, start == 0, ids));
    ids.push_back(token->id);
    i += token->content.size();
    if (token->stripsBehind)
      i += countSpaceAtStart(text.substr(i));
    start = i;
  }
  KVRM_TRY(state.encodePlain(text.substr(start), start == 0, ids));
  return ids;
}

Expected<std::vector<int32_t>> Tokenizer::encode(std::string_view text,
                                                 bool parseSpecial) const {
  return encodeText(*state, text, [&](size_t byte) {
    return parseSpecial ? text.size() : byte;
  });
}

Expected<std::vector<int32_t>>
Tokenizer::encode(std::span<const TextPart> parts) const {
  std::string text;
  std::vector<size_t> ends;
  for (const TextPart &part : parts)
    ends.push_back((text += part.text).size());
  size_t at = 0; // bytes are asked for in their order
  return encodeText(*state, text, [&](size_t byte) {
    while (ends[at] <= byte)
      ++at;
    return parts[at].parseSpecial ? ends[at] : byte;
  });
}

std::string Tokenizer::decode(std::span<const int32_t> ids,
                              bool skipSpecial) const {
  std::string bytes;
  for (int32_t id : ids)
    if (!skipSpecial || !isSpecial(id))
      bytes.append(bytesOf(id));
  std::string text;
  takeUtf8(bytes, text, Utf8End::Replaced);
  return text;
}

std::string_view Tokenizer::bytesOf(int32_t id) const {
  return id >= 0 && id < size() ? state->bytes[static_cast<size_t>(id)]
                                : std::string_view();
}

bool Tokenizer::isSpecial(int32_t id) const {
  return id >= 0 && id < size() && state->special[static_cast<size_t>(id)];
}

int32_t Tokenizer::addedToken(std::string_view content) const {
  if (content.empty())
    return -1;
  for (const AddedToken &token :
       state->added[static_cast<unsigned char>(content[0])])
    if (token.content == content)
      return token.id;
  return -1;
}

int32_t Tokenizer::size() const {
  return static_cast<int32_t>(state->bytes.size());
}
int32_t Tokenizer::bos() const { return state->bos; }
int32_t Tokenizer::eos() const { return state->eos; }
bool Tokenizer::addBos() const { return state->addBos; }
const std::string &Tokenizer::chatTemplate() const {
  return state->chatTemplate;
}
Expected<const ChatTemplate *> Tokenizer::chatForm() const {
  KVRM_TRY(state->chatForm.status());
  return &*state->chatForm;
}

std::string StreamDecoder::push(int32_t id) {
  if (!skipSpecial || !tokenizer->isSpecial(id))
    held.append(tokenizer->bytesOf(id));
  std::string text;
  takeUtf8(held, text, Utf8End::Held);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  takeUtf8(held, text, Utf8End::Replaced);
  return text;
}

Expected<Tokenizer> Tokenizer::parse(std::string_view text,
                                     const std::string &name) {
  auto state = std::make_unique<State>();
  KVRM_TRY(loadState(text, name, *state));
  return Tokenizer(std::move(state));
}

Expected<Tokenizer> Tokenizer::load(const std::string &path) {
  struct Closer {
    void operator()(std::FILE *file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Closer> file(std::fopen(path.c_str(), "rb"));
  if (!file)
    return makeError(StatusCode::NotFound, path, ": cannot open");
  std::string text;
  std::array<char, 65536> buffer;
  while (size_t count = std::fread(buffer.data(), 1, buffer.size(), file.get()))
    text.append(buffer.data(), count);
  if (std::ferror(file.get()))
    return makeError(StatusCode::IoError, path, ": cannot read");
  return parse(text, path);
}
