//===- Value.cpp - What expressions of a template give --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

using namespace kvrm::jinja;

const Value *Dict::find(std::string_view key) const {
  for (const auto &[name, value] : entries)
    if (name.bytes() == key)
      return &value;
  return nullptr;
}

const Value *Namespace::find(std::string_view key) const {
  for (const auto &[name, value] : entries)
    if (name == key)
      return &value;
  return nullptr;
}

void Namespace::set(std::string_view key, Value value) {
  for (auto &[name, old] : entries)
    if (name == key) {
      old = std::move(value);
      return;
    }
  entries.emplace_back(key, std::move(value));
}

static int32_t nestingOf(const Value &value) {
  if (const List *list = value.list())
    return list->nesting;
  if (const Dict *dict = value.dict())
    return dict->nesting;
  if (const LoopState *loop = value.loop())
    return loop->nesting;
  return 0;
}

int32_t kvrm::jinja::nestingAbove(const std::vector<Value> &items) {
  int32_t nesting = 0;
  for (const Value &item : items)
    nesting = std::max(nesting, nestingOf(item));
  if (nesting >= maxNesting)
    fail(0, "lists are nested deeper than ", std::to_string(maxNesting));
  return nesting + 1;
}

LoopState::LoopState(std::vector<Value> given)
    : items(std::move(given)), nesting(nestingAbove(items)) {}

Value Value::ofList(std::vector<Value> items, List::Kind kind) {
  auto list = std::make_shared<List>();
  list->kind = kind;
  list->nesting = nestingAbove(items);
  list->items = std::move(items);
  Value value;
  value.storage = std::move(list);
  return value;
}

Value Value::ofDict(std::vector<std::pair<Text, Value>> entries) {
  auto dict = std::make_shared<Dict>();
  std::vector<Value> values;
  for (const auto &entry : entries)
    values.push_back(entry.second);
  dict->nesting = nestingAbove(values);
  dict->entries = std::move(entries);
  Value value;
  value.storage = std::shared_ptr<const Dict>(std::move(dict));
  return value;
}

std::optional<int64_t> Value::integer() const {
  if (const bool *flag = as<bool>())
    return *flag ? 1 : 0;
  if (const int64_t *number = as<int64_t>())
    return *number;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const double *number = as<double>())
    return *number;
  if (std::optional<int64_t> whole = integer())
    return static_cast<double>(*whole);
  return std::nullopt;
}

bool Value::isTrue() const {
  if (isUndefined() || isNone())
    return false;
  if (std::optional<double> value = number())
    return *value != 0;
  if (const Text *value = text())
    return !value->isEmpty();
  if (const List *value = list())
    return value->kind == List::Iterator || !value->items.empty();
  if (const Dict *value = dict())
    return !value->entries.empty();
  return true;
}

const char *Value::typeName() const {
  static constexpr std::array names = {
      "undefined", "none", "bool",      "int",  "float", "str",
      "list",      "dict", "namespace", "loop", "macro", "function"};
  static_assert(names.size() == std::variant_size_v<Storage>);
  return names[storage.index()];
}

std::string kvrm::jinja::textOf(double number) {
  if (std::isnan(number))
    return "nan";
  if (std::isinf(number))
    return number > 0 ? "inf" : "-inf";
  std::array<char, 64> digits;
  auto written = [&](std::to_chars_result result) {
    return std::string(digits.data(), result.ptr);
  };
  char *end = digits.data() + digits.size();
  // Python writes an exponent below 1e-4 and from 1e16 on.
  double magnitude = std::abs(number);
  if (magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16))
    return written(std::to_chars(digits.data(), end, number,
                                 std::chars_format::scientific));
  std::string text = written(
      std::to_chars(digits.data(), end, number, std::chars_format::fixed));
  if (text.find('.') == text.npos)
    text += ".0";
  return text;
}
