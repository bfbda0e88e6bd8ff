//===- Recorder.cpp - When requests got their tokens ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Recorder.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::replay;

Recorder::Recorder(const Clock &clock, const Workload &work, bool keepsTokens,
                   Timeline *timeline, ModeResult &result)
    : clock(clock), work(work), keepsTokens(keepsTokens), timeline(timeline),
      result(result), origin(clock.now()), tracks(work.items.size()) {
  if (keepsTokens)
    result.tokens.resize(work.items.size());
  // Every token but the first of a request has a latency.
  constexpr int64_t most = 1 << 22;
  result.itl.reserve(static_cast<size_t>(std::min(work.outputTokens, most)));
  result.ttft.reserve(work.items.size());
}

void Recorder::submitted(size_t item, int64_t due) {
  items.push_back(item);
  tracks[item].due = due;
  tracks[item].isSubmitted = true;
}

void Recorder::onToken(RequestId id, int32_t, const TokenLogprobs *) {
  size_t item = items[static_cast<size_t>(id)];
  Track &track = tracks[item];
  int64_t time = now();
  if (track.firstToken < 0) {
    track.firstToken = time;
    result.ttft.push_back({static_cast<float>(toSeconds(track.due)),
                           toMilliseconds(time - track.due)});
    result.promptTokens += work.items[item].promptTokens;
  } else {
    result.itl.push_back({static_cast<float>(toSeconds(time)),
                          toMilliseconds(time - track.lastToken)});
  }
  track.lastToken = time;
  ++result.doneTokens;
}

void Recorder::onFinish(RequestResult &finished) {
  size_t item = items[static_cast<size_t>(finished.id)];
  Track &track = tracks[item];
  track.isDone = true;
  if (finished.finish == FinishReason::Failed) {
    ++result.failed;
    if (result.firstError.empty())
      result.firstError = finished.error;
  } else {
    ++result.done;
  }
  if (finished.start >= 0)
    result.queueWait.push_back(
        toMilliseconds(finished.start - origin - track.due));
  if (timeline)
    timeline->request(item, finished, track.due, origin);
  if (keepsTokens && finished.finish != FinishReason::Failed)
    result.tokens[item] = std::move(finished.tokens);
}

int64_t Recorder::lastToken() const {
  int64_t last = 0;
  for (const Track &track : tracks)
    last = std::max(last, track.lastToken);
  return last;
}

void Recorder::drawUnfinished(int64_t end) const {
  if (!timeline)
    return;
  for (size_t i = 0; i < tracks.size(); ++i)
    if (tracks[i].isSubmitted && !tracks[i].isDone)
      timeline->unfinished(i, tracks[i].due, tracks[i].firstToken, end);
}
