//===- GGUFTokenizer.cpp - Tokenizers in GGUF files -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUFTokenizer.h"

#include "Lookup.h"
#include "TokenizerChecks.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;

namespace {
struct PreTokenizer {
  const char *name; ///< of tokenizer.ggml.pre
  std::vector<std::string> patterns;
  bool ignoreMerges = false;
  bool addBos = false;
};
} // namespace

/// The pre-tokenisers of llama.cpp's src/llama-vocab.cpp that Llama decoders
/// come with. The final `|\s+` is that of GPT-2's own expression.
static const PreTokenizer *lookupPreTokenizer(StringRef name) {
  static const std::string gpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  static const std::string llama3 =
      R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::string qwen2 =
      R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const PreTokenizer known[] = {
      {"smollm", {R"(\p{N})", gpt2}},
      {"starcoder", {R"(\p{N})", gpt2}},
      {"gpt-2", {gpt2}},
      {"llama-bpe", {llama3}, /*ignoreMerges=*/true, /*addBos=*/true},
      {"qwen2", {qwen2}},
  };
  const PreTokenizer *found = llvm::find_if(
      known, [&](const PreTokenizer &p) { return name == p.name; });
  return found == std::end(known) ? nullptr : found;
}

namespace {
/// Reads a byte-level BPE, of which llama.cpp says "gpt2".
class TokenizerReader {
public:
  TokenizerReader(const GGUFFile &file, const DecoderConfig &config,
                  const PreTokenizer &preTokenizer)
      : file(file), config(config), preTokenizer(preTokenizer) {}

  Expected<TokenizerData> read();

private:
  Error readLists();
  Error readTypes();
  Error readSettings();
  Error addTokens();
  Error checkToken(size_t id, StringRef token, TokenizerData::Kind kind) const;
  Error addMerges();
  Error checkIds() const;
  Expected<TokenizerData::Kind> kindOf(size_t id) const;

  Error fail(const Twine &message) const {
    return fileError(file.name(), message);
  }

  const GGUFFile &file;
  const DecoderConfig &config;
  const PreTokenizer &preTokenizer;
  TokenizerData data;
  std::vector<StringRef> tokens;
  std::vector<StringRef> merges;
  std::vector<int64_t> types; ///< of tokens
};
} // namespace

Error TokenizerReader::readSettings() {
  data.patterns = preTokenizer.patterns;
  data.ignoreMerges = preTokenizer.ignoreMerges;
  data.bos = config.bos;
  data.eos = config.eos;
  if (Error error =
          assign(data.addBos, file.getBool("tokenizer.ggml.add_bos_token",
                                           preTokenizer.addBos)))
    return error;
  if (data.addBos && data.bos < 0)
    return fail("metadata 'tokenizer.ggml.add_bos_token' is set, but "
                "'tokenizer.ggml.bos_token_id' is missing");
  if (Error error = assign(data.chatTemplate,
                           file.getString("tokenizer.chat_template", "")))
    return error;
  if (!llvm::json::isUTF8(data.chatTemplate))
    return fail("metadata 'tokenizer.chat_template' is not UTF-8");
  return Error::success();
}

/// All normal if the file does not say.
Error TokenizerReader::readTypes() {
  auto vocabulary = static_cast<size_t>(config.vocabulary);
  types.assign(vocabulary, 1);
  if (!file.has("tokenizer.ggml.token_type"))
    return Error::success();
  if (Error error = assign(types, file.getInts("tokenizer.ggml.token_type")))
    return error;
  if (types.size() != vocabulary)
    return fail(formatv("metadata 'tokenizer.ggml.token_type': {0} types, "
                        "but the vocabulary is {1}",
                        types.size(), vocabulary)
                    .str());
  return Error::success();
}

Error TokenizerReader::readLists() {
  if (Error error = assign(tokens, file.getStrings("tokenizer.ggml.tokens")))
    return error;
  auto vocabulary = static_cast<size_t>(config.vocabulary);
  if (tokens.size() != vocabulary)
    return fail(formatv("metadata 'tokenizer.ggml.tokens': {0} tokens, but the "
                        "vocabulary is {1}",
                        tokens.size(), vocabulary)
                    .str());
  if (Error error = assign(merges, file.getStrings("tokenizer.ggml.merges")))
    return error;
  return readTypes();
}

/// By llama.cpp's llama_token_type.
Expected<TokenizerData::Kind> TokenizerReader::kindOf(size_t id) const {
  switch (types[id]) {
  case 1:
    return TokenizerData::Kind::Normal;
  case 2:
  case 3:
    return TokenizerData::Kind::Special;
  case 4:
    return TokenizerData::Kind::UserDefined;
  case 5:
    return TokenizerData::Kind::Unused;
  default:
    return fail(formatv("metadata 'tokenizer.ggml.token_type': token {0} has "
                        "the type {1}, not in [1, 5]",
                        id, types[id])
                    .str());
  }
}

/// What the runtime could not read.
Error TokenizerReader::checkToken(size_t id, StringRef token,
                                  TokenizerData::Kind kind) const {
  auto refuse = [&](const char *why) {
    return fail(
        formatv("metadata 'tokenizer.ggml.tokens': token {0} {1}", id, why)
            .str());
  };
  if (!llvm::json::isUTF8(token))
    return refuse("is not UTF-8");
  if (kind == TokenizerData::Kind::Unused)
    return Error::success();
  if (token.empty())
    return refuse("is empty");
  if (kind == TokenizerData::Kind::Normal && !isInByteAlphabet(token))
    return fail(formatv("metadata 'tokenizer.ggml.tokens': token {0}, '{1}', "
                        "is not in the GPT-2 byte alphabet",
                        id, token)
                    .str());
  return Error::success();
}

Error TokenizerReader::addTokens() {
  llvm::StringSet<> seen;
  for (auto [id, token] : llvm::enumerate(tokens)) {
    Expected<TokenizerData::Kind> kind = kindOf(id);
    if (!kind)
      return kind.takeError();
    if (Error error = checkToken(id, token, *kind))
      return error;
    if (*kind != TokenizerData::Kind::Unused && !seen.insert(token).second)
      return fail(formatv("metadata 'tokenizer.ggml.tokens': token {0}, '{1}', "
                          "occurs twice",
                          id, token)
                      .str());
    data.tokens.push_back(token.str());
    data.kinds.push_back(*kind);
  }
  return Error::success();
}

Error TokenizerReader::addMerges() {
  llvm::StringSet<> words;
  for (auto [token, kind] : llvm::zip_equal(data.tokens, data.kinds))
    if (kind == TokenizerData::Kind::Normal)
      words.insert(token);
  for (auto [rank, merge] : llvm::enumerate(merges)) {
    size_t space = merge.find(' ');
    if (space == 0 || space == StringRef::npos || space + 1 == merge.size() ||
        !llvm::json::isUTF8(merge))
      return fail(formatv("metadata 'tokenizer.ggml.merges': merge {0} is not "
                          "'left right'",
                          rank)
                      .str());
    auto [left, right] = merge.split(' ');
    if (!words.contains(left) || !words.contains(right) ||
        !words.contains((left + right).str()))
      return fail(formatv("metadata 'tokenizer.ggml.merges': merge {0}, '{1}', "
                          "is of tokens that are not in "
                          "'tokenizer.ggml.tokens'",
                          rank, merge)
                      .str());
    data.merges.push_back(merge.str());
  }
  return Error::success();
}

/// An unused token has no text, and is no token to the runtime.
Error TokenizerReader::checkIds() const {
  for (auto [id, key] : {std::pair(data.bos, "tokenizer.ggml.bos_token_id"),
                         std::pair(data.eos, "tokenizer.ggml.eos_token_id")})
    if (id >= 0 &&
        data.kinds[static_cast<size_t>(id)] == TokenizerData::Kind::Unused)
      return fail(
          formatv("metadata '{0}': token {1} is unused", key, id).str());
  return Error::success();
}

Expected<TokenizerData> TokenizerReader::read() {
  if (Error error =
          firstOf({[&] { return readLists(); }, [&] { return readSettings(); },
                   [&] { return addTokens(); }, [&] { return addMerges(); },
                   [&] { return checkIds(); }}))
    return error;
  return std::move(data);
}

Error kvrm::readTokenizer(const GGUFFile &file, DecoderModel &model) {
  StringRef kind;
  if (Error error = assign(kind, file.getString("tokenizer.ggml.model", "")))
    return error;
  if (kind.empty()) {
    model.tokenizerNote = "the file has no tokenizer";
    return Error::success();
  }
  if (kind != "gpt2") {
    model.tokenizerNote = ("tokenizer model '" + kind +
                           "' is not supported (only 'gpt2', byte-level BPE, "
                           "is)")
                              .str();
    return Error::success();
  }
  StringRef pre;
  if (Error error = assign(pre, file.getString("tokenizer.ggml.pre", "")))
    return error;
  const PreTokenizer *preTokenizer = lookupPreTokenizer(pre);
  if (!preTokenizer) {
    model.tokenizerNote =
        ("pre-tokenizer '" + pre + "' is not supported").str();
    return Error::success();
  }
  if (Error error =
          assign(model.tokenizer,
                 TokenizerReader(file, model.config, *preTokenizer).read()))
    return error;
  addEndMarks(*model.tokenizer, model.config);
  return Error::success();
}
