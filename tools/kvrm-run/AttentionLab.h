//===- AttentionLab.h - What batches on a GPU share -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_ATTENTIONLAB_H
#define KVRM_TOOLS_RUN_ATTENTIONLAB_H

#include "kvrm/runtime/attention/AttentionStep.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/paging/SchedulePolicy.h"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace kvrm::run {

PolicyShape policyShapeOf(const AttentionInfo &manifest);

/// What rigs share: a device, kernels, and what costs time to make.
class AttentionLab {
public:
  /// Errors: those of the driver, the device and the kernel set.
  static Expected<std::unique_ptr<AttentionLab>>
  create(std::shared_ptr<const Package> package);

  const std::shared_ptr<const CudaDevice> &device() const { return gpu; }
  const Package &package() const { return *set; }
  const AttentionInfo &info() const { return shape; }
  ThreadPool &threads() { return *workers; }
  /// Random pages of numbers in -1..1.
  std::span<const uint8_t> pattern() const { return pages; }
  /// Pinned memory of at least that size; what was there is gone.
  Expected<uint8_t *> pinned(int64_t bytes);

private:
  explicit AttentionLab(std::shared_ptr<const Package> package)
      : set(std::move(package)), shape(AttentionInfo::of(set->manifest())) {}
  void fillPattern();

  std::shared_ptr<const Package> set;
  AttentionInfo shape;
  std::shared_ptr<const CudaDevice> gpu;
  std::unique_ptr<ThreadPool> workers;
  std::vector<uint8_t> pages;
  PinnedBuffer memory;
};

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_ATTENTIONLAB_H
