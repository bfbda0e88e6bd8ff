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

static ChatPart mark(const char *text) { return {text, /*isMark=*/true}; }
static ChatPart plain(std::string text) {
  return {std::move(text), /*isMark=*/false};
}

static std::vector<ChatPart>
chatMLPrompt(const std::string &chatTemplate,
             std::span<const ChatMessage> messages) {
  std::vector<ChatPart> parts;
  auto add = [&](const std::string &role, const std::string &content) {
    parts.insert(parts.end(),
                 {mark("<|im_start|>"), plain(role + "\n" + content),
                  mark("<|im_end|>"), plain("\n")});
  };
  bool hasSystem = !messages.empty() && messages.front().role == "system";
  if (std::string own = defaultSystem(chatTemplate); !hasSystem && !own.empty())
    add("system", own);
  for (const ChatMessage &message : messages)
    add(message.role, message.content);
  parts.insert(parts.end(), {mark("<|im_start|>"), plain("assistant\n")});
  return parts;
}

static std::vector<ChatPart>
llama3Prompt(std::span<const ChatMessage> messages) {
  std::vector<ChatPart> parts;
  auto open = [&](const std::string &role, const std::string &content) {
    parts.insert(parts.end(),
                 {mark("<|start_header_id|>"), plain(role),
                  mark("<|end_header_id|>"), plain("\n\n" + content)});
  };
  for (const ChatMessage &message : messages) {
    open(message.role, message.content);
    parts.push_back(mark("<|eot_id|>"));
  }
  open("assistant", "");
  return parts;
}

std::optional<std::vector<ChatPart>>
kvrm::chatPrompt(const std::string &chatTemplate,
                 std::span<const ChatMessage> messages) {
  if (chatTemplate.find("<|im_start|>") != std::string::npos)
    return chatMLPrompt(chatTemplate, messages);
  if (chatTemplate.find("<|start_header_id|>") != std::string::npos)
    return llama3Prompt(messages);
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// Tokens
//===----------------------------------------------------------------------===//

/// Puts BOS in front, unless somebody has.
static std::vector<int32_t> withBos(const Tokenizer &tokenizer,
                                    std::vector<int32_t> ids) {
  int32_t bos = tokenizer.bos();
  if (bos >= 0 && (ids.empty() || ids.front() != bos))
    ids.insert(ids.begin(), bos);
  return ids;
}

Expected<std::vector<int32_t>> kvrm::encodePrompt(const Tokenizer &tokenizer,
                                                  std::string_view prompt) {
  Expected<std::vector<int32_t>> ids = tokenizer.encode(prompt);
  if (!ids || !tokenizer.addBos())
    return ids;
  return withBos(tokenizer, ids.take());
}

/// Templates name BOS, or write its text.
static bool writesBos(const Tokenizer &tokenizer) {
  const std::string &form = tokenizer.chatTemplate();
  std::string_view text = tokenizer.bytesOf(tokenizer.bos());
  return form.find("bos_token") != std::string::npos ||
         (!text.empty() && form.find(text) != std::string::npos);
}

Expected<std::vector<int32_t>>
kvrm::encodeChat(const Tokenizer &tokenizer,
                 std::span<const ChatMessage> messages) {
  std::optional<std::vector<ChatPart>> parts =
      chatPrompt(tokenizer.chatTemplate(), messages);
  if (!parts)
    return invalidArgument("the package has no chat template of a form that "
                           "kvrm-run knows (ChatML, Llama 3)");
  std::vector<int32_t> all;
  for (const ChatPart &part : *parts) {
    if (part.isMark) {
      int32_t id = tokenizer.addedToken(part.text);
      if (id < 0)
        return invalidArgument("the package's chat form writes '", part.text,
                               "', which is no token of its vocabulary");
      all.push_back(id);
      continue;
    }
    Expected<std::vector<int32_t>> ids =
        tokenizer.encode(part.text, /*parseSpecial=*/false);
    KVRM_TRY(ids.status());
    all.insert(all.end(), ids->begin(), ids->end());
  }
  bool hasBos = tokenizer.addBos() || writesBos(tokenizer);
  return hasBos ? withBos(tokenizer, std::move(all)) : all;
}
