//===- ThreadPool.cpp - Workers for one step after another ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/host/CpuQuota.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>
#include <sched.h>
#include <system_error>

using namespace kvrm;

/// How long an idle worker burns its CPU before it sleeps. Longer than the gaps
/// within a step, much shorter than a scheduling quantum.
static constexpr int32_t spinLimit = 50000;

static void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Polls until `isDone()` or for `nanoseconds`; returns whether it is done.
template <typename Predicate>
static bool spin(int32_t nanoseconds, Predicate isDone) {
  if (isDone())
    return true;
  if (nanoseconds == 0)
    return false;
  auto end =
      std::chrono::steady_clock::now() + std::chrono::nanoseconds(nanoseconds);
  do {
    for (int i = 0; i < 32; ++i) {
      relax();
      if (isDone())
        return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

/// By the affinity mask, or all.
static int32_t allowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
    return CPU_COUNT(&set);
  return static_cast<int32_t>(std::thread::hardware_concurrency());
}

int32_t kvrm::usableCpus() {
  std::ifstream membership("/proc/self/cgroup");
  std::string text{std::istreambuf_iterator<char>(membership), {}};
  int32_t cpus = allowedCpus();
  if (std::optional<int> quota = quotaCpus(text, "/sys/fs/cgroup"))
    cpus = std::min(cpus, *quota);
  return std::clamp<int32_t>(cpus, 1, KVRM_MAX_THREADS);
}

Expected<std::unique_ptr<ThreadPool>> ThreadPool::create(int32_t workers) {
  if (workers < 0 || workers > KVRM_MAX_THREADS)
    return invalidArgument("threads: ", workers, " is outside 0..",
                           int32_t(KVRM_MAX_THREADS));
  int32_t cpus = usableCpus();
  if (workers == 0)
    workers = cpus;
  std::unique_ptr<ThreadPool> pool(new ThreadPool());
  // With more workers than CPUs a spinning one keeps a working one waiting.
  pool->spinNanoseconds = workers <= cpus ? spinLimit : 0;
  pool->threads.reserve(static_cast<size_t>(workers) - 1);
  // The standard library reports a refused thread by exception only.
  try {
    for (int32_t i = 1; i < workers; ++i)
      pool->threads.emplace_back([raw = pool.get(), i] { raw->workerMain(i); });
  } catch (const std::system_error &) {
    return makeError(StatusCode::ResourceExhausted, "threads: cannot start ",
                     workers - 1, " worker threads");
  }
  return pool;
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  isStopping = true;
  epoch.fetch_add(1);
  epoch.notify_all();
  for (std::thread &thread : threads)
    thread.join();
  threads.clear();
}

void ThreadPool::workerMain(int32_t worker) {
  uint32_t seen = 0;
  while (true) {
    auto isForked = [&] {
      return epoch.load(std::memory_order_acquire) != seen;
    };
    if (!spin(spinNanoseconds, isForked)) {
      // Counted as a sleeper before the last look at the epoch, so that a fork
      // either is seen here or sees a sleeper to wake (both are sequentially
      // consistent).
      sleepers.fetch_add(1);
      while (epoch.load() == seen)
        epoch.wait(seen);
      sleepers.fetch_sub(1);
    }
    // One fork at a time: the next waits for this worker.
    ++seen;
    if (isStopping)
      return;
    job(jobContext, worker);
    if (running.fetch_sub(1) == 1 && isCallerAsleep.load())
      running.notify_one();
  }
}

void ThreadPool::run(WorkerFn fn, void *context) {
  KVRM_CHECK(!isInside, "one caller at a time");
  if (threads.empty()) {
    isInside = true;
    fn(context, 0);
    isInside = false;
    return;
  }
  isInside = true;
  job = fn;
  jobContext = context;
  running.store(static_cast<int32_t>(threads.size()),
                std::memory_order_relaxed);
  epoch.fetch_add(1);
  if (sleepers.load() > 0)
    epoch.notify_all();
  fn(context, 0);
  auto isDone = [&] { return running.load(std::memory_order_acquire) == 0; };
  if (!spin(spinNanoseconds, isDone)) {
    isCallerAsleep.store(true);
    for (int32_t left = running.load(); left != 0; left = running.load())
      running.wait(left);
    isCallerAsleep.store(false);
  }
  isInside = false;
}

void ThreadPool::parallelFor(int64_t count, RangeFn fn, void *context) {
  KVRM_CHECK(count >= 0, "tasks are counted from 0");
  if (count == 0)
    return;
  if (threads.empty() || count == 1) {
    fn(context, 0, count);
    return;
  }
  struct Range {
    RangeFn fn;
    void *context;
    int64_t count;
    int64_t workers;
  } range{fn, context, count, workers()};
  run(
      [](void *opaque, int32_t worker) {
        const Range &range = *static_cast<const Range *>(opaque);
        // A count of tasks times a worker fits easily: both are bounded.
        int64_t begin = range.count * worker / range.workers;
        int64_t end = range.count * (worker + 1) / range.workers;
        if (begin < end)
          range.fn(range.context, begin, end);
      },
      &range);
}
