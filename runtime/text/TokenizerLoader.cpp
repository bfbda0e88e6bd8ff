//===- TokenizerLoader.cpp - A tokenizer from its file ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ByteAlphabet.h"
#include "TokenizerState.h"
#include "Utf8.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

using namespace kvrm;
using nlohmann::json;

/// Greatest token id that a tokenizer may have.
static constexpr int64_t maxTokenId = (1 << 24) - 1;

namespace {
/// Fills a state from JSON. Every value is checked before it is used.
class Loader {
public:
  Loader(const std::string &name, Tokenizer::State &state)
      : name(name), state(state) {}

  Status load(const json &root);

private:
  template <typename... Parts> Status corrupt(const Parts &...parts) const {
    return makeError(StatusCode::Corrupt, name, ": ", parts...);
  }

  /// Member `key` of `object`, or null.
  static const json *member(const json *object, const char *key) {
    if (!object || !object->is_object())
      return nullptr;
    auto it = object->find(key);
    return it == object->end() ? nullptr : &*it;
  }

  Status define(int64_t id, const std::string &field, std::string bytes,
                bool special);
  Status loadModel(const json *model);
  std::optional<std::string> bytesOf(const std::string &text) const;
  std::string tokenOfByte(int byte) const;
  Status loadVocabulary(const json &vocabulary);
  Status loadNormalizer(const json *normalizer);
  Status loadMerge(const json &merge, int32_t rank);
  Status loadPatterns(const json *patterns);
  Status loadPattern(const json &pattern, size_t index);
  Status loadAddedTokens(const json *added);
  Status loadAdded(const json &token, size_t index);
  Status loadFlag(const json *value, const char *field, bool &flag);
  Status loadTokenId(const json &root, const char *key, int32_t &place);

  const std::string &name;
  Tokenizer::State &state;
  ByteAlphabet alphabet;
  std::unordered_map<std::string, int32_t> ids; ///< by text in the alphabet
  std::vector<bool> defined;
};
} // namespace

Status Loader::define(int64_t id, const std::string &field, std::string bytes,
                      bool special) {
  if (id < 0 || id > maxTokenId)
    return corrupt(field, ": id ", id, " is not in [0, ", maxTokenId, "]");
  auto index = static_cast<size_t>(id);
  if (index >= defined.size()) {
    defined.resize(index + 1);
    state.bytes.resize(index + 1);
    state.special.resize(index + 1);
  }
  if (defined[index] && state.bytes[index] != bytes)
    return corrupt(field, ": id ", id, " is taken by another token");
  defined[index] = true;
  state.bytes[index] = std::move(bytes);
  state.special[index] = state.special[index] || special;
  return Status::ok();
}

/// What a token of the vocabulary stands for; none if that cannot be said.
std::optional<std::string> Loader::bytesOf(const std::string &text) const {
  if (!state.isOverCharacters)
    return alphabet.decode(text);
  for (int byte = 0; byte < 256 && text.starts_with("<0x"); ++byte)
    if (text == tokenOfByte(byte))
      return std::string(1, static_cast<char>(byte));
  return unmarkSpaces(text);
}

Status Loader::loadVocabulary(const json &vocabulary) {
  ids.reserve(vocabulary.size());
  for (const auto &[text, id] : vocabulary.items()) {
    if (!id.is_number_integer())
      return corrupt("model.vocab: the id of '", text, "' is not an integer");
    std::optional<std::string> bytes = bytesOf(text);
    if (!bytes || bytes->empty())
      return corrupt("model.vocab: '", text,
                     "' is not in the GPT-2 byte alphabet");
    bool isCharacter =
        state.isOverCharacters && classifyUtf8(text).bytes == text.size();
    if (state.ignoreMerges)
      state.words.emplace(state.isOverCharacters ? text : *bytes,
                          id.get<int32_t>());
    KVRM_TRY(define(id.get<int64_t>(), "model.vocab", std::move(*bytes),
                    /*special=*/false));
    if (isCharacter)
      state.characters.emplace(text, id.get<int32_t>());
    ids.emplace(text, id.get<int32_t>());
  }
  for (int byte = 0; byte < 256; ++byte) {
    auto it = ids.find(tokenOfByte(byte));
    state.byteTokens[static_cast<size_t>(byte)] =
        it == ids.end() ? -1 : it->second;
  }
  return Status::ok();
}

std::string Loader::tokenOfByte(int byte) const {
  if (!state.isOverCharacters)
    return alphabet.textOf(byte);
  char text[7];
  std::snprintf(text, sizeof(text), "<0x%02X>", byte);
  return text;
}

/// What is done to a text before it is split.
Status Loader::loadNormalizer(const json *normalizer) {
  state.normalizer.marksSpaces = state.isOverCharacters;
  if (!normalizer)
    return Status::ok();
  KVRM_TRY(loadFlag(member(normalizer, "nfc"), "normalizer.nfc",
                    state.normalizer.toNFC));
  const json *prefix = member(normalizer, "space_prefix");
  if (!prefix)
    return Status::ok();
  static constexpr std::pair<std::string_view, SpacePrefix> known[] = {
      {"none", SpacePrefix::None},
      {"first", SpacePrefix::First},
      {"each", SpacePrefix::Each},
      {"always", SpacePrefix::Always}};
  for (auto [name, value] : known)
    if (*prefix == name) {
      state.normalizer.prefix = value;
      return Status::ok();
    }
  return corrupt("normalizer.space_prefix is not one of none, first, each, "
                 "always");
}

Status Loader::loadMerge(const json &merge, int32_t rank) {
  const std::string *text = merge.get_ptr<const std::string *>();
  size_t space = text ? text->find(' ') : std::string::npos;
  if (space == std::string::npos)
    return corrupt("model.merges[", rank, "] is not \"left right\"");
  auto idOf = [&](const std::string &part) {
    auto it = ids.find(part);
    return it == ids.end() ? -1 : it->second;
  };
  std::string left = text->substr(0, space);
  std::string right = text->substr(space + 1);
  int32_t leftId = idOf(left);
  int32_t rightId = idOf(right);
  int32_t merged = idOf(left + right);
  if (leftId < 0 || rightId < 0 || merged < 0)
    return corrupt("model.merges[", rank, "]: '", *text,
                   "' names a token that the vocabulary lacks");
  state.merges.try_emplace(pairKey(leftId, rightId), Merge{rank, merged});
  return Status::ok();
}

Status Loader::loadAdded(const json &token, size_t index) {
  std::string field = "added_tokens[" + std::to_string(index) + "]";
  const json *id = member(&token, "id");
  const json *content = member(&token, "content");
  const json *special = member(&token, "special");
  if (!id || !id->is_number_integer() || !content || !content->is_string() ||
      (special && !special->is_boolean()))
    return corrupt(field, " is not {id, content, special}");
  AddedToken added = {content->get<std::string>(), 0,
                      special && special->get<bool>()};
  KVRM_TRY(loadFlag(member(&token, "lstrip"), (field + ".lstrip").c_str(),
                    added.stripsBefore));
  KVRM_TRY(loadFlag(member(&token, "rstrip"), (field + ".rstrip").c_str(),
                    added.stripsBehind));
  if (added.content.empty())
    return corrupt(field, ": content is empty");
  KVRM_TRY(define(id->get<int64_t>(), field, added.content, added.special));
  added.id = id->get<int32_t>();
  state.added[static_cast<unsigned char>(added.content[0])].push_back(
      std::move(added));
  return Status::ok();
}

Status Loader::loadPattern(const json &pattern, size_t index) {
  const std::string *text = pattern.get_ptr<const std::string *>();
  if (!text)
    return corrupt("pre_tokenizer.pattern[", index, "] is not a string");
  int code = 0;
  PCRE2_SIZE offset = 0;
  Pattern compiled(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text->data()), text->size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &code,
                    &offset, nullptr));
  if (!compiled) {
    PCRE2_UCHAR message[120] = {};
    pcre2_get_error_message(code, message, sizeof(message));
    return corrupt("pre_tokenizer.pattern[", index, "], character ", offset,
                   ": ", reinterpret_cast<const char *>(message));
  }
  // Without the just-in-time compiler matching is slower, and no different.
  (void)pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE);
  state.patterns.push_back(std::move(compiled));
  return Status::ok();
}

Status Loader::loadTokenId(const json &root, const char *key, int32_t &place) {
  const json *value = member(&root, key);
  if (!value || value->is_null())
    return Status::ok();
  // What is past int64 would come out as a negative number, -1 for one.
  bool isId = value->is_number_integer() &&
              !(value->is_number_unsigned() &&
                value->get<uint64_t>() > static_cast<uint64_t>(maxTokenId));
  int64_t id = isId ? value->get<int64_t>() : -2;
  if (id < -1 || id >= static_cast<int64_t>(state.bytes.size()))
    return corrupt(key, " is not -1 or a token id below ", state.bytes.size());
  place = static_cast<int32_t>(id);
  return Status::ok();
}

/// Vocabulary and merges.
Status Loader::loadModel(const json *model) {
  const json *type = member(model, "type");
  if (!type || !type->is_string() || type->get<std::string>() != "BPE")
    return corrupt("model.type is not \"BPE\"");
  const json *vocabulary = member(model, "vocab");
  if (!vocabulary || !vocabulary->is_object())
    return corrupt("model.vocab is not an object");
  const json *merges = member(model, "merges");
  if (!merges || !merges->is_array())
    return corrupt("model.merges is not an array");
  KVRM_TRY(loadFlag(member(model, "ignore_merges"), "model.ignore_merges",
                    state.ignoreMerges));
  KVRM_TRY(loadFlag(member(model, "byte_fallback"), "model.byte_fallback",
                    state.isOverCharacters));
  KVRM_TRY(loadVocabulary(*vocabulary));
  state.merges.reserve(merges->size());
  int32_t rank = 0;
  for (const json &merge : *merges)
    KVRM_TRY(loadMerge(merge, rank++));
  return Status::ok();
}

Status Loader::loadPatterns(const json *patterns) {
  if (!patterns || !patterns->is_array())
    return corrupt("pre_tokenizer.pattern is not an array");
  for (const json &pattern : *patterns)
    KVRM_TRY(loadPattern(pattern, state.patterns.size()));
  return Status::ok();
}

Status Loader::loadAddedTokens(const json *added) {
  if (!added)
    return Status::ok();
  if (!added->is_array())
    return corrupt("added_tokens is not an array");
  size_t index = 0;
  for (const json &token : *added)
    KVRM_TRY(loadAdded(token, index++));
  for (std::vector<AddedToken> &bucket : state.added)
    std::ranges::sort(bucket, [](const AddedToken &a, const AddedToken &b) {
      return std::pair(b.content.size(), a.id) <
             std::pair(a.content.size(), b.id);
    });
  return Status::ok();
}

Status Loader::loadFlag(const json *value, const char *field, bool &flag) {
  if (!value)
    return Status::ok();
  if (!value->is_boolean())
    return corrupt(field, " is not a boolean");
  flag = value->get<bool>();
  return Status::ok();
}

Status Loader::load(const json &root) {
  KVRM_TRY(loadModel(member(&root, "model")));
  KVRM_TRY(loadNormalizer(member(&root, "normalizer")));
  KVRM_TRY(loadPatterns(member(member(&root, "pre_tokenizer"), "pattern")));
  KVRM_TRY(loadAddedTokens(member(&root, "added_tokens")));
  KVRM_TRY(loadTokenId(root, "bos_token_id", state.bos));
  KVRM_TRY(loadTokenId(root, "eos_token_id", state.eos));
  KVRM_TRY(
      loadFlag(member(&root, "add_bos_token"), "add_bos_token", state.addBos));
  if (state.addBos && state.bos < 0)
    return corrupt("add_bos_token is set, but bos_token_id is missing");
  if (const json *chat = member(&root, "chat_template")) {
    if (!chat->is_string())
      return corrupt("chat_template is not a string");
    state.chatTemplate = chat->get<std::string>();
    if (!state.chatTemplate.empty())
      state.chatForm = ChatTemplate::parse(state.chatTemplate);
  }
  return Status::ok();
}

Status kvrm::loadState(std::string_view text, const std::string &name,
                       Tokenizer::State &state) {
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded())
    return makeError(StatusCode::Corrupt, name, ": not valid JSON");
  return Loader(name, state).load(root);
}
