//===- HostBackend.h - The CPU backend --------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The CPU side of a step: owns the KV pool, the workers and their private
// memory, and implements kvrm_host_api for compiled code. Attention over work
// items follows PersistentKV (arXiv 2606.26666): every worker starts with its
// own contiguous share of the items and takes from the others' when it is done.
// Whoever finishes the last partial of an output tile merges it
// (MergePartials.h).
//
// Compiled code is trusted to stay in its buffers, not to keep the protocol:
// calls out of turn are ignored and make runStep() fail.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_HOST_HOSTBACKEND_H
#define KVRM_RUNTIME_HOST_HOSTBACKEND_H

#include "kvrm/runtime/abi/host.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/host/HostGroup.h"
#include "kvrm/runtime/host/HostSummaries.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace kvrm {

/// An entry point, and what its steps need.
struct HostEntry {
  kvrm_step_fn fn = nullptr;
  PlanShape plan; ///< `shares` are the backend's
  kvrm_transport transport = KVRM_TRANSPORT_NATIVE;
  int64_t arenaBytes = 0;
  int64_t scratchBytes = 0; ///< a worker
};

/// What fixes the backend for its life.
struct HostShape {
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;
  int32_t pageTokens = 0;
  kvrm_element element = KVRM_F16;
  int32_t pages = 0;        ///< of the pool
  int32_t parkingPages = 0; ///< of host memory for histories that left it
  int32_t threads = 0;      ///< 0 = one a usable CPU
  int32_t shares = 0;       ///< that plans are cut into; 0 = one a worker
  std::array<HostEntry, plannedEntries> entries;
  kvrm_step_fn mixed = nullptr; ///< null if there is none
  int64_t mixedArenaBytes = 0;
  const uint8_t *weights = nullptr;
  std::shared_ptr<const void> owner; ///< of the code and the weights
  /// Whom the code's collectives are with; null: it has none.
  std::shared_ptr<HostGroup> group;
  int32_t rank = 0;
};

class HostBackend final : public Backend {
public:
  /// Takes all memory and starts the workers. Errors: InvalidArgument,
  /// ResourceExhausted.
  static Expected<std::unique_ptr<HostBackend>> create(const HostShape &shape);

  const BackendInfo &info() const override { return facts; }
  Status copyPage(const PageCopy &copy) override;
  /// One copy a run, layer, K and V, and head.
  Status movePages(std::span<const PageRun> runs,
                   MoveDirection direction) override;
  Status collapsePage(const PageCollapse &collapse) override;
  /// Errors: Internal if compiled code broke the protocol; those of
  /// HostGroup.h.
  Status runStep(const BackendStep &step, BackendStats &stats) override;

  int32_t workers() const { return pool->workers(); }
  /// The whole pool, [layer][K or V][kv_head][page]. For tests and for the
  /// import and export pair.
  std::span<uint8_t> kvPool() {
    return {kv.data(), static_cast<size_t>(kv.size())};
  }

private:
  struct alignas(64) Worker {
    HostBackend *backend = nullptr;
    float *scratch = nullptr;
    uint8_t *stage = nullptr;
    int64_t copies = 0;
    int64_t bytes = 0;
  };
  struct alignas(64) Share {
    std::atomic<int32_t> next{0};
    int32_t end = 0;
  };
  /// A batch of the step that runs.
  struct Batch {
    StepDescriptor *descriptor = nullptr;
    const HostEntry *entry = nullptr;
    std::atomic<int32_t> *remaining = nullptr; ///< partials a segment
    bool isStaged = false;
    int32_t appends = 0;
    int32_t attends = 0;
  };

  HostBackend() = default;

  Status takePools();
  Status takeWorkerMemory();
  Status takeStepMemory();
  void moveRun(const PageRun &run, MoveDirection direction);
  int64_t heads() const { return int64_t(bounds.layers) * 2 * bounds.kvHeads; }
  static HostBackend &from(void *session) {
    return *static_cast<HostBackend *>(session);
  }
  void violate(const char *what) {
    if (!violation)
      violation = what;
  }
  void beginStep(const BackendStep &step);
  Status endStep();
  Batch *batchOf(int32_t index, const char *what);
  kvrm_kernel_args argsOf(const Batch &batch, int32_t layer) const;
  void commit();
  void commitBatch(Batch &batch);
  void stage(int32_t batch, int32_t transport);
  void append(int32_t batch, int32_t layer, kvrm_append_kernel kernel,
              const float *k, const float *v);
  void attend(int32_t batch, int32_t layer, kvrm_attention_kernel kernel,
              const float *q, float *out);
  using Collective = Status (HostGroup::*)(int32_t rank, const float *in,
                                           float *out, int64_t count);
  void meet(Collective collective, const float *in, float *out, int64_t count);
  void attendOn(Worker &worker, int32_t index);
  void runItem(Worker &worker, const kvrm_kernel_args &args, int32_t index);
  void mergeSegment(const kvrm_merge_segment &segment);
  static void stageTile(const kvrm_kernel_args *args,
                        const kvrm_work_item *item, int32_t tile,
                        uint8_t *stage);
  void stageTileFor(Worker &worker, const kvrm_kernel_args &args,
                    const kvrm_work_item &item, int32_t tile, uint8_t *stage);

  static const kvrm_host_api hostApi;

  HostShape bounds;
  BackendInfo facts;
  int64_t pageBytes = 0; ///< of one head
  int64_t headStride = 0;
  int64_t parkingStride = 0;
  int64_t partialFloats = 0; ///< all partials, largest of the entries
  int32_t segments = 0;      ///< largest of the entries
  AlignedBuffer kv;
  AlignedBuffer parking; ///< laid out like the pool
  AlignedBuffer arena;
  AlignedBuffer scratch;
  AlignedBuffer partials;
  std::unique_ptr<ThreadPool> pool;
  std::vector<Worker> perWorker;
  std::unique_ptr<Share[]> shares;
  /// [planned entries][segments], partials a segment.
  std::unique_ptr<std::atomic<int32_t>[]> remaining;

  // The step that runs.
  std::array<Batch, plannedEntries> perBatch;
  int32_t batches = 0; ///< 0 between steps
  bool isCommitted = false;
  const char *violation = nullptr;
  Status collectives; ///< the first that failed
  BackendStats last;
  // The attention that runs.
  const Batch *attending = nullptr;
  kvrm_kernel_args attendArgs{};
  kvrm_attention_kernel attendKernel = nullptr;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_HOST_HOSTBACKEND_H
