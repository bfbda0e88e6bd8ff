//===- Operations.cpp - What Python's operators do ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Operations.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace kvrm::jinja;

void Budget::charge(size_t units, size_t times) {
  auto most = static_cast<size_t>(left);
  if (units > 0 && times > most / units)
    fail(0, "takes more work or memory than a conversation of this length "
            "should");
  left -= static_cast<int64_t>(units * times);
}

std::vector<const Value *>
Arguments::bind(std::initializer_list<std::string_view> names,
                size_t required) const {
  std::vector<const Value *> bound(names.size());
  if (positional.size() > names.size())
    fail(0, "'", function, "' takes up to ", std::to_string(names.size()),
         " arguments here");
  for (size_t i = 0; i < positional.size(); ++i)
    bound[i] = &positional[i];
  for (const auto &[name, value] : named) {
    const auto *at = std::ranges::find(names, name);
    if (at == names.end() || bound[static_cast<size_t>(at - names.begin())])
      fail(0, "'", function, "' takes no argument '", name, "' here");
    bound[static_cast<size_t>(at - names.begin())] = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!bound[i])
      fail(0, "'", function, "' lacks the argument '", *(names.begin() + i),
           "'");
  return bound;
}

//===----------------------------------------------------------------------===//
// Texts and numbers
//===----------------------------------------------------------------------===//

Text kvrm::jinja::toText(const Value &value) {
  if (const Text *text = value.text())
    return *text;
  if (value.isUndefined())
    return Text();
  if (value.isNone())
    return Text("None");
  if (const bool *flag = value.as<bool>())
    return Text(*flag ? "True" : "False");
  if (const int64_t *number = value.as<int64_t>())
    return Text(std::to_string(*number));
  if (const double *number = value.as<double>())
    return Text(textOf(*number));
  fail(0, "a ", value.typeName(), " as text is not done here; see tojson");
}

[[noreturn]] static void refuseType(std::string_view what, const Value &value,
                                    std::string_view wanted) {
  if (const Undefined *undefined = value.as<Undefined>())
    fail(0, what, ": '", undefined->name, "' is undefined");
  fail(0, what, ": a ", value.typeName(), " is no ", wanted);
}

const Text &kvrm::jinja::expectText(const Value &value, std::string_view what) {
  if (const Text *text = value.text())
    return *text;
  refuseType(what, value, "str");
}

int64_t kvrm::jinja::expectInteger(const Value &value, std::string_view what) {
  if (std::optional<int64_t> number = value.integer())
    return *number;
  refuseType(what, value, "int");
}

static char toLower(char c) {
  return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}
static char toUpper(char c) {
  return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
}

static void expectAscii(const Text &text) {
  if (!isAscii(text.bytes()))
    fail(0, "capital and small letters beyond ASCII are not done here");
}

Text kvrm::jinja::inCase(const Text &text, Case form) {
  expectAscii(text);
  std::string bytes = text.bytes();
  std::ranges::transform(bytes, bytes.begin(),
                         form == Case::Upper ? toUpper : toLower);
  if (form == Case::Capital && !bytes.empty())
    bytes[0] = toUpper(bytes[0]);
  return text.withBytes(std::move(bytes));
}

Text kvrm::jinja::inTitleCase(const Text &text, bool (*startsWord)(char)) {
  expectAscii(text);
  std::string bytes = text.bytes();
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = i == 0 || startsWord(text.bytes()[i - 1]) ? toUpper(bytes[i])
                                                         : toLower(bytes[i]);
  return text.withBytes(std::move(bytes));
}

//===----------------------------------------------------------------------===//
// Comparisons
//===----------------------------------------------------------------------===//

/// Exact for whole numbers, too.
static long double exactly(const Value &value) {
  if (std::optional<int64_t> whole = value.integer())
    return static_cast<long double>(*whole);
  return static_cast<long double>(*value.number());
}

static bool areEqual(Budget &budget, const List &left, const List &right) {
  if (left.kind > List::Range && &left != &right && left.kind == right.kind)
    fail(0, "a comparison of views and iterators is not done here");
  return left.kind == right.kind &&
         std::ranges::equal(left.items, right.items,
                            [&](const Value &a, const Value &b) {
                              return kvrm::jinja::areEqual(budget, a, b);
                            });
}

static bool areEqual(Budget &budget, const Dict &left, const Dict &right) {
  if (left.entries.size() != right.entries.size())
    return false;
  budget.charge(left.entries.size(), right.entries.size());
  return std::ranges::all_of(left.entries, [&](const auto &entry) {
    const Value *other = right.find(entry.first.bytes());
    return other && kvrm::jinja::areEqual(budget, entry.second, *other);
  });
}

bool kvrm::jinja::areEqual(Budget &budget, const Value &left,
                           const Value &right) {
  budget.charge(stepUnits);
  if (left.number() && right.number())
    return exactly(left) == exactly(right);
  if (left.text() && right.text()) {
    budget.charge(std::min(left.text()->size(), right.text()->size()));
    return *left.text() == *right.text();
  }
  if (left.list() && right.list())
    return ::areEqual(budget, *left.list(), *right.list());
  if (left.dict() && right.dict())
    return ::areEqual(budget, *left.dict(), *right.dict());
  if (left.space() && right.space())
    return left.space() == right.space();
  return (left.isNone() && right.isNone()) ||
         (left.isUndefined() && right.isUndefined());
}

bool kvrm::jinja::compare(Budget &budget, std::string_view operation,
                          const Value &left, const Value &right) {
  auto holds = [&](std::partial_ordering order) {
    return operation == "<"    ? order < 0
           : operation == "<=" ? order <= 0
           : operation == ">"  ? order > 0
                               : order >= 0;
  };
  if (left.number() && right.number())
    return holds(exactly(left) <=> exactly(right));
  if (left.text() && right.text()) {
    budget.charge(left.text()->size());
    // By bytes is by characters, in UTF-8.
    return holds(left.text()->bytes() <=> right.text()->bytes());
  }
  if (left.isUndefined())
    refuseType(operation, left, "number");
  if (right.isUndefined())
    refuseType(operation, right, "number");
  fail(0, "'", operation, "' of a ", left.typeName(), " and a ",
       right.typeName(), " is not done here");
}

bool kvrm::jinja::contains(Budget &budget, const Value &whole,
                           const Value &item) {
  if (const Text *text = whole.text()) {
    const Text &part = expectText(item, "'in' of a str");
    budget.charge(text->size() + part.size());
    return text->bytes().find(part.bytes()) != std::string::npos;
  }
  if (const Dict *dict = whole.dict()) {
    budget.charge(dict->entries.size());
    return item.text() && dict->find(item.text()->bytes());
  }
  if (whole.isUndefined())
    return false;
  if (!whole.list())
    refuseType("'in'", whole, "list, dict or str");
  return std::ranges::any_of(itemsOf(budget, whole), [&](const Value &each) {
    return areEqual(budget, each, item);
  });
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

[[noreturn]] static void refuseOverflow() {
  fail(0, "a whole number is past 64 bits");
}

static int64_t integerPower(int64_t base, int64_t exponent) {
  int64_t power = 1;
  if (exponent > 64 && (base < -1 || base > 1))
    refuseOverflow();
  if (base >= -1 && base <= 1)
    return exponent == 0 || base == 1 ? 1
           : base == 0                ? 0
                                      : (exponent % 2 == 0 ? 1 : -1);
  for (; exponent > 0; --exponent)
    if (__builtin_mul_overflow(power, base, &power))
      refuseOverflow();
  return power;
}

/// A division rounds down, and its rest has the sign of the divisor.
static Value dividedDown(std::string_view operation, int64_t left,
                         int64_t right) {
  if (right == 0)
    fail(0, "a division by zero");
  if (right == -1) // which may overflow
    return operation == "%" ? Value(int64_t(0)) : negate(Value(left));
  int64_t rest = left % right;
  bool isBelow = rest != 0 && (rest < 0) != (right < 0);
  if (operation == "%")
    return Value(isBelow ? rest + right : rest);
  return Value(left / right - (isBelow ? 1 : 0));
}

static Value ofIntegers(std::string_view operation, int64_t left,
                        int64_t right) {
  int64_t result = 0;
  bool overflows = false;
  if (operation == "+")
    overflows = __builtin_add_overflow(left, right, &result);
  else if (operation == "-")
    overflows = __builtin_sub_overflow(left, right, &result);
  else if (operation == "*")
    overflows = __builtin_mul_overflow(left, right, &result);
  else if (operation == "**")
    result = integerPower(left, right);
  else
    return dividedDown(operation, left, right);
  if (overflows)
    refuseOverflow();
  return Value(result);
}

static Value ofFloats(std::string_view operation, double left, double right) {
  if (operation == "+")
    return Value(left + right);
  if (operation == "-")
    return Value(left - right);
  if (operation == "*")
    return Value(left * right);
  if (operation == "**") {
    double power = std::pow(left, right);
    if (!std::isfinite(power) && std::isfinite(left) && std::isfinite(right))
      fail(0, "a power is no number");
    return Value(power);
  }
  if (right == 0)
    fail(0, "a division by zero");
  if (operation == "/")
    return Value(left / right);
  double rest = std::fmod(left, right);
  double quotient = (left - rest) / right;
  if (rest == 0)
    rest = std::copysign(0.0, right);
  else if ((rest < 0) != (right < 0)) {
    rest += right;
    quotient -= 1;
  }
  if (operation == "%")
    return Value(rest);
  // Whole but for what the division has rounded.
  return Value(quotient == 0 ? std::copysign(0.0, left / right)
                             : std::round(quotient));
}

static Value repeated(Budget &budget, const Value &value, int64_t times) {
  times = std::max<int64_t>(times, 0);
  auto count = static_cast<size_t>(times);
  if (const Text *text = value.text()) {
    budget.charge(text->size() + 1, count);
    Text out;
    for (size_t i = 0; i < count; ++i)
      out.append(*text);
    return Value(std::move(out));
  }
  const List &list = *value.list();
  budget.charge(itemUnits * (list.items.size() + 1), count);
  std::vector<Value> items;
  for (size_t i = 0; i < count; ++i)
    items.insert(items.end(), list.items.begin(), list.items.end());
  return Value::ofList(std::move(items), list.kind);
}

static bool isSequence(const Value &value) {
  const List *list = value.list();
  return value.text() ||
         (list && (list->kind == List::Plain || list->kind == List::Tuple));
}

static Value joined(Budget &budget, const Value &left, const Value &right) {
  if (left.text()) {
    budget.charge(left.text()->size() + right.text()->size());
    Text out = *left.text();
    out.append(*right.text());
    return Value(std::move(out));
  }
  std::vector<Value> items = left.list()->items;
  budget.charge(itemUnits, items.size() + right.list()->items.size());
  items.insert(items.end(), right.list()->items.begin(),
               right.list()->items.end());
  return Value::ofList(std::move(items), left.list()->kind);
}

Value kvrm::jinja::arithmetic(Budget &budget, std::string_view operation,
                              const Value &left, const Value &right) {
  std::optional<int64_t> leftWhole = left.integer();
  std::optional<int64_t> rightWhole = right.integer();
  bool isWhole = leftWhole && rightWhole && operation != "/" &&
                 (operation != "**" || *rightWhole >= 0);
  if (isWhole)
    return ofIntegers(operation, *leftWhole, *rightWhole);
  if (left.number() && right.number())
    return ofFloats(operation, *left.number(), *right.number());
  bool areAlike =
      (left.text() && right.text()) ||
      (left.list() && right.list() && left.list()->kind == right.list()->kind);
  if (operation == "+" && areAlike && isSequence(left))
    return joined(budget, left, right);
  if (operation == "*" && isSequence(left) && rightWhole)
    return repeated(budget, left, *rightWhole);
  if (operation == "*" && isSequence(right) && leftWhole)
    return repeated(budget, right, *leftWhole);
  bool isFormat = operation == "%" && left.text();
  for (const Value *value : {&left, &right})
    if (value->isUndefined() && !isFormat)
      refuseType("'" + std::string(operation) + "'", *value, "number");
  fail(0, "'", operation, "' of a ", left.typeName(), " and a ",
       right.typeName(), " is not done here");
}

Value kvrm::jinja::negate(const Value &value) {
  if (std::optional<int64_t> number = value.integer()) {
    int64_t result = 0;
    if (__builtin_sub_overflow(int64_t(0), *number, &result))
      refuseOverflow();
    return Value(result);
  }
  if (std::optional<double> number = value.number())
    return Value(-*number);
  refuseType("'-'", value, "number");
}
