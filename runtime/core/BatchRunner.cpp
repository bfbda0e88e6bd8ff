//===- BatchRunner.cpp - Requests through a session's slots -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/BatchRunner.h"

#include <algorithm>
#include <chrono>

using namespace kvrm;

static int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

const char *kvrm::finishReasonName(FinishReason reason) {
  switch (reason) {
  case FinishReason::None:
    return "none";
  case FinishReason::Stop:
    return "stop";
  case FinishReason::MaxTokens:
    return "max-tokens";
  case FinishReason::Capacity:
    return "capacity";
  }
  return "?";
}

int64_t BatchRunner::elapsed() const { return now() - startNanoseconds; }

/// Most pages that a request may hold. Its last token is not appended.
int64_t BatchRunner::pagesOf(const GenerationRequest &request) const {
  if (!session.blockPager())
    return 0;
  int64_t tokens = std::min<int64_t>(
      static_cast<int64_t>(request.prompt.size()) + request.maxTokens - 1,
      session.capacity());
  int32_t page = session.manifest().pageTokens;
  return (tokens + page - 1) / page;
}

Expected<int32_t> BatchRunner::add(GenerationRequest request) {
  auto fail = [&](const auto &...parts) {
    return invalidArgument("request ", size(), ": ", parts...);
  };
  if (request.prompt.empty())
    return fail("its prompt has no tokens");
  if (request.prompt.size() > static_cast<size_t>(session.capacity()))
    return fail("prompt of ", request.prompt.size(),
                " tokens exceeds the capacity ", session.capacity());
  for (int32_t token : request.prompt)
    if (token < 0 || token >= session.vocabulary())
      return fail("token ", token, " is outside 0..", session.vocabulary() - 1);
  if (request.maxTokens < 1)
    return fail("cannot generate ", request.maxTokens, " tokens");
  if (pagesOf(request) > session.poolPages())
    return fail("its ", request.prompt.size(), " prompt tokens and up to ",
                request.maxTokens, " new ones need ", pagesOf(request),
                " KV pages, the pool has ", session.poolPages());
  Status status =
      Sampler::create(session.vocabulary(), request.sampling).status();
  if (!status.isOk())
    return fail(status.message());
  requests.push_back(std::move(request));
  results.emplace_back();
  return size() - 1;
}

Status BatchRunner::run() {
  slots = std::vector<Active>(static_cast<size_t>(session.slots()));
  logits.resize(static_cast<size_t>(session.slots()) *
                static_cast<size_t>(session.vocabulary()));
  sums = BatchTotals();
  committedPages = 0;
  startNanoseconds = now();
  for (int32_t slot = 0; slot < session.slots(); ++slot)
    if (session.length(slot) != 0)
      return invalidArgument("slot ", slot, " is in use");
  Status status = runAll();
  for (int32_t slot = 0; slot < session.slots(); ++slot)
    KVRM_TRY(session.release(slot));
  return status;
}

Status BatchRunner::runAll() {
  std::vector<int32_t> tokens(slots.size());
  int32_t waiting = 0;
  while (true) {
    for (int32_t slot = 0; slot < session.slots() && waiting < size(); ++slot) {
      if (slots[static_cast<size_t>(slot)].request >= 0)
        continue;
      int64_t pages = pagesOf(requests[static_cast<size_t>(waiting)]);
      if (committedPages + pages > session.poolPages())
        break; // in order: nobody overtakes
      KVRM_TRY(admit(slot, waiting++));
    }
    int32_t active = 0;
    for (size_t i = 0; i < slots.size(); ++i) {
      tokens[i] = slots[i].request >= 0 ? slots[i].next : -1;
      active += tokens[i] >= 0;
    }
    if (active == 0) {
      if (waiting == size())
        return Status::ok();
      continue; // those admitted ended with their first token
    }
    int64_t start = now();
    KVRM_TRY(session.decode(tokens, logits.data()));
    int64_t spent = now() - start;
    sums.decodeTokens += active;
    sums.decodeNanoseconds += spent;
    sums.stepNanoseconds.push_back(spent);
    sums.peakLiveKvBytes =
        std::max(sums.peakLiveKvBytes, session.liveKvBytes());
    for (int32_t slot = 0; slot < session.slots(); ++slot)
      if (tokens[static_cast<size_t>(slot)] >= 0)
        KVRM_TRY(take(slot, std::span(logits).subspan(
                                static_cast<size_t>(slot) *
                                    static_cast<size_t>(session.vocabulary()),
                                static_cast<size_t>(session.vocabulary()))));
  }
}

/// Prefills a request and takes its first token.
Status BatchRunner::admit(int32_t slot, int32_t index) {
  const GenerationRequest &request = requests[static_cast<size_t>(index)];
  Active &active = slots[static_cast<size_t>(slot)];
  GenerationResult &result = results[static_cast<size_t>(index)];
  result = GenerationResult();
  result.tokens.reserve(
      static_cast<size_t>(std::min(request.maxTokens, session.capacity())));
  Expected<Sampler> sampler =
      Sampler::create(session.vocabulary(), request.sampling);
  KVRM_TRY(sampler.status());
  active.request = index;
  active.sampler.emplace(sampler.take());
  active.pages = pagesOf(request);
  committedPages += active.pages;
  result.waitNanoseconds = elapsed();
  KVRM_TRY(session.prefill(slot, request.prompt, logits.data()));
  result.prefillNanoseconds = elapsed() - result.waitNanoseconds;
  result.firstTokenNanoseconds = elapsed();
  sums.prefillTokens += static_cast<int64_t>(request.prompt.size());
  sums.prefillNanoseconds += result.prefillNanoseconds;
  sums.peakLiveKvBytes = std::max(sums.peakLiveKvBytes, session.liveKvBytes());
  return take(
      slot, std::span(logits).first(static_cast<size_t>(session.vocabulary())));
}

/// Samples the next token of a slot and ends its request if that is due.
Status BatchRunner::take(int32_t slot, std::span<const float> row) {
  Active &active = slots[static_cast<size_t>(slot)];
  const GenerationRequest &request =
      requests[static_cast<size_t>(active.request)];
  GenerationResult &result = results[static_cast<size_t>(active.request)];
  int32_t token = active.sampler->sample(row);
  if (token < 0)
    return makeError(StatusCode::Internal, "request ", active.request,
                     ": the model's logits are not numbers at position ",
                     session.length(slot) - 1);
  if (std::ranges::find(request.stopTokens, token) !=
      request.stopTokens.end()) {
    finish(slot, FinishReason::Stop);
    return Status::ok();
  }
  result.tokens.push_back(token);
  active.next = token;
  if (onToken)
    onToken(active.request, token);
  if (static_cast<int32_t>(result.tokens.size()) >= request.maxTokens)
    finish(slot, FinishReason::MaxTokens);
  else if (session.length(slot) >= session.capacity())
    finish(slot, FinishReason::Capacity);
  return Status::ok();
}

void BatchRunner::finish(int32_t slot, FinishReason reason) {
  Active &active = slots[static_cast<size_t>(slot)];
  int32_t index = active.request;
  results[static_cast<size_t>(index)].finish = reason;
  results[static_cast<size_t>(index)].totalNanoseconds = elapsed();
  committedPages -= active.pages;
  active = Active();
  Status released = session.release(slot);
  KVRM_CHECK(released.isOk(), "a slot in range can be released");
  if (onFinish)
    onFinish(index);
}
