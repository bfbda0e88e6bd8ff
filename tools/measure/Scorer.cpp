//===- Scorer.cpp - What a model makes of given tokens ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Scorer.h"

#include "kvrm/runtime/serving/LogSoftmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace kvrm;
using namespace kvrm::measure;

static constexpr size_t idle = std::numeric_limits<size_t>::max();

Scorer::Scorer(Decoder &decoder, std::vector<Sequence> &sequences,
               LogitsFile *file)
    : decoder(decoder), sequences(sequences), file(file),
      running(static_cast<size_t>(decoder.shape().slots), idle),
      tokens(running.size()),
      logits((running.size() + 1) *
             static_cast<size_t>(decoder.shape().vocabulary)),
      joining(idle) {}

/// Keeps the logits of the last token that was fed.
Status Scorer::take(size_t index, const float *row) {
  Sequence &sequence = sequences[index];
  size_t step = sequence.choices.size();
  const float *end = row + decoder.shape().vocabulary;
  for (const float *at = row; at != end; ++at)
    if (!std::isfinite(*at))
      return makeError(StatusCode::Internal, "sequence ", index,
                       ": the model's logits are not finite at position ",
                       static_cast<size_t>(sequence.prompt) + step - 1);
  const float *best = std::max_element(row, end);
  sequence.choices.push_back(static_cast<int32_t>(best - row));
  size_t next = static_cast<size_t>(sequence.prompt) + step;
  if (next < sequence.ids.size())
    sequence.logLikelihood += LogSoftmax({row, end}).of(sequence.ids[next]);
  return file ? file->write(static_cast<int64_t>(index),
                            static_cast<int64_t>(step), row)
              : Status::ok();
}

/// Starts the next sequence in an empty slot: at once, or in the steps of those
/// that decode.
Status Scorer::start(size_t slot) {
  running[slot] = waiting++;
  joining = slot;
  bool isAlone = std::ranges::all_of(tokens, [](int32_t t) { return t < 0; });
  if (decoder.shape().mixes && !isAlone)
    return Status::ok();
  KVRM_TRY(
      decoder.prefill(static_cast<int32_t>(slot), promptLeft(), logits.data()));
  peakLiveBytes = std::max(peakLiveBytes, decoder.liveKvBytes());
  return finishPrompt(logits.data());
}

/// Of the slot that joins.
std::span<const int32_t> Scorer::promptLeft() const {
  const Sequence &sequence = sequences[running[joining]];
  return std::span(sequence.ids)
      .first(static_cast<size_t>(sequence.prompt))
      .subspan(
          static_cast<size_t>(decoder.length(static_cast<int32_t>(joining))));
}

Status Scorer::finishPrompt(const float *row) {
  size_t sequence = running[joining];
  joining = idle;
  return take(sequence, row);
}

/// Finds the token that a slot decodes next, of its sequence or of one that
/// follows: a sequence that is all prompt has none.
Status Scorer::fillSlot(size_t slot) {
  auto id = static_cast<int32_t>(slot);
  while (true) {
    tokens[slot] = -1;
    if (slot == joining)
      return Status::ok();
    if (running[slot] != idle) {
      const Sequence &sequence = sequences[running[slot]];
      auto fed = static_cast<size_t>(decoder.length(id));
      if (fed < sequence.ids.size()) {
        tokens[slot] = sequence.ids[fed];
        return Status::ok();
      }
      KVRM_TRY(decoder.release(id));
      running[slot] = idle;
    }
    // One at a time joins the others.
    if (waiting == sequences.size() || joining != idle)
      return Status::ok();
    KVRM_TRY(start(slot));
  }
}

/// One step of all slots that have a token, and of a part of a prompt.
Status Scorer::step() {
  auto vocabulary = static_cast<size_t>(decoder.shape().vocabulary);
  bool isMixed = joining != idle;
  bool isLast = false;
  if (isMixed) {
    std::span<const int32_t> left = promptLeft();
    auto chunk = static_cast<size_t>(decoder.shape().prefillChunk);
    isLast = left.size() <= chunk;
    KVRM_TRY(decoder.mixedStep(tokens, static_cast<int32_t>(joining),
                               left.first(std::min(left.size(), chunk)),
                               logits.data()));
  } else {
    KVRM_TRY(decoder.decode(tokens, logits.data()));
    decodeNanoseconds += decoder.lastStep().stepNanoseconds;
    ++decodeSteps;
  }
  peakLiveBytes = std::max(peakLiveBytes, decoder.liveKvBytes());
  for (size_t slot = 0; slot < tokens.size(); ++slot)
    if (tokens[slot] >= 0)
      KVRM_TRY(take(running[slot], logits.data() + slot * vocabulary));
  return isLast ? finishPrompt(logits.data() + tokens.size() * vocabulary)
                : Status::ok();
}

Status Scorer::run() {
  std::ranges::fill(tokens, -1);
  while (true) {
    for (size_t slot = 0; slot < tokens.size(); ++slot)
      KVRM_TRY(fillSlot(slot));
    if (!std::ranges::all_of(tokens, [](int32_t token) { return token < 0; })) {
      KVRM_TRY(step());
      continue;
    }
    if (joining == idle)
      return Status::ok();
    // Nobody decodes any more: the rest of its prompt at once.
    KVRM_TRY(decoder.prefill(static_cast<int32_t>(joining), promptLeft(),
                             logits.data()));
    KVRM_TRY(finishPrompt(logits.data()));
  }
}
