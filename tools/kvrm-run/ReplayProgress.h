//===- ReplayProgress.h - How far a replay is, on a terminal ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_REPLAYPROGRESS_H
#define KVRM_TOOLS_RUN_REPLAYPROGRESS_H

#include "replay/Progress.h"

namespace kvrm::run {

/// Tells on standard error how far a replay is.
class ReplayProgress final : public replay::ProgressObserver {
public:
  enum class Style {
    Silent,
    Line, ///< on a terminal, drawn again and again
    Log,  ///< a line every ten seconds
  };
  explicit ReplayProgress(Style style) : style(style) {}
  ~ReplayProgress() override { clear(); }

  void onWarmUp(const std::string &label) override;
  void onRound(const replay::RunProgress &run) override;
  void onVerify(int64_t done, int64_t all) override;
  void onEnd() override { clear(); }

private:
  void clear();

  Style style;
  double next = 0; ///< seconds of the run
  bool isDrawn = false;
};

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_REPLAYPROGRESS_H
