//===- BucketedDecoder.cpp - Static graphs of growing capacity --*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BucketedDecoder.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::replay;

Expected<std::unique_ptr<BucketedDecoder>>
BucketedDecoder::create(std::vector<std::unique_ptr<StaticSession>> sessions) {
  if (sessions.empty())
    return invalidArgument("a bucketed decoder has one bucket at least");
  std::ranges::sort(sessions, {},
                    [](const std::unique_ptr<StaticSession> &session) {
                      return session->capacity();
                    });
  const DecoderShape &largest = sessions.back()->shape();
  for (size_t i = 0; i < sessions.size(); ++i) {
    const DecoderShape &shape = sessions[i]->shape();
    if (shape.slots != largest.slots || shape.vocabulary != largest.vocabulary)
      return invalidArgument("buckets have as many slots each: ", shape.slots,
                             " at capacity ", shape.capacity, ", ",
                             largest.slots, " at capacity ", largest.capacity);
    if (i > 0 && shape.capacity == sessions[i - 1]->capacity())
      return invalidArgument("two buckets of capacity ", shape.capacity);
    for (int32_t slot = 0; slot < shape.slots; ++slot)
      if (sessions[i]->length(slot) != 0)
        return invalidArgument("slot ", slot, " is in use");
  }
  std::unique_ptr<BucketedDecoder> decoder(new BucketedDecoder());
  decoder->bounds = largest;
  for (const std::unique_ptr<StaticSession> &session : sessions)
    decoder->bounds.prefillChunk =
        std::min(decoder->bounds.prefillChunk, session->shape().prefillChunk);
  decoder->expected.resize(static_cast<size_t>(largest.slots));
  decoder->sessions = std::move(sessions);
  return decoder;
}

/// Moves all histories to the bucket they should be in when one of them is to
/// have `needed` tokens.
Status BucketedDecoder::fit(int32_t needed) {
  needed = std::min(needed, bounds.capacity);
  for (int32_t slot = 0; slot < bounds.slots; ++slot)
    needed =
        std::max({needed, length(slot), expected[static_cast<size_t>(slot)]});
  size_t target = current;
  while (sessions[target]->capacity() < needed)
    ++target;
  while (target > 0 && target <= current &&
         needed <= int64_t(sessions[target - 1]->capacity()) * 3 / 4)
    --target;
  return target == current ? Status::ok() : moveTo(target);
}

Status BucketedDecoder::moveTo(size_t target) {
  StaticSession &from = bucket();
  StaticSession &to = *sessions[target];
  int64_t bytes = from.liveKvBytes();
  for (int32_t slot = 0; slot < bounds.slots; ++slot)
    KVRM_TRY(to.copyHistory(from, slot));
  for (int32_t slot = 0; slot < bounds.slots; ++slot)
    KVRM_TRY(from.release(slot));
  current = target;
  if (bytes > 0) {
    ++moveCount;
    moveBytes += bytes;
  }
  return Status::ok();
}

Status BucketedDecoder::prefill(int32_t slot, std::span<const int32_t> tokens,
                                const StepOutputs &outputs) {
  KVRM_TRY(checkPrefill(slot, tokens));
  KVRM_TRY(fit(length(slot) + static_cast<int32_t>(tokens.size())));
  return bucket().prefill(slot, tokens, outputs);
}

Status BucketedDecoder::decode(std::span<const int32_t> tokens,
                               const StepOutputs &outputs) {
  KVRM_TRY(checkDecode(tokens, outputs));
  int32_t needed = 0;
  for (int32_t slot = 0; slot < bounds.slots; ++slot)
    if (tokens[static_cast<size_t>(slot)] != -1)
      needed = std::max(needed, length(slot) + 1);
  KVRM_TRY(fit(needed));
  return bucket().decode(tokens, outputs);
}

void BucketedDecoder::expect(int32_t slot, int32_t tokens) {
  KVRM_CHECK(slot >= 0 && slot < bounds.slots, "slot in range");
  expected[static_cast<size_t>(slot)] = std::min(tokens, bounds.capacity);
}

Status BucketedDecoder::release(int32_t history) {
  KVRM_TRY(bucket().release(history));
  expected[static_cast<size_t>(history)] = 0;
  return Status::ok();
}

Status BucketedDecoder::alias(int32_t target, int32_t source, int32_t tokens) {
  return bucket().alias(target, source, tokens);
}

Status BucketedDecoder::park(int32_t, int32_t) {
  return invalidArgument("a static decoder has no parking places");
}
Status BucketedDecoder::unpark(int32_t, int32_t) {
  return invalidArgument("a static decoder has no parking places");
}
Status BucketedDecoder::discard(int32_t) {
  return invalidArgument("a static decoder has no parking places");
}
