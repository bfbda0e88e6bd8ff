//===- Value.h - What expressions of a template give ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Values are Python's, as far as chat templates use them. They are cheap to
// copy and never change, but for namespaces, which belong to the renderer, and
// `loop`. So nothing holds itself, and nothing is left over.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_VALUE_H
#define KVRM_TEXT_JINJA_VALUE_H

#include "Text.h"

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace kvrm::jinja {

/// What stops parsing or rendering. Thrown and caught inside of this library.
struct TemplateError {
  int32_t line; ///< 0: not known yet
  std::string message;
};

template <typename... Parts>
[[noreturn]] void fail(int32_t line, const Parts &...parts) {
  std::string message;
  (message.append(parts), ...);
  throw TemplateError{line, std::move(message)};
}

struct Statement;
class Value;
struct Namespace;
struct LoopState;

/// A name that nothing has. `name` lives as long as the template.
struct Undefined {
  std::string_view name;
};
struct None {};

struct List {
  enum Kind {
    Plain,
    Tuple,
    Range,
    View,    ///< of a dict: has a length, and no places
    Iterator ///< can be gone through once; has no length
  };
  Kind kind = Plain;
  std::vector<Value> items;
  size_t taken = 0; ///< of an iterator
  int32_t nesting = 1;
};

/// Keys are texts. Few, so that they are found by looking at each.
struct Dict {
  std::vector<std::pair<Text, Value>> entries;
  int32_t nesting = 1;

  const Value *find(std::string_view key) const;
};

enum class Builtin {
  Dict,
  Namespace,
  RaiseException,
  Range,
  StrftimeNow,
};

class Value {
public:
  using Storage = std::variant<
      Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
      std::shared_ptr<List>, std::shared_ptr<const Dict>, Namespace *,
      std::shared_ptr<const LoopState>, const Statement *, Builtin>;

  Value() : storage(None()) {}
  explicit Value(Undefined undefined) : storage(undefined) {}
  explicit Value(bool flag) : storage(flag) {}
  explicit Value(int64_t number) : storage(number) {}
  explicit Value(double number) : storage(number) {}
  explicit Value(Text text)
      : storage(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(Namespace *space) : storage(space) {}
  explicit Value(std::shared_ptr<const LoopState> loop)
      : storage(std::move(loop)) {}
  explicit Value(const Statement *macro) : storage(macro) {}
  explicit Value(Builtin builtin) : storage(builtin) {}
  /// Errors: of nestingAbove().
  static Value ofList(std::vector<Value> items, List::Kind kind = List::Plain);
  static Value ofDict(std::vector<std::pair<Text, Value>> entries);

  template <typename T> const T *as() const { return std::get_if<T>(&storage); }
  bool isUndefined() const { return as<Undefined>() != nullptr; }
  bool isNone() const { return as<None>() != nullptr; }
  /// Null unless it is one.
  const Text *text() const { return pointee<const Text>(); }
  List *list() const { return pointee<List>(); }
  const Dict *dict() const { return pointee<const Dict>(); }
  const LoopState *loop() const { return pointee<const LoopState>(); }
  Namespace *space() const {
    Namespace *const *at = as<Namespace *>();
    return at ? *at : nullptr;
  }
  const Statement *macro() const {
    const Statement *const *at = as<const Statement *>();
    return at ? *at : nullptr;
  }
  /// Of a number or a truth value.
  std::optional<int64_t> integer() const;
  std::optional<double> number() const;

  /// As Python's bool().
  bool isTrue() const;
  /// Its type, as messages tell it.
  const char *typeName() const;

private:
  template <typename T> T *pointee() const {
    const std::shared_ptr<T> *pointer = as<std::shared_ptr<T>>();
    return pointer ? pointer->get() : nullptr;
  }

  Storage storage;
};

/// The one thing that `set` changes from inside of a loop.
struct Namespace {
  std::vector<std::pair<std::string, Value>> entries;

  const Value *find(std::string_view key) const;
  void set(std::string_view key, Value value);
};

/// `loop` inside of a loop.
struct LoopState {
  explicit LoopState(std::vector<Value> items);

  std::vector<Value> items;
  int32_t nesting;
  size_t index = 0;
  int32_t depth = 1; ///< of loops
};

/// How deep lists, dicts and loops are nested in what has `items`. Errors:
/// deeper than maxNesting, so that values of any making can be gone through.
int32_t nestingAbove(const std::vector<Value> &items);
constexpr int32_t maxNesting = 32;

/// As Python's str() of a float.
std::string textOf(double number);

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_VALUE_H
