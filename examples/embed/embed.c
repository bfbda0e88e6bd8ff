//===- embed.c - Generate tokens through the C API --------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   embed MODEL.kvrm [TOKEN...]
//
// Puts the tokens (default: 1 2 3) into slot 0 and prints the 8 that follow,
// each the likeliest.
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/kvrm.h"

#include <stdio.h>
#include <stdlib.h>

enum { MaxPrompt = 64, Generated = 8 };

static int fail(const char *what) {
  fprintf(stderr, "embed: error: %s: %s\n", what, kvrm_last_error());
  return 1;
}

static int32_t likeliest(const float *logits, int32_t vocabulary) {
  int32_t best = 0;
  for (int32_t i = 1; i < vocabulary; ++i)
    if (logits[i] > logits[best])
      best = i;
  return best;
}

/// Prefills slot 0 and decodes; the other slots stay idle.
static int generate(kvrm_session *session, const kvrm_package_info *info,
                    const int32_t *prompt, size_t count, int32_t *tokens,
                    float *logits) {
  if (kvrm_prefill(session, 0, prompt, count, logits) != KVRM_OK)
    return fail("prefill");
  for (int32_t slot = 0; slot < info->slots; ++slot)
    tokens[slot] = -1;
  for (int i = 0; i < Generated; ++i) {
    // Slot 0 has the first row of logits, here and in prefill.
    tokens[0] = likeliest(logits, info->vocabulary);
    printf("%s%d", i ? " " : "", (int)tokens[0]);
    if (i + 1 < Generated && kvrm_decode(session, tokens, logits) != KVRM_OK)
      return fail("decode");
  }
  printf("\n");
  return 0;
}

int main(int argc, char **argv) {
  int32_t prompt[MaxPrompt] = {1, 2, 3};
  size_t count = 3;
  if (argc < 2 || argc - 2 > MaxPrompt) {
    fprintf(stderr, "usage: embed MODEL.kvrm [TOKEN...]\n");
    return 1;
  }
  if (argc > 2)
    count = (size_t)argc - 2;
  for (int i = 2; i < argc; ++i)
    prompt[i - 2] = (int32_t)strtol(argv[i], NULL, 10);

  kvrm_package *package = NULL;
  if (kvrm_package_open(argv[1], &package) != KVRM_OK)
    return fail(argv[1]);
  kvrm_session *session = NULL;
  kvrm_package_info info;
  int32_t *tokens = NULL;
  float *logits = NULL;
  int status = 1;
  if (kvrm_package_get_info(package, &info) != KVRM_OK ||
      kvrm_session_create(package, NULL, &session) != KVRM_OK) {
    status = fail("session");
  } else {
    tokens = malloc(sizeof(*tokens) * (size_t)info.slots);
    logits =
        malloc(sizeof(*logits) * (size_t)info.slots * (size_t)info.vocabulary);
    if (tokens && logits)
      status = generate(session, &info, prompt, count, tokens, logits);
    else
      fprintf(stderr, "embed: error: out of memory\n");
  }
  free(logits);
  free(tokens);
  kvrm_session_destroy(session);
  kvrm_package_close(package);
  return status;
}
