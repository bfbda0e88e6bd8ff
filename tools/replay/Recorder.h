//===- Recorder.h - When requests got their tokens --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_RECORDER_H
#define KVRM_TOOLS_REPLAY_RECORDER_H

#include "Metrics.h"
#include "Timeline.h"
#include "Workload.h"

#include "kvrm/runtime/support/Clock.h"

namespace kvrm::replay {

/// Keeps times of tokens as they come. Times are of the run, which starts when
/// its recorder is made.
class Recorder final : public EngineObserver {
public:
  /// `timeline` may be null. All must outlive the recorder.
  Recorder(const Clock &clock, const Workload &work, bool keepsTokens,
           Timeline *timeline, ModeResult &result);

  int64_t now() const { return clock.now() - origin; }

  /// The engine took an item of the workload; it numbers them in this order.
  void submitted(size_t item, int64_t due);
  void onToken(RequestId id, int32_t token,
               const TokenLogprobs *logprobs) override;
  void onFinish(RequestResult &finished) override;

  /// When the last token of all came; 0 = none.
  int64_t lastToken() const;
  /// Draws the requests that the end of the run cut.
  void drawUnfinished(int64_t end) const;

private:
  struct Track {
    int64_t due = 0;
    int64_t firstToken = -1;
    int64_t lastToken = -1;
    bool isSubmitted = false;
    bool isDone = false;
  };

  const Clock &clock;
  const Workload &work;
  bool keepsTokens;
  Timeline *timeline;
  ModeResult &result;
  int64_t origin;
  std::vector<Track> tracks; ///< [items]
  std::vector<size_t> items; ///< by request id
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_RECORDER_H
