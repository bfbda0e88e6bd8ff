//===- Ast.h - A template as a tree -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_AST_H
#define KVRM_TEXT_JINJA_AST_H

#include "Value.h"

#include <memory>
#include <string>
#include <vector>

namespace kvrm::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Expression {
  enum Kind {
    Literal,   ///< value
    Name,      ///< name
    List,      ///< operands
    Tuple,     ///< operands
    Dict,      ///< key, value, key, value...
    Attribute, ///< operand . name
    Item,      ///< operand [ operand ]
    Slice,     ///< operand [ operand : operand : operand ], each may be null
    Call,      ///< operand ( arguments )
    Filter,    ///< operand | name ( arguments )
    Test,      ///< operand is name ( arguments )
    Not,
    Negate,
    Plus,
    And,
    Or,
    Compare,     ///< operand, then names[i] with operand i + 1
    Arithmetic,  ///< operand name operand
    Concatenate, ///< operands
    Conditional  ///< operands: test, value, otherwise (may be null)
  };
  Kind kind;
  int32_t line;
  int32_t depth = 1; ///< of the tree below
  std::string name;
  Value value;
  std::vector<ExpressionPtr> operands;
  /// Of comparisons, or the names of the last arguments of a call.
  std::vector<std::string> names;
};

/// What `set` and `for` write to: a name, or an attribute of a namespace.
struct Target {
  std::string name;
  std::string attribute; ///< empty: none
};

struct Parameter {
  std::string name;
  ExpressionPtr otherwise; ///< null: undefined
};

struct Branch {
  ExpressionPtr condition; ///< null: else
  Body body;
};

struct Statement {
  enum Kind {
    Data,       ///< text
    Output,     ///< value
    Set,        ///< targets = value
    SetBlock,   ///< targets = what body writes
    If,         ///< branches
    For,        ///< targets in value, if condition; body, else otherwise
    Macro,      ///< name, parameters, body
    Generation, ///< body: what transformers trains on, a scope of its own
    Break,
    Continue
  };
  Kind kind;
  int32_t line;
  Value text;
  ExpressionPtr value;
  ExpressionPtr condition;
  std::vector<Target> targets;
  bool unpacks = false; ///< one value into several targets
  std::vector<Branch> branches;
  Body body;
  Body otherwise;
  std::string name;
  std::vector<Parameter> parameters;
};

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_AST_H
