//===- Runner.cpp - One mode serves a workload ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Runner.h"
#include "Recorder.h"
#include "StateRecorder.h"

#include <algorithm>
#include <chrono>
#include <thread>

using namespace kvrm;
using namespace kvrm::replay;

void SteadyWaitableClock::wait(int64_t nanoseconds) {
  std::this_thread::sleep_for(std::chrono::nanoseconds(nanoseconds));
}

namespace {

class Runner {
public:
  Runner(const ModeSpec &mode, ModeDecoder &decoder, const Workload &work,
         const RunSettings &settings, WaitableClock &clock);

  Status serve();
  ModeResult finish();

private:
  Status submitDue();
  Status submit(const WorkItem &item);
  void observe();
  bool isOver();
  void wait();
  Status serveRound();
  void addStep(int64_t start, const RoundStats &round);
  void drawRound(int64_t start, const RoundStats &round);
  Status fail(const Status &status) const {
    return makeError(status.code(), mode.name, ": ", status.message());
  }

  const ModeSpec &mode;
  ModeDecoder &opened;
  const Workload &work;
  const RunSettings &settings;
  WaitableClock &clock;
  ModeResult result;
  Recorder recorder;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<StateRecorder> state;
  size_t next = 0;         ///< item to submit
  int64_t now = 0;         ///< when the runner last looked, of the run
  int64_t lastMove = 0;    ///< when a token was last computed or waited for
  int64_t idle = 0;        ///< nanoseconds
  int64_t preemptions = 0; ///< that the timeline has
};

} // namespace

static ModeResult describe(const ModeSpec &mode, const Decoder &decoder) {
  ModeResult result;
  result.mode = mode.name;
  result.packages = mode.packages;
  result.slots = mode.slots;
  result.capacity = decoder.shape().capacity;
  result.poolPages = decoder.shape().poolPages;
  result.pageTokens = decoder.shape().pageTokens;
  result.budgetBytes = mode.budgetBytes;
  result.tokenKvBytes = decoder.tokenKvBytes();
  return result;
}

Runner::Runner(const ModeSpec &mode, ModeDecoder &decoder, const Workload &work,
               const RunSettings &settings, WaitableClock &clock)
    : mode(mode), opened(decoder), work(work), settings(settings), clock(clock),
      result(describe(mode, decoder.decoder())),
      recorder(clock, work, settings.keepsTokens, settings.timeline, result) {}

Status Runner::serve() {
  Expected<std::unique_ptr<Engine>> created =
      Engine::create(opened.decoder(), clock, settings.engine, &recorder);
  KVRM_TRY(created.status());
  engine = created.take();
  state = std::make_unique<StateRecorder>(opened, *engine,
                                          settings.engine.sharesPrefixes,
                                          settings.pageTokens, result);
  while (true) {
    KVRM_TRY(submitDue());
    observe();
    if (isOver())
      return Status::ok();
    if (engine->isIdle())
      wait();
    else
      KVRM_TRY(serveRound());
  }
}

/// Submits what came due, or, saturated, what the queue takes.
Status Runner::submitDue() {
  now = recorder.now();
  while (next < work.items.size() &&
         (settings.isSaturated ? engine->canSubmit()
                               : work.items[next].due <= now)) {
    KVRM_TRY(submit(work.items[next]));
    ++next;
    now = recorder.now();
  }
  return Status::ok();
}

Status Runner::submit(const WorkItem &item) {
  RequestSpec spec;
  spec.prompt = work.promptOf(next);
  spec.maxTokens = item.outputTokens;
  Expected<RequestId> id = engine->submit(std::move(spec));
  if (id) {
    recorder.submitted(next, settings.isSaturated ? now : item.due);
    return Status::ok();
  }
  if (id.status().code() != StatusCode::ResourceExhausted)
    return makeError(id.status().code(), mode.name, ": request ", next, ": ",
                     id.status().message());
  ++result.refused;
  if (settings.timeline)
    settings.timeline->instant("refused", now);
  return Status::ok();
}

void Runner::observe() {
  std::optional<StatePoint> point = state->observe(toSeconds(now));
  if (point && settings.timeline)
    settings.timeline->counters(*point);
  if (settings.progress)
    settings.progress->onRound({settings.label, work, result, engine->stats(),
                                settings.isSaturated, toSeconds(now),
                                state->heldShare()});
}

bool Runner::isOver() {
  bool isDone = next == work.items.size() && engine->isIdle();
  result.isCut = !isDone && settings.limitSeconds > 0 &&
                 toSeconds(now) >= settings.limitSeconds;
  return isDone || result.isCut;
}

/// Waits for the next request, in short naps, so that the state is seen and the
/// limit holds.
void Runner::wait() {
  constexpr int64_t longest = 20'000'000;
  clock.wait(std::clamp<int64_t>(work.items[next].due - now, 0, longest));
  lastMove = recorder.now();
  idle += lastMove - now;
}

Status Runner::serveRound() {
  int64_t start = recorder.now();
  if (Status status = engine->step(); !status.isOk())
    return fail(status);
  const RoundStats &round = engine->lastRound();
  result.prefillNanoseconds += round.prefillNanoseconds;
  result.decodeNanoseconds += round.decodeNanoseconds;
  if (round.decodeTokens > 0)
    addStep(start, round);
  if (settings.timeline)
    drawRound(start, round);
  if (round.decodeTokens > 0 || round.prefillTokens > 0)
    lastMove = recorder.now();
  // No promise is broken here by input: a round that does nothing while
  // requests run is an engine that hangs.
  constexpr int64_t patience = 30'000'000'000;
  if (recorder.now() - lastMove > patience)
    return makeError(StatusCode::Internal, mode.name,
                     ": no token for 30 s, with ", engine->stats().running,
                     " requests running and ", engine->stats().waiting,
                     " waiting");
  return Status::ok();
}

void Runner::addStep(int64_t start, const RoundStats &round) {
  const StepStats &step = opened.decoder().lastStep();
  result.steps.push_back(
      {static_cast<float>(toSeconds(start)),
       toMilliseconds(round.decodeNanoseconds),
       static_cast<float>(static_cast<double>(step.planNanoseconds) / 1e3),
       step.activeRows, step.groups, static_cast<int32_t>(step.pages),
       static_cast<int32_t>(step.committedBytes),
       static_cast<int32_t>(step.stageCopies)});
  state->addStep(step);
}

void Runner::drawRound(int64_t start, const RoundStats &round) {
  settings.timeline->round(start, round);
  int64_t count = engine->stats().parked + engine->stats().recomputed;
  for (; preemptions < count; ++preemptions)
    settings.timeline->instant("preempted", start);
}

ModeResult Runner::finish() {
  int64_t end = recorder.now();
  result.seconds = toSeconds(end);
  // Waiting and looking around after the last token is not serving.
  if (int64_t last = recorder.lastToken(); !result.isCut && last > 0)
    result.seconds = toSeconds(last);
  result.idleSeconds = toSeconds(idle);
  result.unfinished = static_cast<int64_t>(work.items.size()) - result.done -
                      result.refused - result.failed;
  recorder.drawUnfinished(end);
  state->finish();
  result.stats = engine->stats();
  if (const BucketedDecoder *buckets = opened.buckets()) {
    result.bucketMoves = buckets->moves();
    result.bucketMovedBytes = buckets->movedBytes();
  }
  if (settings.progress)
    settings.progress->onEnd();
  return std::move(result);
}

Expected<ModeResult> replay::runWorkload(const ModeSpec &mode,
                                         ModeDecoder &decoder,
                                         const Workload &work,
                                         const RunSettings &settings,
                                         WaitableClock &clock) {
  Runner runner(mode, decoder, work, settings, clock);
  KVRM_TRY(runner.serve());
  return runner.finish();
}
