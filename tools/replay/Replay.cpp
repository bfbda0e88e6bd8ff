//===- Replay.cpp - Modes of one model serve a trace ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Replay.h"
#include "ModeDecoder.h"
#include "Runner.h"

#include "kvrm/runtime/host/ThreadPool.h"

using namespace kvrm;
using namespace kvrm::replay;

namespace {

class Replay {
public:
  Replay(const Options &options, Timeline *timeline, ProgressObserver *progress)
      : timeline(timeline), progress(progress) {
    report.options = options;
  }

  Status prepare();
  Status scaleToLoad();
  Status runModes();
  Status verify();
  Report take() { return std::move(report); }

private:
  RunSettings settingsOf(const ModeSpec &mode) const;
  Expected<ModeResult> runMode(const ModeSpec &mode,
                               const RunSettings &settings);

  Report report;
  Timeline *timeline;
  ProgressObserver *progress;
  SteadyWaitableClock clock;
};

} // namespace

Status Replay::prepare() {
  const Options &options = report.options;
  KVRM_TRY(checkOptions(options));
  Expected<ModeSet> set = prepareModes(options);
  KVRM_TRY(set.status());
  report.set = set.take();
  if (!report.set.find("kvrm") && (options.verify > 0 || options.load > 0))
    return invalidArgument(options.verify > 0 ? "--verify" : "--load",
                           " needs the mode kvrm");
  Expected<Workload> work =
      Workload::create(options, {report.set.capacity, report.set.vocabulary});
  KVRM_TRY(work.status());
  report.work = work.take();
  report.timeScale = options.timeScale;
  report.threads = options.session.workers();
  return Status::ok();
}

RunSettings Replay::settingsOf(const ModeSpec &mode) const {
  RunSettings settings;
  settings.engine = report.options.engine;
  settings.engine.sharesPrefixes &= mode.isPaged();
  settings.keepsTokens = report.options.verify > 0 && mode.isPaged();
  settings.limitSeconds = report.options.limitSeconds;
  settings.pageTokens = report.set.pageTokens;
  settings.label = mode.name;
  settings.progress = progress;
  return settings;
}

/// Opens a mode, runs the workload, and gives all memory back.
Expected<ModeResult> Replay::runMode(const ModeSpec &mode,
                                     const RunSettings &settings) {
  if (progress)
    progress->onWarmUp(settings.label);
  Expected<std::unique_ptr<ModeDecoder>> decoder =
      openMode(mode, report.options.warmupSeconds);
  KVRM_TRY(decoder.status());
  return runWorkload(mode, **decoder, report.work, settings, clock);
}

/// Runs kvrm saturated, and scales time so that --load of that is offered.
Status Replay::scaleToLoad() {
  const ModeSpec &kvrm = *report.set.find("kvrm");
  RunSettings settings = settingsOf(kvrm);
  settings.isSaturated = true;
  settings.keepsTokens = false;
  settings.label = "kvrm, saturated";
  Expected<ModeResult> result = runMode(kvrm, settings);
  KVRM_TRY(result.status());
  const Workload &work = report.work;
  auto all = static_cast<double>(work.promptTokens + work.outputTokens);
  double rate = result->allTokensPerSecond();
  if (!(rate > 0) || !(work.sliceSeconds() > 0))
    return invalidArgument("--load: the slice has too few requests to scale");
  // At load 1 the slice lasts as long as kvrm takes for it when saturated.
  report.timeScale = all / rate / report.options.load / work.sliceSeconds();
  report.saturation = result.take();
  return Status::ok();
}

Status Replay::runModes() {
  report.work.schedule(report.timeScale, report.options.overload,
                       report.options.overloadSeconds);
  for (const ModeSpec &mode : report.set.modes) {
    RunSettings settings = settingsOf(mode);
    settings.isSaturated = report.options.isSaturated;
    settings.timeline = timeline;
    if (timeline)
      timeline->beginMode(mode.name);
    Expected<ModeResult> result = runMode(mode, settings);
    KVRM_TRY(result.status());
    report.results.push_back(result.take());
  }
  return Status::ok();
}

Status Replay::verify() {
  Expected<std::unique_ptr<ModeDecoder>> fresh =
      openMode(*report.set.find("kvrm"), 0);
  KVRM_TRY(fresh.status());
  for (const ModeResult &result : report.results) {
    if (result.mode != "kvrm")
      continue;
    Expected<Verification> done =
        verifyTokens((*fresh)->decoder(), report.work, result.tokens,
                     report.options.verify, progress);
    KVRM_TRY(done.status());
    report.verification = *done;
  }
  return Status::ok();
}

Expected<Report> replay::runReplay(const Options &options, Timeline *timeline,
                                   ProgressObserver *progress) {
  Replay replay(options, timeline, progress);
  KVRM_TRY(replay.prepare());
  if (options.load > 0)
    KVRM_TRY(replay.scaleToLoad());
  KVRM_TRY(replay.runModes());
  if (options.verify > 0)
    KVRM_TRY(replay.verify());
  return replay.take();
}
