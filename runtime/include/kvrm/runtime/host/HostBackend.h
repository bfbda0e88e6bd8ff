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
// Whoever finishes the last partial of an output tile merges it (online
// softmax, arXiv 1805.02867).
//
// Compiled code is trusted to stay in its buffers, not to keep the protocol:
// calls out of turn are ignored and make runStep() fail.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_HOST_HOSTBACKEND_H
#define KVRM_RUNTIME_HOST_HOSTBACKEND_H

#include "kvrm/runtime/abi/host.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace kvrm {

/// Merges `count` adjacent partial states of `queryRows` rows each into rows of
/// head_dim floats: with M = max m and w = 2^(m - M), out = sum w acc / sum w
/// l. `rows` of them are written, row r to out + offsets(r). A row that met no
/// token at all becomes zeros.
void mergePartials(const float *partials, int32_t count, int32_t queryRows,
                   int32_t headDim, int32_t rows, float *out,
                   int64_t tokenStride, int32_t group);

/// What fixes the backend for its life.
struct HostShape {
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;
  int32_t pageTokens = 0;
  int32_t pages = 0;         ///< of the pool; 0 = no pool (static packages)
  int32_t parkingPages = 0;  ///< of host memory for histories that left it
  int32_t threads = 0;       ///< 0 = one a usable CPU
  int32_t shares = 0;        ///< most shares of any plan; 0 = workers
  int64_t scratchBytes = 0;  ///< a worker, largest of the entries
  int64_t stageBytes = 0;    ///< a worker, largest of the entries
  int64_t partialFloats = 0; ///< all partials, largest of the entries
  int32_t segments = 0;      ///< largest of the entries
};

/// A run of pages that are adjacent in the pool and in parking memory.
struct ParkedRun {
  int32_t poolPage = 0;
  int32_t parkingPage = 0;
  int32_t pages = 0;
};

/// One step to run.
struct HostStep {
  kvrm_step_fn fn = nullptr;
  kvrm_step_args args{}; ///< `api` and `session` are filled in by the backend
  /// Null for a static package, which may call `parallel` alone.
  StepDescriptor *descriptor = nullptr;
  const Planner *planner = nullptr;
  kvrm_transport transport = KVRM_TRANSPORT_NATIVE;
};

/// What one step moved.
struct HostStepStats {
  int64_t committedBytes = 0;
  int64_t commitNanoseconds = 0;
  int64_t stageCopies = 0; ///< memcpy runs into staging tiles
  int64_t stageBytes = 0;
  int64_t attendNanoseconds = 0; ///< in attention, all layers
};

class HostBackend {
public:
  /// Takes all memory and starts the workers.
  static Expected<std::unique_ptr<HostBackend>> create(const HostShape &shape);

  /// Copies a page in all layers, K and V, all heads.
  void copyPage(const PageCopy &copy);

  /// Copies a run of pages from the pool to parking memory, or back: one copy a
  /// layer, K and V, and head.
  void movePages(const ParkedRun &run, bool parks);

  /// Runs compiled code once. Errors: Internal if it broke the protocol.
  Status runStep(const HostStep &step);

  const HostStepStats &stats() const { return last; }
  int32_t workers() const { return pool->workers(); }
  ThreadPool &threadPool() { return *pool; }
  /// Bytes of one page in all layers, K and V, all heads.
  int64_t tokenPageBytes() const {
    return pageBytes * 2 * bounds.layers * bounds.kvHeads;
  }
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

  HostBackend() = default;

  static HostBackend &from(void *session) {
    return *static_cast<HostBackend *>(session);
  }
  void violate(const char *what) {
    if (!violation)
      violation = what;
  }
  bool inPagedStep(const char *what);
  kvrm_kernel_args argsOf(int32_t layer) const;
  const uint8_t *commit();
  void stage(int32_t transport);
  void append(int32_t layer, kvrm_append_kernel kernel, const float *k,
              const float *v);
  void attend(int32_t layer, kvrm_attention_kernel kernel, const float *q,
              float *out);
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
  int64_t pageBytes = 0;
  int64_t headStride = 0;
  int64_t parkingStride = 0;
  AlignedBuffer kv;
  AlignedBuffer parking; ///< laid out like the pool
  AlignedBuffer scratch;
  AlignedBuffer partials;
  std::unique_ptr<ThreadPool> pool;
  std::vector<Worker> perWorker;
  std::unique_ptr<Share[]> shares;
  std::unique_ptr<std::atomic<int32_t>[]> remaining; ///< partials a segment

  // The step that runs.
  const HostStep *current = nullptr;
  bool isCommitted = false;
  bool isStaged = false;
  int32_t appends = 0;
  int32_t attends = 0;
  const char *violation = nullptr;
  HostStepStats last;
  kvrm_kernel_args attendArgs{};
  kvrm_attention_kernel attendKernel = nullptr;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_HOST_HOSTBACKEND_H
