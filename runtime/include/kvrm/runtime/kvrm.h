//===- kvrm.h - The C API of the runtime ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What an embedder needs: open a package, make a session, prefill and decode.
// Plain C11. Nothing here aborts or throws on bad input: every call answers
// with a status, and kvrm_last_error() has one line on the last failure of the
// calling thread.
//
// Ownership: a handle belongs to who made it and is destroyed with its own
// function; a session keeps its package alive. Arrays belong to the caller.
// A session is used by one thread at a time, a package by any.
//
//   kvrm_package *package;
//   kvrm_session *session;
//   if (kvrm_package_open("model.kvrm", &package) != KVRM_OK ||
//       kvrm_session_create(package, NULL, &session) != KVRM_OK)
//     puts(kvrm_last_error());
//   kvrm_prefill(session, 0, prompt, prompt_length, logits);
//   ... pick a token, put it at tokens[0], -1 at the other slots ...
//   kvrm_decode(session, tokens, logits);
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_KVRM_H
#define KVRM_RUNTIME_KVRM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kvrm_status {
  KVRM_OK = 0,
  KVRM_INVALID_ARGUMENT = 1,   /* a value outside its stated limits */
  KVRM_NOT_FOUND = 2,          /* a file or symbol that is not there */
  KVRM_RESOURCE_EXHAUSTED = 3, /* out of pages or memory */
  KVRM_INCOMPATIBLE = 4,       /* another ABI version, or a lesser CPU */
  KVRM_CORRUPT = 5,            /* a file is not what it should be */
  KVRM_IO_ERROR = 6,           /* the operating system refused */
  KVRM_INTERNAL = 7            /* compiled code broke the protocol */
} kvrm_status;

typedef struct kvrm_package kvrm_package;
typedef struct kvrm_session kvrm_session;

/* A name of a status, e.g. "resource exhausted". Never null. */
const char *kvrm_status_name(kvrm_status status);

/* The message of the calling thread's last failed call, "" if none failed.
 * Valid until its next call. */
const char *kvrm_last_error(void);

/* Version of this library, e.g. "0.1.0". */
const char *kvrm_version(void);

/* Loads the package folder at `path`. On failure *package is null. */
kvrm_status kvrm_package_open(const char *path, kvrm_package **package);
/* Null is allowed. */
void kvrm_package_close(kvrm_package *package);

/* What a package is. Strings live as long as the package. */
typedef struct kvrm_package_info {
  const char *name;
  const char *architecture;
  int32_t is_paged; /* 0 = static package */
  int32_t vocabulary;
  int32_t layers;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t slots;    /* requests that run at once */
  int32_t capacity; /* tokens a slot */
  int32_t page_tokens;
  int32_t bos; /* -1 = none */
  int32_t eos; /* -1 = none */
} kvrm_package_info;

kvrm_status kvrm_package_get_info(const kvrm_package *package,
                                  kvrm_package_info *info);

/* All zeros is the default. */
typedef struct kvrm_session_config {
  int64_t pool_pages; /* pages of the KV pool; 0 = enough for all slots */
  int32_t threads;    /* workers, the caller among them; 0 = one a CPU */
  int32_t shares;     /* shares of the work queue; 0 = one a worker */
} kvrm_session_config;

/* Makes a session; a null config is the default. On failure *session is null.
 */
kvrm_status kvrm_session_create(kvrm_package *package,
                                const kvrm_session_config *config,
                                kvrm_session **session);
/* Null is allowed. */
void kvrm_session_destroy(kvrm_session *session);

/* Appends `count` >= 1 tokens to the history of `slot`; `logits`, if not null,
 * gets [vocabulary] floats for the last of them. A failed call changes nothing.
 */
kvrm_status kvrm_prefill(kvrm_session *session, int32_t slot,
                         const int32_t *tokens, size_t count, float *logits);

/* One step: tokens[slots], -1 = idle; `logits` gets [slots][vocabulary] floats,
 * of which the rows of idle slots mean nothing. A failed call changes nothing.
 */
kvrm_status kvrm_decode(kvrm_session *session, const int32_t *tokens,
                        float *logits);

/* Forgets the history of a slot. */
kvrm_status kvrm_release(kvrm_session *session, int32_t slot);
/* The empty slot `target` starts with the first `tokens` tokens of `source`. */
kvrm_status kvrm_alias(kvrm_session *session, int32_t target, int32_t source,
                       int32_t tokens);
/* Cuts a history to its first `length` tokens. */
kvrm_status kvrm_trim(kvrm_session *session, int32_t slot, int32_t length);
/* Tokens in the history of a slot. */
kvrm_status kvrm_length(kvrm_session *session, int32_t slot, int32_t *length);

/* The last prefill or decode, and the memory of the session. */
typedef struct kvrm_session_stats {
  int32_t active_rows;
  int32_t groups; /* transfer groups */
  int32_t items;  /* work items a layer */
  int32_t segments;
  int64_t pages; /* pages of the active rows' histories */
  int32_t page_copies;
  int32_t steps;
  int64_t committed_bytes;
  int64_t stage_copies;
  int64_t stage_bytes;
  int64_t plan_nanoseconds;
  int64_t commit_nanoseconds;
  int64_t attend_nanoseconds;
  int64_t step_nanoseconds;
  int64_t reserved_kv_bytes;
  int64_t live_kv_bytes;
  int32_t pool_pages;
  int32_t free_pages;
} kvrm_session_stats;

kvrm_status kvrm_session_get_stats(const kvrm_session *session,
                                   kvrm_session_stats *stats);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVRM_RUNTIME_KVRM_H */
