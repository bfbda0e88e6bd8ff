//===- DecodeBench.cpp - Times of decode steps ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DecodeBench.h"

#include "kvrm/runtime/support/Clock.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::measure;

DecodeBench::DecodeBench(Decoder &session, const DecodeBenchOptions &options)
    : session(session), options(options), random(options.seed),
      tokens(static_cast<size_t>(session.slots()), -1),
      sampling(tokens.size() + 1), next(tokens.size() + 1) {}

int32_t DecodeBench::randomToken() {
  return static_cast<int32_t>(random() %
                              static_cast<uint64_t>(session.vocabulary()));
}

/// Brings the history of a slot to its length for a context.
Status DecodeBench::fillSlot(int32_t slot, Measurement &out) {
  int32_t target = out.context;
  if (options.isRagged)
    target =
        std::max<int32_t>(1, static_cast<int32_t>(int64_t(out.context) *
                                                  (slot + 1) / options.active));
  if (!options.lengths.empty())
    target = options.lengths[static_cast<size_t>(slot)];
  // What has collapsed cannot be cut: then the slot starts anew.
  if (session.length(slot) > target && !session.trim(slot, target).isOk())
    KVRM_TRY(session.release(slot));
  std::vector<int32_t> prompt(
      static_cast<size_t>(target - session.length(slot)));
  if (prompt.empty())
    return Status::ok();
  std::ranges::generate(prompt, [&] { return randomToken(); });
  SteadyClock clock;
  int64_t start = clock.now();
  KVRM_TRY(session.prefill(slot, prompt, {}));
  out.prefillNanoseconds += clock.now() - start;
  out.prefillTokens += static_cast<int64_t>(prompt.size());
  return Status::ok();
}

void DecodeBench::drawTokens() {
  for (int32_t slot = 0; slot < options.active; ++slot)
    tokens[static_cast<size_t>(slot)] = randomToken();
}

Status DecodeBench::step() {
  drawTokens();
  return session.decode(tokens, {sampling.data(), next.data()});
}

/// What the last step tells.
void DecodeBench::note(Measurement &out) const {
  out.last = session.lastStep();
  out.planNanoseconds.push_back(out.last.planNanoseconds);
  out.commitNanoseconds.push_back(out.last.commitNanoseconds);
  out.commitBytes.push_back(out.last.committedBytes);
  out.attendNanoseconds.push_back(out.last.attendNanoseconds);
}

Status DecodeBench::stepPatiently(Measurement &out) {
  SteadyClock clock;
  for (int32_t i = 0; i < options.steps; ++i) {
    int64_t start = clock.now();
    KVRM_TRY(step());
    out.stepNanoseconds.push_back(clock.now() - start);
    note(out);
  }
  return Status::ok();
}

/// Each step is fed what the one before chose, and started before that is
/// known.
Status DecodeBench::stepAhead(Measurement &out) {
  SteadyClock clock;
  int64_t ended = clock.now();
  StepOutputs outputs = StepOutputs::later(sampling.data());
  drawTokens();
  KVRM_TRY(session.decode(tokens, outputs));
  note(out);
  for (int32_t slot = 0; slot < options.active; ++slot)
    tokens[static_cast<size_t>(slot)] = followingToken;
  for (int32_t i = 0; i < options.steps; ++i) {
    if (i + 1 < options.steps) {
      int64_t start = clock.now();
      KVRM_TRY(session.decode(tokens, outputs));
      out.hostNanoseconds.push_back(clock.now() - start);
      note(out);
    }
    KVRM_TRY(session.awaitStep(next));
    int64_t now = clock.now();
    out.stepNanoseconds.push_back(now - ended);
    ended = now;
  }
  return Status::ok();
}

/// Histories are as they were before the steps that were timed.
Status DecodeBench::measureMixed(Measurement &out) {
  out.chunkTokens = session.shape().prefillChunk;
  std::vector<int32_t> prompt(static_cast<size_t>(out.chunkTokens));
  std::ranges::generate(prompt, [&] { return randomToken(); });
  int32_t idle = options.active;
  SteadyClock clock;
  for (int32_t i = 0; i < options.steps; ++i) {
    int64_t start = clock.now();
    KVRM_TRY(session.prefill(idle, prompt, {sampling.data(), next.data()}));
    out.chunkNanoseconds.push_back(clock.now() - start);
    KVRM_TRY(session.release(idle));
    drawTokens();
    start = clock.now();
    KVRM_TRY(session.mixedStep(tokens, idle, prompt,
                               {sampling.data(), next.data()}));
    out.mixedNanoseconds.push_back(clock.now() - start);
    KVRM_TRY(session.release(idle));
  }
  return Status::ok();
}

Expected<Measurement> DecodeBench::measure(int32_t context) {
  Measurement out;
  out.context = context;
  for (int32_t slot = 0; slot < options.active; ++slot)
    KVRM_TRY(fillSlot(slot, out));
  for (int32_t i = 0; i < options.warmup; ++i)
    KVRM_TRY(step());
  const DecoderShape &shape = session.shape();
  KVRM_TRY(shape.stepsAhead > 0 ? stepAhead(out) : stepPatiently(out));
  out.liveBytes = session.liveKvBytes();
  // What has collapsed cannot be cut off again.
  if (shape.mixes && shape.window == 0 && options.active < shape.slots) {
    for (int32_t slot = 0; slot < options.active; ++slot)
      KVRM_TRY(session.trim(slot, session.length(slot) - options.steps));
    KVRM_TRY(measureMixed(out));
  }
  return out;
}
