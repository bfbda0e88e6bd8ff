//===- Scorer.h - What a model makes of given tokens ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Feeds given tokens instead of sampled ones, and keeps what the model made of
// them: a prompt by prefill, every later token by one decode step. Sequences
// run in slots together, and a slot that is done takes the next sequence. If
// the decoder has a mixed step, prompts are computed in that while other slots
// decode.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_MEASURE_SCORER_H
#define KVRM_TOOLS_MEASURE_SCORER_H

#include "LogitsFile.h"

#include "kvrm/runtime/session/Decoder.h"

#include <span>
#include <vector>

namespace kvrm::measure {

struct Sequence {
  std::vector<int32_t> ids;
  int32_t prompt = 1; ///< tokens fed by prefill, 1..ids
  /// Most likely token after the prompt, and after each decoded token.
  std::vector<int32_t> choices;
  double logLikelihood = 0; ///< of the decoded tokens

  int64_t steps() const {
    return static_cast<int64_t>(ids.size()) - prompt + 1;
  }
  int64_t decoded() const { return steps() - 1; }
};

class Scorer {
public:
  /// The decoder is empty, `file` may be null; all must outlive the scorer.
  Scorer(Decoder &decoder, std::vector<Sequence> &sequences, LogitsFile *file);

  /// Errors: the decoder's and the file's, and Internal for logits that are not
  /// finite.
  Status run();

  int64_t peakLiveBytes = 0; ///< of KV
  int64_t decodeSteps = 0;
  int64_t decodeNanoseconds = 0;

private:
  Status fillSlot(size_t slot);
  Status start(size_t slot);
  Status finishPrompt(const float *row);
  Status step();
  std::span<const int32_t> promptLeft() const;
  Status take(size_t index, const float *row);

  Decoder &decoder;
  std::vector<Sequence> &sequences;
  LogitsFile *file;
  size_t waiting = 0;          ///< sequence that starts next
  std::vector<size_t> running; ///< [slots], `idle` = none
  std::vector<int32_t> tokens; ///< [slots] of the next step, -1 = none
  std::vector<float> logits;   ///< [slots + 1][vocabulary]
  size_t joining;              ///< slot whose prompt is computed, or `idle`
};

} // namespace kvrm::measure

#endif // KVRM_TOOLS_MEASURE_SCORER_H
