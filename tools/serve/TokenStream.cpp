//===- TokenStream.cpp - A request's tokens between threads ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TokenStream.h"

#include <utility>

using namespace kvrm;
using namespace kvrm::serve;

Expected<std::shared_ptr<TokenStream>> TokenStream::create() {
  Expected<Event> ready = Event::create();
  KVRM_TRY(ready.status());
  return std::shared_ptr<TokenStream>(new TokenStream(ready.take()));
}

void TokenStream::accept() {
  std::lock_guard lock(mutex);
  waiting.isAccepted = true;
  ready.set();
}

void TokenStream::push(int32_t token, const TokenLogprobs *logprobs) {
  std::lock_guard lock(mutex);
  waiting.tokens.push_back(token);
  if (logprobs)
    waiting.logprobs.push_back(*logprobs);
  ready.set();
}

void TokenStream::end(StreamEnd end) {
  std::lock_guard lock(mutex);
  if (std::exchange(hasEnded, true))
    return;
  waiting.end = std::move(end);
  ready.set();
}

TokenStream::Batch TokenStream::take() {
  std::lock_guard lock(mutex);
  ready.clear();
  bool isAccepted = waiting.isAccepted;
  Batch batch = std::move(waiting);
  waiting = Batch();
  waiting.isAccepted = isAccepted;
  return batch;
}
