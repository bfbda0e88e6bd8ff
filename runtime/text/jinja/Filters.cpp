//===- Filters.cpp - What stands behind | in a template -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Filters.h"

#include "Methods.h"
#include "Tests.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

using namespace kvrm::jinja;

//===----------------------------------------------------------------------===//
// Texts
//===----------------------------------------------------------------------===//

static Text textOfSubject(Budget &budget, const Value &subject) {
  Text text = toText(subject);
  budget.charge(text.size());
  return text;
}

static bool flagOf(const Value *argument) {
  return argument && argument->isTrue();
}

static Value trim(Budget &budget, const Value &subject,
                  const Arguments &arguments) {
  Text text = textOfSubject(budget, subject);
  const Value *set = arguments.bind({"chars"})[0];
  if (!set || set->isNone())
    return Value(strip(text, Side::Both));
  return Value(strip(text, Side::Both, expectText(*set, "'trim'").bytes()));
}

static Value replaceFilter(Budget &budget, const Value &subject,
                           const Arguments &arguments) {
  auto bound = arguments.bind({"old", "new", "count"}, 2);
  bool hasCount = bound[2] && !bound[2]->isNone();
  return replaced(budget, textOfSubject(budget, subject), toText(*bound[0]),
                  toText(*bound[1]),
                  hasCount ? expectInteger(*bound[2], "'count'") : -1);
}

static Value indent(Budget &budget, const Value &subject,
                    const Arguments &arguments) {
  auto bound = arguments.bind({"width", "first", "blank"});
  Text indention(std::string(4, ' '));
  if (bound[0] && bound[0]->text()) {
    indention = *bound[0]->text();
  } else if (bound[0]) {
    int64_t width = std::max<int64_t>(expectInteger(*bound[0], "'width'"), 0);
    budget.charge(static_cast<size_t>(width));
    indention = Text(std::string(static_cast<size_t>(width), ' '));
  }
  bool indentsBlank = flagOf(bound[2]);
  Text text = expectText(subject, "'indent'");
  text.append(Text("\n"));
  Text out;
  if (flagOf(bound[1]))
    out = indention;
  bool isFirst = true;
  for (const Text &line : splitLines(text)) {
    budget.charge(line.size() + indention.size() + 1);
    if (!isFirst)
      out.append(Text("\n"));
    if (!isFirst && (indentsBlank || !line.isEmpty()))
      out.append(indention);
    out.append(line);
    isFirst = false;
  }
  return Value(std::move(out));
}

static bool endsWordPart(char c) {
  return c == '-' || isSpace(static_cast<unsigned char>(c)) || c == '(' ||
         c == '{' || c == '[' || c == '<';
}

template <Case form>
static Value caseFilter(Budget &budget, const Value &subject,
                        const Arguments &arguments) {
  arguments.bind({});
  return Value(inCase(textOfSubject(budget, subject), form));
}

static Value title(Budget &budget, const Value &subject,
                   const Arguments &arguments) {
  arguments.bind({});
  return Value(inTitleCase(textOfSubject(budget, subject), endsWordPart));
}

static Value string(Budget &budget, const Value &subject,
                    const Arguments &arguments) {
  arguments.bind({});
  return Value(textOfSubject(budget, subject));
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

/// The number that a text reads as, with white space around it.
static std::optional<double> readNumber(const Text &text, bool isWhole) {
  Text stripped = strip(text, Side::Both);
  const std::string &digits = stripped.bytes();
  bool isPlain =
      !digits.empty() &&
      digits.find_first_not_of(isWhole ? "+-0123456789" : "+-.eE0123456789") ==
          digits.npos;
  char *end = nullptr;
  double number = isPlain ? std::strtod(digits.c_str(), &end) : 0;
  if (!isPlain || end != digits.c_str() + digits.size())
    return std::nullopt;
  return number;
}

static void expectDefined(const Value &value) {
  if (const Undefined *undefined = value.as<Undefined>())
    fail(0, "'", undefined->name, "' is undefined, and no number");
}

static Value toInt(Budget &budget, const Value &subject,
                   const Arguments &arguments) {
  expectDefined(subject);
  const Value *otherwise = arguments.bind({"default"})[0];
  if (std::optional<int64_t> whole = subject.integer())
    return Value(*whole);
  std::optional<double> number = subject.number();
  if (const Text *text = subject.text()) {
    budget.charge(text->size());
    number = readNumber(*text, /*isWhole=*/true);
    if (!number)
      number = readNumber(*text, /*isWhole=*/false);
  }
  if (!number || !std::isfinite(*number))
    return otherwise ? *otherwise : Value(int64_t(0));
  if (std::abs(*number) >= 0x1p53)
    fail(0, "'int' of a number past 2^53 is not done here");
  return Value(static_cast<int64_t>(*number));
}

static Value toFloat(Budget &budget, const Value &subject,
                     const Arguments &arguments) {
  expectDefined(subject);
  const Value *otherwise = arguments.bind({"default"})[0];
  std::optional<double> number = subject.number();
  if (const Text *text = subject.text()) {
    budget.charge(text->size());
    number = readNumber(*text, /*isWhole=*/false);
  }
  return number ? Value(*number) : otherwise ? *otherwise : Value(0.0);
}

static Value absolute(Budget &, const Value &subject,
                      const Arguments &arguments) {
  arguments.bind({});
  std::optional<double> number = subject.number();
  if (!number)
    fail(0, "'abs' of a ", subject.typeName());
  if (*number < 0)
    return negate(subject);
  return subject.integer() ? Value(*subject.integer()) : subject;
}

//===----------------------------------------------------------------------===//
// Lists
//===----------------------------------------------------------------------===//

static Value first(Budget &budget, const Value &subject,
                   const Arguments &arguments) {
  arguments.bind({});
  if (List *list = subject.list(); list && list->kind == List::Iterator) {
    bool hasNext = list->taken < list->items.size();
    return hasNext ? list->items[list->taken++]
                   : Value(Undefined{"the first item of none"});
  }
  std::vector<Value> items = itemsOf(budget, subject);
  return items.empty() ? Value(Undefined{"the first item of none"})
                       : items.front();
}

static Value last(Budget &budget, const Value &subject,
                  const Arguments &arguments) {
  arguments.bind({});
  if (const List *list = subject.list(); list && list->kind == List::Iterator)
    fail(0, "'last' of a list that is computed as it goes");
  std::vector<Value> items = itemsOf(budget, subject);
  return items.empty() ? Value(Undefined{"the last item of none"})
                       : items.back();
}

static Value length(Budget &budget, const Value &subject,
                    const Arguments &arguments) {
  arguments.bind({});
  if (const Text *text = subject.text())
    budget.charge(text->size());
  return Value(lengthOf(subject));
}

static Value list(Budget &budget, const Value &subject,
                  const Arguments &arguments) {
  arguments.bind({});
  return Value::ofList(itemsOf(budget, subject));
}

static Value reverse(Budget &budget, const Value &subject,
                     const Arguments &arguments) {
  arguments.bind({});
  std::vector<Value> items = itemsOf(budget, subject);
  std::ranges::reverse(items);
  if (subject.text())
    return joinedTexts(budget, Text(), items);
  return Value::ofList(std::move(items), List::Iterator);
}

static Value items(Budget &budget, const Value &subject,
                   const Arguments &arguments) {
  arguments.bind({});
  if (subject.isUndefined())
    return Value::ofList({}, List::Iterator);
  if (!subject.dict())
    fail(0, "'items' of a ", subject.typeName());
  return pairsOf(budget, *subject.dict(), List::Iterator);
}

/// Pairs in the order of their keys, whose capitals do not count.
static Value dictsort(Budget &budget, const Value &subject,
                      const Arguments &arguments) {
  arguments.bind({});
  if (!subject.dict())
    fail(0, "'dictsort' of a ", subject.typeName());
  std::vector<std::pair<Text, Value>> sorted;
  for (const Value &pair :
       itemsOf(budget, pairsOf(budget, *subject.dict(), List::Plain)))
    sorted.emplace_back(inCase(*pair.list()->items[0].text(), Case::Lower),
                        pair);
  std::ranges::stable_sort(sorted, {}, [](const auto &entry) {
    return std::string_view(entry.first.bytes());
  });
  std::vector<Value> pairs;
  for (auto &entry : sorted)
    pairs.push_back(std::move(entry.second));
  return Value::ofList(std::move(pairs));
}

/// value.a.b, for the attribute "a.b"; a part of digits is a place.
static Value deepAttribute(Budget &budget, const Value &value,
                           const Value &path) {
  if (path.integer())
    return itemOf(budget, value, path);
  Value at = value;
  for (const Text &name : splitAt(expectText(path, "'attribute'"), ".", -1,
                                  /*fromRight=*/false)) {
    const std::string &bytes = name.bytes();
    int64_t place = 0;
    const char *end = bytes.data() + bytes.size();
    auto [rest, error] = std::from_chars(bytes.data(), end, place);
    bool isPlace = error == std::errc() && rest == end && place >= 0;
    at = itemOf(budget, at, isPlace ? Value(place) : Value(name));
  }
  return at;
}

static Value join(Budget &budget, const Value &subject,
                  const Arguments &arguments) {
  auto bound = arguments.bind({"d", "attribute"});
  std::vector<Value> items = itemsOf(budget, subject);
  if (bound[1] && !bound[1]->isNone())
    for (Value &item : items)
      item = deepAttribute(budget, item, *bound[1]);
  return joinedTexts(budget, bound[0] ? toText(*bound[0]) : Text(), items);
}

/// A call of the filter or test whose name is argument `at`, with those behind.
static Arguments innerCall(const Arguments &arguments, size_t at) {
  Arguments call;
  call.function = expectText(arguments.positional[at], "a name").bytes();
  call.positional.assign(arguments.positional.begin() +
                             static_cast<std::ptrdiff_t>(at) + 1,
                         arguments.positional.end());
  call.named = arguments.named;
  return call;
}

/// The items to map or to choose from. What is false, as none is, has none.
static std::vector<Value> itemsIfAny(Budget &budget, const Value &subject) {
  return subject.isTrue() ? itemsOf(budget, subject) : std::vector<Value>();
}

static Value map(Budget &budget, const Value &subject,
                 const Arguments &arguments) {
  std::vector<Value> items = itemsIfAny(budget, subject);
  if (arguments.positional.empty()) {
    auto bound = arguments.bind({"attribute", "default"}, 1);
    for (Value &item : items) {
      item = deepAttribute(budget, item, *bound[0]);
      if (bound[1] && item.isUndefined())
        item = *bound[1];
    }
    return Value::ofList(std::move(items), List::Iterator);
  }
  Arguments call = innerCall(arguments, 0);
  Filter filter = findFilter(call.function);
  if (!filter)
    fail(0, "the filter '", call.function, "' is not done here");
  for (Value &item : items) {
    budget.charge(stepUnits);
    item = filter(budget, item, call);
  }
  return Value::ofList(std::move(items), List::Iterator);
}

/// The items that a test, or being true, chooses.
static Value chosen(Budget &budget, const Value &subject,
                    const Arguments &arguments, bool byAttribute, bool wanted) {
  if (byAttribute && arguments.positional.empty())
    fail(0, "'", arguments.function, "' lacks an attribute");
  size_t at = byAttribute ? 1 : 0;
  Arguments call;
  Test test = nullptr;
  if (arguments.positional.size() > at) {
    call = innerCall(arguments, at);
    test = findTest(call.function);
    if (!test)
      fail(0, "the test '", call.function, "' is not done here");
  }
  std::vector<Value> items;
  for (const Value &item : itemsIfAny(budget, subject)) {
    budget.charge(stepUnits);
    Value tested = byAttribute
                       ? deepAttribute(budget, item, arguments.positional[0])
                       : item;
    if ((test ? test(budget, tested, call) : tested.isTrue()) == wanted)
      items.push_back(item);
  }
  return Value::ofList(std::move(items), List::Iterator);
}

template <bool byAttribute, bool wanted>
static Value choose(Budget &budget, const Value &subject,
                    const Arguments &arguments) {
  return chosen(budget, subject, arguments, byAttribute, wanted);
}

static Value defaultTo(Budget &, const Value &subject,
                       const Arguments &arguments) {
  auto bound = arguments.bind({"default_value", "boolean"});
  bool isMissing =
      subject.isUndefined() || (flagOf(bound[1]) && !subject.isTrue());
  if (!isMissing)
    return subject;
  return bound[0] ? *bound[0] : Value(Text());
}

//===----------------------------------------------------------------------===//
// All of them
//===----------------------------------------------------------------------===//

namespace {
struct FilterEntry {
  std::string_view name;
  Filter run;
};
} // namespace

static constexpr FilterEntry filters[] = {
    {"abs", absolute},
    {"capitalize", caseFilter<Case::Capital>},
    {"count", length},
    {"d", defaultTo},
    {"default", defaultTo},
    {"dictsort", dictsort},
    {"first", first},
    {"float", toFloat},
    {"indent", indent},
    {"int", toInt},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length},
    {"list", list},
    {"lower", caseFilter<Case::Lower>},
    {"map", map},
    {"reject", choose<false, false>},
    {"rejectattr", choose<true, false>},
    {"replace", replaceFilter},
    {"reverse", reverse},
    {"safe", string},
    {"select", choose<false, true>},
    {"selectattr", choose<true, true>},
    {"string", string},
    {"title", title},
    {"tojson", toJson},
    {"trim", trim},
    {"upper", caseFilter<Case::Upper>},
};

Filter kvrm::jinja::findFilter(std::string_view name) {
  const auto *found = std::ranges::find(filters, name, &FilterEntry::name);
  return found == std::end(filters) ? nullptr : found->run;
}
