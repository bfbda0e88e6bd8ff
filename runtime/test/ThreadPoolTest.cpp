//===- ThreadPoolTest.cpp - Many forks, short and long ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/host/CpuQuota.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <numeric>
#include <thread>
#include <unistd.h>

using namespace kvrm;

static std::unique_ptr<ThreadPool> makePool(int32_t workers) {
  Expected<std::unique_ptr<ThreadPool>> pool = ThreadPool::create(workers);
  EXPECT_TRUE(pool) << pool.status().message();
  return pool.take();
}

TEST(ThreadPool, RefusesNumbersOutOfRange) {
  EXPECT_EQ(ThreadPool::create(-1).status().message(),
            "threads: -1 is outside 0..256");
  EXPECT_EQ(ThreadPool::create(257).status().message(),
            "threads: 257 is outside 0..256");
  EXPECT_GE(makePool(0)->workers(), 1);
}

// A tree of control groups as a kernel shows it.
TEST(CpuQuota, IsTheLeastOnTheWayUp) {
  std::string mount =
      testing::TempDir() + "cgroup" + std::to_string(::getpid());
  auto write = [&](const std::string &file, const char *text) {
    std::filesystem::path path = mount + file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  };
  EXPECT_EQ(quotaCpus("0::/a/b\n", mount), std::nullopt);
  write("/a/b/cpu.max", "max 100000");
  EXPECT_EQ(quotaCpus("0::/a/b\n", mount), std::nullopt);
  write("/a/cpu.max", "350000 100000");
  EXPECT_EQ(quotaCpus("0::/a/b\n", mount), 3);
  EXPECT_EQ(quotaCpus("0::/other\n", mount), std::nullopt);
  write("/a/b/cpu.max", "50000 100000");
  EXPECT_EQ(quotaCpus("0::/a/b\n", mount), 1) << "half a CPU is one worker";

  write("/cpu,cpuacct/c/cpu.cfs_quota_us", "-1");
  write("/cpu,cpuacct/c/cpu.cfs_period_us", "100000");
  std::string legacy = "5:cpuset:/\n4:cpu,cpuacct:/c\n1:name=systemd:/\n";
  EXPECT_EQ(quotaCpus(legacy, mount), std::nullopt);
  write("/cpu,cpuacct/c/cpu.cfs_quota_us", "200000");
  EXPECT_EQ(quotaCpus(legacy, mount), 2);
  EXPECT_EQ(quotaCpus(legacy + "0::/a/b\n", mount), 1);
  std::filesystem::remove_all(mount);
}

TEST(ThreadPool, EveryWorkerRunsOnceAFork) {
  for (int32_t workers : {1, 2, 3, 8}) {
    std::unique_ptr<ThreadPool> pool = makePool(workers);
    ASSERT_EQ(pool->workers(), workers);
    // Plain memory: the fork and the join are what orders it.
    std::vector<int64_t> counts(static_cast<size_t>(workers) * 8);
    int64_t forks = workers > 2 ? 2000 : 20000;
    for (int64_t i = 0; i < forks; ++i) {
      pool->run(
          [](void *context, int32_t worker) {
            ++static_cast<int64_t *>(context)[worker * 8];
          },
          counts.data());
      ASSERT_EQ(counts[0], i + 1);
      ASSERT_EQ(counts[counts.size() - 8], i + 1);
    }
  }
}

TEST(ThreadPool, WakesWorkersThatSleep) {
  std::unique_ptr<ThreadPool> pool = makePool(2);
  int64_t sum = 0;
  for (int i = 0; i < 50; ++i) {
    // Around the time that a worker gives up spinning.
    std::this_thread::sleep_for(std::chrono::microseconds(i * 5));
    int64_t parts[16] = {};
    pool->run(
        [](void *context, int32_t worker) {
          static_cast<int64_t *>(context)[worker * 8] = worker + 1;
        },
        parts);
    sum += parts[0] + parts[8];
  }
  EXPECT_EQ(sum, 150);
}

TEST(ThreadPool, WaitsForASlowWorker) {
  std::unique_ptr<ThreadPool> pool = makePool(3);
  int64_t done[3] = {};
  pool->run(
      [](void *context, int32_t worker) {
        std::this_thread::sleep_for(std::chrono::milliseconds(3 * worker));
        static_cast<int64_t *>(context)[worker] = 1;
      },
      done);
  EXPECT_EQ(done[0] + done[1] + done[2], 3);
}

TEST(ThreadPool, RangesCoverEveryTaskOnce) {
  for (int32_t workers : {1, 2, 5}) {
    std::unique_ptr<ThreadPool> pool = makePool(workers);
    for (int64_t count : {0, 1, 2, 4, 5, 6, 1000}) {
      std::vector<int32_t> seen(static_cast<size_t>(count));
      pool->parallelFor(
          count,
          [](void *context, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i)
              ++static_cast<int32_t *>(context)[i];
          },
          seen.data());
      EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), int64_t(0)), count);
      for (int32_t times : seen)
        EXPECT_EQ(times, 1);
    }
  }
}
