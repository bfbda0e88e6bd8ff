//===- Decoder.h - What an engine drives ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A compiled decoder with its KV, as the engine sees it: a fixed number of
// slots, steps that extend their histories, and places to keep histories that
// are not in a slot. The engine knows nothing else, so that it cannot depend on
// a backend: a session on the CPU, the static baselines and the simulated
// decoder of the tests are all decoders.
//
// Histories are numbered: 0..slots-1 are in slots and can be stepped;
// slots..histories-1 are kept in the pool to be shared from. Parked ones,
// 0..parkingPlaces-1, are in host memory and hold no page of the pool.
//
// Every call checks its arguments before it changes anything, and a failed one
// leaves all histories as they were.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_DECODER_H
#define KVRM_RUNTIME_SESSION_DECODER_H

#include "kvrm/runtime/abi/sampling.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <span>

namespace kvrm {

/// What the last successful step did. A prefill of several chunks is several
/// steps: counts are of the last, sums are over all.
struct StepStats {
  /// Before the next step of a call.
  void clearCounts() {
    activeRows = groups = items = segments = 0;
    pages = tiles = 0;
  }

  int32_t activeRows = 0;
  int64_t pages = 0;             ///< pages of the active rows' histories
  int32_t groups = 0;            ///< transfer groups, maximal runs of pages
  int32_t items = 0;             ///< work items a layer
  int32_t segments = 0;          ///< merges a layer
  int64_t tiles = 0;             ///< KV tiles a layer
  int32_t schedule = 0;          ///< as SchedulePolicy.h names it
  int32_t pageCopies = 0;        ///< copy-on-write pages (sum)
  int32_t steps = 0;             ///< calls of compiled code (sum)
  int64_t committedBytes = 0;    ///< (sum)
  int64_t stageCopies = 0;       ///< memcpy runs into staging tiles (sum)
  int64_t stageBytes = 0;        ///< (sum)
  int64_t planNanoseconds = 0;   ///< (sum)
  int64_t commitNanoseconds = 0; ///< (sum)
  int64_t attendNanoseconds = 0; ///< (sum)
  int64_t stepNanoseconds = 0;   ///< whole call, pager to logits (sum)

  int32_t collapsedPages = 0;      ///< of far histories (sum)
  int64_t collapseNanoseconds = 0; ///< (sum)
};

/// What fixes a decoder for its life.
struct DecoderShape {
  int32_t slots = 0;
  int32_t histories = 0; ///< slots, and histories kept to be shared from
  int32_t parkingPlaces = 0;
  int32_t capacity = 0; ///< tokens of one history
  int32_t vocabulary = 0;
  int32_t pageTokens = 0;   ///< 0 = not paged: a slot has room for capacity
  int32_t poolPages = 0;    ///< 0 = not paged
  int32_t historyPages = 0; ///< most of one history; 0 = not paged
  int32_t window = 0;       ///< with more tokens than these a history may need
                      ///< historyPages and no more; 0 = pages grow with tokens
  int32_t prefillChunk = 0; ///< tokens that one prefill step computes
  bool mixes = false;       ///< mixedStep() is there
  /// Steps that may be under way when another is started: StepOutputs::later()
  /// is there unless it is 0.
  int32_t stepsAhead = 0;
};

/// In place of a slot's token in decode(): the one that the step started last
/// chooses for it, which nobody may know yet.
inline constexpr int32_t followingToken = -2;

/// What is wanted of a step, in the caller's memory; null = nothing.
struct StepOutputs {
  StepOutputs() = default;
  StepOutputs(float *logits) : logits(logits) {}
  StepOutputs(const kvrm_sampling *sampling, int32_t *next)
      : sampling(sampling), next(next) {}
  /// The tokens that follow, to be had from Decoder::awaitStep(): the step is
  /// only started. For decode() and mixedStep().
  static StepOutputs later(const kvrm_sampling *sampling) {
    StepOutputs outputs(sampling, nullptr);
    outputs.isLater = true;
    return outputs;
  }

  float *logits = nullptr;                 ///< [rows][vocabulary]
  const kvrm_sampling *sampling = nullptr; ///< [rows], if `next` is wanted
  /// [rows], the token that follows, chosen by `sampling`; -1 if no logit is a
  /// finite number.
  int32_t *next = nullptr;
  bool isLater = false;
};

class Decoder {
public:
  virtual ~Decoder() = default;

  virtual const DecoderShape &shape() const = 0;

  /// Appends `tokens` (one or more) to the history of `slot`; outputs are those
  /// of the last, one row. Errors: InvalidArgument, ResourceExhausted when the
  /// pool has too few free pages.
  virtual Status prefill(int32_t slot, std::span<const int32_t> tokens,
                         const StepOutputs &outputs) = 0;
  /// One decode step: `tokens` has one token a slot, -1 for an idle one.
  /// Outputs have a row a slot; those of idle slots mean nothing. With all
  /// slots idle nothing is done, nor is anything to be awaited. Errors as for
  /// prefill().
  virtual Status decode(std::span<const int32_t> tokens,
                        const StepOutputs &outputs) = 0;

  /// One step of both, which reads the weights once: `tokens` as for decode(),
  /// with a token for one slot at least, and up to prefillChunk tokens of the
  /// prompt of `slot`, which is idle in `tokens`. Outputs have a row a slot,
  /// and then that of the prompt's last token. Errors as for prefill();
  /// Incompatible if shape().mixes is false.
  virtual Status mixedStep(std::span<const int32_t> tokens, int32_t slot,
                           std::span<const int32_t> prompt,
                           const StepOutputs &outputs);

  /// Waits for the first step that was started for later and not awaited, at
  /// most shape().stepsAhead + 1 of them, and writes the tokens that its rows
  /// chose to `next`, which has room for slots + 1. Other calls may come
  /// before; they take effect as if the step had ended. If it fails, so have
  /// all steps started after it, and none of them is to be awaited: what they
  /// appended is in the histories, with KV that means nothing, and is the
  /// caller's to trim. Errors: InvalidArgument if no step is under way.
  virtual Status awaitStep(std::span<int32_t> next);

  /// Says that `slot` will grow to `tokens`, so that a run of pages can be
  /// chosen in which it fits. Takes no page.
  virtual void expect(int32_t slot, int32_t tokens) = 0;
  /// Forgets a history and frees its pages.
  virtual Status release(int32_t history) = 0;
  /// Cuts a history to its first `length` tokens.
  virtual Status trim(int32_t history, int32_t length) = 0;
  /// Makes the empty history `target` start with the first `tokens` tokens of
  /// `source`; pages are shared until one of them is written.
  virtual Status alias(int32_t target, int32_t source, int32_t tokens) = 0;

  /// Moves a history to the empty parking place `place`, in transfer groups.
  /// Its slot is empty then. Errors: InvalidArgument, ResourceExhausted.
  virtual Status park(int32_t slot, int32_t place) = 0;
  /// Moves it back, to any empty slot. Errors: InvalidArgument,
  /// ResourceExhausted.
  virtual Status unpark(int32_t place, int32_t slot) = 0;
  /// Forgets a parked history.
  virtual Status discard(int32_t place) = 0;

  /// Tokens of a history, which must be in 0..histories-1.
  virtual int32_t length(int32_t history) const = 0;
  /// Pages that appending `tokens` would take now; 0 if not paged.
  virtual int32_t pagesNeeded(int32_t slot, int32_t tokens) const = 0;
  /// 0 if not paged.
  virtual int32_t freePages() const = 0;

  /// Bytes of KV memory set aside, and those that histories hold: whole pages,
  /// or what their tokens take if not paged.
  virtual int64_t reservedKvBytes() const = 0;
  virtual int64_t liveKvBytes() const = 0;
  /// Bytes of KV of one token.
  virtual int64_t tokenKvBytes() const = 0;

  virtual const StepStats &lastStep() const = 0;

  /// What runs products that a library could (BackendInfo::products).
  virtual std::string products() const { return {}; }

  bool isPaged() const { return shape().pageTokens > 0; }
  int32_t slots() const { return shape().slots; }
  int32_t capacity() const { return shape().capacity; }
  int32_t vocabulary() const { return shape().vocabulary; }
  int32_t poolPages() const { return shape().poolPages; }

protected:
  /// Whether followingToken means something for a slot.
  virtual bool isFollowing(int32_t /*slot*/) const { return false; }

  // What every decoder checks of its arguments.
  Status checkSlot(int32_t slot) const;
  Status checkHistory(int32_t history) const;
  Status checkPrefill(int32_t slot, std::span<const int32_t> tokens) const;
  Status checkDecode(std::span<const int32_t> tokens,
                     const StepOutputs &outputs) const;
  Status checkMixed(std::span<const int32_t> tokens, int32_t slot,
                    std::span<const int32_t> prompt,
                    const StepOutputs &outputs) const;
  Status checkOutputs(const StepOutputs &outputs) const;
  /// The same of prefill(), whose outputs are to be had at once.
  Status checkPrefillOutputs(const StepOutputs &outputs) const;
  /// Chooses the next token of row `row` of a step from its logits, if it is
  /// wanted.
  void choose(int32_t row, const float *logits,
              const StepOutputs &outputs) const;

private:
  Status checkToken(int32_t token, int32_t slot) const;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_DECODER_H
