//===- Expressions.cpp - Runs the expressions of a template ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Filters.h"
#include "Methods.h"
#include "Parser.h"
#include "Renderer.h"
#include "Tests.h"

#include <algorithm>
#include <array>

using namespace kvrm::jinja;

Value Renderer::evaluate(const Expression &node) {
  Nesting nesting(depth, node.line);
  budget.charge(stepUnits);
  line = node.line;
  switch (node.kind) {
  case Expression::Literal:
    return node.value;
  case Expression::Name:
    return evaluateName(node);
  case Expression::List:
    return evaluateList(node, List::Plain);
  case Expression::Tuple:
    return evaluateList(node, List::Tuple);
  case Expression::Dict:
    return evaluateDict(node);
  case Expression::Slice:
    return evaluateSlice(node);
  case Expression::Call:
    return evaluateCall(node);
  case Expression::Filter:
    return evaluateFilter(node);
  case Expression::Concatenate:
    return evaluateConcatenation(node);
  case Expression::Conditional:
    return evaluateConditional(node);
  case Expression::Test:
    return Value(evaluateTest(node));
  case Expression::Compare:
    return Value(evaluateComparison(node));
  default:
    return evaluateOperator(node);
  }
}

/// What has one or two operands.
Value Renderer::evaluateOperator(const Expression &node) {
  Value left = evaluate(*node.operands[0]);
  line = node.line;
  switch (node.kind) {
  case Expression::Attribute:
    return attributeOf(budget, left, node.name);
  case Expression::Not:
    return Value(!left.isTrue());
  case Expression::Negate:
    return negate(left);
  case Expression::Plus:
    return arithmetic(budget, "+", Value(int64_t(0)), left);
  case Expression::And:
    return left.isTrue() ? evaluate(*node.operands[1]) : left;
  case Expression::Or:
    return left.isTrue() ? left : evaluate(*node.operands[1]);
  default:
    break;
  }
  Value right = evaluate(*node.operands[1]);
  line = node.line;
  return node.kind == Expression::Item
             ? itemOf(budget, left, right)
             : arithmetic(budget, node.name, left, right);
}

Value Renderer::evaluateName(const Expression &node) {
  for (Scope *at = scope; at; at = at->outer)
    if (auto found = at->names.find(node.name); found != at->names.end())
      return found->second;
  // transformers has them from the tokenizer's files.
  for (std::string_view name : {"unk_token", "pad_token", "sep_token",
                                "cls_token", "mask_token", "image_token"})
    if (node.name == name)
      fail(node.line, "'", name, "' is not known here");
  return Value(Undefined{node.name});
}

Value Renderer::evaluateList(const Expression &node, List::Kind kind) {
  budget.charge(itemUnits, node.operands.size());
  std::vector<Value> items;
  items.reserve(node.operands.size());
  for (const ExpressionPtr &operand : node.operands)
    items.push_back(evaluate(*operand));
  return Value::ofList(std::move(items), kind);
}

Value Renderer::evaluateDict(const Expression &node) {
  size_t count = node.operands.size() / 2;
  budget.charge(2 * itemUnits + count, count);
  std::vector<std::pair<Text, Value>> entries;
  for (size_t i = 0; i < node.operands.size(); i += 2) {
    Text key = expectText(evaluate(*node.operands[i]), "a key of a dict");
    Value value = evaluate(*node.operands[i + 1]);
    auto same = std::ranges::find(entries, key, &std::pair<Text, Value>::first);
    if (same != entries.end())
      same->second = std::move(value);
    else
      entries.emplace_back(std::move(key), std::move(value));
  }
  return Value::ofDict(std::move(entries));
}

Value Renderer::evaluateSlice(const Expression &node) {
  Value whole = evaluate(*node.operands[0]);
  std::array<Value, 3> bounds;
  std::array<const Value *, 3> given{};
  for (size_t i = 0; i < bounds.size(); ++i)
    if (node.operands[i + 1]) {
      bounds[i] = evaluate(*node.operands[i + 1]);
      given[i] = &bounds[i];
    }
  return sliceOf(budget, whole, given);
}

Value Renderer::evaluateConcatenation(const Expression &node) {
  Text out;
  for (const ExpressionPtr &operand : node.operands) {
    Text text = toText(evaluate(*operand));
    budget.charge(text.size());
    out.append(text);
  }
  return Value(std::move(out));
}

bool Renderer::evaluateComparison(const Expression &node) {
  Value left = evaluate(*node.operands[0]);
  for (size_t i = 0; i < node.names.size(); ++i) {
    Value right = evaluate(*node.operands[i + 1]);
    line = node.line;
    const std::string &name = node.names[i];
    bool holds = name == "=="       ? areEqual(budget, left, right)
                 : name == "!="     ? !areEqual(budget, left, right)
                 : name == "in"     ? contains(budget, right, left)
                 : name == "not in" ? !contains(budget, right, left)
                                    : compare(budget, name, left, right);
    if (!holds)
      return false;
    left = std::move(right);
  }
  return true;
}

Value Renderer::evaluateConditional(const Expression &node) {
  if (evaluate(*node.operands[0]).isTrue())
    return evaluate(*node.operands[1]);
  return node.operands[2] ? evaluate(*node.operands[2])
                          : Value(Undefined{"an if without else"});
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

Arguments Renderer::evaluateArguments(const Expression &node,
                                      std::string_view function) {
  Arguments arguments;
  arguments.function = function;
  size_t positional = node.operands.size() - node.names.size();
  for (size_t i = 1; i < node.operands.size(); ++i) {
    Value value = evaluate(*node.operands[i]);
    if (i < positional)
      arguments.positional.push_back(std::move(value));
    else
      arguments.named.emplace_back(node.names[i - positional],
                                   std::move(value));
  }
  line = node.line;
  return arguments;
}

Value Renderer::evaluateFilter(const Expression &node) {
  Value subject = evaluate(*node.operands[0]);
  Arguments arguments = evaluateArguments(node, node.name);
  return findFilter(node.name)(budget, subject, arguments);
}

bool Renderer::evaluateTest(const Expression &node) {
  Value subject = evaluate(*node.operands[0]);
  Arguments arguments = evaluateArguments(node, node.name);
  return findTest(node.name)(budget, subject, arguments);
}

Value Renderer::evaluateCall(const Expression &node) {
  const Expression &callee = *node.operands[0];
  if (callee.kind != Expression::Attribute) {
    Value function = evaluate(callee);
    return call(function, evaluateArguments(node, callee.name));
  }
  Value self = evaluate(*callee.operands[0]);
  bool isMethod = isMethodOf(self, callee.name) || self.text() || self.list();
  Value function = isMethod ? Value() : attributeOf(budget, self, callee.name);
  Arguments arguments = evaluateArguments(node, callee.name);
  return isMethod ? callMethod(budget, self, arguments)
                  : call(function, arguments);
}

Value Renderer::call(const Value &callee, const Arguments &arguments) {
  if (const Statement *macro = callee.macro())
    return callMacro(*macro, arguments);
  if (const Builtin *builtin = callee.as<Builtin>())
    return callBuiltin(*builtin, arguments);
  if (callee.isUndefined())
    fail(0, "the function '", arguments.function, "' is not done here");
  fail(0, "a ", callee.typeName(), " is no function");
}

/// Sees its parameters and the names of the template, but none of where it is
/// called. Those left out are what they are set to, or undefined.
Value Renderer::callMacro(const Statement &macro, const Arguments &arguments) {
  if (arguments.positional.size() > macro.parameters.size())
    fail(0, "'", macro.name, "' takes up to ",
         std::to_string(macro.parameters.size()), " arguments");
  Scope inner{&root, {}};
  for (size_t i = 0; i < arguments.positional.size(); ++i)
    inner.names.insert_or_assign(macro.parameters[i].name,
                                 arguments.positional[i]);
  for (const auto &[name, value] : arguments.named) {
    bool isKnown =
        std::ranges::find(macro.parameters, name, &Parameter::name) !=
        macro.parameters.end();
    if (!isKnown || !inner.names.emplace(name, value).second)
      fail(0, "'", macro.name, "' takes no argument '", name, "' here");
  }
  Scope *outerScope = scope;
  scope = &inner;
  for (const Parameter &parameter : macro.parameters)
    if (!inner.names.contains(parameter.name))
      inner.names.emplace(parameter.name,
                          parameter.otherwise
                              ? evaluate(*parameter.otherwise)
                              : Value(Undefined{parameter.name}));
  scope = outerScope;
  return Value(runApart(macro.body, inner));
}

Value Renderer::callBuiltin(Builtin builtin, const Arguments &arguments) {
  switch (builtin) {
  case Builtin::RaiseException: {
    Text message = toText(*arguments.bind({"message"}, 1)[0]);
    throw TemplateError{-1, message.bytes()};
  }
  case Builtin::Range:
    return makeRange(arguments);
  case Builtin::StrftimeNow:
    return formatNow(arguments);
  case Builtin::Namespace:
    return makeNamespace(arguments);
  case Builtin::Dict:
    break;
  }
  if (!arguments.positional.empty())
    fail(0, "'dict' of another dict is not done here");
  std::vector<std::pair<Text, Value>> entries;
  for (const auto &[name, value] : arguments.named)
    entries.emplace_back(Text(name), value);
  return Value::ofDict(std::move(entries));
}

Value Renderer::makeNamespace(const Arguments &arguments) {
  if (!arguments.positional.empty())
    fail(0, "'namespace' of a dict is not done here");
  budget.charge(itemUnits, 1 + arguments.named.size());
  spaces.push_back(std::make_unique<Namespace>());
  for (const auto &[name, value] : arguments.named)
    spaces.back()->set(name, value);
  return Value(spaces.back().get());
}

Value Renderer::makeRange(const Arguments &arguments) {
  auto bound = arguments.bind({"start", "stop", "step"}, 1);
  int64_t begin = expectInteger(*bound[0], "'range'");
  int64_t end = begin;
  int64_t step = 1;
  if (bound[1])
    end = expectInteger(*bound[1], "'range'");
  else
    begin = 0;
  if (bound[2])
    step = expectInteger(*bound[2], "'range'");
  if (step == 0)
    fail(0, "the step of 'range' is 0");
  std::vector<Value> items;
  while (step < 0 ? begin > end : begin < end) {
    budget.charge(itemUnits);
    items.emplace_back(begin);
    if (__builtin_add_overflow(begin, step, &begin))
      break;
  }
  return Value::ofList(std::move(items), List::Range);
}

Value Renderer::formatNow(const Arguments &arguments) {
  const std::string &format =
      expectText(*arguments.bind({"format"}, 1)[0], "'strftime_now'").bytes();
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 256> text{};
  size_t bytes =
      std::strftime(text.data(), text.size(), format.c_str(), &local);
  if (bytes == 0 && !format.empty())
    fail(0, "the format of 'strftime_now' is too long");
  return Value(Text(std::string_view(text.data(), bytes)));
}
