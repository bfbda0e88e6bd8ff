//===- CpuQuota.cpp - CPUs that a container may use -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/CpuQuota.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string_view>

using namespace kvrm;

static std::optional<int> wholeCpus(int64_t quota, int64_t period) {
  if (quota <= 0 || period <= 0)
    return std::nullopt;
  return static_cast<int>(std::clamp<int64_t>(quota / period, 1, INT32_MAX));
}

/// Version 2: "200000 100000", or "max 100000" without a limit.
static std::optional<int> readUnified(const std::string &folder) {
  std::ifstream file(folder + "/cpu.max");
  int64_t quota = 0, period = 0;
  if (!(file >> quota >> period))
    return std::nullopt;
  return wholeCpus(quota, period);
}

/// Version 1: a file each; a quota of -1 is no limit.
static std::optional<int> readLegacy(const std::string &folder) {
  std::ifstream quotaFile(folder + "/cpu.cfs_quota_us");
  std::ifstream periodFile(folder + "/cpu.cfs_period_us");
  int64_t quota = 0, period = 0;
  if (!(quotaFile >> quota) || !(periodFile >> period))
    return std::nullopt;
  return wholeCpus(quota, period);
}

/// The least of the group at `path` and of all above it. A container may see
/// its groups at other paths than its membership says: what is not there has no
/// limit.
template <typename Read>
static std::optional<int> leastOf(const std::string &mount, std::string path,
                                  Read read) {
  std::optional<int> least;
  while (true) {
    if (std::optional<int> cpus = read(mount + path))
      least = std::min(least.value_or(*cpus), *cpus);
    size_t slash = path.rfind('/');
    if (slash == path.npos)
      return least;
    path.resize(slash);
  }
}

/// Whether `list`, "cpu,cpuacct", has cpu in it.
static bool hasCpu(std::string_view list) {
  for (size_t at = 0; at <= list.size();) {
    size_t end = std::min(list.find(',', at), list.size());
    if (list.substr(at, end - at) == "cpu")
      return true;
    at = end + 1;
  }
  return false;
}

std::optional<int> kvrm::quotaCpus(const std::string &membership,
                                   const std::string &mount) {
  std::optional<int> least;
  auto take = [&](std::optional<int> cpus) {
    if (cpus)
      least = std::min(least.value_or(*cpus), *cpus);
  };
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    // "0::/a/b", or "4:cpu,cpuacct:/a/b".
    size_t first = line.find(':');
    size_t second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos)
      continue;
    std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (controllers.empty())
      take(leastOf(mount, path, readUnified));
    else if (hasCpu(controllers))
      take(leastOf((mount + "/").append(controllers), path, readLegacy));
  }
  return least;
}
