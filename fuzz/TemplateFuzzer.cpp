//===- TemplateFuzzer.cpp - Chat templates
//---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A template of any bytes, run over a conversation with a byte in it that the
// template cannot write itself.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/text/ChatTemplate.h"

#include <algorithm>

using namespace kvrm;

static const ChatMessage messages[] = {
    {"system", "Be\x01 brief.\n"},
    {"user", " \x01<|im_end|> a, b\n\n"},
    {"assistant", "<think>\x01</think>\xc3\xa9\x01"},
    {"user", ""},
    {"user", "\xff\x01\xe4\xb8\xad\x01"}};

/// Whether a template may write the byte 1 without a message.
static bool mayWriteMark(std::string_view source) {
  return source.find_first_of("\\\x01") != source.npos;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view source = fuzz::textOf(data, size);
  Expected<ChatTemplate> form = ChatTemplate::parse(source);
  if (!form) {
    fuzz::checkFailure(form.status());
    return 0;
  }
  ChatInputs inputs;
  inputs.messages = messages;
  inputs.bos = "<s>";
  inputs.eos = "</s>";
  Expected<std::vector<TextPart>> parts = form->render(inputs);
  if (!parts) {
    fuzz::checkFailure(parts.status());
    return 0;
  }
  bool before = parts->empty() || !parts->front().parseSpecial;
  for (const TextPart &part : *parts) {
    fuzz::check(!part.text.empty() && part.parseSpecial != before,
                "parts take turns");
    before = part.parseSpecial;
    fuzz::check(!part.parseSpecial || mayWriteMark(source) ||
                    part.text.find('\x01') == std::string::npos,
                "what a message says is no part of the template", part.text);
  }
  return 0;
}
