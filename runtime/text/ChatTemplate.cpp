//===- ChatTemplate.cpp - Conversations as a model knows them -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/ChatTemplate.h"

#include "jinja/Parser.h"
#include "jinja/Renderer.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::jinja;

/// Templates of models with tools have up to about 20 KB.
static constexpr size_t maxTemplateBytes = 1 << 18;
/// Units of a Budget: about half a second, and at most some 100 MB.
static constexpr int64_t baseUnits = 1 << 26;
static constexpr int64_t unitsPerMessageByte = 64;

struct ChatTemplate::Program {
  Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program)
    : program(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate &&) noexcept = default;
ChatTemplate &ChatTemplate::operator=(ChatTemplate &&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

static Status statusOf(const TemplateError &error) {
  if (error.line < 0)
    return invalidArgument("the chat template refuses the conversation: ",
                           error.message);
  return invalidArgument("chat template: line ", error.line, ": ",
                         error.message);
}

Expected<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > maxTemplateBytes)
    return invalidArgument("chat template: ", source.size(),
                           " bytes exceed the limit ", maxTemplateBytes);
  try {
    return ChatTemplate(
        std::make_unique<Program>(Program{parseTemplate(source)}));
  } catch (const TemplateError &error) {
    return statusOf(error);
  }
}

/// Templates make marks of roles, as '<|' + role + '|>'. Of any other role that
/// is nobody's to say.
static Owner ownerOf(const std::string &role) {
  static constexpr std::string_view known[] = {"system", "developer", "user",
                                               "assistant", "tool"};
  return std::ranges::find(known, role) != std::end(known) ? Owner::Template
                                                           : Owner::Message;
}

static std::vector<std::pair<Text, Value>>
variablesOf(const ChatInputs &inputs) {
  std::vector<Value> messages;
  for (const ChatMessage &message : inputs.messages)
    messages.push_back(Value::ofDict(
        {{Text("role"), Value(Text(message.role, ownerOf(message.role)))},
         {Text("content"), Value(Text(message.content, Owner::Message))}}));
  std::vector<std::pair<Text, Value>> variables = {
      {Text("messages"), Value::ofList(std::move(messages))},
      {Text("tools"), Value()},
      {Text("documents"), Value()},
      {Text("add_generation_prompt"), Value(true)}};
  if (!inputs.bos.empty())
    variables.emplace_back(Text("bos_token"), Value(Text(inputs.bos)));
  if (!inputs.eos.empty())
    variables.emplace_back(Text("eos_token"), Value(Text(inputs.eos)));
  return variables;
}

/// Runs of bytes of one owner.
static std::vector<TextPart> partsOf(const Text &text) {
  std::vector<TextPart> parts;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    Owner owner = text.ownerAt(begin);
    while (end < text.size() && text.ownerAt(end) == owner)
      ++end;
    parts.push_back(
        {text.bytes().substr(begin, end - begin), owner == Owner::Template});
  }
  return parts;
}

Expected<std::vector<TextPart>>
ChatTemplate::render(const ChatInputs &inputs) const {
  int64_t units = baseUnits;
  for (const ChatMessage &message : inputs.messages)
    units += unitsPerMessageByte *
             static_cast<int64_t>(message.content.size() + message.role.size());
  try {
    Renderer renderer(variablesOf(inputs), Budget(units), inputs.now);
    return partsOf(renderer.run(program->body));
  } catch (const TemplateError &error) {
    return statusOf(error);
  }
}
