//===- ExpressionParser.cpp - Expressions of a template -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Filters.h"
#include "Parser.h"
#include "Tests.h"

#include <algorithm>
#include <array>
#include <charconv>

using namespace kvrm::jinja;

ExpressionPtr ExpressionParser::make(Expression::Kind kind, int32_t line,
                                     Operands operands, std::string name) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  for (const ExpressionPtr &operand : operands)
    if (operand)
      node->depth = std::max(node->depth, operand->depth + 1);
  if (node->depth > maxDepth)
    fail(line, "is nested deeper than ", std::to_string(maxDepth));
  node->operands = std::move(operands);
  node->name = std::move(name);
  return node;
}

ExpressionPtr ExpressionParser::makePair(Expression::Kind kind, int32_t line,
                                         ExpressionPtr left,
                                         ExpressionPtr right,
                                         std::string name) {
  Operands operands;
  operands.push_back(std::move(left));
  operands.push_back(std::move(right));
  return make(kind, line, std::move(operands), std::move(name));
}

ExpressionPtr ExpressionParser::literal(int32_t line, Value value) {
  ExpressionPtr node = make(Expression::Literal, line, {});
  node->value = std::move(value);
  return node;
}

//===----------------------------------------------------------------------===//
// Operators, from those that bind least
//===----------------------------------------------------------------------===//

ExpressionPtr ExpressionParser::parse() {
  Nesting nesting(depth, tokens.peek().line);
  ExpressionPtr value = parseOr();
  while (tokens.isName("if")) {
    int32_t line = tokens.take().line;
    Operands operands;
    operands.push_back(parseOr());
    operands.push_back(std::move(value));
    operands.push_back(tokens.takeName("else") ? parse() : nullptr);
    value = make(Expression::Conditional, line, std::move(operands));
  }
  return value;
}

ExpressionPtr ExpressionParser::parseTuple(bool hasConditional) {
  auto one = [&] { return hasConditional ? parse() : parseOr(); };
  int32_t line = tokens.peek().line;
  ExpressionPtr first = one();
  if (!tokens.isOperator(","))
    return first;
  Operands operands;
  operands.push_back(std::move(first));
  while (tokens.takeOperator(",")) {
    Token::Kind kind = tokens.peek().kind;
    if (kind == Token::BlockEnd || kind == Token::OutputEnd ||
        tokens.isOperator(")"))
      break;
    operands.push_back(one());
  }
  return make(Expression::Tuple, line, std::move(operands));
}

ExpressionPtr ExpressionParser::parseOr() {
  ExpressionPtr left = parseAnd();
  while (tokens.isName("or")) {
    int32_t line = tokens.take().line;
    left = makePair(Expression::Or, line, std::move(left), parseAnd());
  }
  return left;
}

ExpressionPtr ExpressionParser::parseAnd() {
  ExpressionPtr left = parseNot();
  while (tokens.isName("and")) {
    int32_t line = tokens.take().line;
    left = makePair(Expression::And, line, std::move(left), parseNot());
  }
  return left;
}

ExpressionPtr ExpressionParser::parseNot() {
  Nesting nesting(depth, tokens.peek().line);
  if (!tokens.isName("not"))
    return parseCompare();
  int32_t line = tokens.take().line;
  Operands operands;
  operands.push_back(parseNot());
  return make(Expression::Not, line, std::move(operands));
}

ExpressionPtr ExpressionParser::parseCompare() {
  static constexpr std::array<std::string_view, 6> comparisons = {
      "==", "!=", "<", "<=", ">", ">="};
  int32_t line = tokens.peek().line;
  Operands operands;
  operands.push_back(parseSum());
  std::vector<std::string> names;
  auto isComparison = [&] {
    return tokens.peek().kind == Token::Operator &&
           std::ranges::find(comparisons, tokens.peek().text) !=
               comparisons.end();
  };
  for (;;) {
    if (isComparison()) {
      names.push_back(tokens.take().text);
    } else if (tokens.takeName("in")) {
      names.emplace_back("in");
    } else if (tokens.isName("not") && tokens.isName("in", 1)) {
      tokens.take();
      tokens.take();
      names.emplace_back("not in");
    } else {
      break;
    }
    operands.push_back(parseSum());
  }
  if (names.empty())
    return std::move(operands.front());
  ExpressionPtr node = make(Expression::Compare, line, std::move(operands));
  node->names = std::move(names);
  return node;
}

ExpressionPtr ExpressionParser::parseSum() {
  ExpressionPtr left = parseConcatenation();
  while (tokens.isOperator("+") || tokens.isOperator("-")) {
    Token token = tokens.take();
    left = makePair(Expression::Arithmetic, token.line, std::move(left),
                    parseConcatenation(), token.text);
  }
  return left;
}

ExpressionPtr ExpressionParser::parseConcatenation() {
  ExpressionPtr first = parseProduct();
  if (!tokens.isOperator("~"))
    return first;
  int32_t line = tokens.peek().line;
  Operands operands;
  operands.push_back(std::move(first));
  while (tokens.takeOperator("~"))
    operands.push_back(parseProduct());
  return make(Expression::Concatenate, line, std::move(operands));
}

ExpressionPtr ExpressionParser::parseProduct() {
  ExpressionPtr left = parsePower();
  while (tokens.isOperator("*") || tokens.isOperator("/") ||
         tokens.isOperator("//") || tokens.isOperator("%")) {
    Token token = tokens.take();
    left = makePair(Expression::Arithmetic, token.line, std::move(left),
                    parsePower(), token.text);
  }
  return left;
}

/// From the left, as Jinja has it.
ExpressionPtr ExpressionParser::parsePower() {
  ExpressionPtr left = parseUnary();
  while (tokens.isOperator("**")) {
    Token token = tokens.take();
    left = makePair(Expression::Arithmetic, token.line, std::move(left),
                    parseUnary(), token.text);
  }
  return left;
}

ExpressionPtr ExpressionParser::parseUnary(bool takesFilters) {
  Nesting nesting(depth, tokens.peek().line);
  ExpressionPtr value;
  if (tokens.isOperator("-") || tokens.isOperator("+")) {
    Token sign = tokens.take();
    Operands operands;
    operands.push_back(parseUnary(/*takesFilters=*/false));
    value = make(sign.text == "-" ? Expression::Negate : Expression::Plus,
                 sign.line, std::move(operands));
  } else {
    value = parsePrimary();
  }
  value = parsePostfix(std::move(value));
  return takesFilters ? parseFilters(std::move(value)) : std::move(value);
}

//===----------------------------------------------------------------------===//
// What operators stand between
//===----------------------------------------------------------------------===//

ExpressionPtr ExpressionParser::parsePrimary() {
  switch (tokens.peek().kind) {
  case Token::Name:
    return parseName();
  case Token::Integer:
  case Token::Float:
    return parseNumber();
  case Token::String: {
    // Strings in a row are one.
    Token token = tokens.take();
    while (tokens.peek().kind == Token::String)
      token.text += tokens.take().text;
    return literal(token.line, Value(Text(token.text)));
  }
  default:
    if (tokens.isOperator("("))
      return parseParenthesis();
    if (tokens.isOperator("["))
      return parseList();
    if (tokens.isOperator("{"))
      return parseDict();
    tokens.refuse("an expression");
  }
}

ExpressionPtr ExpressionParser::parseName() {
  Token token = tokens.take();
  auto isEither = [&](std::string_view a, std::string_view b) {
    return token.text == a || token.text == b;
  };
  if (isEither("true", "True"))
    return literal(token.line, Value(true));
  if (isEither("false", "False"))
    return literal(token.line, Value(false));
  if (isEither("none", "None"))
    return literal(token.line, Value());
  static constexpr std::array<std::string_view, 8> words = {
      "and", "else", "if", "in", "is", "not", "or", "recursive"};
  if (std::ranges::find(words, token.text) != words.end())
    fail(token.line, "'", token.text, "' is not an expression");
  return make(Expression::Name, token.line, {}, token.text);
}

ExpressionPtr ExpressionParser::parseNumber() {
  Token token = tokens.take();
  const char *begin = token.text.data();
  const char *end = begin + token.text.size();
  auto isRight = [&](std::from_chars_result result) {
    return result.ec == std::errc() && result.ptr == end;
  };
  int64_t whole = 0;
  if (token.kind == Token::Integer &&
      isRight(std::from_chars(begin, end, whole)))
    return literal(token.line, Value(whole));
  double number = 0;
  if (token.kind == Token::Float &&
      isRight(std::from_chars(begin, end, number)))
    return literal(token.line, Value(number));
  fail(token.line, "a number is too large");
}

ExpressionPtr ExpressionParser::parseParenthesis() {
  int32_t line = tokens.take().line;
  if (tokens.takeOperator(")"))
    return make(Expression::Tuple, line, {});
  ExpressionPtr value = parseTuple(/*hasConditional=*/true);
  tokens.expectOperator(")");
  return value;
}

ExpressionPtr ExpressionParser::parseList() {
  int32_t line = tokens.take().line;
  Operands operands;
  while (!tokens.isOperator("]")) {
    operands.push_back(parse());
    if (!tokens.takeOperator(","))
      break;
  }
  tokens.expectOperator("]");
  return make(Expression::List, line, std::move(operands));
}

ExpressionPtr ExpressionParser::parseDict() {
  int32_t line = tokens.take().line;
  Operands operands;
  while (!tokens.isOperator("}")) {
    operands.push_back(parse());
    tokens.expectOperator(":");
    operands.push_back(parse());
    if (!tokens.takeOperator(","))
      break;
  }
  tokens.expectOperator("}");
  return make(Expression::Dict, line, std::move(operands));
}

//===----------------------------------------------------------------------===//
// What comes behind
//===----------------------------------------------------------------------===//

ExpressionPtr ExpressionParser::parsePostfix(ExpressionPtr left) {
  for (;;) {
    int32_t line = tokens.peek().line;
    if (tokens.isOperator("(")) {
      left = parseArguments(Expression::Call, line, std::move(left));
    } else if (tokens.isOperator("[")) {
      left = parseSubscript(std::move(left));
    } else if (tokens.takeOperator(".")) {
      Token token = tokens.peek();
      if (token.kind == Token::Integer) {
        left = makePair(Expression::Item, line, std::move(left), parseNumber());
        continue;
      }
      std::string name = tokens.expectName("a name");
      Operands operands;
      operands.push_back(std::move(left));
      left = make(Expression::Attribute, line, std::move(operands), name);
    } else {
      return left;
    }
  }
}

ExpressionPtr ExpressionParser::parseSubscript(ExpressionPtr left) {
  int32_t line = tokens.take().line;
  Operands bounds(3);
  bool isSlice = false;
  size_t count = 0;
  while (count < bounds.size()) {
    if (!tokens.isOperator(":") && !tokens.isOperator("]"))
      bounds[count] = parse();
    ++count;
    if (!tokens.takeOperator(":"))
      break;
    isSlice = true;
  }
  tokens.expectOperator("]");
  if (!isSlice) {
    if (!bounds[0])
      fail(line, "[] without a place");
    return makePair(Expression::Item, line, std::move(left),
                    std::move(bounds[0]));
  }
  bounds.insert(bounds.begin(), std::move(left));
  return make(Expression::Slice, line, std::move(bounds));
}

ExpressionPtr ExpressionParser::parseFilters(ExpressionPtr left) {
  for (;;) {
    if (tokens.isOperator("|"))
      left = parseFilter(std::move(left));
    else if (tokens.isName("is"))
      left = parseTest(std::move(left));
    else if (tokens.isOperator("("))
      left =
          parseArguments(Expression::Call, tokens.peek().line, std::move(left));
    else
      return left;
  }
}

ExpressionPtr ExpressionParser::parseFilter(ExpressionPtr left) {
  int32_t line = tokens.take().line;
  std::string name = tokens.expectName("the name of a filter");
  if (!findFilter(name))
    fail(line, "the filter '", name, "' is not done here");
  return parseArguments(Expression::Filter, line, std::move(left), name);
}

ExpressionPtr ExpressionParser::parseTest(ExpressionPtr left) {
  int32_t line = tokens.take().line;
  bool isNegated = tokens.takeName("not");
  Token next = tokens.peek();
  std::string name = tokens.isOperator("==") ? tokens.take().text
                                             : tokens.expectName("a test");
  if (!findTest(name))
    fail(next.line, "the test '", name, "' is not done here");
  ExpressionPtr node;
  if (tokens.isOperator("(")) {
    node = parseArguments(Expression::Test, line, std::move(left), name);
  } else {
    Operands operands;
    operands.push_back(std::move(left));
    // One argument needs no brackets. Jinja takes any other word for it, too.
    for (const char *word : {"if", "in", "is", "not"})
      if (tokens.isName(word))
        fail(line, "'", word, "' behind a test: the test needs brackets");
    Token::Kind kind = tokens.peek().kind;
    bool isWord =
        tokens.isName("else") || tokens.isName("or") || tokens.isName("and");
    bool isArgument = kind == Token::Name || kind == Token::String ||
                      kind == Token::Integer || kind == Token::Float ||
                      tokens.isOperator("[") || tokens.isOperator("{");
    if (isArgument && !isWord)
      operands.push_back(parsePostfix(parsePrimary()));
    node = make(Expression::Test, line, std::move(operands), name);
  }
  if (!isNegated)
    return node;
  Operands operands;
  operands.push_back(std::move(node));
  return make(Expression::Not, line, std::move(operands));
}

ExpressionPtr ExpressionParser::parseArguments(Expression::Kind kind,
                                               int32_t line, ExpressionPtr left,
                                               std::string name) {
  Operands operands;
  operands.push_back(std::move(left));
  std::vector<std::string> names;
  if (tokens.takeOperator("(")) {
    while (!tokens.isOperator(")")) {
      if (tokens.isOperator("*") || tokens.isOperator("**"))
        fail(tokens.peek().line, "arguments in one list are not done here");
      bool isNamed =
          tokens.peek().kind == Token::Name && tokens.isOperator("=", 1);
      if (isNamed) {
        names.push_back(tokens.take().text);
        tokens.take();
      } else if (!names.empty()) {
        fail(tokens.peek().line, "an argument without a name is behind one "
                                 "with a name");
      }
      operands.push_back(parse());
      if (operands.size() > maxArguments)
        fail(line, "has more than ", std::to_string(maxArguments),
             " arguments");
      if (!tokens.takeOperator(","))
        break;
    }
    tokens.expectOperator(")");
  }
  ExpressionPtr node = make(kind, line, std::move(operands), std::move(name));
  node->names = std::move(names);
  return node;
}
