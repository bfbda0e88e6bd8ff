//===- Methods.cpp - Methods of Python's strings and dicts ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Methods.h"

#include <algorithm>
#include <array>

using namespace kvrm::jinja;

/// An argument that may not be there, or be none.
static const Value *given(const Value *argument) {
  return argument && !argument->isNone() ? argument : nullptr;
}

static int64_t integerOr(const Value *argument, int64_t otherwise,
                         std::string_view what) {
  return argument ? expectInteger(*argument, what) : otherwise;
}

static Value listOf(Budget &budget, std::vector<Text> texts) {
  budget.charge(itemUnits, texts.size());
  std::vector<Value> items;
  items.reserve(texts.size());
  for (Text &text : texts)
    items.emplace_back(std::move(text));
  return Value::ofList(std::move(items));
}

Value kvrm::jinja::replaced(Budget &budget, const Text &text, const Text &what,
                            const Text &with, int64_t most) {
  std::string_view bytes = text.bytes();
  size_t count = what.isEmpty() ? bytes.size() + 1 : 0;
  if (!what.isEmpty())
    for (size_t at = bytes.find(what.bytes()); at != bytes.npos;
         at = bytes.find(what.bytes(), at + what.size()))
      ++count;
  if (most >= 0)
    count = std::min(count, static_cast<size_t>(most));
  budget.charge(with.size() + stepUnits, count);
  return Value(jinja::replace(text, what.bytes(), with, most));
}

Value kvrm::jinja::joinedTexts(Budget &budget, const Text &between,
                               const std::vector<Value> &items) {
  Text out;
  bool isFirst = true;
  for (const Value &item : items) {
    Text text = toText(item);
    budget.charge(text.size() + between.size());
    if (!std::exchange(isFirst, false))
      out.append(between);
    out.append(text);
  }
  return Value(std::move(out));
}

Value kvrm::jinja::pairsOf(Budget &budget, const Dict &dict, List::Kind kind) {
  budget.charge(4 * itemUnits, dict.entries.size());
  std::vector<Value> pairs;
  for (const auto &[key, value] : dict.entries)
    pairs.push_back(Value::ofList({Value(key), value}, List::Tuple));
  return Value::ofList(std::move(pairs), kind);
}

//===----------------------------------------------------------------------===//
// Strings
//===----------------------------------------------------------------------===//

static Value stripSide(const Text &self, const Arguments &arguments,
                       Side side) {
  const Value *set = given(arguments.bind({"chars"})[0]);
  if (!set)
    return Value(strip(self, side));
  return Value(strip(self, side, expectText(*set, "'strip'").bytes()));
}

static Value split(Budget &budget, const Text &self, const Arguments &arguments,
                   bool fromRight) {
  auto bound = arguments.bind({"sep", "maxsplit"});
  int64_t most = integerOr(bound[1], -1, "'maxsplit'");
  const Value *separator = given(bound[0]);
  if (!separator && fromRight && most >= 0)
    fail(0, "'rsplit' at white space with 'maxsplit' is not done here");
  if (!separator)
    return listOf(budget, splitAtSpace(self, most));
  const Text &at = expectText(*separator, "'sep'");
  if (at.isEmpty())
    fail(0, "'sep' is empty");
  return listOf(budget, splitAt(self, at.bytes(), most, fromRight));
}

/// Whether the text starts, or ends, with a text or one of a tuple of them.
static Value startsOrEnds(const Text &self, const Arguments &arguments,
                          bool atEnd) {
  const Value &part = *arguments.bind({"prefix"}, 1)[0];
  auto matches = [&](const Value &value) {
    const std::string &bytes = expectText(value, arguments.function).bytes();
    return atEnd ? self.bytes().ends_with(bytes)
                 : self.bytes().starts_with(bytes);
  };
  const List *list = part.list();
  if (list && list->kind == List::Tuple)
    return Value(std::ranges::any_of(list->items, matches));
  return Value(matches(part));
}

static bool isNoLetter(char c) {
  return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
}

namespace {
struct TextMethod {
  std::string_view name;
  Value (*run)(Budget &, const Text &, const Arguments &);
};
} // namespace

static constexpr TextMethod textMethods[] = {
    {"strip",
     [](Budget &, const Text &self, const Arguments &arguments) {
       return stripSide(self, arguments, Side::Both);
     }},
    {"lstrip",
     [](Budget &, const Text &self, const Arguments &arguments) {
       return stripSide(self, arguments, Side::Left);
     }},
    {"rstrip",
     [](Budget &, const Text &self, const Arguments &arguments) {
       return stripSide(self, arguments, Side::Right);
     }},
    {"split",
     [](Budget &budget, const Text &self, const Arguments &arguments) {
       return split(budget, self, arguments, /*fromRight=*/false);
     }},
    {"rsplit",
     [](Budget &budget, const Text &self, const Arguments &arguments) {
       return split(budget, self, arguments, /*fromRight=*/true);
     }},
    {"splitlines",
     [](Budget &budget, const Text &self, const Arguments &arguments) {
       arguments.bind({});
       return listOf(budget, splitLines(self));
     }},
    {"startswith",
     [](Budget &, const Text &self, const Arguments &arguments) {
       return startsOrEnds(self, arguments, /*atEnd=*/false);
     }},
    {"endswith",
     [](Budget &, const Text &self, const Arguments &arguments) {
       return startsOrEnds(self, arguments, /*atEnd=*/true);
     }},
    {"replace",
     [](Budget &budget, const Text &self, const Arguments &arguments) {
       auto bound = arguments.bind({"old", "new", "count"}, 2);
       return replaced(budget, self, expectText(*bound[0], "'old'"),
                       expectText(*bound[1], "'new'"),
                       integerOr(bound[2], -1, "'count'"));
     }},
    {"join",
     [](Budget &budget, const Text &self, const Arguments &arguments) {
       std::vector<Value> items =
           itemsOf(budget, *arguments.bind({"iterable"}, 1)[0]);
       for (const Value &item : items)
         (void)expectText(item, "'join'");
       return joinedTexts(budget, self, items);
     }},
    {"upper",
     [](Budget &, const Text &self, const Arguments &arguments) {
       arguments.bind({});
       return Value(inCase(self, Case::Upper));
     }},
    {"lower",
     [](Budget &, const Text &self, const Arguments &arguments) {
       arguments.bind({});
       return Value(inCase(self, Case::Lower));
     }},
    {"capitalize",
     [](Budget &, const Text &self, const Arguments &arguments) {
       arguments.bind({});
       return Value(inCase(self, Case::Capital));
     }},
    {"title",
     [](Budget &, const Text &self, const Arguments &arguments) {
       arguments.bind({});
       return Value(inTitleCase(self, isNoLetter));
     }},
    {"count",
     [](Budget &, const Text &self, const Arguments &arguments) {
       const Text &part = expectText(*arguments.bind({"sub"}, 1)[0], "'count'");
       size_t count =
           part.isEmpty()
               ? characterStarts(self.bytes()).size()
               : splitAt(self, part.bytes(), -1, /*fromRight=*/false).size() -
                     1;
       return Value(static_cast<int64_t>(count));
     }},
    {"find",
     [](Budget &, const Text &self, const Arguments &arguments) {
       const Text &part = expectText(*arguments.bind({"sub"}, 1)[0], "'find'");
       size_t at = self.bytes().find(part.bytes());
       if (at == std::string::npos)
         return Value(int64_t(-1));
       return Value(static_cast<int64_t>(
           characterStarts(self.bytes().substr(0, at)).size() - 1));
     }},
};

//===----------------------------------------------------------------------===//
// Dicts
//===----------------------------------------------------------------------===//

static Value dictMethod(Budget &budget, const Dict &self,
                        const Arguments &arguments) {
  std::string_view name = arguments.function;
  if (name == "get") {
    auto bound = arguments.bind({"key", "default"}, 1);
    budget.charge(self.entries.size());
    const Text *key = bound[0]->text();
    const Value *entry = key ? self.find(key->bytes()) : nullptr;
    return entry ? *entry : bound[1] ? *bound[1] : Value();
  }
  arguments.bind({});
  if (name == "items")
    return pairsOf(budget, self, List::View);
  budget.charge(itemUnits, self.entries.size());
  std::vector<Value> items;
  for (const auto &[key, value] : self.entries)
    items.push_back(name == "keys" ? Value(key) : value);
  return Value::ofList(std::move(items), List::View);
}

static constexpr std::array<std::string_view, 4> dictMethods = {
    "items", "keys", "values", "get"};
/// Those that change what they are of, which no template may, and `copy`.
static constexpr std::array<std::string_view, 7> otherDictMethods = {
    "clear", "copy", "fromkeys", "pop", "popitem", "setdefault", "update"};
static constexpr std::array<std::string_view, 11> listMethods = {
    "append", "clear", "copy",   "count",   "extend", "index",
    "insert", "pop",   "remove", "reverse", "sort"};

static const TextMethod *findTextMethod(std::string_view name) {
  const auto *found = std::ranges::find(textMethods, name, &TextMethod::name);
  return found == std::end(textMethods) ? nullptr : found;
}

static bool isAmong(std::span<const std::string_view> names,
                    std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

bool kvrm::jinja::isMethodOf(const Value &value, std::string_view name) {
  if (value.text())
    return findTextMethod(name) != nullptr;
  if (value.dict())
    return isAmong(dictMethods, name) || isAmong(otherDictMethods, name);
  return value.list() && isAmong(listMethods, name);
}

Value kvrm::jinja::callMethod(Budget &budget, const Value &self,
                              const Arguments &arguments) {
  std::string_view name = arguments.function;
  if (const Text *text = self.text())
    if (const TextMethod *method = findTextMethod(name)) {
      budget.charge(text->size());
      return method->run(budget, *text, arguments);
    }
  if (const Dict *dict = self.dict(); dict && isAmong(dictMethods, name))
    return dictMethod(budget, *dict, arguments);
  fail(0, "the method '", name, "' of a ", self.typeName(),
       " is not done here");
}
