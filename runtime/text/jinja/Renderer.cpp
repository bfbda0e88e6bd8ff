//===- Renderer.cpp - Runs the statements of a template -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Renderer.h"

#include "Parser.h"

using namespace kvrm::jinja;

Renderer::Renderer(std::vector<std::pair<Text, Value>> given, Budget budget,
                   std::time_t now)
    : variables(std::move(given)), budget(budget), now(now) {
  globals.names = {
      {"dict", Value(Builtin::Dict)},
      {"namespace", Value(Builtin::Namespace)},
      {"raise_exception", Value(Builtin::RaiseException)},
      {"range", Value(Builtin::Range)},
      {"strftime_now", Value(Builtin::StrftimeNow)},
  };
  for (const auto &[name, value] : variables)
    globals.names.insert_or_assign(name.bytes(), value);
}

Text Renderer::run(const Body &body) {
  Text out;
  output = &out;
  try {
    runBody(body);
  } catch (TemplateError &error) {
    if (error.line == 0)
      error.line = line;
    throw;
  }
  return out;
}

void Renderer::write(const Text &text) {
  budget.charge(text.size());
  output->append(text);
}

Renderer::Flow Renderer::runBody(const Body &body) {
  for (const auto &statement : body)
    if (Flow flow = runStatement(*statement); flow != Flow::Next)
      return flow;
  return Flow::Next;
}

Renderer::Flow Renderer::runStatement(const Statement &statement) {
  line = statement.line;
  Nesting nesting(depth, line);
  budget.charge(stepUnits);
  switch (statement.kind) {
  case Statement::Data:
    write(*statement.text.text());
    return Flow::Next;
  case Statement::Output:
    write(toText(evaluate(*statement.value)));
    return Flow::Next;
  case Statement::Set:
    assign(statement, evaluate(*statement.value));
    return Flow::Next;
  case Statement::SetBlock: {
    Scope inner{scope, {}};
    assign(statement, Value(runApart(statement.body, inner)));
    return Flow::Next;
  }
  case Statement::If:
    return runIf(statement);
  case Statement::For:
    return runFor(statement);
  case Statement::Macro:
    scope->names.insert_or_assign(statement.name, Value(&statement));
    return Flow::Next;
  case Statement::Generation: {
    Scope inner{scope, {}};
    write(runApart(statement.body, inner));
    return Flow::Next;
  }
  case Statement::Break:
    return Flow::Break;
  case Statement::Continue:
    return Flow::Continue;
  }
  return Flow::Next;
}

Renderer::Flow Renderer::runIf(const Statement &statement) {
  for (const Branch &branch : statement.branches)
    if (!branch.condition || evaluate(*branch.condition).isTrue())
      return runBody(branch.body);
  return Flow::Next;
}

/// With a condition, those of the items of which it holds.
std::vector<Value> Renderer::itemsOfLoop(const Statement &loop) {
  std::vector<Value> items = itemsOf(budget, evaluate(*loop.value));
  if (!loop.condition)
    return items;
  std::vector<Value> kept;
  for (const Value &item : items) {
    Scope inner{scope, {}};
    scope = &inner;
    assign(loop, item);
    if (evaluate(*loop.condition).isTrue())
      kept.push_back(item);
    scope = inner.outer;
  }
  return kept;
}

Renderer::Flow Renderer::runFor(const Statement &loop) {
  auto state = std::make_shared<LoopState>(itemsOfLoop(loop));
  state->depth = ++loopDepth;
  bool breaks = false;
  for (size_t i = 0; i < state->items.size() && !breaks; ++i) {
    state->index = i;
    Scope inner{scope, {}};
    scope = &inner;
    inner.names.emplace("loop", Value(std::shared_ptr<const LoopState>(state)));
    assign(loop, state->items[i]);
    breaks = runBody(loop.body) == Flow::Break;
    scope = inner.outer;
  }
  --loopDepth;
  if (!state->items.empty())
    return Flow::Next;
  Scope inner{scope, {}};
  scope = &inner;
  Flow flow = runBody(loop.otherwise);
  scope = inner.outer;
  return flow;
}

Text Renderer::runApart(const Body &body, Scope &inner) {
  Text out;
  Text *outerOutput = output;
  Scope *outerScope = scope;
  output = &out;
  scope = &inner;
  runBody(body);
  output = outerOutput;
  scope = outerScope;
  return out;
}

void Renderer::assign(const Statement &statement, const Value &value) {
  if (!statement.unpacks)
    return assign(statement.targets.front(), value);
  std::vector<Value> items = itemsOf(budget, value);
  if (items.size() != statement.targets.size())
    fail(0, std::to_string(items.size()), " values for ",
         std::to_string(statement.targets.size()), " names");
  for (size_t i = 0; i < items.size(); ++i)
    assign(statement.targets[i], items[i]);
}

void Renderer::assign(const Target &target, const Value &value) {
  if (target.attribute.empty()) {
    scope->names.insert_or_assign(target.name, value);
    return;
  }
  Value owner;
  for (Scope *at = scope; at; at = at->outer)
    if (auto found = at->names.find(target.name); found != at->names.end()) {
      owner = found->second;
      break;
    }
  Namespace *space = owner.space();
  if (!space)
    fail(0, "'", target.name, "' is no namespace, of which '", target.attribute,
         "' could be set");
  budget.charge(itemUnits + space->entries.size());
  space->set(target.attribute, value);
}
