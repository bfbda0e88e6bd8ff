//===- TokenizerSteps.cpp - Steps around the BPE of tokenizer.json --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TokenizerSteps.h"

#include "Lookup.h"

#include "llvm/ADT/STLExtras.h"

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

using Prefix = TokenizerData::Prefix;

char UnsupportedStep::ID;

void UnsupportedStep::log(llvm::raw_ostream &os) const {
  os << text << " is not supported";
}

/// What stands for a space, U+2581.
static constexpr StringRef spaceMark = "\xe2\x96\x81";

/// Calls `visit` with the type and the fields of a step, or of each of a
/// sequence of them.
static Error
forEachStep(const JsonFields &root, StringRef key, StringRef list,
            llvm::function_ref<Error(StringRef, const JsonFields &)> visit) {
  if (!root.has(key))
    return Error::success();
  Expected<JsonFields> step = root.getObject(key);
  if (!step)
    return step.takeError();
  Expected<StringRef> type = step->getString("type");
  if (!type)
    return type.takeError();
  if (*type != "Sequence")
    return visit(*type, *step);
  const json::Value *value = step->find(list);
  const json::Array *steps = value ? value->getAsArray() : nullptr;
  if (!steps)
    return step->fail(list, "is not a list");
  for (const json::Value &entry : *steps) {
    const json::Object *object = entry.getAsObject();
    if (!object)
      return step->fail(list, "is not a list of objects");
    JsonFields fields = step->member(*object, list.str());
    Expected<StringRef> inner = fields.getString("type");
    if (!inner)
      return inner.takeError();
    if (Error error = visit(*inner, fields))
      return error;
  }
  return Error::success();
}

/// The text of `pattern`, if that is a text and not an expression.
static std::optional<StringRef> textPattern(const JsonFields &step) {
  const json::Value *value = step.find("pattern");
  const json::Object *pattern = value ? value->getAsObject() : nullptr;
  return pattern ? pattern->getString("String") : std::nullopt;
}

static std::optional<StringRef> expressionPattern(const JsonFields &step) {
  const json::Value *value = step.find("pattern");
  const json::Object *pattern = value ? value->getAsObject() : nullptr;
  return pattern ? pattern->getString("Regex") : std::nullopt;
}

//===----------------------------------------------------------------------===//
// Normalizers
//===----------------------------------------------------------------------===//

Error kvrm::readNormalizer(const JsonFields &root, TokenizerData &data) {
  return forEachStep(root, "normalizer", "normalizers",
                     [&](StringRef type, const JsonFields &step) -> Error {
                       if (type == "NFC") {
                         data.normalizesToNFC = true;
                         return Error::success();
                       }
                       if (data.isOverCharacters && type == "Prepend" &&
                           step.find("prepend") &&
                           step.find("prepend")->getAsString() == spaceMark) {
                         data.prefix = Prefix::Always;
                         return Error::success();
                       }
                       if (data.isOverCharacters && type == "Replace" &&
                           textPattern(step) == StringRef(" ") &&
                           step.find("content") &&
                           step.find("content")->getAsString() == spaceMark)
                         return Error::success();
                       return unsupported("the normalizer " + type);
                     });
}

//===----------------------------------------------------------------------===//
// Pre-tokenizers
//===----------------------------------------------------------------------===//

/// The expression that byte-level pre-tokenizers split with if none is given:
/// that of GPT-2.
static constexpr const char *gpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

static Error readByteLevel(const JsonFields &step, TokenizerData &data) {
  bool addsSpace = false, splits = true;
  if (Error error = firstOf({
          [&] {
            return assign(addsSpace, step.getBool("add_prefix_space", true));
          },
          [&] { return assign(splits, step.getBool("use_regex", true)); },
      }))
    return error;
  if (addsSpace)
    return unsupported("the pre-tokenizer ByteLevel with add_prefix_space");
  if (splits)
    data.patterns.push_back(gpt2);
  return Error::success();
}

static Error readDigits(const JsonFields &step, TokenizerData &data) {
  Expected<bool> isEach = step.getBool("individual_digits", false);
  if (!isEach)
    return isEach.takeError();
  data.patterns.push_back(*isEach ? R"(\p{N})" : R"(\p{N}+)");
  return Error::success();
}

static Error readSplit(const JsonFields &step, TokenizerData &data) {
  StringRef behavior;
  bool isInverted = false;
  if (Error error = firstOf({
          [&] { return assign(behavior, step.getString("behavior")); },
          [&] { return assign(isInverted, step.getBool("invert", false)); },
      }))
    return error;
  // No space is left where a mark stands for it.
  if (data.isOverCharacters && textPattern(step) == StringRef(" "))
    return Error::success();
  std::optional<StringRef> expression = expressionPattern(step);
  if (!expression || behavior != "Isolated" || isInverted)
    return unsupported("the pre-tokenizer Split that is " + behavior +
                       (isInverted ? ", inverted" : "") +
                       (expression ? "" : ", of a text"));
  data.patterns.push_back(expression->str());
  return Error::success();
}

/// `add_prefix_space` is what older files have in the stead of a scheme.
static Error readMetaspace(const JsonFields &step, TokenizerData &data) {
  StringRef mark, scheme;
  bool addsSpace = true, splits = true;
  if (Error error = firstOf({
          [&] { return assign(mark, step.getString("replacement")); },
          [&] {
            return assign(addsSpace, step.getBool("add_prefix_space", true));
          },
          [&] {
            return assign(scheme,
                          step.getString("prepend_scheme",
                                         addsSpace ? "always" : "never"));
          },
          [&] { return assign(splits, step.getBool("split", true)); },
      }))
    return error;
  if (!data.isOverCharacters || mark != spaceMark)
    return unsupported("the pre-tokenizer Metaspace with '" + mark + "'");
  if (scheme == "always")
    data.prefix = Prefix::Each;
  else if (scheme == "first")
    data.prefix = Prefix::First;
  if (splits)
    data.patterns.push_back(R"(\x{2581}[^\x{2581}]*)");
  return Error::success();
}

Error kvrm::readPreTokenizer(const JsonFields &root, TokenizerData &data) {
  bool isByteLevel = false;
  if (Error error =
          forEachStep(root, "pre_tokenizer", "pretokenizers",
                      [&](StringRef type, const JsonFields &step) -> Error {
                        if (type == "ByteLevel" && !data.isOverCharacters) {
                          isByteLevel = true;
                          return readByteLevel(step, data);
                        }
                        if (type == "Digits")
                          return readDigits(step, data);
                        if (type == "Split")
                          return readSplit(step, data);
                        if (type == "Metaspace")
                          return readMetaspace(step, data);
                        return unsupported("the pre-tokenizer " + type);
                      }))
    return error;
  if (!isByteLevel && !data.isOverCharacters)
    return unsupported("a BPE that is neither over bytes nor falls back on "
                       "them");
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Post-processors
//===----------------------------------------------------------------------===//

/// The special token of an entry of a template; null if it is the text.
static std::optional<StringRef> specialOf(const json::Value &entry) {
  const json::Object *object = entry.getAsObject();
  const json::Object *special =
      object ? object->getObject("SpecialToken") : nullptr;
  return special ? special->getString("id") : std::nullopt;
}

Expected<std::string> kvrm::readPostProcessor(const JsonFields &root) {
  std::string bos;
  if (Error error = forEachStep(
          root, "post_processor", "processors",
          [&](StringRef type, const JsonFields &step) -> Error {
            if (type == "ByteLevel") // changes offsets alone
              return Error::success();
            if (type != "TemplateProcessing")
              return unsupported("the post-processor " + type);
            const json::Value *value = step.find("single");
            const json::Array *single = value ? value->getAsArray() : nullptr;
            if (!single || single->empty())
              return step.fail("single", "is not a list");
            std::optional<StringRef> first = specialOf(single->front());
            size_t text = first ? 1 : 0;
            if (single->size() != text + 1 || specialOf(single->back()))
              return unsupported("a post-processor that adds more than a token "
                                 "in front");
            bos = first.value_or("").str();
            return Error::success();
          }))
    return error;
  return bos;
}
