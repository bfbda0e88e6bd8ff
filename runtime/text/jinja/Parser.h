//===- Parser.h - A template to its tree ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The grammar is Jinja's. Statements, filters and tests that are not done here
// are refused by their name, and what is nested too deeply to be worked on with
// a stack of bounded size.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_PARSER_H
#define KVRM_TEXT_JINJA_PARSER_H

#include "Ast.h"
#include "Lexer.h"

#include <algorithm>

namespace kvrm::jinja {

/// Of what is nested in a template: brackets, operators, statements.
constexpr int32_t maxDepth = 200;
/// Of a call. A filter may name further filters there, which nest too.
constexpr size_t maxArguments = 64;

/// Errors: throws TemplateError.
Body parseTemplate(std::string_view source);

/// Tokens, taken one by one.
class TokenStream {
public:
  explicit TokenStream(std::vector<Token> tokens) : tokens(std::move(tokens)) {}

  const Token &peek(size_t ahead = 0) const {
    return tokens[std::min(at + ahead, tokens.size() - 1)];
  }
  Token take() {
    const Token &token = peek();
    at += token.kind != Token::End;
    return token;
  }
  bool isOperator(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == Token::Operator && peek(ahead).text == text;
  }
  bool isName(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == Token::Name && peek(ahead).text == text;
  }
  bool takeOperator(std::string_view text) { return takeIf(isOperator(text)); }
  bool takeName(std::string_view text) { return takeIf(isName(text)); }
  void expectOperator(std::string_view text);
  std::string expectName(std::string_view what);
  void expect(Token::Kind kind, std::string_view what);
  /// Refuses what comes next.
  [[noreturn]] void refuse(std::string_view wanted) const;

private:
  bool takeIf(bool isNext) {
    at += isNext;
    return isNext;
  }

  std::vector<Token> tokens;
  size_t at = 0;
};

/// Counts what is nested while it lives.
class Nesting {
public:
  Nesting(int32_t &depth, int32_t line) : depth(depth) {
    if (++depth > maxDepth) {
      --depth;
      fail(line, "is nested deeper than ", std::to_string(maxDepth));
    }
  }
  Nesting(const Nesting &) = delete;
  Nesting &operator=(const Nesting &) = delete;
  ~Nesting() { --depth; }

private:
  int32_t &depth;
};

class ExpressionParser {
public:
  explicit ExpressionParser(TokenStream &tokens) : tokens(tokens) {}

  /// One with `if` and `else` in it.
  ExpressionPtr parse();
  /// One without.
  ExpressionPtr parseOr();
  /// One, or several with commas between them as a tuple.
  ExpressionPtr parseTuple(bool hasConditional);

private:
  using Operands = std::vector<ExpressionPtr>;

  ExpressionPtr make(Expression::Kind kind, int32_t line, Operands operands,
                     std::string name = {});
  ExpressionPtr makePair(Expression::Kind kind, int32_t line,
                         ExpressionPtr left, ExpressionPtr right,
                         std::string name = {});
  ExpressionPtr literal(int32_t line, Value value);
  ExpressionPtr parseAnd();
  ExpressionPtr parseNot();
  ExpressionPtr parseCompare();
  ExpressionPtr parseSum();
  ExpressionPtr parseConcatenation();
  ExpressionPtr parseProduct();
  ExpressionPtr parsePower();
  ExpressionPtr parseUnary(bool takesFilters = true);
  ExpressionPtr parsePrimary();
  ExpressionPtr parseNumber();
  ExpressionPtr parseName();
  ExpressionPtr parseParenthesis();
  ExpressionPtr parseList();
  ExpressionPtr parseDict();
  ExpressionPtr parsePostfix(ExpressionPtr left);
  ExpressionPtr parseSubscript(ExpressionPtr left);
  ExpressionPtr parseFilters(ExpressionPtr left);
  ExpressionPtr parseFilter(ExpressionPtr left);
  ExpressionPtr parseTest(ExpressionPtr left);
  /// What is called, or filtered, with the arguments that follow.
  ExpressionPtr parseArguments(Expression::Kind kind, int32_t line,
                               ExpressionPtr left, std::string name = {});

  TokenStream &tokens;
  int32_t depth = 0;
};

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_PARSER_H
