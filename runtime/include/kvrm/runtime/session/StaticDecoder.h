//===- StaticDecoder.h - Histories with room reserved for them --*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What paging is compared with: a decoder whose K and V are reserved for slots
// x capacity, and whose steps compute every row over all of it. Here is what
// the static baselines of all targets have in common: lengths, prompts cut in
// chunks, rows of a step. Steps themselves are run by StaticSession.h on the
// host and by PaddedSession.h on a backend.
//
// As with Session.h, a failed call leaves the histories as they were, nothing
// allocates once create() is done, and one thread at a time uses it.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_STATICDECODER_H
#define KVRM_RUNTIME_SESSION_STATICDECODER_H

#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/session/StepsAhead.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace kvrm {

class StaticDecoder : public Decoder {
public:
  const DecoderShape &shape() const override { return bounds; }
  Status prefill(int32_t slot, std::span<const int32_t> tokens,
                 const StepOutputs &outputs) override;
  Status decode(std::span<const int32_t> tokens,
                const StepOutputs &outputs) override;
  void expect(int32_t, int32_t) override {}
  Status release(int32_t slot) override;
  Status trim(int32_t slot, int32_t length) override;
  /// Copies, as there is nothing to share.
  Status alias(int32_t target, int32_t source, int32_t tokens) override;
  Status park(int32_t slot, int32_t place) override;
  Status unpark(int32_t place, int32_t slot) override;
  Status discard(int32_t place) override;
  int32_t length(int32_t slot) const override;
  int32_t pagesNeeded(int32_t, int32_t) const override { return 0; }
  int32_t freePages() const override { return 0; }
  int64_t liveKvBytes() const override;
  const StepStats &lastStep() const override { return last; }

protected:
  /// The rows of a step, an element a row. An idle row has count 0; it computes
  /// all the same, at its slot's next position, where the next token will
  /// overwrite what it writes.
  struct StepRows {
    int32_t queries = 0;
    /// [rows][queries]; of a decode step, followingToken too.
    std::vector<int32_t> tokens;
    std::vector<int32_t> positions;
    std::vector<int32_t> counts;
    std::vector<int32_t> slots;
  };

  StaticDecoder() = default;

  /// Sets the shape: slots, capacity, vocabulary, prefillChunk. One that
  /// chooses tokens itself needs logits that nobody else wants.
  void setShape(const DecoderShape &shape, bool choosesTokens);

  /// Runs one step, writes what `outputs` wants of its active rows, and adds to
  /// `stats` the step and what it knows of it.
  virtual Status runStep(StepEntry which, const StepRows &rows,
                         const StepOutputs &outputs, StepStats &stats) = 0;
  /// Copies the first `tokens` tokens of a slot to another.
  virtual Status copyTokens(int32_t target, int32_t source, int32_t tokens) = 0;

  bool isFollowing(int32_t slot) const override {
    return ahead.rowOf(slot) >= 0;
  }

  void setLength(int32_t slot, int32_t tokens) {
    lengths[static_cast<size_t>(slot)] = tokens;
  }
  /// Chooses the next tokens of the rows that are not idle, if wanted.
  void chooseActive(const StepRows &step, const float *logits,
                    const StepOutputs &outputs) const;
  /// Where steps write logits that nobody else wants: [slots][vocabulary].
  float *spareLogits() { return unwanted.data(); }

private:
  StepRows &rowsOf(StepEntry which) { return rows[static_cast<size_t>(which)]; }

  DecoderShape bounds;
  std::vector<int32_t> lengths;
  std::vector<float> unwanted;
  std::array<StepRows, plannedEntries> rows;
  StepStats last;

protected:
  StepsAhead ahead;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_STATICDECODER_H
