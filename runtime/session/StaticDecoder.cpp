//===- StaticDecoder.cpp - Histories with room reserved for them ----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/StaticDecoder.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <numeric>

using namespace kvrm;

void StaticDecoder::setShape(const DecoderShape &shape, bool choosesTokens) {
  bounds = shape;
  auto slotCount = static_cast<size_t>(shape.slots);
  lengths.resize(slotCount);
  ahead.create(shape.slots, shape.stepsAhead);
  if (choosesTokens)
    unwanted.resize(slotCount * static_cast<size_t>(shape.vocabulary));
  auto prepare = [&](StepEntry which, size_t count, int32_t queries) {
    StepRows &step = rowsOf(which);
    step.queries = queries;
    step.tokens.resize(count * static_cast<size_t>(queries));
    step.positions.resize(count);
    step.counts.resize(count);
    step.slots.resize(count);
  };
  prepare(StepEntry::Decode, slotCount, 1);
  prepare(StepEntry::Prefill, 1, shape.prefillChunk);
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

Status StaticDecoder::prefill(int32_t slot, std::span<const int32_t> tokens,
                              const StepOutputs &outputs) {
  Stopwatch watch;
  KVRM_TRY(checkPrefill(slot, tokens));
  KVRM_TRY(checkPrefillOutputs(outputs));
  ahead.forget(slot);
  ahead.promptComputed();
  StepStats stats;
  StepRows &step = rowsOf(StepEntry::Prefill);
  auto count = static_cast<int32_t>(tokens.size());
  int32_t before = length(slot);
  for (int32_t done = 0; done < count;) {
    int32_t chunk = std::min(bounds.prefillChunk, count - done);
    bool isLast = done + chunk == count;
    std::ranges::fill(step.tokens, 0);
    std::copy_n(tokens.begin() + done, chunk, step.tokens.begin());
    step.positions[0] = before + done;
    step.counts[0] = chunk;
    step.slots[0] = slot;
    KVRM_TRY(runStep(StepEntry::Prefill, step, isLast ? outputs : StepOutputs(),
                     stats));
    done += chunk;
  }
  setLength(slot, before + count);
  stats.activeRows = 1;
  stats.stepNanoseconds = watch.nanoseconds();
  last = stats;
  return Status::ok();
}

Status StaticDecoder::decode(std::span<const int32_t> tokens,
                             const StepOutputs &outputs) {
  Stopwatch watch;
  KVRM_TRY(checkDecode(tokens, outputs));
  KVRM_TRY(ahead.check(outputs));
  int32_t active = 0;
  StepRows &step = rowsOf(StepEntry::Decode);
  for (int32_t slot = 0; slot < slots(); ++slot) {
    auto row = static_cast<size_t>(slot);
    bool isActive = tokens[row] != -1;
    active += isActive;
    step.tokens[row] = isActive ? tokens[row] : 0;
    step.positions[row] = length(slot);
    step.counts[row] = isActive;
    step.slots[row] = slot;
  }
  if (active == 0)
    return Status::ok();
  StepStats stats;
  Status status = runStep(StepEntry::Decode, step, outputs, stats);
  if (!status.isOk()) {
    ahead.failed();
    return status;
  }
  ahead.started(tokens, outputs);
  for (size_t row = 0; row < lengths.size(); ++row)
    lengths[row] += step.counts[row];
  stats.activeRows = active; // which idle ones are not
  stats.stepNanoseconds = watch.nanoseconds();
  last = stats;
  return Status::ok();
}

void StaticDecoder::chooseActive(const StepRows &step, const float *logits,
                                 const StepOutputs &outputs) const {
  for (size_t row = 0; row < step.counts.size(); ++row)
    if (step.counts[row] > 0)
      choose(static_cast<int32_t>(row), logits, outputs);
}

//===----------------------------------------------------------------------===//
// Histories
//===----------------------------------------------------------------------===//

int32_t StaticDecoder::length(int32_t slot) const {
  KVRM_CHECK(slot >= 0 && slot < slots(), "slot in range");
  return lengths[static_cast<size_t>(slot)];
}

Status StaticDecoder::release(int32_t slot) {
  KVRM_TRY(checkHistory(slot));
  ahead.forget(slot);
  setLength(slot, 0);
  return Status::ok();
}

Status StaticDecoder::trim(int32_t slot, int32_t newLength) {
  KVRM_TRY(checkHistory(slot));
  if (newLength < 0 || newLength > length(slot))
    return invalidArgument("slot ", slot, ": cannot trim to ", newLength,
                           " tokens, outside 0..", length(slot));
  ahead.forget(slot);
  setLength(slot, newLength);
  return Status::ok();
}

Status StaticDecoder::alias(int32_t target, int32_t source, int32_t tokens) {
  KVRM_TRY(checkHistory(target));
  KVRM_TRY(checkHistory(source));
  if (target == source)
    return invalidArgument("slot ", target, " cannot share with itself");
  if (length(target) != 0)
    return invalidArgument("slot ", target, " is not empty");
  if (tokens < 0 || tokens > length(source))
    return invalidArgument("slot ", source, ": cannot share ", tokens,
                           " tokens, outside 0..", length(source));
  KVRM_TRY(copyTokens(target, source, tokens));
  setLength(target, tokens);
  return Status::ok();
}

static Status refuseParking() {
  return invalidArgument("a static decoder has no parking places");
}

Status StaticDecoder::park(int32_t, int32_t) { return refuseParking(); }
Status StaticDecoder::unpark(int32_t, int32_t) { return refuseParking(); }
Status StaticDecoder::discard(int32_t) { return refuseParking(); }

int64_t StaticDecoder::liveKvBytes() const {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t(0)) *
         tokenKvBytes();
}
