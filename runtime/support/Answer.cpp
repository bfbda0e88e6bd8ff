//===- Answer.cpp - How calls of the C API answer -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Answer.h"

#include <cstdio>

using namespace kvrm;

/// Fixed room, so that an error can be told when memory is what is missing.
static thread_local char lastError[512] = "";

kvrm_status kvrm::answer(StatusCode code, const char *message) {
  std::snprintf(lastError, sizeof(lastError), "%s", message);
  return static_cast<kvrm_status>(code);
}

kvrm_status kvrm::answer(const Status &status) {
  if (status.isOk())
    return KVRM_OK;
  return answer(status.code(), status.message().c_str());
}

kvrm_status kvrm::nullArgument(const char *name) {
  return answer(invalidArgument(name, " is null"));
}

const char *kvrm_last_error(void) { return lastError; }
