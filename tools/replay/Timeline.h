//===- Timeline.h - A replay as a Chrome trace ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writes trace events (JSON) that ui.perfetto.dev and chrome://tracing open: a
// process a mode, with rounds, counters, and each request as nested spans. The
// file has a temporary name until it is complete. Events are bounded; what
// comes after the limit is left out, and the file says so.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_TIMELINE_H
#define KVRM_TOOLS_REPLAY_TIMELINE_H

#include "Metrics.h"

#include "kvrm/runtime/support/ReplaceFile.h"

#include <cstdio>
#include <memory>
#include <string>

namespace kvrm::replay {

class Timeline {
public:
  static constexpr int64_t maxEvents = 1'000'000;

  /// Errors: IoError.
  static Expected<std::unique_ptr<Timeline>> create(const std::string &path);
  Timeline(const Timeline &) = delete;
  Timeline &operator=(const Timeline &) = delete;

  void beginMode(const std::string &name);

  // Times are nanoseconds of the mode's run.
  void round(int64_t start, const RoundStats &round);
  void request(size_t item, const RequestResult &result, int64_t due,
               int64_t origin);
  /// One that the end of the run cut; -1 = did not come so far.
  void unfinished(size_t item, int64_t due, int64_t firstToken, int64_t end);
  void instant(const char *name, int64_t time);
  void counters(const StatePoint &point);

  /// Completes the file; without it there is none. Errors: IoError.
  Status close();
  bool isFull() const { return events >= maxEvents; }

private:
  explicit Timeline(UnfinishedFile file) : file(std::move(file)) {}
  bool begin(const char *name, char phase, int64_t time, int thread);
  void end() { std::fputs("}", file.stream()); }
  void span(size_t item, const char *name, int64_t from, int64_t to);

  UnfinishedFile file;
  int64_t events = 0;
  int mode = 0;
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_TIMELINE_H
