//===- ReplayRunner.cpp - One mode serves a workload ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ReplayRunner.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

using namespace kvrm;
using namespace kvrm::run;

static double seconds(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e9;
}

static float milliseconds(int64_t nanoseconds) {
  return static_cast<float>(static_cast<double>(nanoseconds) / 1e6);
}

namespace {

/// Keeps times of tokens as they come.
class Recorder final : public EngineObserver {
public:
  struct Track {
    int64_t due = 0;
    int64_t firstToken = -1;
    int64_t lastToken = -1;
    bool isSubmitted = false;
    bool isDone = false;
  };

  Recorder(const Clock &clock, const Workload &work,
           const RunSettings &settings, ModeResult &result)
      : tracks(work.items.size()), clock(clock), work(work), settings(settings),
        result(result), origin(clock.now()) {
    if (settings.keepsTokens)
      result.tokens.resize(work.items.size());
    // Every token but the first of a request has a latency.
    constexpr int64_t most = 1 << 22;
    result.itl.reserve(static_cast<size_t>(std::min(work.outputTokens, most)));
    result.ttft.reserve(work.items.size());
  }

  int64_t now() const { return clock.now() - origin; }
  int64_t start() const { return origin; }

  void submitted(size_t item, int64_t due) {
    items.push_back(item);
    tracks[item].due = due;
    tracks[item].isSubmitted = true;
  }

  void onToken(RequestId id, int32_t) override {
    size_t item = items[static_cast<size_t>(id)];
    Track &track = tracks[item];
    int64_t time = now();
    if (track.firstToken < 0) {
      track.firstToken = time;
      result.ttft.push_back({static_cast<float>(seconds(track.due)),
                             milliseconds(time - track.due)});
      result.promptTokens += work.items[item].promptTokens;
    } else {
      result.itl.push_back({static_cast<float>(seconds(time)),
                            milliseconds(time - track.lastToken)});
    }
    track.lastToken = time;
    ++result.doneTokens;
  }

  void onFinish(RequestResult &finished) override {
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
          milliseconds(finished.start - origin - track.due));
    if (settings.timeline)
      settings.timeline->request(item, finished, track.due, origin);
    if (settings.keepsTokens && finished.finish != FinishReason::Failed)
      result.tokens[item] = std::move(finished.tokens);
  }

  std::vector<Track> tracks; ///< [items]

private:
  const Clock &clock;
  const Workload &work;
  const RunSettings &settings;
  ModeResult &result;
  int64_t origin;
  std::vector<size_t> items; ///< by request id
};

/// Tells how far a run is.
class Progress {
public:
  explicit Progress(const RunSettings &settings) : settings(settings) {}
  ~Progress() {
    if (isDrawn)
      std::fprintf(stderr, "\r\033[K");
  }

  void update(const ModeResult &result, const Workload &work,
              const EngineStats &stats, double time, double heldShare) {
    double interval = settings.showsLine ? 0.25 : 10;
    if ((!settings.showsLine && !settings.tellsLines) || time < next)
      return;
    next = time + interval;
    int64_t ended = result.done + result.refused + result.failed;
    auto all = static_cast<int64_t>(work.items.size());
    // What is left takes as long as the schedule says, or as its share of all
    // tokens took so far, whichever is longer.
    auto made = static_cast<double>(result.doneTokens + result.promptTokens);
    auto total = static_cast<double>(work.promptTokens + work.outputTokens);
    double left = made > 0 ? time * (total - made) / made : 0;
    if (!settings.isSaturated)
      left = std::max(0.0, work.scheduledSeconds() - time);
    std::fprintf(
        stderr,
        "%skvrm-run: %s: %.0f s, %lld of %lld requests, %lld refused, %.0f "
        "tok/s, %d running, %d waiting, KV held %.0f%%, %.0f s left%s",
        settings.showsLine ? "\r\033[K" : "", settings.label.c_str(), time,
        static_cast<long long>(ended), static_cast<long long>(all),
        static_cast<long long>(result.refused),
        static_cast<double>(result.doneTokens) / std::max(time, 1e-3),
        stats.running, stats.waiting + stats.preempted, 100 * heldShare, left,
        settings.showsLine ? "" : "\n");
    std::fflush(stderr);
    isDrawn = settings.showsLine;
  }

private:
  const RunSettings &settings;
  double next = 0;
  bool isDrawn = false;
};

/// Integrals of the state over time, for means.
struct Means {
  double poolBytes = 0;
  double heldBytes = 0;
  double liveBytes = 0;
  double time = 0;
};

} // namespace

Expected<ModeResult> run::runWorkload(const ModeSpec &mode, ModeDecoder &opened,
                                      const Workload &work,
                                      const RunSettings &settings) {
  Decoder &decoder = opened.decoder();
  ModeResult result;
  result.mode = mode.name;
  result.packages = mode.packages;
  result.slots = mode.slots;
  result.capacity = decoder.shape().capacity;
  result.poolPages = decoder.shape().poolPages;
  result.pageTokens = decoder.shape().pageTokens;
  result.budgetBytes = mode.budgetBytes;
  result.tokenKvBytes = decoder.tokenKvBytes();

  SteadyClock clock;
  Recorder recorder(clock, work, settings, result);
  Expected<std::unique_ptr<Engine>> created =
      Engine::create(decoder, clock, settings.engine, &recorder);
  KVRM_TRY(created.status());
  Engine &engine = **created;
  Timeline *timeline = settings.timeline;
  Progress progress(settings);
  Means means;
  size_t next = 0;
  int64_t lastMove = 0;
  int64_t idle = 0;
  int64_t preemptions = 0;
  // Since the last point of the series.
  int64_t groups = 0;
  int64_t pages = 0;
  int64_t steps = 0;
  bool isExact = settings.engine.sharesPrefixes;
  // One page of the paged mode is what a request may waste at its end; static
  // modes are held against the same.
  int64_t pageBytes = int64_t(settings.pageTokens) * result.tokenKvBytes;

  auto observe = [&](int64_t now) {
    double time = seconds(now);
    bool isPoint = result.series.isDue(time);
    const EngineStats &stats = engine.stats();
    // Counting shared pages takes longer, so not every round.
    if (!isPoint && isExact)
      return;
    KvUse use;
    if (isExact || !decoder.isPaged()) {
      use = opened.use(stats.running);
    } else {
      use.held = decoder.liveKvBytes();
      // Tokens that were summarised take less than their number says.
      use.live =
          std::min(engine.runningTokens() * result.tokenKvBytes, use.held);
    }
    int64_t pool = decoder.reservedKvBytes();
    double worst = static_cast<double>(use.held - use.kept) /
                   static_cast<double>(use.live + stats.running * pageBytes);
    if (stats.running > 0)
      result.worstHeld = std::max(result.worstHeld, worst);
    result.peakHeldBytes = std::max(result.peakHeldBytes, use.held);
    result.peakLiveBytes = std::max(result.peakLiveBytes, use.live);
    double span = time - means.time;
    means.poolBytes += span * static_cast<double>(pool);
    means.heldBytes += span * static_cast<double>(use.held);
    means.liveBytes += span * static_cast<double>(use.live);
    means.time = time;
    progress.update(result, work, stats, time,
                    static_cast<double>(use.held) /
                        static_cast<double>(std::max<int64_t>(pool, 1)));
    if (!isPoint)
      return;
    StatePoint point;
    point.time = time;
    point.waiting = stats.waiting;
    point.running = stats.running;
    point.preempted = stats.preempted;
    point.done = result.done;
    point.refused = result.refused;
    point.poolBytes = pool;
    point.heldBytes = use.held;
    point.keptBytes = use.kept;
    point.liveBytes = use.live;
    point.sharedTokens = use.sharedTokens;
    if (steps > 0) {
      point.groups = static_cast<double>(groups) / static_cast<double>(steps);
      point.pages = static_cast<double>(pages) / static_cast<double>(steps);
    }
    groups = pages = steps = 0;
    result.series.add(point);
    if (timeline)
      timeline->counters(point);
  };

  while (true) {
    int64_t now = recorder.now();
    while (next < work.items.size() &&
           (settings.isSaturated ? engine.canSubmit()
                                 : work.items[next].due <= now)) {
      const WorkItem &item = work.items[next];
      int64_t due = settings.isSaturated ? now : item.due;
      RequestSpec spec;
      spec.prompt = work.promptOf(next);
      spec.maxTokens = item.outputTokens;
      Expected<RequestId> id = engine.submit(std::move(spec));
      if (id) {
        recorder.submitted(next, due);
      } else if (id.status().code() == StatusCode::ResourceExhausted) {
        ++result.refused;
        if (timeline)
          timeline->instant("refused", now);
      } else {
        return makeError(id.status().code(), mode.name, ": request ", next,
                         ": ", id.status().message());
      }
      ++next;
      now = recorder.now();
    }
    observe(now);
    if (settings.limitSeconds > 0 && seconds(now) >= settings.limitSeconds &&
        (next < work.items.size() || !engine.isIdle())) {
      result.isCut = true;
      break;
    }
    if (engine.isIdle()) {
      if (next == work.items.size())
        break;
      // Short naps, so that the state is seen and the limit holds.
      int64_t nap = std::clamp<int64_t>(work.items[next].due - now, 0,
                                        int64_t(20'000'000));
      std::this_thread::sleep_for(std::chrono::nanoseconds(nap));
      idle += recorder.now() - now;
      lastMove = recorder.now();
      continue;
    }
    int64_t start = recorder.now();
    Status status = engine.step();
    if (!status.isOk())
      return makeError(status.code(), mode.name, ": ", status.message());
    const RoundStats &round = engine.lastRound();
    result.prefillNanoseconds += round.prefillNanoseconds;
    result.decodeNanoseconds += round.decodeNanoseconds;
    if (round.decodeTokens > 0) {
      const StepStats &step = decoder.lastStep();
      result.steps.push_back(
          {static_cast<float>(seconds(start)),
           milliseconds(round.decodeNanoseconds),
           static_cast<float>(static_cast<double>(step.planNanoseconds) / 1e3),
           step.activeRows, step.groups, static_cast<int32_t>(step.pages),
           static_cast<int32_t>(step.committedBytes),
           static_cast<int32_t>(step.stageCopies)});
      groups += step.groups;
      pages += step.pages;
      ++steps;
    }
    if (timeline) {
      timeline->round(start, round);
      int64_t count = engine.stats().parked + engine.stats().recomputed;
      for (; preemptions < count; ++preemptions)
        timeline->instant("preempted", start);
    }
    if (round.decodeTokens > 0 || round.prefillTokens > 0)
      lastMove = recorder.now();
    // No promise is broken here by input: a round that does nothing while
    // requests run is an engine that hangs.
    if (recorder.now() - lastMove > int64_t(30'000'000'000))
      return makeError(StatusCode::Internal, mode.name,
                       ": no token for 30 s, with ", engine.stats().running,
                       " requests running and ", engine.stats().waiting,
                       " waiting");
  }

  int64_t end = recorder.now();
  result.seconds = seconds(end);
  if (!result.isCut) {
    // Sleeping and looking around after the last token is not serving.
    int64_t lastToken = 0;
    for (const Recorder::Track &track : recorder.tracks)
      lastToken = std::max(lastToken, track.lastToken);
    if (lastToken > 0)
      result.seconds = seconds(lastToken);
  }
  result.idleSeconds = seconds(idle);
  result.unfinished = static_cast<int64_t>(work.items.size()) - result.done -
                      result.refused - result.failed;
  if (timeline)
    for (size_t i = 0; i < recorder.tracks.size(); ++i)
      if (recorder.tracks[i].isSubmitted && !recorder.tracks[i].isDone)
        timeline->unfinished(i, recorder.tracks[i].due,
                             recorder.tracks[i].firstToken, end);
  if (means.time > 0) {
    result.meanPoolBytes = means.poolBytes / means.time;
    result.meanHeldBytes = means.heldBytes / means.time;
    result.meanLiveBytes = means.liveBytes / means.time;
  }
  result.stats = engine.stats();
  if (const BucketedDecoder *buckets = opened.buckets()) {
    result.bucketMoves = buckets->moves();
    result.bucketMovedBytes = buckets->movedBytes();
  }
  return result;
}

namespace {

/// Takes the tokens of the one request of an engine.
class Single final : public EngineObserver {
public:
  void onFinish(RequestResult &finished) override {
    result = std::move(finished);
  }
  RequestResult result;
};

} // namespace

Expected<Verification>
run::verifyTokens(Decoder &decoder, const Workload &work,
                  const std::vector<std::vector<int32_t>> &tokens,
                  int64_t count, const RunSettings &settings) {
  std::vector<size_t> finished;
  for (size_t item = 0; item < tokens.size(); ++item)
    if (!tokens[item].empty())
      finished.push_back(item);
  auto all = static_cast<int64_t>(finished.size());
  count = std::min(count, all);
  Verification out;
  SteadyClock clock;
  for (int64_t i = 0; i < count; ++i) {
    // Spread evenly over the run.
    size_t item = finished[static_cast<size_t>(i * all / count)];
    if (settings.showsLine && i % 8 == 0) {
      std::fprintf(stderr, "\r\033[Kkvrm-run: verifying %lld of %lld",
                   static_cast<long long>(i), static_cast<long long>(count));
      std::fflush(stderr);
    }
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
    ++out.requests;
    const std::vector<int32_t> &alone = single.result.tokens;
    if (alone == tokens[item])
      continue;
    ++out.mismatches;
    if (!out.first.empty())
      continue;
    size_t at = static_cast<size_t>(
        std::ranges::mismatch(alone, tokens[item]).in1 - alone.begin());
    out.first = "request " + std::to_string(item) + " differs at token " +
                std::to_string(at) + " of " +
                std::to_string(tokens[item].size());
  }
  if (settings.showsLine)
    std::fprintf(stderr, "\r\033[K");
  return out;
}
