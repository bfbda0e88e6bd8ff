//===- CApi.cpp - The C API of tokenizers ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../support/Answer.h"
#include "kvrm/text/Chat.h"
#include "kvrm/text/kvrm-text.h"

#include <algorithm>

using namespace kvrm;

struct kvrm_tokenizer {
  Tokenizer tokenizer;
};

kvrm_status kvrm_tokenizer_open(const char *path, kvrm_tokenizer **tokenizer) {
  if (!tokenizer)
    return nullArgument("tokenizer");
  *tokenizer = nullptr;
  if (!path)
    return nullArgument("path");
  return guarded([&]() -> Status {
    Expected<Tokenizer> loaded = Tokenizer::load(path);
    KVRM_TRY(loaded.status());
    *tokenizer = new kvrm_tokenizer{loaded.take()};
    return Status::ok();
  });
}

void kvrm_tokenizer_close(kvrm_tokenizer *tokenizer) { delete tokenizer; }

int32_t kvrm_tokenizer_size(const kvrm_tokenizer *tokenizer) {
  return tokenizer ? tokenizer->tokenizer.size() : 0;
}

kvrm_status kvrm_tokenizer_token(const kvrm_tokenizer *tokenizer, int32_t id,
                                 const char **text, size_t *bytes,
                                 int32_t *is_special) {
  if (!tokenizer)
    return nullArgument("tokenizer");
  if (!text)
    return nullArgument("text");
  if (!bytes)
    return nullArgument("bytes");
  if (!is_special)
    return nullArgument("is_special");
  std::string_view token = tokenizer->tokenizer.bytesOf(id);
  *text = token.data();
  *bytes = token.size();
  *is_special = tokenizer->tokenizer.isSpecial(id);
  return KVRM_OK;
}

/// Hands ids over, as far as there is room.
static Status give(const Expected<std::vector<int32_t>> &made, int32_t *ids,
                   size_t room, size_t *count) {
  KVRM_TRY(made.status());
  *count = made->size();
  std::copy_n(made->begin(), std::min(room, made->size()), ids);
  return Status::ok();
}

kvrm_status kvrm_tokenizer_encode(const kvrm_tokenizer *tokenizer,
                                  const char *text, size_t bytes, int32_t *ids,
                                  size_t room, size_t *count) {
  if (!tokenizer)
    return nullArgument("tokenizer");
  if (!text && bytes > 0)
    return nullArgument("text");
  if (!ids && room > 0)
    return nullArgument("ids");
  if (!count)
    return nullArgument("count");
  return guarded([&] {
    return give(encodePrompt(tokenizer->tokenizer, {text, bytes}), ids, room,
                count);
  });
}

kvrm_status kvrm_tokenizer_encode_chat(const kvrm_tokenizer *tokenizer,
                                       const kvrm_chat_message *messages,
                                       size_t message_count, int32_t *ids,
                                       size_t room, size_t *count) {
  if (!tokenizer)
    return nullArgument("tokenizer");
  if (!messages && message_count > 0)
    return nullArgument("messages");
  if (!ids && room > 0)
    return nullArgument("ids");
  if (!count)
    return nullArgument("count");
  return guarded([&]() -> Status {
    std::vector<ChatMessage> conversation;
    for (const kvrm_chat_message &message :
         std::span(messages, message_count)) {
      if ((!message.role && message.role_bytes > 0) ||
          (!message.content && message.content_bytes > 0))
        return invalidArgument("a message's role or content is null");
      conversation.push_back({{message.role, message.role_bytes},
                              {message.content, message.content_bytes}});
    }
    return give(encodeChat(tokenizer->tokenizer, conversation), ids, room,
                count);
  });
}
