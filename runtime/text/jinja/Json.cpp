//===- Json.cpp - Values of a template as JSON ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Filters.h"

#include <algorithm>
#include <array>
#include <cstdio>

using namespace kvrm::jinja;

namespace {
class JsonWriter {
public:
  JsonWriter(Budget &budget, const Arguments &arguments);

  Text run(const Value &value) {
    write(value, 0);
    return std::move(out);
  }

private:
  void write(const Value &value, size_t depth);
  void writeText(const Text &text);
  void add(std::string_view bytes) { add(Text(bytes)); }
  void add(const Text &text) {
    budget.charge(text.size() + 1);
    out.append(text);
  }
  void newLine(size_t depth) {
    if (!isIndented)
      return;
    add("\n");
    budget.charge(indent.size() + 1, depth);
    for (size_t i = 0; i < depth; ++i)
      out.append(indent);
  }
  /// Opens and closes what has `count` parts, and calls `writePart(i)` of each.
  template <typename Function>
  void writeAll(std::string_view brackets, size_t count, size_t depth,
                Function writePart);

  Budget &budget;
  bool isIndented = false;
  Text indent;
  Text itemSeparator{", "};
  Text keySeparator{": "};
  bool sortsKeys = false;
  Text out;
};
} // namespace

JsonWriter::JsonWriter(Budget &budget, const Arguments &arguments)
    : budget(budget) {
  auto bound =
      arguments.bind({"ensure_ascii", "indent", "separators", "sort_keys"});
  if (bound[0] && bound[0]->isTrue())
    fail(0, "'tojson' with ensure_ascii is not done here");
  if (bound[1] && !bound[1]->isNone()) {
    isIndented = true;
    itemSeparator = Text(",");
    if (const Text *text = bound[1]->text())
      indent = *text;
    else
      indent =
          Text(std::string(static_cast<size_t>(std::clamp<int64_t>(
                               expectInteger(*bound[1], "'indent'"), 0, 64)),
                           ' '));
  }
  if (bound[2] && !bound[2]->isNone()) {
    std::vector<Value> pair = itemsOf(budget, *bound[2]);
    if (pair.size() != 2)
      fail(0, "'separators' are not two");
    itemSeparator = expectText(pair[0], "'separators'");
    keySeparator = expectText(pair[1], "'separators'");
  }
  sortsKeys = bound[3] && bound[3]->isTrue();
}

void JsonWriter::writeText(const Text &text) {
  static constexpr std::string_view plain = "\"\\\b\f\n\r\t";
  static constexpr std::string_view letters = "\"\\bfnrt";
  add("\"");
  for (size_t at = 0; at < text.size();) {
    // Runs of what stays as it is go in one piece.
    size_t end = at;
    auto isEscaped = [&](size_t i) {
      char c = text.bytes()[i];
      return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\';
    };
    while (end < text.size() && !isEscaped(end))
      ++end;
    add(text.part(at, end - at));
    if (end == text.size())
      break;
    char c = text.bytes()[end];
    std::array<char, 8> escape{'\\', 0};
    if (size_t letter = plain.find(c); letter != plain.npos)
      escape[1] = letters[letter];
    else
      std::snprintf(escape.data(), escape.size(), "\\u%04x",
                    static_cast<unsigned>(c));
    add(Text(escape.data(), text.ownerAt(end)));
    at = end + 1;
  }
  add("\"");
}

template <typename Function>
void JsonWriter::writeAll(std::string_view brackets, size_t count, size_t depth,
                          Function writePart) {
  add(brackets.substr(0, 1));
  for (size_t i = 0; i < count; ++i) {
    if (i > 0)
      add(itemSeparator);
    newLine(depth + 1);
    writePart(i);
  }
  if (count > 0)
    newLine(depth);
  add(brackets.substr(1));
}

void JsonWriter::write(const Value &value, size_t depth) {
  if (const Text *text = value.text())
    return writeText(*text);
  if (value.isNone())
    return add("null");
  if (const bool *flag = value.as<bool>())
    return add(*flag ? "true" : "false");
  if (value.number())
    return add(toText(value));
  if (const List *list = value.list(); list && list->kind <= List::Tuple)
    return writeAll("[]", list->items.size(), depth,
                    [&](size_t i) { write(list->items[i], depth + 1); });
  const Dict *dict = value.dict();
  if (!dict)
    fail(0, "a ", value.typeName(), " cannot be written as JSON");
  auto entries = dict->entries;
  budget.charge(itemUnits, entries.size());
  if (sortsKeys)
    std::ranges::sort(entries, {},
                      [](const auto &entry) -> const std::string & {
                        return entry.first.bytes();
                      });
  writeAll("{}", entries.size(), depth, [&](size_t i) {
    writeText(entries[i].first);
    add(keySeparator);
    write(entries[i].second, depth + 1);
  });
}

Value kvrm::jinja::toJson(Budget &budget, const Value &value,
                          const Arguments &arguments) {
  return Value(JsonWriter(budget, arguments).run(value));
}
