//===- Scorer.cpp - What a model makes of given tokens ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Scorer.h"

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
      logits(running.size() * static_cast<size_t>(decoder.shape().vocabulary)) {
}

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
  if (next < sequence.ids.size()) {
    double sum = 0;
    for (const float *at = row; at != end; ++at)
      sum += std::exp(static_cast<double>(*at) - *best);
    sequence.logLikelihood +=
        static_cast<double>(row[sequence.ids[next]]) - *best - std::log(sum);
  }
  return file ? file->write(static_cast<int64_t>(index),
                            static_cast<int64_t>(step), row)
              : Status::ok();
}

/// Starts the next sequence in an empty slot.
Status Scorer::start(size_t slot) {
  const Sequence &sequence = sequences[waiting];
  KVRM_TRY(decoder.prefill(
      static_cast<int32_t>(slot),
      std::span(sequence.ids).first(static_cast<size_t>(sequence.prompt)),
      logits.data()));
  peakLiveBytes = std::max(peakLiveBytes, decoder.liveKvBytes());
  KVRM_TRY(take(waiting, logits.data()));
  running[slot] = waiting++;
  return Status::ok();
}

/// Finds the token that a slot decodes next, of its sequence or of one that
/// follows: a sequence that is all prompt has none.
Status Scorer::fillSlot(size_t slot) {
  auto id = static_cast<int32_t>(slot);
  while (true) {
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
    tokens[slot] = -1;
    if (waiting == sequences.size())
      return Status::ok();
    KVRM_TRY(start(slot));
  }
}

Status Scorer::decode() {
  KVRM_TRY(decoder.decode(tokens, logits.data()));
  peakLiveBytes = std::max(peakLiveBytes, decoder.liveKvBytes());
  decodeNanoseconds += decoder.lastStep().stepNanoseconds;
  ++decodeSteps;
  auto vocabulary = static_cast<size_t>(decoder.shape().vocabulary);
  for (size_t slot = 0; slot < tokens.size(); ++slot)
    if (tokens[slot] >= 0)
      KVRM_TRY(take(running[slot], logits.data() + slot * vocabulary));
  return Status::ok();
}

Status Scorer::run() {
  while (true) {
    for (size_t slot = 0; slot < tokens.size(); ++slot)
      KVRM_TRY(fillSlot(slot));
    if (std::ranges::all_of(tokens, [](int32_t token) { return token < 0; }))
      return Status::ok();
    KVRM_TRY(decode());
  }
}
