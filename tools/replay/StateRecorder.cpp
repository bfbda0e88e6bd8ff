//===- StateRecorder.cpp - KV memory and requests over time -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StateRecorder.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::replay;

// One page of the paged mode is what a request may waste at its end; static
// modes are held against the same.
StateRecorder::StateRecorder(ModeDecoder &mode, const Engine &engine,
                             bool sharesPrefixes, int32_t pageTokens,
                             ModeResult &result)
    : mode(mode), engine(engine), countsShared(sharesPrefixes),
      pageBytes(pageTokens * mode.decoder().tokenKvBytes()), result(result) {}

void StateRecorder::addStep(const StepStats &step) {
  groups += step.groups;
  pages += step.pages;
  ++steps;
}

KvUse StateRecorder::use() {
  Decoder &decoder = mode.decoder();
  if (countsShared || !decoder.isPaged())
    return mode.use(engine.stats().running);
  KvUse use;
  use.held = decoder.liveKvBytes();
  // Tokens that were summarised take less than their number says.
  use.live =
      std::min(engine.runningTokens() * decoder.tokenKvBytes(), use.held);
  return use;
}

void StateRecorder::integrate(double seconds) {
  double span = seconds - lastTime;
  poolSum += span * static_cast<double>(poolBytes);
  heldSum += span * static_cast<double>(kv.held);
  liveSum += span * static_cast<double>(kv.live);
  lastTime = seconds;
}

StatePoint StateRecorder::makePoint(double seconds) {
  const EngineStats &stats = engine.stats();
  StatePoint point;
  point.time = seconds;
  point.waiting = stats.waiting;
  point.running = stats.running;
  point.preempted = stats.preempted;
  point.done = result.done;
  point.refused = result.refused;
  point.poolBytes = poolBytes;
  point.heldBytes = kv.held;
  point.keptBytes = kv.kept;
  point.liveBytes = kv.live;
  point.sharedTokens = kv.sharedTokens;
  if (steps > 0) {
    point.groups = static_cast<double>(groups) / static_cast<double>(steps);
    point.pages = static_cast<double>(pages) / static_cast<double>(steps);
  }
  groups = pages = steps = 0;
  return point;
}

std::optional<StatePoint> StateRecorder::observe(double seconds) {
  bool isPoint = result.series.isDue(seconds);
  // Counting shared pages takes longer, so not every round.
  if (!isPoint && countsShared)
    return std::nullopt;
  kv = use();
  poolBytes = mode.decoder().reservedKvBytes();
  if (int32_t running = engine.stats().running; running > 0)
    result.worstHeld =
        std::max(result.worstHeld,
                 static_cast<double>(kv.held - kv.kept) /
                     static_cast<double>(kv.live + running * pageBytes));
  result.peakHeldBytes = std::max(result.peakHeldBytes, kv.held);
  result.peakLiveBytes = std::max(result.peakLiveBytes, kv.live);
  integrate(seconds);
  if (!isPoint)
    return std::nullopt;
  StatePoint point = makePoint(seconds);
  result.series.add(point);
  return point;
}

double StateRecorder::heldShare() const {
  return static_cast<double>(kv.held) /
         static_cast<double>(std::max<int64_t>(poolBytes, 1));
}

void StateRecorder::finish() {
  if (lastTime <= 0)
    return;
  result.meanPoolBytes = poolSum / lastTime;
  result.meanHeldBytes = heldSum / lastTime;
  result.meanLiveBytes = liveSum / lastTime;
}
