//===- Parser.cpp - A template to its tree --------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Parser.h"

#include <algorithm>
#include <initializer_list>

using namespace kvrm::jinja;

//===----------------------------------------------------------------------===//
// TokenStream
//===----------------------------------------------------------------------===//

void TokenStream::refuse(std::string_view wanted) const {
  const Token &token = peek();
  switch (token.kind) {
  case Token::End:
    fail(token.line, "the template ends where ", wanted, " should be");
  case Token::OutputEnd:
  case Token::BlockEnd:
    fail(token.line, "a tag ends where ", wanted, " should be");
  default:
    fail(token.line, "'", token.text.substr(0, 64), "' is not ", wanted);
  }
}

void TokenStream::expectOperator(std::string_view text) {
  if (!takeOperator(text))
    refuse("'" + std::string(text) + "'");
}

std::string TokenStream::expectName(std::string_view what) {
  if (peek().kind != Token::Name)
    refuse(what);
  return take().text;
}

void TokenStream::expect(Token::Kind kind, std::string_view what) {
  if (peek().kind != kind)
    refuse(what);
  take();
}

//===----------------------------------------------------------------------===//
// Statements
//===----------------------------------------------------------------------===//

namespace {
class Parser {
public:
  explicit Parser(std::string_view source)
      : tokens(tokenize(source)), expressions(tokens) {}

  Body run() { return parseBody({}); }

private:
  using Names = std::initializer_list<std::string_view>;
  using StatementPtr = std::unique_ptr<Statement>;

  static StatementPtr make(Statement::Kind kind, int32_t line);
  /// Statements up to one of `ends`, of which the name is what comes next; up
  /// to the template's end if there are none.
  Body parseBody(Names ends);
  /// A body of its own, of which the end tag is taken too.
  Body parseWholeBody(std::string_view end);
  /// A body in which no loop around is seen.
  Body parseInnerBody(std::string_view end);
  StatementPtr parseOutput();
  StatementPtr parseBlock();
  StatementPtr parseIf(int32_t line);
  StatementPtr parseFor(int32_t line);
  StatementPtr parseSet(int32_t line);
  StatementPtr parseMacro(int32_t line);
  StatementPtr parseGeneration(int32_t line);
  StatementPtr parseJump(Statement::Kind kind, std::string_view name,
                         int32_t line);
  void parseTargets(Statement &statement, bool takesAttributes);
  Target parseTarget(bool takesAttributes);
  void endTag() { tokens.expect(Token::BlockEnd, "the tag's end"); }

  TokenStream tokens;
  ExpressionParser expressions;
  int32_t depth = 0;
  int32_t loops = 0;
  int32_t scopes = 0; ///< loops, macros and their like around
};
} // namespace

std::unique_ptr<Statement> Parser::make(Statement::Kind kind, int32_t line) {
  auto statement = std::make_unique<Statement>();
  statement->kind = kind;
  statement->line = line;
  return statement;
}

Body Parser::parseBody(Names ends) {
  Nesting nesting(depth, tokens.peek().line);
  Body body;
  for (;;) {
    Token token = tokens.take();
    switch (token.kind) {
    case Token::Data:
      body.push_back(make(Statement::Data, token.line));
      body.back()->text = Value(Text(token.text));
      break;
    case Token::OutputBegin:
      body.push_back(parseOutput());
      break;
    case Token::BlockBegin:
      if (tokens.peek().kind == Token::Name &&
          std::ranges::find(ends, tokens.peek().text) != ends.end())
        return body;
      body.push_back(parseBlock());
      break;
    default: // the end, as tags are taken whole
      if (ends.size() > 0)
        fail(token.line, "the template ends without {% ", *(ends.end() - 1),
             " %}");
      return body;
    }
  }
}

Body Parser::parseWholeBody(std::string_view end) {
  Body body = parseBody({end});
  tokens.take();
  endTag();
  return body;
}

Body Parser::parseInnerBody(std::string_view end) {
  int32_t outerLoops = loops;
  loops = 0;
  ++scopes;
  Body body = parseWholeBody(end);
  --scopes;
  loops = outerLoops;
  return body;
}

std::unique_ptr<Statement> Parser::parseOutput() {
  StatementPtr output = make(Statement::Output, tokens.peek().line);
  output->value = expressions.parseTuple(/*hasConditional=*/true);
  tokens.expect(Token::OutputEnd, "the tag's end");
  return output;
}

std::unique_ptr<Statement> Parser::parseBlock() {
  int32_t line = tokens.peek().line;
  std::string name = tokens.expectName("a statement");
  if (name == "if")
    return parseIf(line);
  if (name == "for")
    return parseFor(line);
  if (name == "set")
    return parseSet(line);
  if (name == "macro")
    return parseMacro(line);
  if (name == "generation")
    return parseGeneration(line);
  if (name == "break")
    return parseJump(Statement::Break, name, line);
  if (name == "continue")
    return parseJump(Statement::Continue, name, line);
  fail(line, "{% ", name.substr(0, 64), " %} is not done here");
}

std::unique_ptr<Statement> Parser::parseIf(int32_t line) {
  StatementPtr statement = make(Statement::If, line);
  for (;;) {
    Branch &branch = statement->branches.emplace_back();
    branch.condition = expressions.parseTuple(/*hasConditional=*/false);
    endTag();
    branch.body = parseBody({"elif", "else", "endif"});
    std::string name = tokens.take().text;
    if (name == "elif")
      continue;
    endTag();
    if (name == "else")
      statement->branches.emplace_back().body = parseWholeBody("endif");
    return statement;
  }
}

std::unique_ptr<Statement> Parser::parseFor(int32_t line) {
  StatementPtr loop = make(Statement::For, line);
  parseTargets(*loop, /*takesAttributes=*/false);
  if (!tokens.takeName("in"))
    tokens.refuse("'in'");
  loop->value = expressions.parseTuple(/*hasConditional=*/false);
  if (tokens.takeName("if"))
    loop->condition = expressions.parse();
  if (tokens.isName("recursive"))
    fail(line, "a recursive {% for %} is not done here");
  endTag();
  ++loops;
  ++scopes;
  loop->body = parseBody({"else", "endfor"});
  --loops;
  --scopes;
  bool hasElse = tokens.take().text == "else";
  endTag();
  if (hasElse)
    loop->otherwise = parseWholeBody("endfor");
  return loop;
}

std::unique_ptr<Statement> Parser::parseSet(int32_t line) {
  StatementPtr statement = make(Statement::Set, line);
  parseTargets(*statement, /*takesAttributes=*/true);
  if (tokens.takeOperator("=")) {
    statement->value = expressions.parseTuple(/*hasConditional=*/true);
    endTag();
    return statement;
  }
  if (tokens.isOperator("|"))
    fail(line, "a filter of {% set %} is not done here");
  statement->kind = Statement::SetBlock;
  endTag();
  statement->body = parseInnerBody("endset");
  return statement;
}

std::unique_ptr<Statement> Parser::parseMacro(int32_t line) {
  // So a macro has the names of the template, which are always there.
  if (scopes > 0)
    fail(line, "{% macro %} inside of a loop or a macro is not done here");
  StatementPtr macro = make(Statement::Macro, line);
  macro->name = tokens.expectName("the name of a macro");
  tokens.expectOperator("(");
  while (!tokens.isOperator(")")) {
    Parameter &parameter = macro->parameters.emplace_back();
    parameter.name = tokens.expectName("the name of a parameter");
    if (tokens.takeOperator("="))
      parameter.otherwise = expressions.parse();
    if (!tokens.takeOperator(","))
      break;
  }
  tokens.expectOperator(")");
  endTag();
  macro->body = parseInnerBody("endmacro");
  return macro;
}

std::unique_ptr<Statement> Parser::parseGeneration(int32_t line) {
  StatementPtr statement = make(Statement::Generation, line);
  endTag();
  statement->body = parseInnerBody("endgeneration");
  return statement;
}

std::unique_ptr<Statement>
Parser::parseJump(Statement::Kind kind, std::string_view name, int32_t line) {
  if (loops == 0)
    fail(line, "{% ", name, " %} is in no loop");
  endTag();
  return make(kind, line);
}

void Parser::parseTargets(Statement &statement, bool takesAttributes) {
  bool hasParenthesis = tokens.takeOperator("(");
  statement.targets.push_back(parseTarget(takesAttributes));
  while (tokens.takeOperator(",")) {
    statement.unpacks = true;
    if (tokens.peek().kind == Token::Name && !tokens.isName("in"))
      statement.targets.push_back(parseTarget(takesAttributes));
  }
  if (hasParenthesis)
    tokens.expectOperator(")");
}

Target Parser::parseTarget(bool takesAttributes) {
  static constexpr std::string_view constants[] = {"true",  "True", "false",
                                                   "False", "none", "None"};
  int32_t line = tokens.peek().line;
  Target target{tokens.expectName("a name"), ""};
  if (std::ranges::find(constants, target.name) != std::end(constants))
    fail(line, "'", target.name, "' cannot be set");
  if (takesAttributes && tokens.takeOperator("."))
    target.attribute = tokens.expectName("a name");
  return target;
}

Body kvrm::jinja::parseTemplate(std::string_view source) {
  return Parser(source).run();
}
