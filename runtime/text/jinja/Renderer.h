//===- Renderer.h - Runs a template -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_RENDERER_H
#define KVRM_TEXT_JINJA_RENDERER_H

#include "Ast.h"
#include "Operations.h"

#include <ctime>
#include <unordered_map>

namespace kvrm::jinja {

/// Runs a template once. Names are looked for in the scopes around, then among
/// the globals. A loop's round, a macro and a block that is set are scopes; if
/// is none.
class Renderer {
public:
  /// Besides `variables` there are functions. `now` is what strftime_now()
  /// says.
  Renderer(std::vector<std::pair<Text, Value>> variables, Budget budget,
           std::time_t now);

  /// Errors: throws a TemplateError, of which the line is known.
  Text run(const Body &body);

private:
  struct Scope {
    Scope *outer;
    std::unordered_map<std::string_view, Value> names;
  };
  enum class Flow { Next, Break, Continue };

  // Statements.
  Flow runBody(const Body &body);
  Flow runStatement(const Statement &statement);
  Flow runIf(const Statement &statement);
  Flow runFor(const Statement &loop);
  std::vector<Value> itemsOfLoop(const Statement &loop);
  /// What a body writes, in a scope of its own.
  Text runApart(const Body &body, Scope &scope);
  void assign(const Statement &statement, const Value &value);
  void assign(const Target &target, const Value &value);
  void write(const Text &text);

  // Expressions.
  Value evaluate(const Expression &node);
  Value evaluateOperator(const Expression &node);
  Value evaluateName(const Expression &node);
  Value evaluateList(const Expression &node, List::Kind kind);
  Value evaluateDict(const Expression &node);
  Value evaluateSlice(const Expression &node);
  Value evaluateConcatenation(const Expression &node);
  bool evaluateComparison(const Expression &node);
  Value evaluateConditional(const Expression &node);
  Value evaluateCall(const Expression &node);
  Value evaluateFilter(const Expression &node);
  bool evaluateTest(const Expression &node);
  Arguments evaluateArguments(const Expression &node,
                              std::string_view function);

  // Calls.
  Value call(const Value &callee, const Arguments &arguments);
  Value callMacro(const Statement &macro, const Arguments &arguments);
  Value callBuiltin(Builtin builtin, const Arguments &arguments);
  Value makeRange(const Arguments &arguments);
  Value makeNamespace(const Arguments &arguments);
  Value formatNow(const Arguments &arguments);

  std::vector<std::pair<Text, Value>> variables; ///< whose names `globals` has
  Budget budget;
  std::time_t now;
  Scope globals{nullptr, {}};
  Scope root{&globals, {}};
  Scope *scope = &root;
  std::vector<std::unique_ptr<Namespace>> spaces;
  Text *output = nullptr;
  int32_t line = 0;  ///< of what is run
  int32_t depth = 0; ///< of calls of evaluate() and runStatement()
  int32_t loopDepth = 0;
};

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_RENDERER_H
