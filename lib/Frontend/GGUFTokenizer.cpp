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

#include <cmath>

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
  bool normalizesToNFC = false;
};
} // namespace

/// The pre-tokenisers that Llama decoders come with, by llama.cpp's names. What
/// they do is what the models' own tokenizer.json says: llama.cpp leaves out
/// Qwen's normalizer, and the long s among the endings.
static const PreTokenizer *lookupPreTokenizer(StringRef name) {
  static const std::string gpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  static const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::string qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const PreTokenizer known[] = {
      {"smollm", {R"(\p{N})", gpt2}},
      {"starcoder", {R"(\p{N})", gpt2}},
      {"gpt-2", {gpt2}},
      {"llama-bpe", {llama3}, /*ignoreMerges=*/true, /*addBos=*/true},
      {"qwen2",
       {qwen2},
       /*ignoreMerges=*/false,
       /*addBos=*/false,
       /*normalizesToNFC=*/true},
  };
  const PreTokenizer *found = llvm::find_if(
      known, [&](const PreTokenizer &p) { return name == p.name; });
  return found == std::end(known) ? nullptr : found;
}

namespace {
/// Reads a byte-level BPE, of which llama.cpp says "gpt2", or without a
/// pre-tokenizer a BPE of SentencePiece, of which it says "llama".
class TokenizerReader {
public:
  TokenizerReader(const GGUFFile &file, const DecoderConfig &config,
                  const PreTokenizer *preTokenizer)
      : file(file), config(config), preTokenizer(preTokenizer) {}

  Expected<TokenizerData> read();

private:
  Error readLists();
  Error readTypes();
  Error readSettings();
  Error readBytePairSettings();
  Error readPieceSettings();
  Error addTokens();
  void addStrips();
  Error checkToken(size_t id, StringRef token, TokenizerData::Kind kind) const;
  Error addMerges();
  Error addPieceMerges();
  Error checkByteTokens() const;
  Error checkIds() const;
  Expected<TokenizerData::Kind> kindOf(size_t id) const;

  Error fail(const Twine &message) const {
    return fileError(file.name(), message);
  }

  const GGUFFile &file;
  const DecoderConfig &config;
  const PreTokenizer *preTokenizer;
  TokenizerData data;
  std::vector<StringRef> tokens;
  std::vector<StringRef> merges;
  std::vector<int64_t> types; ///< of tokens
};
} // namespace

Error TokenizerReader::readBytePairSettings() {
  data.patterns = preTokenizer->patterns;
  data.ignoreMerges = preTokenizer->ignoreMerges;
  data.normalizesToNFC = preTokenizer->normalizesToNFC;
  return assign(data.addBos, file.getBool("tokenizer.ggml.add_bos_token",
                                          preTokenizer->addBos));
}

/// SentencePiece puts a space before a text, whatever it begins with.
Error TokenizerReader::readPieceSettings() {
  data.isOverCharacters = true;
  bool addsSpace = false, removesSpaces = false;
  if (Error error = firstOf({
          [&] {
            return assign(data.addBos,
                          file.getBool("tokenizer.ggml.add_bos_token", true));
          },
          [&] {
            return assign(
                addsSpace,
                file.getBool("tokenizer.ggml.add_space_prefix", true));
          },
          [&] {
            return assign(removesSpaces,
                          file.getBool("tokenizer.ggml.remove_extra_"
                                       "whitespaces",
                                       false));
          },
      }))
    return error;
  if (removesSpaces)
    return fail("metadata 'tokenizer.ggml.remove_extra_whitespaces': true is "
                "not supported (only false is)");
  if (addsSpace)
    data.prefix = TokenizerData::Prefix::Always;
  return Error::success();
}

Error TokenizerReader::readSettings() {
  data.bos = config.bos;
  data.eos = config.eos;
  bool addsEos = false;
  if (Error error =
          assign(addsEos, file.getBool("tokenizer.ggml.add_eos_token", false)))
    return error;
  if (addsEos)
    return fail("metadata 'tokenizer.ggml.add_eos_token': true is not "
                "supported (only false is)");
  if (Error error = preTokenizer ? readBytePairSettings() : readPieceSettings())
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
  if (preTokenizer)
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
  case 6: // stands for a byte
    if (!preTokenizer)
      return TokenizerData::Kind::Normal;
    [[fallthrough]];
  default:
    return fail(formatv("metadata 'tokenizer.ggml.token_type': token {0} has "
                        "the type {1}, not in [1, {2}]",
                        id, types[id], preTokenizer ? 5 : 6)
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
  if (preTokenizer && kind == TokenizerData::Kind::Normal &&
      !isInByteAlphabet(token))
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

/// To Phi-3's marks white space behind them belongs: its tokenizer.json says
/// so, and a GGUF file cannot.
void TokenizerReader::addStrips() {
  if (preTokenizer || config.architecture != "phi3")
    return;
  static constexpr StringRef others[] = {"<unk>", "<s>", "<|endoftext|>"};
  for (auto [id, token, kind] : llvm::enumerate(data.tokens, data.kinds))
    if ((kind == TokenizerData::Kind::Special ||
         kind == TokenizerData::Kind::UserDefined) &&
        !llvm::is_contained(others, StringRef(token)))
      data.stripsBehind.push_back(static_cast<int32_t>(id));
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

/// SentencePiece joins the neighbours that make the piece of the highest score,
/// so pieces have the scores of their merges: two parts that are pieces,
/// however a piece is cut. A BPE has no two pieces of one score.
Error TokenizerReader::addPieceMerges() {
  std::vector<float> scores;
  if (Error error = assign(scores, file.getFloats("tokenizer.ggml.scores")))
    return error;
  if (scores.size() != tokens.size())
    return fail(formatv("metadata 'tokenizer.ggml.scores': {0} scores, but the "
                        "vocabulary is {1}",
                        scores.size(), tokens.size())
                    .str());
  llvm::StringSet<> pieces;
  std::vector<size_t> order;
  for (auto [id, kind] : llvm::enumerate(data.kinds)) {
    if (kind != TokenizerData::Kind::Normal || types[id] == 6)
      continue;
    if (!std::isfinite(scores[id]))
      return fail(formatv("metadata 'tokenizer.ggml.scores': that of token {0} "
                          "is no number",
                          id)
                      .str());
    pieces.insert(tokens[id]);
    order.push_back(id);
  }
  llvm::stable_sort(order, [&](size_t left, size_t right) {
    return scores[left] > scores[right];
  });
  for (size_t id : order) {
    StringRef piece = tokens[id];
    for (size_t cut = 1; cut < piece.size(); ++cut)
      if (pieces.contains(piece.take_front(cut)) &&
          pieces.contains(piece.drop_front(cut)))
        data.merges.push_back(
            (piece.take_front(cut) + " " + piece.drop_front(cut)).str());
  }
  return Error::success();
}

/// What is no piece falls back on the tokens of its bytes.
Error TokenizerReader::checkByteTokens() const {
  llvm::StringSet<> known;
  for (auto [token, kind] : llvm::zip_equal(tokens, data.kinds))
    if (kind == TokenizerData::Kind::Normal)
      known.insert(token);
  for (int byte = 0; byte < 256; ++byte)
    if (std::string text = formatv("<0x{0:X-2}>", byte); !known.contains(text))
      return fail("metadata 'tokenizer.ggml.tokens': '" + text +
                  "' is missing");
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
  if (Error error = firstOf(
          {[&] { return readLists(); }, [&] { return readSettings(); },
           [&] { return addTokens(); },
           [&] { return preTokenizer ? addMerges() : addPieceMerges(); },
           [&] { return preTokenizer ? Error::success() : checkByteTokens(); },
           [&] { return checkIds(); }}))
    return error;
  addStrips();
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
  if (kind != "gpt2" && kind != "llama") {
    model.tokenizerNote = ("tokenizer model '" + kind +
                           "' is not supported ('gpt2', byte-level BPE, and "
                           "'llama', SentencePiece's BPE, are)")
                              .str();
    return Error::success();
  }
  StringRef pre;
  if (Error error = assign(pre, file.getString("tokenizer.ggml.pre", "")))
    return error;
  const PreTokenizer *preTokenizer =
      kind == "gpt2" ? lookupPreTokenizer(pre) : nullptr;
  if (kind == "gpt2" && !preTokenizer) {
    model.tokenizerNote =
        ("pre-tokenizer '" + pre + "' is not supported").str();
    return Error::success();
  }
  if (Error error =
          assign(model.tokenizer,
                 TokenizerReader(file, model.config, preTokenizer).read()))
    return error;
  addEndMarks(*model.tokenizer, model.config);
  return Error::success();
}
