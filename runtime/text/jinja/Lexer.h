//===- Lexer.h - The tokens of a template -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// White space around tags goes where Jinja's lexer lets it go with the settings
// that transformers has: trim_blocks takes the newline behind a block or a
// comment, lstrip_blocks the white space between them and the start of their
// line, `-` all at its side, and `+` leaves all. One newline at the end of the
// template is none of it.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_LEXER_H
#define KVRM_TEXT_JINJA_LEXER_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::jinja {

struct Token {
  enum Kind {
    Data, ///< text of the template
    OutputBegin,
    OutputEnd,
    BlockBegin,
    BlockEnd,
    Name,
    String, ///< without quotes and escapes
    Integer,
    Float,
    Operator,
    End
  };
  Kind kind;
  int32_t line;
  std::string text;
};

/// Errors: throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_LEXER_H
