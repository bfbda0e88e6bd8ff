//===- CudaDescriptor.h - A step descriptor on a GPU ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The device's copy of a step descriptor, and the way to it:
//
//   1. send() collects the words that changed in pinned memory and starts one
//      copy of them to the device;
//   2. the step's first kernel, commit, writes them into the descriptor;
//   3. applied() says that such a kernel was started.
//
// If a copy fails, or the next send() comes before any commit kernel, that next
// one sends all words: nothing stale is left, whatever failed.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDADESCRIPTOR_H
#define KVRM_RUNTIME_CUDA_CUDADESCRIPTOR_H

#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/paging/StepDescriptor.h"

#include <array>
#include <cstdint>
#include <memory>

namespace kvrm {

/// What the last send() moved.
struct CudaCommitStats {
  int32_t words = 0;       ///< of the descriptor, that changed
  int64_t bytes = 0;       ///< of the copy
  int64_t nanoseconds = 0; ///< host time of send()
  bool isWhole = false;    ///< all words went, to make up for a lost commit
};

class CudaDescriptor {
public:
  CudaDescriptor() = default;
  /// Takes all memory and puts an empty descriptor of that layout on the
  /// device. With `hasGroups` transfer groups are sent too; only staged kernels
  /// read them. Errors: ResourceExhausted.
  static Expected<CudaDescriptor> create(const CudaStream &stream,
                                         const kvrm_descriptor_limits &limits,
                                         bool hasGroups);

  /// Sends what was planned in `descriptor`, always the same one. Fed tokens
  /// are those of `next`, a device address.
  Status send(const CudaStream &stream, StepDescriptor &descriptor,
              uint64_t next = 0);
  void applied() { isPending = false; }

  const CudaCommitStats &stats() const { return last; }
  DeviceSpan span() const { return copy.span(); }
  uint64_t deltaAddress() const { return delta.address(); }
  int64_t deviceBytes() const { return copy.size() + delta.size(); }

private:
  /// Pinned deltas, and the copies that still read them. An event takes longer
  /// to record than a delta to collect, so that one tells of several.
  struct Lap {
    static constexpr size_t slots = 4;
    std::array<PinnedBuffer, slots> memory;
    CudaEvent copied;       ///< all of them
    bool isUnknown = false; ///< in flight without an event to tell
  };

  bool hasGroups = false;
  DeviceBuffer copy;
  DeviceBuffer delta;
  std::array<Lap, 2> laps;
  size_t nextSlot = 0;
  bool isPending = false; ///< a delta that no commit kernel has applied yet
  CudaCommitStats last;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDADESCRIPTOR_H
