//===- StaticSession.h - The static baseline --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What paging is compared with: a decoder on the CPU whose K and V are reserved
// for slots x capacity. There are no pages, no plans and no descriptor; a step
// reads positions and counts from its arguments.
//
// As with Session.h, a failed call leaves the histories as they were, nothing
// allocates once create() is done, and one thread at a time uses it.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_STATICSESSION_H
#define KVRM_RUNTIME_SESSION_STATICSESSION_H

#include "kvrm/runtime/abi/host.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace kvrm {

class StaticSession final : public Decoder {
public:
  /// Takes all memory and starts the workers; 0 `threads` = one a usable CPU.
  /// Errors: InvalidArgument, ResourceExhausted.
  static Expected<std::unique_ptr<StaticSession>>
  create(std::shared_ptr<const Package> package, int32_t threads);

  const DecoderShape &shape() const override { return bounds; }
  Status prefill(int32_t slot, std::span<const int32_t> tokens,
                 const StepOutputs &outputs) override;
  Status decode(std::span<const int32_t> tokens,
                const StepOutputs &outputs) override;
  void expect(int32_t, int32_t) override {}
  Status release(int32_t slot) override;
  Status trim(int32_t slot, int32_t length) override;
  /// Copies, as there is nothing to share.
  Status alias(int32_t target, int32_t source, int32_t tokens) override;
  Status park(int32_t slot, int32_t place) override;
  Status unpark(int32_t place, int32_t slot) override;
  Status discard(int32_t place) override;
  int32_t length(int32_t slot) const override;
  int32_t pagesNeeded(int32_t, int32_t) const override { return 0; }
  int32_t freePages() const override { return 0; }
  int64_t reservedKvBytes() const override {
    return kCache.size() + vCache.size();
  }
  int64_t liveKvBytes() const override;
  int64_t tokenKvBytes() const override;
  const StepStats &lastStep() const override { return last; }

  /// Makes the empty `slot` a copy of the same slot of `source`, a session of
  /// the same model with another capacity.
  Status copyHistory(const StaticSession &source, int32_t slot);

private:
  /// An entry point with its arguments, an element a row.
  struct Entry {
    kvrm_step_fn fn = nullptr;
    std::vector<int32_t> tokens; ///< [rows][queries]
    std::vector<int32_t> positions;
    std::vector<int32_t> counts;
    std::vector<int32_t> slots;
  };

  StaticSession() = default;

  static void prepare(Entry &entry, const EntryInfo &info, kvrm_step_fn fn);
  const Manifest &manifest() const { return package->manifest(); }
  Status runEntry(Entry &entry, float *logits);
  int64_t headTokenBytes() const;
  int64_t offsetOf(int64_t layer, int32_t slot, int64_t head) const;
  void copyTokens(int32_t target, const StaticSession &from, int32_t source,
                  int32_t tokens);

  std::shared_ptr<const Package> package;
  DecoderShape bounds;
  std::unique_ptr<ThreadPool> pool;
  std::vector<int32_t> lengths;
  AlignedBuffer kCache;
  AlignedBuffer vCache;
  AlignedBuffer arena;
  std::vector<float> spareLogits; ///< [slots][vocabulary]
  Entry decodeEntry;
  Entry prefillEntry;
  StepStats last;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_STATICSESSION_H
