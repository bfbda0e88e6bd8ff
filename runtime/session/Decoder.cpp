//===- Decoder.cpp - What an engine drives --------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/support/Check.h"

#include <algorithm>

#include "kvrm/runtime/session/TokenChoice.h"

using namespace kvrm;

Status Decoder::checkSlot(int32_t slot) const {
  if (slot < 0 || slot >= slots())
    return invalidArgument("slot ", slot, " is outside 0..", slots() - 1);
  return Status::ok();
}

Status Decoder::checkHistory(int32_t history) const {
  if (history < 0 || history >= shape().histories)
    return invalidArgument("history ", history, " is outside 0..",
                           shape().histories - 1);
  return Status::ok();
}

Status Decoder::checkToken(int32_t token, int32_t slot) const {
  if (token < 0 || token >= vocabulary())
    return invalidArgument("slot ", slot, ": token ", token, " is outside 0..",
                           vocabulary() - 1);
  return Status::ok();
}

Status Decoder::checkPrefill(int32_t slot,
                             std::span<const int32_t> tokens) const {
  KVRM_TRY(checkSlot(slot));
  if (tokens.empty())
    return invalidArgument("slot ", slot, ": a prompt has at least one token");
  int32_t before = length(slot);
  if (tokens.size() > static_cast<size_t>(capacity() - before)) {
    if (before == 0)
      return invalidArgument("prompt of ", tokens.size(),
                             " tokens exceeds the capacity ", capacity());
    return invalidArgument("slot ", slot, ": ", tokens.size(), " tokens after ",
                           before, " exceed the capacity ", capacity());
  }
  for (int32_t token : tokens)
    KVRM_TRY(checkToken(token, slot));
  return Status::ok();
}

Status Decoder::checkMixed(std::span<const int32_t> tokens, int32_t slot,
                           std::span<const int32_t> prompt,
                           const StepOutputs &outputs) const {
  if (!shape().mixes)
    return makeError(StatusCode::Incompatible,
                     "the decoder has no mixed step; compile it with --mixed");
  KVRM_TRY(checkDecode(tokens, outputs));
  KVRM_TRY(checkPrefill(slot, prompt));
  if (prompt.size() > static_cast<size_t>(shape().prefillChunk))
    return invalidArgument("slot ", slot, ": ", prompt.size(),
                           " tokens of a prompt are more than the ",
                           shape().prefillChunk, " of one step");
  if (tokens[static_cast<size_t>(slot)] != -1)
    return invalidArgument("slot ", slot,
                           " cannot decode while its prompt is computed");
  if (std::ranges::all_of(tokens, [](int32_t token) { return token == -1; }))
    return invalidArgument("mixed step: no slot decodes");
  return Status::ok();
}

Status Decoder::mixedStep(std::span<const int32_t> tokens, int32_t slot,
                          std::span<const int32_t> prompt,
                          const StepOutputs &outputs) {
  KVRM_CHECK(!shape().mixes, "a decoder that mixes overrides this");
  return checkMixed(tokens, slot, prompt, outputs);
}

Status Decoder::awaitStep(std::span<int32_t>) {
  KVRM_CHECK(shape().stepsAhead == 0, "a decoder that runs ahead overrides");
  return invalidArgument("no step is under way");
}

Status Decoder::checkOutputs(const StepOutputs &outputs) const {
  if (outputs.isLater && shape().stepsAhead == 0)
    return makeError(StatusCode::Incompatible,
                     "the decoder's steps are done when their call returns");
  if (outputs.isLater && (outputs.logits || outputs.next))
    return invalidArgument("tokens are wanted for later, and others at once");
  if ((outputs.next || outputs.isLater) && !outputs.sampling)
    return invalidArgument("next tokens are wanted, and it is not said how "
                           "they are chosen");
  return Status::ok();
}

Status Decoder::checkPrefillOutputs(const StepOutputs &outputs) const {
  if (outputs.isLater)
    return invalidArgument("prefill: its token is to be had at once");
  return checkOutputs(outputs);
}

void Decoder::choose(int32_t row, const float *logits,
                     const StepOutputs &outputs) const {
  if (!outputs.next)
    return;
  auto width = static_cast<size_t>(vocabulary());
  outputs.next[row] =
      chooseToken({logits + static_cast<size_t>(row) * width, width},
                  outputs.sampling[row]);
}

Status Decoder::checkDecode(std::span<const int32_t> tokens,
                            const StepOutputs &outputs) const {
  if (tokens.size() != static_cast<size_t>(slots()))
    return invalidArgument("decode: ", tokens.size(), " tokens for ", slots(),
                           " slots");
  if (!outputs.logits && !outputs.next && !outputs.isLater)
    return invalidArgument("decode: neither logits nor tokens are wanted");
  KVRM_TRY(checkOutputs(outputs));
  for (int32_t slot = 0; slot < slots(); ++slot) {
    int32_t token = tokens[static_cast<size_t>(slot)];
    if (token == -1)
      continue;
    if (token != followingToken || !isFollowing(slot))
      KVRM_TRY(checkToken(token, slot));
    if (length(slot) >= capacity())
      return invalidArgument("slot ", slot, ": its history of ", length(slot),
                             " tokens fills the capacity ", capacity());
  }
  return Status::ok();
}
