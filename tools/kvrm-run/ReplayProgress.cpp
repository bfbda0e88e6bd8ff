//===- ReplayProgress.cpp - How far a replay is, on a terminal --*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ReplayProgress.h"

#include <algorithm>
#include <cstdio>

using namespace kvrm;
using namespace kvrm::run;

/// Back to the start of the line, which is emptied.
static constexpr const char *redraw = "\r\033[K";

void ReplayProgress::clear() {
  if (isDrawn)
    std::fputs(redraw, stderr);
  isDrawn = false;
}

void ReplayProgress::onWarmUp(const std::string &label) {
  next = 0;
  if (style != Style::Line)
    return;
  std::fprintf(stderr, "%skvrm-run: %s: warming up", redraw, label.c_str());
  std::fflush(stderr);
  isDrawn = true;
}

/// What is left takes as long as the schedule says, or, saturated, as its share
/// of all tokens took so far.
static double secondsLeft(const replay::RunProgress &run) {
  if (!run.isSaturated)
    return std::max(0.0, run.work.scheduledSeconds() - run.seconds);
  auto made =
      static_cast<double>(run.result.doneTokens + run.result.promptTokens);
  auto all = static_cast<double>(run.work.promptTokens + run.work.outputTokens);
  return made > 0 ? run.seconds * (all - made) / made : 0;
}

void ReplayProgress::onRound(const replay::RunProgress &run) {
  if (style == Style::Silent || run.seconds < next)
    return;
  bool isLine = style == Style::Line;
  next = run.seconds + (isLine ? 0.25 : 10);
  const replay::ModeResult &result = run.result;
  int64_t ended = result.done + result.refused + result.failed;
  std::fprintf(
      stderr,
      "%skvrm-run: %s: %.0f s, %lld of %lld requests, %lld refused, %.0f "
      "tok/s, %d running, %d waiting, KV held %.0f%%, %.0f s left%s",
      isLine ? redraw : "", run.label.c_str(), run.seconds,
      static_cast<long long>(ended),
      static_cast<long long>(run.work.items.size()),
      static_cast<long long>(result.refused),
      static_cast<double>(result.doneTokens) / std::max(run.seconds, 1e-3),
      run.stats.running, run.stats.waiting + run.stats.preempted,
      100 * run.heldShare, secondsLeft(run), isLine ? "" : "\n");
  std::fflush(stderr);
  isDrawn = isLine;
}

void ReplayProgress::onVerify(int64_t done, int64_t all) {
  if (style != Style::Line || done % 8 != 0)
    return;
  std::fprintf(stderr, "%skvrm-run: verifying %lld of %lld", redraw,
               static_cast<long long>(done), static_cast<long long>(all));
  std::fflush(stderr);
  isDrawn = true;
}
