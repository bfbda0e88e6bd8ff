//===- RenderTemplate.cpp - Renders templates for a test ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each line of standard input is {"template": ..., "variables": {...}}, with
// any JSON as variables, and is answered with {"text": ..., "owners": ...}, a
// letter a byte, t for the template's and m for those of the variables
// `messages` and `s`; or with {"error": ...}.
//
//===----------------------------------------------------------------------===//

#include "../jinja/Parser.h"
#include "../jinja/Renderer.h"

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

using namespace kvrm::jinja;
using nlohmann::ordered_json;

static Value valueOf(const ordered_json &json, Owner owner) {
  if (json.is_null())
    return Value();
  if (json.is_boolean())
    return Value(json.get<bool>());
  if (json.is_number_integer())
    return Value(json.get<int64_t>());
  if (json.is_number())
    return Value(json.get<double>());
  if (json.is_string())
    return Value(Text(json.get<std::string>(), owner));
  if (json.is_array()) {
    std::vector<Value> items;
    for (const ordered_json &item : json)
      items.push_back(valueOf(item, owner));
    return Value::ofList(std::move(items));
  }
  std::vector<std::pair<Text, Value>> entries;
  for (const auto &[key, value] : json.items())
    entries.emplace_back(Text(key), valueOf(value, owner));
  return Value::ofDict(std::move(entries));
}

static ordered_json answer(const ordered_json &request) {
  try {
    std::vector<std::pair<Text, Value>> variables;
    for (const auto &[name, value] : request["variables"].items())
      variables.emplace_back(Text(name),
                             valueOf(value, name == "messages" || name == "s"
                                                ? Owner::Message
                                                : Owner::Template));
    Body body = parseTemplate(request["template"].get<std::string>());
    Text text = Renderer(std::move(variables), Budget(1 << 26), 0).run(body);
    std::string owners;
    for (size_t i = 0; i < text.size(); ++i)
      owners += text.ownerAt(i) == Owner::Message ? 'm' : 't';
    return {{"text", text.bytes()}, {"owners", owners}};
  } catch (const TemplateError &error) {
    return {
        {"error", "line " + std::to_string(error.line) + ": " + error.message}};
  }
}

int main() {
  try {
    std::string line;
    while (std::getline(std::cin, line))
      std::cout << answer(ordered_json::parse(line)).dump() << '\n'
                << std::flush;
  } catch (const std::exception &error) {
    std::fputs(error.what(), stderr);
    return 1;
  }
  return 0;
}
