//===- ThreadPool.h - Workers for one step after another --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A fixed set of workers, the calling thread among them. A decode step forks
// and joins several times a layer, so a fork must cost about a microsecond:
// idle workers spin for a bounded time before they sleep, and a fork that finds
// all of them spinning makes no system call.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_HOST_THREADPOOL_H
#define KVRM_RUNTIME_HOST_THREADPOOL_H

#include "kvrm/runtime/support/Status.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace kvrm {

/// CPUs that this process may run on, and its control groups grant,
/// 1..KVRM_MAX_THREADS.
int32_t usableCpus();

class ThreadPool {
public:
  /// What a worker runs; workers are numbered from 0, the caller of run().
  using WorkerFn = void (*)(void *context, int32_t worker);

  /// Starts `workers` - 1 threads; 0 means one worker a CPU that this process
  /// may run on. Errors: InvalidArgument outside 0..KVRM_MAX_THREADS,
  /// ResourceExhausted if the system refuses a thread.
  static Expected<std::unique_ptr<ThreadPool>> create(int32_t workers);
  ~ThreadPool();

  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int32_t workers() const { return static_cast<int32_t>(threads.size()) + 1; }

  /// Runs `fn` once on every worker and returns when all are done. What the
  /// caller wrote before is visible to the workers, and what they wrote to the
  /// caller after. One caller at a time, and not from inside a worker.
  void run(WorkerFn fn, void *context);

  /// Runs tasks [0, count), a contiguous range a worker: `fn(context, begin,
  /// end)`. Ranges differ by at most one task; empty ones are not called.
  using RangeFn = void (*)(void *context, int64_t begin, int64_t end);
  void parallelFor(int64_t count, RangeFn fn, void *context);

private:
  ThreadPool() = default;
  void workerMain(int32_t worker);
  void stop();

  // Written by the caller, read by workers.
  alignas(64) std::atomic<uint32_t> epoch{0}; ///< grows by one a fork
  WorkerFn job = nullptr;
  void *jobContext = nullptr;
  bool isStopping = false;
  // Written by workers, read by the caller.
  alignas(64) std::atomic<int32_t> running{0};
  alignas(64) std::atomic<int32_t> sleepers{0};
  std::atomic<bool> isCallerAsleep{false};

  bool isInside = false;
  int32_t spinNanoseconds = 0;
  std::vector<std::thread> threads;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_HOST_THREADPOOL_H
