//===- Chat.h - Prompts in the form that a model knows ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_CHAT_H
#define KVRM_TEXT_CHAT_H

#include <optional>
#include <string>

namespace kvrm {

/// Puts a conversation of one message into the form of a model's template.
/// Templates are Jinja programs, which are not run; the two common forms,
/// ChatML and Llama 3, are known by their marks. Nothing for another form.
/// Without `system` ChatML has the system message that the template starts
/// with, if there is one.
std::optional<std::string> chatPrompt(const std::string &chatTemplate,
                                      const std::string &system,
                                      const std::string &prompt);

} // namespace kvrm

#endif // KVRM_TEXT_CHAT_H
