//===- Replay.h - Modes of one model serve a trace --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_REPLAY_H
#define KVRM_TOOLS_REPLAY_REPLAY_H

#include "Progress.h"
#include "Report.h"
#include "Timeline.h"

namespace kvrm::replay {

/// Serves the trace by all modes in turn. `timeline` and `progress` may be
/// null. Errors: InvalidArgument for options, packages and traces, and what
/// sessions and engines return.
Expected<Report> runReplay(const Options &options, Timeline *timeline,
                           ProgressObserver *progress);

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_REPLAY_H
