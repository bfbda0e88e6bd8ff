//===- ChatTemplate.h - Conversations as a model knows them -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A model's chat template is a program in Jinja, and is run as one, with the
// settings, variables and functions that transformers gives it. The part of the
// language that templates use is there (docs/models.md); the rest is refused by
// its name, most of it when the template is parsed. Time and memory of a run
// have a bound that grows with the conversation alone.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_CHATTEMPLATE_H
#define KVRM_TEXT_CHATTEMPLATE_H

#include "kvrm/runtime/support/Status.h"
#include "kvrm/text/TextPart.h"

#include <ctime>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// A message of a conversation. `role` is one that the template knows: system,
/// user or assistant, for most.
struct ChatMessage {
  std::string role;
  std::string content;
};

/// What a template gets. `tools` and `documents` are none, and
/// `add_generation_prompt` is true: the answer comes next.
struct ChatInputs {
  std::span<const ChatMessage> messages;
  std::string_view bos; ///< `bos_token`; empty: undefined
  std::string_view eos; ///< `eos_token`; empty: undefined
  std::time_t now = 0;  ///< of strftime_now()
};

/// Immutable once parsed: threads may share one.
class ChatTemplate {
public:
  /// Errors: InvalidArgument for what is no template, is not done here, or is
  /// larger or deeper than templates are; it names the line.
  static Expected<ChatTemplate> parse(std::string_view source);
  ChatTemplate(ChatTemplate &&) noexcept;
  ChatTemplate &operator=(ChatTemplate &&) noexcept;
  ~ChatTemplate();

  /// The prompt. Special tokens are parsed in what the template itself writes,
  /// not in what messages say, whatever the template does to it; the roles
  /// system, developer, user, assistant and tool are the template's. Parts that
  /// stand in a row differ in that. Errors: InvalidArgument for what the
  /// template refuses, in its words, and for what is not done here.
  Expected<std::vector<TextPart>> render(const ChatInputs &inputs) const;

private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program;
};

} // namespace kvrm

#endif // KVRM_TEXT_CHATTEMPLATE_H
