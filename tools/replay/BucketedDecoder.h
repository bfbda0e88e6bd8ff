//===- BucketedDecoder.h - Static graphs of growing capacity ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The baseline `bucketed`: what a static runtime does that has compiled its
// graph for several capacities. All slots are in one bucket. The bucket is the
// smallest that has room for the longest history with what is about to be
// appended, and with the prompt that is announced by expect(), so that a long
// prompt moves histories once and not at each bucket it passes.
//
//   up    at once, when a history outgrows the bucket
//   down  when all histories fill at most three quarters of a lower bucket, so
//         that a quarter of it must be generated before they move up again
//
// A move copies all histories to the other bucket, then empties the old one.
// That is time which the step takes longer; it counts as moves() and
// movedBytes().
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_REPLAY_BUCKETEDDECODER_H
#define KVRM_TOOLS_REPLAY_BUCKETEDDECODER_H

#include "kvrm/runtime/session/StaticSession.h"

#include <memory>
#include <vector>

namespace kvrm::replay {

class BucketedDecoder final : public Decoder {
public:
  /// `sessions` are static, empty and of one model with as many slots each.
  /// Errors: InvalidArgument.
  static Expected<std::unique_ptr<BucketedDecoder>>
  create(std::vector<std::unique_ptr<StaticSession>> sessions);

  const DecoderShape &shape() const override { return bounds; }
  Status prefill(int32_t slot, std::span<const int32_t> tokens,
                 const StepOutputs &outputs) override;
  Status decode(std::span<const int32_t> tokens,
                const StepOutputs &outputs) override;
  void expect(int32_t slot, int32_t tokens) override;
  Status release(int32_t history) override;
  Status trim(int32_t history, int32_t length) override {
    return bucket().trim(history, length);
  }
  Status alias(int32_t target, int32_t source, int32_t tokens) override;
  Status park(int32_t slot, int32_t place) override;
  Status unpark(int32_t place, int32_t slot) override;
  Status discard(int32_t place) override;
  int32_t length(int32_t history) const override {
    return bucket().length(history);
  }
  int32_t pagesNeeded(int32_t, int32_t) const override { return 0; }
  int32_t freePages() const override { return 0; }
  /// Of the bucket that histories are in.
  int64_t reservedKvBytes() const override {
    return bucket().reservedKvBytes();
  }
  int64_t liveKvBytes() const override { return bucket().liveKvBytes(); }
  int64_t tokenKvBytes() const override { return bucket().tokenKvBytes(); }
  const StepStats &lastStep() const override { return bucket().lastStep(); }

  /// Times that all histories were copied, and the bytes of that.
  int64_t moves() const { return moveCount; }
  int64_t movedBytes() const { return moveBytes; }

private:
  BucketedDecoder() = default;

  StaticSession &bucket() { return *sessions[current]; }
  const StaticSession &bucket() const { return *sessions[current]; }
  Status fit(int32_t needed);
  Status moveTo(size_t target);

  std::vector<std::unique_ptr<StaticSession>> sessions; ///< by capacity
  std::vector<int32_t> expected; ///< tokens that a slot was said to grow to
  size_t current = 0;
  DecoderShape bounds;
  int64_t moveCount = 0;
  int64_t moveBytes = 0;
};

} // namespace kvrm::replay

#endif // KVRM_TOOLS_REPLAY_BUCKETEDDECODER_H
