//===- Tests.cpp - What stands behind `is` in a template ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Tests.h"

#include <algorithm>

using namespace kvrm::jinja;

static const Value &other(const Arguments &arguments) {
  return *arguments.bind({"other"}, 1)[0];
}

static int64_t remainder(Budget &budget, const Value &value, int64_t divisor) {
  return expectInteger(arithmetic(budget, "%",
                                  Value(expectInteger(value, "a test")),
                                  Value(divisor)),
                       "a test");
}

template <char first, char last>
static bool isAllInCase(Budget &budget, const Value &value, const Arguments &) {
  Text text = toText(value);
  budget.charge(text.size());
  if (!isAscii(text.bytes()))
    fail(0, "capital and small letters beyond ASCII are not done here");
  auto isLetter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  auto isInCase = [](char c) { return c >= first && c <= last; };
  return std::ranges::any_of(text.bytes(), isLetter) &&
         std::ranges::all_of(
             text.bytes(), [&](char c) { return !isLetter(c) || isInCase(c); });
}

static bool isEqual(Budget &budget, const Value &value,
                    const Arguments &arguments) {
  return areEqual(budget, value, other(arguments));
}

static bool isUnequal(Budget &budget, const Value &value,
                      const Arguments &arguments) {
  return !isEqual(budget, value, arguments);
}

template <char sign, bool orEqual>
static bool compares(Budget &budget, const Value &value,
                     const Arguments &arguments) {
  static constexpr char operation[] = {sign, '=', 0};
  return compare(budget, std::string_view(operation, orEqual ? 2 : 1), value,
                 other(arguments));
}

namespace {
struct TestEntry {
  std::string_view name;
  Test run;
};
} // namespace

/// Of a test that takes no argument.
#define KVRM_PLAIN_TEST(condition)                                             \
  [](Budget &, const Value &value, const Arguments &arguments) -> bool {       \
    arguments.bind({});                                                        \
    return condition;                                                          \
  }

static constexpr TestEntry tests[] = {
    {"defined", KVRM_PLAIN_TEST(!value.isUndefined())},
    {"undefined", KVRM_PLAIN_TEST(value.isUndefined())},
    {"none", KVRM_PLAIN_TEST(value.isNone())},
    {"boolean", KVRM_PLAIN_TEST(value.as<bool>())},
    {"true", KVRM_PLAIN_TEST(value.as<bool>() && value.isTrue())},
    {"false", KVRM_PLAIN_TEST(value.as<bool>() && !value.isTrue())},
    {"integer", KVRM_PLAIN_TEST(value.as<int64_t>())},
    {"float", KVRM_PLAIN_TEST(value.as<double>())},
    {"number", KVRM_PLAIN_TEST(value.number().has_value())},
    {"string", KVRM_PLAIN_TEST(value.text())},
    {"mapping", KVRM_PLAIN_TEST(value.dict())},
    {"iterable", KVRM_PLAIN_TEST(value.text() || value.dict() || value.list() ||
                                 value.isUndefined())},
    {"sequence",
     KVRM_PLAIN_TEST(value.text() || value.dict() || value.isUndefined() ||
                     (value.list() && value.list()->kind <= List::Range))},
    {"callable", KVRM_PLAIN_TEST(value.macro() || value.as<Builtin>() ||
                                 value.loop() || value.isUndefined())},
    {"odd",
     [](Budget &budget, const Value &value, const Arguments &arguments) {
       arguments.bind({});
       return remainder(budget, value, 2) == 1;
     }},
    {"even",
     [](Budget &budget, const Value &value, const Arguments &arguments) {
       arguments.bind({});
       return remainder(budget, value, 2) == 0;
     }},
    {"divisibleby",
     [](Budget &budget, const Value &value, const Arguments &arguments) {
       return remainder(budget, value,
                        expectInteger(other(arguments), "'divisibleby'")) == 0;
     }},
    {"in",
     [](Budget &budget, const Value &value, const Arguments &arguments) {
       return contains(budget, other(arguments), value);
     }},
    {"lower", isAllInCase<'a', 'z'>},
    {"upper", isAllInCase<'A', 'Z'>},
    {"eq", isEqual},
    {"equalto", isEqual},
    {"==", isEqual},
    {"ne", isUnequal},
    {"!=", isUnequal},
    {"lt", compares<'<', false>},
    {"lessthan", compares<'<', false>},
    {"<", compares<'<', false>},
    {"le", compares<'<', true>},
    {"<=", compares<'<', true>},
    {"gt", compares<'>', false>},
    {"greaterthan", compares<'>', false>},
    {">", compares<'>', false>},
    {"ge", compares<'>', true>},
    {">=", compares<'>', true>},
};
#undef KVRM_PLAIN_TEST

Test kvrm::jinja::findTest(std::string_view name) {
  const auto *found = std::ranges::find(tests, name, &TestEntry::name);
  return found == std::end(tests) ? nullptr : found->run;
}
