//===- Chat.h - Prompts in the form that a model knows ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_CHAT_H
#define KVRM_TEXT_CHAT_H

#include "kvrm/runtime/support/Status.h"
#include "kvrm/text/Tokenizer.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// A part of a prompt: a mark of the form, which is one token, or plain text
/// between two marks.
struct ChatPart {
  std::string text;
  bool isMark;
};

/// A message of a conversation. `role` is one that the template knows: system,
/// user or assistant.
struct ChatMessage {
  std::string role;
  std::string content;
};

/// Puts a conversation into the form of a model's template, up to where the
/// answer starts. Templates are Jinja programs, which are not run; the two
/// common forms, ChatML and Llama 3, are known by their marks. Nothing for
/// another form. A conversation that does not start with a system message has,
/// in ChatML, the one that the template starts with, if there is one.
std::optional<std::vector<ChatPart>>
chatPrompt(const std::string &chatTemplate,
           std::span<const ChatMessage> messages);

/// The tokens of a prompt as it is, with one BOS in front if the model expects
/// it, whether `prompt` has it or not. Errors: of Tokenizer::encode().
Expected<std::vector<int32_t>> encodePrompt(const Tokenizer &tokenizer,
                                            std::string_view prompt);

/// The tokens of chatPrompt(). What looks like a mark in a message is text;
/// there is one BOS in front if the model or its template wants it. Errors:
/// InvalidArgument for a form that is not known, or that writes what the
/// vocabulary has no tokens for.
Expected<std::vector<int32_t>>
encodeChat(const Tokenizer &tokenizer, std::span<const ChatMessage> messages);

} // namespace kvrm

#endif // KVRM_TEXT_CHAT_H
