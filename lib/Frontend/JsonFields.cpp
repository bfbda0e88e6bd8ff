//===- JsonFields.cpp - Fields of a JSON object, each checked -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "JsonFields.h"

#include <optional>

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

bool JsonFields::isNull(StringRef key) const {
  const json::Value *value = object->get(key);
  return value && value->kind() == json::Value::Null;
}

const json::Value *JsonFields::find(StringRef key) const {
  const json::Value *value = object->get(key);
  return value && value->kind() != json::Value::Null ? value : nullptr;
}

Error JsonFields::isNot(StringRef key, const char *kind) const {
  if (!has(key))
    return fail(key, "is missing");
  return fail(key, llvm::Twine("is not ") + kind);
}

Expected<int64_t> JsonFields::getInt(StringRef key) const {
  const json::Value *value = find(key);
  if (std::optional<int64_t> number =
          value ? value->getAsInteger() : std::nullopt)
    return *number;
  return isNot(key, "an integer below 2^63");
}

Expected<double> JsonFields::getNumber(StringRef key) const {
  const json::Value *value = find(key);
  if (std::optional<double> number =
          value ? value->getAsNumber() : std::nullopt)
    return *number;
  return isNot(key, "a number");
}

Expected<bool> JsonFields::getBool(StringRef key) const {
  const json::Value *value = find(key);
  if (std::optional<bool> flag = value ? value->getAsBoolean() : std::nullopt)
    return *flag;
  return isNot(key, "a boolean");
}

Expected<StringRef> JsonFields::getString(StringRef key) const {
  const json::Value *value = find(key);
  if (std::optional<StringRef> text =
          value ? value->getAsString() : std::nullopt)
    return *text;
  return isNot(key, "a string");
}

Expected<std::vector<double>> JsonFields::getNumbers(StringRef key) const {
  const json::Value *value = find(key);
  const json::Array *list = value ? value->getAsArray() : nullptr;
  if (!list)
    return isNot(key, "a list of numbers");
  std::vector<double> numbers;
  for (const json::Value &entry : *list) {
    std::optional<double> number = entry.getAsNumber();
    if (!number)
      return isNot(key, "a list of numbers");
    numbers.push_back(*number);
  }
  return numbers;
}

Expected<JsonFields> JsonFields::getObject(StringRef key) const {
  const json::Value *value = find(key);
  if (const json::Object *member = value ? value->getAsObject() : nullptr)
    return JsonFields(*member, file, (prefix + key + ".").str());
  return isNot(key, "an object");
}

Expected<int64_t> JsonFields::getInt(StringRef key, int64_t absent) const {
  return has(key) ? getInt(key) : Expected<int64_t>(absent);
}

Expected<double> JsonFields::getNumber(StringRef key, double absent) const {
  return has(key) ? getNumber(key) : Expected<double>(absent);
}

Expected<bool> JsonFields::getBool(StringRef key, bool absent) const {
  return has(key) ? getBool(key) : Expected<bool>(absent);
}

Expected<StringRef> JsonFields::getString(StringRef key,
                                          StringRef absent) const {
  return has(key) ? getString(key) : Expected<StringRef>(absent);
}

Expected<JsonFields> JsonFields::getObjectOrNone(StringRef key) const {
  static const json::Object none;
  return has(key) ? getObject(key) : JsonFields(none, file, prefix);
}
