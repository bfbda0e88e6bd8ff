//===- Verification.cpp - Tokens of a run against those alone ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Verification.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::replay;

namespace {

/// Takes the tokens of the one request of an engine.
class Single final : public EngineObserver {
public:
  void onFinish(RequestResult &finished) override {
    tokens = std::move(finished.tokens);
  }
  std::vector<int32_t> tokens;
};

} // namespace

/// The tokens that a request gets alone.
static Expected<std::vector<int32_t>>
runAlone(Decoder &decoder, const Workload &work, size_t item) {
  SteadyClock clock;
  Single single;
  Expected<std::unique_ptr<Engine>> engine =
      Engine::create(decoder, clock, EngineConfig(), &single);
  KVRM_TRY(engine.status());
  RequestSpec spec;
  spec.prompt = work.promptOf(item);
  spec.maxTokens = work.items[item].outputTokens;
  KVRM_TRY((*engine)->submit(std::move(spec)).status());
  while (!(*engine)->isIdle())
    KVRM_TRY((*engine)->step());
  return std::move(single.tokens);
}

Expected<Verification>
replay::verifyTokens(Decoder &decoder, const Workload &work,
                     const std::vector<std::vector<int32_t>> &tokens,
                     int64_t count, ProgressObserver *progress) {
  std::vector<size_t> finished;
  for (size_t item = 0; item < tokens.size(); ++item)
    if (!tokens[item].empty())
      finished.push_back(item);
  auto all = static_cast<int64_t>(finished.size());
  count = std::min(count, all);
  Verification out;
  for (; out.requests < count; ++out.requests) {
    if (progress)
      progress->onVerify(out.requests, count);
    size_t item = finished[static_cast<size_t>(out.requests * all / count)];
    Expected<std::vector<int32_t>> alone = runAlone(decoder, work, item);
    KVRM_TRY(alone.status());
    if (*alone == tokens[item])
      continue;
    if (out.mismatches++ > 0)
      continue;
    auto at = std::ranges::mismatch(*alone, tokens[item]).in1 - alone->begin();
    out.first = "request " + std::to_string(item) + " differs at token " +
                std::to_string(at) + " of " +
                std::to_string(tokens[item].size());
  }
  if (progress)
    progress->onEnd();
  return out;
}
