//===- BatchRunner.h - Requests through a session's slots -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs a list of requests to their end: admits waiting ones into free slots in
// order, prefills them, decodes all that are active together, and gives a slot
// to the next request as soon as one ends. A request is admitted once the pool
// can hold its prompt and all tokens that it may generate beside what those
// before it may still need, so that no step of a run is out of pages.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_BATCHRUNNER_H
#define KVRM_RUNTIME_BATCHRUNNER_H

#include "kvrm/runtime/Sampler.h"
#include "kvrm/runtime/Session.h"
#include "kvrm/runtime/Status.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace kvrm {

struct GenerationRequest {
  std::vector<int32_t> prompt;
  int32_t maxTokens = 128; ///< to generate, one or more
  SamplingSettings sampling;
  std::vector<int32_t> stopTokens; ///< ends of text; not part of the result
};

enum class FinishReason { None, Stop, MaxTokens, Capacity };
/// "stop", "max-tokens" or "capacity"; "none" for a request that has not ended.
const char *finishReasonName(FinishReason reason);

struct GenerationResult {
  std::vector<int32_t> tokens;
  FinishReason finish = FinishReason::None;
  int64_t waitNanoseconds = 0; ///< from run() to its prefill
  int64_t prefillNanoseconds = 0;
  int64_t firstTokenNanoseconds = 0; ///< from run()
  int64_t totalNanoseconds = 0;      ///< from run()
};

/// What a run came to.
struct BatchTotals {
  int64_t prefillTokens = 0;
  int64_t prefillNanoseconds = 0;
  int64_t decodeTokens = 0; ///< that decode steps made
  int64_t decodeNanoseconds = 0;
  std::vector<int64_t> stepNanoseconds; ///< of every decode step
  int64_t peakLiveKvBytes = 0;
};

class BatchRunner {
public:
  explicit BatchRunner(Session &session) : session(session) {}

  /// Adds a request and returns its index. Errors: InvalidArgument for one that
  /// can never run (empty or too long prompt, bad token or setting, more pages
  /// than the pool has).
  Expected<int32_t> add(GenerationRequest request);

  /// Called with every token of a request, as it is made.
  using TokenObserver = std::function<void(int32_t request, int32_t token)>;
  /// Called when a request has ended; its result is complete.
  using FinishObserver = std::function<void(int32_t request)>;
  void observe(TokenObserver token, FinishObserver finish) {
    onToken = std::move(token);
    onFinish = std::move(finish);
  }

  /// Runs all requests to their end. All slots are released after, also when it
  /// fails.
  Status run();

  const GenerationRequest &request(int32_t index) const {
    return requests[static_cast<size_t>(index)];
  }
  const GenerationResult &result(int32_t index) const {
    return results[static_cast<size_t>(index)];
  }
  int32_t size() const { return static_cast<int32_t>(requests.size()); }
  const BatchTotals &totals() const { return sums; }

private:
  struct Active {
    int32_t request = -1; ///< -1 = the slot is free
    int32_t next = -1;    ///< token that the next step appends
    int64_t pages = 0;    ///< most that the request may need
    std::optional<Sampler> sampler;
  };

  Status runAll();
  Status admit(int32_t slot, int32_t index);
  Status take(int32_t slot, std::span<const float> logits);
  void finish(int32_t slot, FinishReason reason);
  int64_t pagesOf(const GenerationRequest &request) const;
  int64_t elapsed() const;

  Session &session;
  std::vector<GenerationRequest> requests;
  std::vector<GenerationResult> results;
  std::vector<Active> slots;
  std::vector<float> logits;
  int64_t committedPages = 0;
  int64_t startNanoseconds = 0;
  TokenObserver onToken;
  FinishObserver onFinish;
  BatchTotals sums;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_BATCHRUNNER_H
