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
#include "kvrm/text/ChatTemplate.h"
#include "kvrm/text/Tokenizer.h"

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace kvrm {

/// The tokens of a prompt as it is, with one BOS in front if the model expects
/// it, whether `prompt` has it or not. Errors: of Tokenizer::encode().
Expected<std::vector<int32_t>> encodePrompt(const Tokenizer &tokenizer,
                                            std::string_view prompt);

/// A conversation as the tokenizer's chat template writes it, up to where the
/// answer starts. Errors: InvalidArgument where there is no template, or one
/// that is not done here or refuses the conversation.
Expected<std::vector<TextPart>>
renderChat(const Tokenizer &tokenizer, std::span<const ChatMessage> messages);

/// The tokens of renderChat(), with one BOS in front if the model expects it or
/// the template writes it. What looks like a mark in a message is text. Errors:
/// of renderChat() and encode(); InvalidArgument for a template that writes
/// marks of turns which are no tokens.
Expected<std::vector<int32_t>>
encodeChat(const Tokenizer &tokenizer, std::span<const ChatMessage> messages);

} // namespace kvrm

#endif // KVRM_TEXT_CHAT_H
