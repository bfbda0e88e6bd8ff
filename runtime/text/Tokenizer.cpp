//===- Tokenizer.cpp - Text to token ids and back -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Tokenizer.h"

#include <nlohmann/json.hpp>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>
#include <queue>
#include <unordered_map>

using namespace kvrm;
using nlohmann::json;

/// Greatest token id that a tokenizer may have.
static constexpr int64_t maxTokenId = (1 << 24) - 1;

//===----------------------------------------------------------------------===//
// UTF-8
//===----------------------------------------------------------------------===//

namespace {
/// What the start of a text is.
struct Utf8Prefix {
  enum { Valid, Invalid, Incomplete } kind;
  size_t bytes; ///< of the character, or of the part to replace
};
} // namespace

/// Classifies the start of a text that is not empty. An invalid part is as long
/// as it could be the start of a character (Unicode 15, section 3.9, "maximal
/// subparts").
static Utf8Prefix classifyUtf8(std::string_view text) {
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

/// Moves what is complete from the start of `bytes` to `out`; with `all`, also
/// an incomplete character, as U+FFFD.
static void takeUtf8(std::string &bytes, std::string &out, bool all) {
  constexpr std::string_view replacement = "\xef\xbf\xbd";
  std::string_view rest = bytes;
  while (!rest.empty()) {
    Utf8Prefix prefix = classifyUtf8(rest);
    if (prefix.kind == Utf8Prefix::Incomplete && !all)
      break;
    if (prefix.kind == Utf8Prefix::Valid)
      out.append(rest.substr(0, prefix.bytes));
    else
      out.append(replacement);
    rest.remove_prefix(prefix.bytes);
  }
  bytes.erase(0, bytes.size() - rest.size());
}

static void appendUtf8(std::string &out, uint32_t character) {
  if (character < 0x80) {
    out.push_back(static_cast<char>(character));
    return;
  }
  out.push_back(static_cast<char>(0xc0 | character >> 6));
  out.push_back(static_cast<char>(0x80 | (character & 0x3f)));
}

//===----------------------------------------------------------------------===//
// The GPT-2 byte alphabet
//===----------------------------------------------------------------------===//

/// The character that stands for `byte` in vocabulary and merges: itself where
/// it is visible, else one from U+0100 on.
static uint32_t characterOfByte(int byte) {
  auto visible = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  if (visible(byte))
    return static_cast<uint32_t>(byte);
  uint32_t hidden = 0;
  for (int b = 0; b < byte; ++b)
    hidden += visible(b) ? 0 : 1;
  return 0x100 + hidden;
}

namespace {
/// Both directions of the alphabet. All its characters are below U+0180, and so
/// one or two bytes long.
class ByteAlphabet {
public:
  ByteAlphabet() {
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte) {
      uint32_t character = characterOfByte(byte);
      bytes[character] = static_cast<int16_t>(byte);
      appendUtf8(texts[static_cast<size_t>(byte)], character);
    }
  }

  const std::string &textOf(int byte) const {
    return texts[static_cast<size_t>(byte)];
  }

  /// The bytes that `text` stands for; empty if it leaves the alphabet.
  std::optional<std::string> decode(std::string_view text) const {
    std::string out;
    while (!text.empty()) {
      Utf8Prefix prefix = classifyUtf8(text);
      if (prefix.kind != Utf8Prefix::Valid || prefix.bytes > 2)
        return std::nullopt;
      uint32_t character =
          prefix.bytes == 1
              ? static_cast<unsigned char>(text[0])
              : (static_cast<unsigned char>(text[0]) & 0x1fu) << 6 |
                    (static_cast<unsigned char>(text[1]) & 0x3fu);
      if (character >= bytes.size() || bytes[character] < 0)
        return std::nullopt;
      out.push_back(static_cast<char>(bytes[character]));
      text.remove_prefix(prefix.bytes);
    }
    return out;
  }

private:
  std::array<int16_t, 0x180> bytes;
  std::array<std::string, 256> texts;
};
} // namespace

//===----------------------------------------------------------------------===//
// State
//===----------------------------------------------------------------------===//

namespace {
struct CodeDeleter {
  void operator()(pcre2_code *code) const { pcre2_code_free(code); }
};
using Pattern = std::unique_ptr<pcre2_code, CodeDeleter>;

struct MatchDeleter {
  void operator()(pcre2_match_data *data) const { pcre2_match_data_free(data); }
};

/// What two neighbouring tokens become. A lower rank goes first.
struct Merge {
  int32_t rank;
  int32_t token;
};

struct AddedToken {
  std::string content;
  int32_t id;
  bool special;
};
} // namespace

static uint64_t pairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
         static_cast<uint32_t>(right);
}

struct Tokenizer::State {
  std::vector<std::string> bytes; ///< of each id
  std::vector<bool> special;      ///< of each id
  std::array<int32_t, 256> byteTokens;
  std::unordered_map<uint64_t, Merge> merges;
  /// Whole words, by their bytes. Only filled with `ignoreMerges`.
  std::unordered_map<std::string, int32_t> words;
  bool ignoreMerges = false;
  /// By first byte; longest first.
  std::array<std::vector<AddedToken>, 256> added;
  std::vector<Pattern> patterns;
  int32_t bos = -1;
  int32_t eos = -1;
  bool addBos = false;
  std::string chatTemplate;

  /// The added token at the start of `text`, or null.
  const AddedToken *addedAt(std::string_view text, bool parseSpecial) const;
  Status splitWords(std::string_view text,
                    std::vector<std::string_view> &words) const;
  void encodeWord(std::string_view word, std::vector<int32_t> &ids) const;
};

const AddedToken *Tokenizer::State::addedAt(std::string_view text,
                                            bool parseSpecial) const {
  for (const AddedToken &token : added[static_cast<unsigned char>(text[0])])
    if ((parseSpecial || !token.special) && text.starts_with(token.content))
      return &token;
  return nullptr;
}

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

void Tokenizer::State::encodeWord(std::string_view word,
                                  std::vector<int32_t> &ids) const {
  if (ignoreMerges)
    if (auto it = words.find(std::string(word)); it != words.end()) {
      ids.push_back(it->second);
      return;
    }
  WordMerger merger(merges);
  for (char c : word)
    if (int32_t token = byteTokens[static_cast<unsigned char>(c)]; token >= 0)
      merger.add(token);
  merger.run(ids);
}

//===----------------------------------------------------------------------===//
// Tokenizer
//===----------------------------------------------------------------------===//

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer &&) noexcept = default;
Tokenizer &Tokenizer::operator=(Tokenizer &&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Expected<std::vector<int32_t>> Tokenizer::encode(std::string_view text,
                                                 bool parseSpecial) const {
  std::vector<int32_t> ids;
  std::vector<std::string_view> words;
  auto encodePlain = [&](std::string_view plain) -> Status {
    if (plain.empty())
      return Status::ok();
    KVRM_TRY(state->splitWords(plain, words));
    for (std::string_view word : words)
      state->encodeWord(word, ids);
    return Status::ok();
  };
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const AddedToken *token = state->addedAt(text.substr(i), parseSpecial);
    if (!token) {
      ++i;
      continue;
    }
    KVRM_TRY(encodePlain(text.substr(start, i - start)));
    ids.push_back(token->id);
    i += token->content.size();
    start = i;
  }
  KVRM_TRY(encodePlain(text.substr(start)));
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids,
                              bool skipSpecial) const {
  std::string bytes;
  for (int32_t id : ids)
    if (!skipSpecial || !isSpecial(id))
      bytes.append(bytesOf(id));
  std::string text;
  takeUtf8(bytes, text, /*all=*/true);
  return text;
}

std::string_view Tokenizer::bytesOf(int32_t id) const {
  return id >= 0 && id < size() ? state->bytes[static_cast<size_t>(id)]
                                : std::string_view();
}

bool Tokenizer::isSpecial(int32_t id) const {
  return id >= 0 && id < size() && state->special[static_cast<size_t>(id)];
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

std::string StreamDecoder::push(int32_t id) {
  if (!skipSpecial || !tokenizer->isSpecial(id))
    held.append(tokenizer->bytesOf(id));
  std::string text;
  takeUtf8(held, text, /*all=*/false);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  takeUtf8(held, text, /*all=*/true);
  return text;
}

//===----------------------------------------------------------------------===//
// Loading
//===----------------------------------------------------------------------===//

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
  Status loadVocabulary(const json &vocabulary);
  Status loadMerge(const json &merge, int32_t rank);
  Status loadAdded(const json &token, size_t index);
  Status loadPattern(const json &pattern, size_t index);
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

Status Loader::loadVocabulary(const json &vocabulary) {
  ids.reserve(vocabulary.size());
  for (const auto &[text, id] : vocabulary.items()) {
    if (!id.is_number_integer())
      return corrupt("model.vocab: the id of '", text, "' is not an integer");
    std::optional<std::string> bytes = alphabet.decode(text);
    if (!bytes || bytes->empty())
      return corrupt("model.vocab: '", text,
                     "' is not in the GPT-2 byte alphabet");
    if (state.ignoreMerges)
      state.words.emplace(*bytes, id.get<int32_t>());
    KVRM_TRY(define(id.get<int64_t>(), "model.vocab", std::move(*bytes),
                    /*special=*/false));
    ids.emplace(text, id.get<int32_t>());
  }
  for (int byte = 0; byte < 256; ++byte) {
    auto it = ids.find(alphabet.textOf(byte));
    state.byteTokens[static_cast<size_t>(byte)] =
        it == ids.end() ? -1 : it->second;
  }
  return Status::ok();
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

Status Loader::load(const json &root) {
  const json *model = member(&root, "model");
  const json *type = member(model, "type");
  if (!type || !type->is_string() || type->get<std::string>() != "BPE")
    return corrupt("model.type is not \"BPE\"");
  const json *vocabulary = member(model, "vocab");
  if (!vocabulary || !vocabulary->is_object())
    return corrupt("model.vocab is not an object");
  const json *merges = member(model, "merges");
  if (!merges || !merges->is_array())
    return corrupt("model.merges is not an array");
  const json *patterns = member(member(&root, "pre_tokenizer"), "pattern");
  if (!patterns || !patterns->is_array())
    return corrupt("pre_tokenizer.pattern is not an array");
  if (const json *ignore = member(model, "ignore_merges")) {
    if (!ignore->is_boolean())
      return corrupt("model.ignore_merges is not a boolean");
    state.ignoreMerges = ignore->get<bool>();
  }

  KVRM_TRY(loadVocabulary(*vocabulary));
  state.merges.reserve(merges->size());
  int32_t rank = 0;
  for (const json &merge : *merges)
    KVRM_TRY(loadMerge(merge, rank++));
  for (const json &pattern : *patterns)
    KVRM_TRY(loadPattern(pattern, state.patterns.size()));

  if (const json *added = member(&root, "added_tokens")) {
    if (!added->is_array())
      return corrupt("added_tokens is not an array");
    size_t index = 0;
    for (const json &token : *added)
      KVRM_TRY(loadAdded(token, index++));
    for (std::vector<AddedToken> &bucket : state.added)
      std::sort(bucket.begin(), bucket.end(),
                [](const AddedToken &a, const AddedToken &b) {
                  return std::pair(b.content.size(), a.id) <
                         std::pair(a.content.size(), b.id);
                });
  }

  KVRM_TRY(loadTokenId(root, "bos_token_id", state.bos));
  KVRM_TRY(loadTokenId(root, "eos_token_id", state.eos));
  if (const json *addBos = member(&root, "add_bos_token")) {
    if (!addBos->is_boolean())
      return corrupt("add_bos_token is not a boolean");
    state.addBos = addBos->get<bool>();
  }
  if (state.addBos && state.bos < 0)
    return corrupt("add_bos_token is set, but bos_token_id is missing");
  if (const json *chat = member(&root, "chat_template")) {
    if (!chat->is_string())
      return corrupt("chat_template is not a string");
    state.chatTemplate = chat->get<std::string>();
  }
  return Status::ok();
}

Expected<Tokenizer> Tokenizer::parse(std::string_view text,
                                     const std::string &name) {
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded())
    return makeError(StatusCode::Corrupt, name, ": not valid JSON");
  auto state = std::make_unique<State>();
  KVRM_TRY(Loader(name, *state).load(root));
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
