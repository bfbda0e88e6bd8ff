//===- Operations.h - What Python's operators do ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// All of it may throw a TemplateError without a line: for what Python refuses,
// for what is not done here, and for a budget that is used up.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_OPERATIONS_H
#define KVRM_TEXT_JINJA_OPERATIONS_H

#include "Value.h"

#include <initializer_list>
#include <span>

namespace kvrm::jinja {

/// What rendering may still take. A unit is a byte written or looked at, so
/// that neither time nor memory is without a bound, whatever the template.
class Budget {
public:
  explicit Budget(int64_t units) : left(units) {}

  void charge(size_t units, size_t times = 1);

private:
  int64_t left;
};

/// Units of an expression or a statement, and of an item of a list.
constexpr size_t stepUnits = 16;
constexpr size_t itemUnits = 64;

/// What a function is called with.
struct Arguments {
  std::string_view function; ///< for messages
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;

  /// The arguments in the order of a function's parameters, null where there
  /// is none. Errors: more than these, others, or fewer than `required`.
  std::vector<const Value *> bind(std::initializer_list<std::string_view> names,
                                  size_t required = 0) const;
};

/// As str(). Errors: lists, dicts and what else a template hardly means to
/// write.
Text toText(const Value &value);
/// The text that a value is. Errors: it is none.
const Text &expectText(const Value &value, std::string_view what);
int64_t expectInteger(const Value &value, std::string_view what);

bool areEqual(Budget &budget, const Value &left, const Value &right);
/// `operation` is <, <=, > or >=.
bool compare(Budget &budget, std::string_view operation, const Value &left,
             const Value &right);
bool contains(Budget &budget, const Value &whole, const Value &item);
Value arithmetic(Budget &budget, std::string_view operation, const Value &left,
                 const Value &right);
Value negate(const Value &value);

/// What `for` goes through. An iterator is used up.
std::vector<Value> itemsOf(Budget &budget, const Value &value);
/// As len(). Errors: it has none.
int64_t lengthOf(const Value &value);
/// value.name, but for methods, which are called only.
Value attributeOf(Budget &budget, const Value &value, std::string_view name);
/// value[key]
Value itemOf(Budget &budget, const Value &value, const Value &key);
/// value[begin:end:step], a null is none
Value sliceOf(Budget &budget, const Value &value,
              std::span<const Value *const, 3> bounds);

/// Letters of ASCII in other forms. Errors: other characters, whose forms are
/// not known here.
enum class Case { Lower, Upper, Capital };
Text inCase(const Text &text, Case form);
/// Capitals where `startsWord` says so of the byte in front.
Text inTitleCase(const Text &text, bool (*startsWord)(char before));

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_OPERATIONS_H
