//===- CpuQuota.h - CPUs that a container may use ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_HOST_CPUQUOTA_H
#define KVRM_RUNTIME_HOST_CPUQUOTA_H

#include <optional>
#include <string>

namespace kvrm {

/// The whole CPUs, one at least, that control groups grant in each of their
/// periods; nothing without a limit. More workers than these are stopped for
/// the rest of a period, all at once, in the middle of a step. `membership` is
/// the text of /proc/self/cgroup, `mount` the folder that groups are under:
/// both versions of control groups are read, and the least of a group and of
/// those that it is in counts.
std::optional<int> quotaCpus(const std::string &membership,
                             const std::string &mount);

} // namespace kvrm

#endif // KVRM_RUNTIME_HOST_CPUQUOTA_H
