//===- kvrm-text.h - The C API of tokenizers --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Text to token ids and back, for packages that have a tokenizer.json. Plain
// C11; errors are those of kvrm.h. A tokenizer is used by any thread.
//
// What makes ids puts up to `room` of them into `ids` and says in `count` how
// many there are: when that is more, call again with more room.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_KVRM_TEXT_H
#define KVRM_TEXT_KVRM_TEXT_H

#include "kvrm/runtime/kvrm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kvrm_tokenizer kvrm_tokenizer;

/* Loads a package's tokenizer.json. On failure *tokenizer is null. */
kvrm_status kvrm_tokenizer_open(const char *path, kvrm_tokenizer **tokenizer);
/* Null is allowed. */
void kvrm_tokenizer_close(kvrm_tokenizer *tokenizer);

/* One more than the greatest id. */
int32_t kvrm_tokenizer_size(const kvrm_tokenizer *tokenizer);

/* What a token stands for: bytes that live as long as the tokenizer, and that
 * alone may be no UTF-8. An id without a text has none. */
kvrm_status kvrm_tokenizer_token(const kvrm_tokenizer *tokenizer, int32_t id,
                                 const char **text, size_t *bytes,
                                 int32_t *is_special);

/* The ids of a prompt, special tokens in it too; with BOS in front if the model
 * expects it. */
kvrm_status kvrm_tokenizer_encode(const kvrm_tokenizer *tokenizer,
                                  const char *text, size_t bytes, int32_t *ids,
                                  size_t room, size_t *count);

/* A message of a conversation, in UTF-8. */
typedef struct kvrm_chat_message {
  const char *role;
  size_t role_bytes;
  const char *content;
  size_t content_bytes;
} kvrm_chat_message;

/* The ids of a conversation as the model's chat template writes it, up to where
 * the answer starts. What looks like a special token in a message is text.
 * KVRM_INVALID_ARGUMENT if there is no template that can be run, or it refuses
 * the conversation. */
kvrm_status kvrm_tokenizer_encode_chat(const kvrm_tokenizer *tokenizer,
                                       const kvrm_chat_message *messages,
                                       size_t message_count, int32_t *ids,
                                       size_t room, size_t *count);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVRM_TEXT_KVRM_TEXT_H */
