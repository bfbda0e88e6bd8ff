//===- Lexer.cpp - The tokens of a template -------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lexer.h"

#include "../Utf8.h"
#include "Value.h"

#include <algorithm>
#include <array>

using namespace kvrm;
using namespace kvrm::jinja;

static bool isDigit(char c) { return c >= '0' && c <= '9'; }
static bool startsName(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/// With "\n" for each kind of newline, and without one at the end.
static std::string withPlainNewlines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    bool isReturn = source[i] == '\r';
    out += isReturn ? '\n' : source[i];
    if (isReturn && i + 1 < source.size() && source[i + 1] == '\n')
      ++i;
  }
  if (out.ends_with('\n'))
    out.pop_back();
  return out;
}

//===----------------------------------------------------------------------===//
// Strings
//===----------------------------------------------------------------------===//

static void appendCharacter(std::string &out, uint32_t character,
                            int32_t line) {
  if (character > 0x10ffff || (character >= 0xd800 && character <= 0xdfff))
    fail(line, "an escape of a string is no character");
  if (character < 0x800)
    return appendUtf8(out, character);
  auto byte = [&](uint32_t lead, uint32_t shift) {
    out += static_cast<char>(lead | (character >> shift & 0x3f));
  };
  if (character < 0x10000) {
    out += static_cast<char>(0xe0 | character >> 12);
  } else {
    out += static_cast<char>(0xf0 | character >> 18);
    byte(0x80, 12);
  }
  byte(0x80, 6);
  byte(0x80, 0);
}

/// Takes up to `most` digits of `base` off the front of `text`.
static uint32_t takeDigits(std::string_view &text, size_t most, uint32_t base,
                           size_t &count) {
  static constexpr std::string_view digits = "0123456789abcdef";
  uint32_t value = 0;
  for (count = 0; count < most && !text.empty(); ++count) {
    char c = text[0];
    size_t digit = digits.find(
        static_cast<char>(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c));
    if (digit >= base)
      break;
    value = value * base + static_cast<uint32_t>(digit);
    text.remove_prefix(1);
  }
  return value;
}

/// An escape of Python's, behind the backslash.
static void appendEscape(std::string_view &text, std::string &out,
                         int32_t line) {
  static constexpr std::string_view names = "\\'\"abfnrtv\n";
  static constexpr std::array<std::string_view, 11> meanings = {
      "\\", "'", "\"", "\a", "\b", "\f", "\n", "\r", "\t", "\v", ""};
  char c = text[0];
  if (size_t at = names.find(c); at != names.npos) {
    out += meanings[at];
    text.remove_prefix(1);
    return;
  }
  size_t count = 0;
  if (c >= '0' && c <= '7')
    return appendCharacter(out, takeDigits(text, 3, 8, count), line);
  size_t wanted = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (wanted == 0) {
    if (c == 'N')
      fail(line, "an escape \\N of a string is not done here");
    out += '\\'; // any other stands for itself
    return;
  }
  text.remove_prefix(1);
  uint32_t character = takeDigits(text, wanted, 16, count);
  if (count < wanted)
    fail(line, "an escape \\", std::string(1, c), " of a string is cut short");
  appendCharacter(out, character, line);
}

static std::string unescape(std::string_view text, int32_t line) {
  std::string out;
  while (!text.empty()) {
    char c = text[0];
    text.remove_prefix(1);
    if (c == '\\')
      appendEscape(text, out, line);
    else
      out += c;
  }
  return out;
}

//===----------------------------------------------------------------------===//
// Lexer
//===----------------------------------------------------------------------===//

namespace {
class Lexer {
public:
  explicit Lexer(std::string_view source) : source(source) {}

  std::vector<Token> run();

private:
  std::string_view rest(size_t offset = 0) const {
    return source.substr(std::min(at + offset, source.size()));
  }
  void advance(size_t bytes) {
    line += static_cast<int32_t>(
        std::ranges::count(source.substr(at, bytes), '\n'));
    at += bytes;
  }
  void add(Token::Kind kind, std::string_view text = {}) {
    tokens.push_back({kind, line, std::string(text)});
  }

  /// Bytes of a raw tag at `at`, `{% raw %}` for one, and what it takes behind
  /// itself; 0 if there is none.
  size_t rawTag(size_t from, std::string_view name, bool trims) const;
  /// Bytes of a tag's end at the start of `text`; 0 if there is none.
  static size_t endBytes(std::string_view text, std::string_view mark,
                         bool isBlock);
  std::string_view beforeTag(std::string_view text, char sign,
                             bool isOutput) const;
  void lexData();
  void lexComment();
  void lexRaw();
  void lexTag(Token::Kind end, std::string_view mark);
  void lexWord(std::vector<char> &open);
  void lexString();
  void lexNumber();
  void lexOperator(std::vector<char> &open);

  std::string_view source;
  size_t at = 0;
  int32_t line = 1;
  bool startsLine = true; ///< only white space since the last newline's tag
  std::vector<Token> tokens;
};
} // namespace

size_t Lexer::endBytes(std::string_view text, std::string_view mark,
                       bool isBlock) {
  if (isBlock && text.starts_with('+') && text.substr(1).starts_with(mark))
    return 1 + mark.size();
  if (text.starts_with('-') && text.substr(1).starts_with(mark))
    return 1 + mark.size() + spaceAtStart(text.substr(1 + mark.size()));
  if (!text.starts_with(mark))
    return 0;
  bool takesNewline = isBlock && text.substr(mark.size()).starts_with('\n');
  return mark.size() + (takesNewline ? 1 : 0);
}

size_t Lexer::rawTag(size_t from, std::string_view name, bool trims) const {
  std::string_view text = source.substr(from);
  size_t bytes = 2; // {%
  if (text.substr(bytes).starts_with('-') ||
      text.substr(bytes).starts_with('+'))
    ++bytes;
  bytes += spaceAtStart(text.substr(bytes));
  if (!text.substr(bytes).starts_with(name))
    return 0;
  bytes += name.size();
  bytes += spaceAtStart(text.substr(bytes));
  std::string_view end = text.substr(bytes);
  // What opens a raw part does not take the newline.
  size_t endsWith = trims || end.starts_with('-') ? endBytes(end, "%}", true)
                    : end.starts_with("%}")       ? 2
                                                  : 0;
  return endsWith == 0 ? 0 : bytes + endsWith;
}

/// What a tag leaves of the text in front of it.
std::string_view Lexer::beforeTag(std::string_view text, char sign,
                                  bool isOutput) const {
  if (sign == '-')
    return withoutSpaceAtEnd(text);
  if (sign == '+' || isOutput)
    return text;
  size_t lineStart = text.rfind('\n') + 1; // 0 if there is none
  std::string_view indent = text.substr(lineStart);
  bool isAtStart = lineStart > 0 || startsLine;
  return isAtStart && spaceAtStart(indent) == indent.size()
             ? text.substr(0, lineStart)
             : text;
}

/// Text up to the next tag, and the tag's beginning.
void Lexer::lexData() {
  size_t begin = at;
  size_t tag = at;
  char kind = 0;
  for (; tag + 1 < source.size(); ++tag)
    if (source[tag] == '{' &&
        (source[tag + 1] == '{' || source[tag + 1] == '%' ||
         source[tag + 1] == '#')) {
      kind = source[tag + 1];
      break;
    }
  if (kind == 0) {
    if (at < source.size())
      add(Token::Data, rest());
    at = source.size();
    return;
  }
  char sign = tag + 2 < source.size() ? source[tag + 2] : ' ';
  bool hasSign = sign == '-' || sign == '+';
  std::string_view text =
      beforeTag(source.substr(begin, tag - begin), sign, kind == '{');
  if (!text.empty())
    add(Token::Data, text);
  advance(tag - begin);
  if (kind == '%' && rawTag(at, "raw", /*trims=*/false) > 0)
    return lexRaw();
  advance(hasSign ? 3 : 2);
  if (kind == '#')
    return lexComment();
  add(kind == '{' ? Token::OutputBegin : Token::BlockBegin);
  if (kind == '{')
    lexTag(Token::OutputEnd, "}}");
  else
    lexTag(Token::BlockEnd, "%}");
}

void Lexer::lexComment() {
  size_t end = source.find("#}", at);
  if (end == source.npos)
    fail(line, "a comment has no end");
  if (end > at && (source[end - 1] == '-' || source[end - 1] == '+'))
    --end;
  size_t bytes = endBytes(source.substr(end), "#}", true);
  startsLine = source[end + bytes - 1] == '\n';
  advance(end + bytes - at);
}

void Lexer::lexRaw() {
  advance(rawTag(at, "raw", /*trims=*/false));
  startsLine = source[at - 1] == '\n';
  for (size_t tag = source.find("{%", at); tag != source.npos;
       tag = source.find("{%", tag + 1)) {
    size_t bytes = rawTag(tag, "endraw", /*trims=*/true);
    if (bytes == 0)
      continue;
    std::string_view text = beforeTag(source.substr(at, tag - at),
                                      source[tag + 2], /*isOutput=*/false);
    if (!text.empty())
      add(Token::Data, text);
    advance(tag + bytes - at);
    startsLine = source[at - 1] == '\n';
    return;
  }
  fail(line, "{% raw %} has no end");
}

/// What is inside of a tag, and its end.
void Lexer::lexTag(Token::Kind end, std::string_view mark) {
  int32_t beginLine = line;
  std::vector<char> open;
  while (at < source.size()) {
    size_t bytes = endBytes(rest(), mark, end == Token::BlockEnd);
    if (open.empty() && bytes > 0) {
      add(end);
      advance(bytes);
      startsLine = source[at - 1] == '\n';
      return;
    }
    if (size_t space = spaceAtStart(rest()); space > 0)
      advance(space);
    else
      lexWord(open);
  }
  fail(beginLine, "a tag has no end");
}

void Lexer::lexWord(std::vector<char> &open) {
  char c = source[at];
  if (isDigit(c))
    return lexNumber();
  if (c == '\'' || c == '"')
    return lexString();
  if (!startsName(c))
    return lexOperator(open);
  size_t bytes = 1;
  while (bytes < rest().size() &&
         (startsName(rest()[bytes]) || isDigit(rest()[bytes])))
    ++bytes;
  add(Token::Name, rest().substr(0, bytes));
  advance(bytes);
}

void Lexer::lexString() {
  size_t end = at + 1;
  while (end < source.size() && source[end] != source[at])
    end += source[end] == '\\' ? 2 : 1;
  if (end >= source.size())
    fail(line, "a string has no end");
  add(Token::String, unescape(source.substr(at + 1, end - at - 1), line));
  advance(end + 1 - at);
}

void Lexer::lexNumber() {
  size_t bytes = 0;
  auto takeDigits = [&] {
    while (bytes < rest().size() && isDigit(rest()[bytes]))
      ++bytes;
  };
  auto hasDigit = [&](size_t offset) {
    return !rest(offset).empty() && isDigit(rest(offset)[0]);
  };
  takeDigits();
  bool isPlace = at > 0 && source[at - 1] == '.'; // `pair.0`
  bool isFloat = false;
  if (!isPlace && rest(bytes).starts_with('.') && hasDigit(bytes + 1)) {
    isFloat = true;
    ++bytes;
    takeDigits();
  }
  if (!isPlace &&
      (rest(bytes).starts_with('e') || rest(bytes).starts_with('E'))) {
    bool isSigned =
        rest(bytes + 1).starts_with('+') || rest(bytes + 1).starts_with('-');
    size_t digits = bytes + (isSigned ? 2 : 1);
    if (hasDigit(digits)) {
      isFloat = true;
      bytes = digits;
      takeDigits();
    }
  }
  std::string_view text = rest().substr(0, bytes);
  bool hasOddForm = (!isFloat && bytes > 1 && text[0] == '0') ||
                    (!rest(bytes).empty() && startsName(rest(bytes)[0]));
  if (hasOddForm)
    fail(line, "a number is in a form that is not done here");
  add(isFloat ? Token::Float : Token::Integer, text);
  advance(bytes);
}

void Lexer::lexOperator(std::vector<char> &open) {
  static constexpr std::array<std::string_view, 26> operators = {
      "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
  const auto *found =
      std::ranges::find_if(operators, [&](std::string_view candidate) {
        return rest().starts_with(candidate);
      });
  if (found == operators.end())
    fail(line, "'", std::string(rest().substr(0, characterBytes(rest()))),
         "' is no part of an expression");
  char c = (*found)[0];
  if (c == '(' || c == '[' || c == '{') {
    open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
  } else if (c == ')' || c == ']' || c == '}') {
    if (open.empty() || open.back() != c)
      fail(line, "'", std::string(1, c), "' closes nothing");
    open.pop_back();
  }
  add(Token::Operator, *found);
  advance(found->size());
}

std::vector<Token> Lexer::run() {
  while (at < source.size())
    lexData();
  add(Token::End);
  return std::move(tokens);
}

std::vector<Token> jinja::tokenize(std::string_view source) {
  std::string text = withPlainNewlines(source);
  return Lexer(text).run();
}
