//===- Chat.cpp - Prompts in the form that a model knows --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Chat.h"

using namespace kvrm;

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

/// What opens and closes turns, and is a token wherever the model was trained
/// on it. As plain text it would be no turn.
static constexpr std::string_view turnMarks[] = {
    "<|im_start|>",         "<|im_end|>",
    "<|start_header_id|>",  "<|end_header_id|>",
    "<|eot_id|>",           "<start_of_turn>",
    "<end_of_turn>",        "<|start_of_role|>",
    "<|end_of_role|>",      "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>"};

static Status checkMarks(const Tokenizer &tokenizer,
                         std::span<const TextPart> parts) {
  for (std::string_view mark : turnMarks) {
    if (tokenizer.addedToken(mark) >= 0)
      continue;
    for (const TextPart &part : parts)
      if (part.parseSpecial && part.text.find(mark) != std::string::npos)
        return invalidArgument("the package's chat form writes '", mark,
                               "', which is no token of its vocabulary");
  }
  return Status::ok();
}

Expected<std::vector<TextPart>>
kvrm::renderChat(const Tokenizer &tokenizer,
                 std::span<const ChatMessage> messages) {
  Expected<const ChatTemplate *> form = tokenizer.chatForm();
  KVRM_TRY(form.status());
  ChatInputs inputs;
  inputs.messages = messages;
  inputs.bos = tokenizer.bytesOf(tokenizer.bos());
  inputs.eos = tokenizer.bytesOf(tokenizer.eos());
  inputs.now = std::time(nullptr);
  return (*form)->render(inputs);
}

Expected<std::vector<int32_t>>
kvrm::encodeChat(const Tokenizer &tokenizer,
                 std::span<const ChatMessage> messages) {
  Expected<std::vector<TextPart>> parts = renderChat(tokenizer, messages);
  KVRM_TRY(parts.status());
  KVRM_TRY(checkMarks(tokenizer, *parts));
  Expected<std::vector<int32_t>> ids = tokenizer.encode(*parts);
  if (!ids || !tokenizer.addBos())
    return ids;
  return withBos(tokenizer, ids.take());
}
