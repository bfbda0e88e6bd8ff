//===- FolderTokenizer.cpp - Tokenizers in Hugging Face folders -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FolderTokenizer.h"

#include "JsonFields.h"
#include "Lookup.h"
#include "TokenizerChecks.h"
#include "TokenizerSteps.h"

#include "kvrm/Frontend/JsonText.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
namespace json = llvm::json;

using Kind = TokenizerData::Kind;

namespace {
/// Reads tokenizer.json. What the runtime does not do is an Unsupported error.
class TokenizerReader {
public:
  TokenizerReader(const JsonFields &root, const DecoderConfig &config)
      : root(root), config(config) {}

  Expected<TokenizerData> read();

private:
  Error readModel();
  Error readFlags(const JsonFields &model);
  Error readVocabulary(const JsonFields &model);
  Error readAdded();
  Error readAddedToken(const JsonFields &token);
  Error readMerges(const JsonFields &model);
  Expected<std::string> mergeOf(const JsonFields &model,
                                const json::Value &entry, size_t rank) const;
  Error checkBytes() const;
  Error checkAlphabet() const;
  Error readSteps();
  Error readTemplate();

  const JsonFields &root;
  const DecoderConfig &config;
  TokenizerData data;
  std::vector<bool> isDefined; ///< by id
  llvm::StringMap<int32_t> ids;
};
} // namespace

Error TokenizerReader::readFlags(const JsonFields &model) {
  StringRef type;
  if (Error error = firstOf({
          [&] { return assign(type, model.getString("type", "BPE")); },
          [&] {
            return assign(data.ignoreMerges,
                          model.getBool("ignore_merges", false));
          },
          [&] {
            return assign(data.isOverCharacters,
                          model.getBool("byte_fallback", false));
          },
      }))
    return error;
  if (type != "BPE")
    return unsupported("model.type '" + type + "' (BPE is)");
  for (StringRef key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const json::Value *value = model.find(key);
    bool isNothing = !value || value->getAsNumber() == 0.0 ||
                     value->getAsString() == StringRef();
    if (!isNothing)
      return unsupported("model." + key);
  }
  return Error::success();
}

/// Tokens that the model has no embedding for cannot be had: they are left out.
Error TokenizerReader::readVocabulary(const JsonFields &model) {
  const json::Value *value = model.find("vocab");
  const json::Object *vocabulary = value ? value->getAsObject() : nullptr;
  if (!vocabulary)
    return model.fail("vocab", "is not an object");
  for (const auto &[text, entry] : *vocabulary) {
    std::optional<int64_t> id = entry.getAsInteger();
    if (!id || *id < 0)
      return model.fail("vocab",
                        "the id of '" + StringRef(text) + "' is no token id");
    if (*id >= config.vocabulary)
      continue;
    auto index = static_cast<size_t>(*id);
    if (isDefined[index])
      return model.fail("vocab", formatv("two tokens have the id {0}", *id));
    isDefined[index] = true;
    data.tokens[index] = StringRef(text).str();
    data.kinds[index] = Kind::Normal;
    ids[text] = static_cast<int32_t>(*id);
  }
  return Error::success();
}

Error TokenizerReader::readAddedToken(const JsonFields &token) {
  int64_t id = 0;
  StringRef content;
  bool isSpecial = false;
  if (Error error = firstOf({
          [&] { return assign(id, token.getInt("id")); },
          [&] { return assign(content, token.getString("content")); },
          [&] { return assign(isSpecial, token.getBool("special", false)); },
      }))
    return error;
  if (id < 0)
    return token.fail("id", "is negative");
  if (content.empty())
    return token.fail("content", "is empty");
  if (id >= config.vocabulary)
    return Error::success();
  bool isWord = false;
  if (Error error = assign(isWord, token.getBool("single_word", false)))
    return error;
  if (isWord)
    return unsupported("the added token '" + content + "' with single_word");
  for (auto [key, list] : {std::pair("lstrip", &data.stripsBefore),
                           std::pair("rstrip", &data.stripsBehind)}) {
    bool strips = false;
    if (Error error = assign(strips, token.getBool(key, false)))
      return error;
    if (strips)
      list->push_back(static_cast<int32_t>(id));
  }
  auto index = static_cast<size_t>(id);
  if (isDefined[index] && data.tokens[index] != content)
    return token.fail("content", formatv("'{0}' has the id {1} of '{2}'",
                                         content, id, data.tokens[index]));
  isDefined[index] = true;
  data.tokens[index] = content.str();
  data.kinds[index] = isSpecial ? Kind::Special : Kind::UserDefined;
  ids[content] = static_cast<int32_t>(id);
  return Error::success();
}

Error TokenizerReader::readAdded() {
  const json::Value *value = root.find("added_tokens");
  if (!value)
    return Error::success();
  const json::Array *list = value->getAsArray();
  if (!list)
    return root.fail("added_tokens", "is not a list");
  for (auto [index, entry] : llvm::enumerate(*list)) {
    std::string field = formatv("added_tokens[{0}]", index);
    const json::Object *token = entry.getAsObject();
    if (!token)
      return root.fail(field, "is not an object");
    if (Error error = readAddedToken(root.member(*token, field)))
      return error;
  }
  return Error::success();
}

/// "left right", or in newer files a list of both.
Expected<std::string> TokenizerReader::mergeOf(const JsonFields &model,
                                               const json::Value &entry,
                                               size_t rank) const {
  StringRef left, right;
  if (std::optional<StringRef> text = entry.getAsString()) {
    std::tie(left, right) = text->split(' ');
  } else if (const json::Array *pair = entry.getAsArray();
             pair && pair->size() == 2) {
    left = (*pair)[0].getAsString().value_or("");
    right = (*pair)[1].getAsString().value_or("");
  }
  std::string field = formatv("merges[{0}]", rank);
  if (left.empty() || right.empty())
    return model.fail(field, "is not two tokens");
  if (left.contains(' ') || right.contains(' '))
    return unsupported("model." + field + ": tokens with spaces");
  for (const std::string &part :
       {left.str(), right.str(), (left + right).str()}) {
    auto found = ids.find(part);
    if (found == ids.end())
      return model.fail(field, "'" + part + "' is not in the vocabulary");
    if (data.kinds[static_cast<size_t>(found->second)] != Kind::Normal)
      return unsupported("model." + StringRef(field) + " of the added token '" +
                         part + "'");
  }
  return (left + " " + right).str();
}

Error TokenizerReader::readMerges(const JsonFields &model) {
  const json::Value *value = model.find("merges");
  const json::Array *list = value ? value->getAsArray() : nullptr;
  if (!list)
    return model.fail("merges", "is not a list");
  data.merges.reserve(list->size());
  for (auto [rank, entry] : llvm::enumerate(*list)) {
    Expected<std::string> merge = mergeOf(model, entry, rank);
    if (!merge)
      return merge.takeError();
    data.merges.push_back(std::move(*merge));
  }
  return Error::success();
}

/// Over characters: each byte has a token to fall back on.
Error TokenizerReader::checkBytes() const {
  for (int byte = 0; byte < 256; ++byte) {
    std::string text = formatv("<0x{0:X-2}>", byte);
    if (!ids.contains(text))
      return unsupported("model.byte_fallback without the token '" + text +
                         "'");
  }
  return Error::success();
}

/// Over bytes: each token is text in GPT-2's alphabet.
Error TokenizerReader::checkAlphabet() const {
  for (auto [token, kind] : llvm::zip_equal(data.tokens, data.kinds))
    if (kind == Kind::Normal && !isInByteAlphabet(token))
      return unsupported("the token '" + token +
                         "', which is not in the GPT-2 byte alphabet,");
  return Error::success();
}

Error TokenizerReader::readModel() {
  data.tokens.resize(static_cast<size_t>(config.vocabulary));
  data.kinds.assign(data.tokens.size(), Kind::Unused);
  isDefined.resize(data.tokens.size());
  Expected<JsonFields> model = root.getObject("model");
  if (!model)
    return model.takeError();
  return firstOf({
      [&] { return readFlags(*model); },
      [&] { return readVocabulary(*model); },
      [&] { return readAdded(); },
      [&] { return readMerges(*model); },
      [&] { return data.isOverCharacters ? checkBytes() : checkAlphabet(); },
  });
}

Error TokenizerReader::readSteps() {
  return firstOf({
      [&] { return readNormalizer(root, data); },
      [&] { return readPreTokenizer(root, data); },
  });
}

/// A bos in front is all that the runtime adds.
Error TokenizerReader::readTemplate() {
  Expected<std::string> bos = readPostProcessor(root);
  if (!bos)
    return bos.takeError();
  data.bos = config.bos;
  data.eos = config.eos;
  if (bos->empty())
    return Error::success();
  auto found = ids.find(*bos);
  if (found == ids.end())
    return root.fail("post_processor", "'" + *bos + "' is no token");
  data.addBos = true;
  data.bos = found->second;
  return Error::success();
}

Expected<TokenizerData> TokenizerReader::read() {
  if (Error error =
          firstOf({[&] { return readModel(); }, [&] { return readSteps(); },
                   [&] { return readTemplate(); }}))
    return error;
  return std::move(data);
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

static std::string inFolder(StringRef folder, StringRef name) {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, name);
  return path.str().str();
}

/// One template, or that called "default" of several.
static Expected<std::string> templateOf(const JsonFields &config) {
  const json::Value *value = config.find("chat_template");
  if (!value)
    return std::string();
  if (std::optional<StringRef> text = value->getAsString())
    return text->str();
  if (const json::Array *list = value->getAsArray())
    for (const json::Value &entry : *list)
      if (const json::Object *named = entry.getAsObject();
          named && named->getString("name") == StringRef("default"))
        return named->getString("template").value_or("").str();
  return std::string();
}

/// The template in a file of its own, where newer folders have it.
static Expected<std::string> readTemplateFile(const std::string &path) {
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer)
    return fileError(path, "cannot open: " + buffer.getError().message());
  StringRef text = (*buffer)->getBuffer();
  if (!json::isUTF8(text))
    return fileError(path, "is not UTF-8");
  return text.str();
}

/// A token's text: a string, or an object that has it as its content. Empty if
/// it is null, nothing if it is not there.
static std::optional<StringRef> tokenText(const JsonFields &fields,
                                          StringRef key) {
  const json::Value *value = fields.find(key);
  if (!value)
    return fields.isNull(key) ? std::optional(StringRef()) : std::nullopt;
  if (const json::Object *token = value->getAsObject())
    return token->getString("content").value_or("");
  return value->getAsString().value_or("");
}

/// Sets the token that templates call `key`, if the file says which.
static Error readMark(const JsonFields &fields, StringRef key,
                      const TokenizerData &data, int32_t &place) {
  std::optional<StringRef> text = tokenText(fields, key);
  if (!text)
    return Error::success();
  place = -1;
  if (text->empty())
    return Error::success();
  auto found = llvm::find(data.tokens, *text);
  if (found == data.tokens.end())
    return fields.fail(key, "'" + *text + "' is no token");
  place = static_cast<int32_t>(found - data.tokens.begin());
  return Error::success();
}

/// The tokens that templates call bos_token and eos_token, which are not always
/// those that the model's configuration names, and the latter as an end.
static Error readMarks(const JsonFields &fields, TokenizerData &data,
                       DecoderConfig &config) {
  int32_t bos = data.bos;
  if (Error error = firstOf(
          {[&] { return readMark(fields, "bos_token", data, bos); },
           [&] { return readMark(fields, "eos_token", data, data.eos); }}))
    return error;
  // The runtime has one token for both.
  if (data.addBos && bos != data.bos)
    return unsupported("a post_processor that begins with another token than "
                       "bos_token");
  data.bos = bos;
  config.addEnd(data.eos);
  return Error::success();
}

static Error readTokenizerConfig(StringRef folder, TokenizerData &data,
                                 DecoderConfig &config) {
  if (std::string path = inFolder(folder, "chat_template.jinja");
      llvm::sys::fs::exists(path))
    if (Error error = assign(data.chatTemplate, readTemplateFile(path)))
      return error;
  // In older folders the second holds, and newer ones have no need of it.
  for (StringRef name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    std::string path = inFolder(folder, name);
    if (!llvm::sys::fs::exists(path))
      continue;
    Expected<json::Object> root = readJsonObject(path);
    if (!root)
      return root.takeError();
    JsonFields fields(*root, path);
    bool splits = false;
    if (Error error = firstOf(
            {[&] { return readMarks(fields, data, config); },
             [&] {
               return assign(splits,
                             fields.getBool("split_special_tokens", false));
             }}))
      return error;
    if (splits)
      return unsupported("split_special_tokens");
    if (data.chatTemplate.empty())
      if (Error error = assign(data.chatTemplate, templateOf(fields)))
        return error;
    if (fields.has("added_tokens_decoder"))
      break;
  }
  return Error::success();
}

Error kvrm::readFolderTokenizer(StringRef folder, DecoderModel &model) {
  std::string path = inFolder(folder, "tokenizer.json");
  if (!llvm::sys::fs::exists(path)) {
    model.tokenizerNote = "the folder has no tokenizer.json";
    return Error::success();
  }
  Expected<json::Object> root = readJsonObject(path);
  if (!root)
    return root.takeError();
  TokenizerData data;
  Error error = firstOf({
      [&] {
        return assign(
            data,
            TokenizerReader(JsonFields(*root, path), model.config).read());
      },
      [&] { return readTokenizerConfig(folder, data, model.config); },
  });
  if (error)
    return llvm::handleErrors(
        std::move(error), [&](const UnsupportedStep &unsupported) {
          model.tokenizerNote =
              fileLine(path, unsupported.what() + " is not supported");
        });
  addEndMarks(data, model.config);
  model.tokenizer = std::move(data);
  return Error::success();
}
