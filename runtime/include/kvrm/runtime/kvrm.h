//===- kvrm.h - The C API of the runtime ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What an embedder needs: open a package, make a session, and then either
// prefill and decode its slots, or let an engine serve requests over them.
// Plain C11. Nothing here aborts or throws on bad input: every call answers
// with a status, and kvrm_last_error() has one line on the last failure of the
// calling thread.
//
// Ownership: a handle belongs to who made it and is destroyed with its own
// function; a session keeps its package alive, an engine what it needs of its
// session. Arrays belong to the caller. A session is used by one thread at a
// time, a package by any. A child of fork() has none of the threads: calls that
// would run there answer KVRM_INVALID_ARGUMENT, and destroying does nothing.
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
// With an engine:
//
//   kvrm_engine_create(session, NULL, &engine);
//   kvrm_engine_submit(engine, &request, &id);
//   while (!kvrm_engine_is_idle(engine) &&
//          kvrm_engine_step(engine) == KVRM_OK)
//     ;                           // it calls on_token and on_finish
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

/* What a package is. Strings and lists live as long as the package. */
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
  /* Tokens that end a turn, for kvrm_request.stop_tokens: eos if there is one,
   * and others that the model names or its chat form writes. */
  const int32_t *ends;
  size_t end_count;
} kvrm_package_info;

kvrm_status kvrm_package_get_info(const kvrm_package *package,
                                  kvrm_package_info *info);

/* All zeros is the default. */
typedef struct kvrm_session_config {
  int64_t pool_pages; /* pages of the KV pool; 0 = enough for all slots */
  int32_t threads;    /* workers, the caller among them; 0 = one a CPU */
  int32_t shares;     /* shares of the work queue; 0 = one a worker */
  /* Histories besides those of slots, for an engine to keep prefixes in. */
  int32_t kept_histories;
  /* Histories that can be parked in host memory, and their pages together. */
  int32_t parking_places;
  int64_t parking_pages;
  int32_t device; /* that a package for GPUs runs on, as CUDA numbers them */
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

/*===--------------------------------------------------------------------===*
 * Engine: requests that come and go
 *===--------------------------------------------------------------------===*/

typedef struct kvrm_engine kvrm_engine;

typedef enum kvrm_finish_reason {
  KVRM_FINISH_STOP = 0,       /* a stop token */
  KVRM_FINISH_MAX_TOKENS = 1, /* as many as were asked for */
  KVRM_FINISH_CAPACITY = 2,   /* the history fills its slot */
  KVRM_FINISH_CANCELLED = 3,
  KVRM_FINISH_FAILED = 4 /* the model's logits are not numbers */
} kvrm_finish_reason;

typedef enum kvrm_preemption {
  KVRM_PREEMPT_CHEAPER = 0, /* whichever has cost less a token */
  KVRM_PREEMPT_PARK = 1,    /* histories go to host memory */
  KVRM_PREEMPT_RECOMPUTE = 2
} kvrm_preemption;

/* Times are nanoseconds of the engine's clock; -1 = did not happen. The struct
 * and its tokens are the engine's and live until on_finish returns. */
typedef struct kvrm_result {
  int64_t request;
  kvrm_finish_reason finish;
  const int32_t *tokens;
  size_t token_count;
  int32_t prompt_tokens;
  int32_t shared_tokens; /* of the prompt, that were in the pool already */
  int32_t preemptions;
  int64_t arrival;
  int64_t start;
  int64_t first_token;
  int64_t end;
} kvrm_result;

/* A token and the natural logarithm of its probability. */
typedef struct kvrm_logprob {
  int32_t token;
  double logprob;
} kvrm_logprob;

/* All zeros is the default. Callbacks may be null; they are called inside
 * kvrm_engine_step and kvrm_engine_cancel, `now` inside kvrm_engine_submit too.
 * What they ask of the engine, or of its session, that would change either is
 * refused with KVRM_INVALID_ARGUMENT; an engine that a callback destroys is
 * gone when the call that it is inside returns, and calls back no more. */
typedef struct kvrm_engine_config {
  int32_t queue_limit; /* requests that may wait; 0 = 256 */
  /* Prefill between two decode steps, in decode steps: at least one chunk is
   * computed; 0 = 1. */
  double stall_factor;
  kvrm_preemption preemption;
  int32_t shares_prefixes; /* not 0: equal prompt prefixes share pages */
  void *context;           /* handed to the callbacks */
  void (*on_token)(void *context, int64_t request, int32_t token);
  void (*on_finish)(void *context, const kvrm_result *result);
  /* Nanoseconds, never going back; null = the machine's clock. */
  int64_t (*now)(void *context);
  /* Called before on_token, for requests that ask for log probabilities, with
   * `count` of them, which live until it returns: that of the token, and then
   * those of the likeliest at its place, the likeliest first. They are of the
   * model's logits as they are, before temperature, top_k and top_p. */
  void (*on_logprobs)(void *context, int64_t request,
                      const kvrm_logprob *logprobs, size_t count);
} kvrm_engine_config;

/* All zeros, but for prompt and max_tokens, is greedy without stop tokens. */
typedef struct kvrm_request {
  const int32_t *prompt; /* copied */
  size_t prompt_count;
  int32_t max_tokens;
  const int32_t *stop_tokens; /* copied */
  size_t stop_count;
  float temperature; /* 0 = greedy */
  float top_p;       /* 0 = 1 */
  int32_t top_k;     /* 0 = all */
  uint64_t seed;
  int32_t logprobs;     /* not 0: on_logprobs is called for each token */
  int32_t top_logprobs; /* of how many of the likeliest, 0..20 */
} kvrm_request;

/* An engine has its session to itself, whose slots must be empty. As long as
 * there is one, calls that would change the session's histories, or make a
 * second engine, answer KVRM_INVALID_ARGUMENT. On failure *engine is null. */
kvrm_status kvrm_engine_create(kvrm_session *session,
                               const kvrm_engine_config *config,
                               kvrm_engine **engine);
/* Forgets all requests without a callback; the session is empty after. Null is
 * allowed. */
void kvrm_engine_destroy(kvrm_engine *engine);

/* Queues a request; `request` gets its number. KVRM_RESOURCE_EXHAUSTED when the
 * queue is full. */
kvrm_status kvrm_engine_submit(kvrm_engine *engine, const kvrm_request *spec,
                               int64_t *request);
/* Ends a request. KVRM_NOT_FOUND if it has ended. */
kvrm_status kvrm_engine_cancel(kvrm_engine *engine, int64_t request);
/* One round: some prefill, one token of every request that decodes. When it
 * fails all requests are where they were. */
kvrm_status kvrm_engine_step(kvrm_engine *engine);
/* 1 if no request is in the engine, or if it is null. */
int32_t kvrm_engine_is_idle(const kvrm_engine *engine);

/* Sums since the engine was made, and what is in it now. */
typedef struct kvrm_engine_stats {
  int64_t submitted;
  int64_t refused;
  int64_t finished;
  int64_t cancelled;
  int64_t failed;
  int64_t steps;
  int64_t prefill_tokens;
  int64_t decode_tokens;
  int64_t shared_tokens;
  int64_t shared_pages;
  int64_t parked;
  int64_t recomputed;
  int64_t evicted;
  int32_t waiting;
  int32_t preempted;
  int32_t running;
  int32_t kept;
} kvrm_engine_stats;

kvrm_status kvrm_engine_get_stats(const kvrm_engine *engine,
                                  kvrm_engine_stats *stats);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVRM_RUNTIME_KVRM_H */
