//===- Chat.cpp - Prompts in the form that a model knows --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Chat.h"

using namespace kvrm;

/// The system message that a ChatML template starts with when a conversation
/// has none: the literal between its system header and the next <|im_end|>.
static std::string defaultSystem(const std::string &chatTemplate) {
  for (const char *newline : {"\n", "\\n"}) {
    std::string header = std::string("<|im_start|>system") + newline;
    size_t begin = chatTemplate.find(header);
    if (begin == std::string::npos)
      continue;
    begin += header.size();
    size_t end = chatTemplate.find("<|im_end|>", begin);
    if (end == std::string::npos)
      continue;
    std::string text = chatTemplate.substr(begin, end - begin);
    if (!text.empty() && text.find_first_of("'\"{}\\") == std::string::npos)
      return text;
  }
  return {};
}

static std::string chatMLPrompt(const std::string &chatTemplate,
                                const std::string &system,
                                const std::string &prompt) {
  std::string text;
  std::string first = system.empty() ? defaultSystem(chatTemplate) : system;
  if (!first.empty())
    text = "<|im_start|>system\n" + first + "<|im_end|>\n";
  return text + "<|im_start|>user\n" + prompt +
         "<|im_end|>\n<|im_start|>assistant\n";
}

static std::string llama3Prompt(const std::string &system,
                                const std::string &prompt) {
  auto message = [](const std::string &role, const std::string &content) {
    return "<|start_header_id|>" + role + "<|end_header_id|>\n\n" + content +
           "<|eot_id|>";
  };
  std::string text;
  if (!system.empty())
    text = message("system", system);
  return text + message("user", prompt) +
         "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

std::optional<std::string> kvrm::chatPrompt(const std::string &chatTemplate,
                                            const std::string &system,
                                            const std::string &prompt) {
  if (chatTemplate.find("<|im_start|>") != std::string::npos)
    return chatMLPrompt(chatTemplate, system, prompt);
  if (chatTemplate.find("<|start_header_id|>") != std::string::npos)
    return llama3Prompt(system, prompt);
  return std::nullopt;
}
