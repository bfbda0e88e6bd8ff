//===- CudaGroup.h - Collectives among GPUs of a process --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A GPU a rank, and a communicator of NCCL for each. A collective is work of a
// stream like any other, and can be captured; it is done when every rank's
// stream has come to it, so that a rank that does not come keeps all others
// waiting on their devices until the group is aborted.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDAGROUP_H
#define KVRM_RUNTIME_CUDA_CUDAGROUP_H

#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/cuda/CollectiveLibrary.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/CudaPeers.h"
#include "kvrm/runtime/session/RankGroup.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace kvrm {

namespace cuda {
struct NcclCommunicator;
} // namespace cuda

/// One collective: of `elements` of in, on each rank.
struct Collective {
  kvrm_command_kind kind = KVRM_COMMAND_ALL_REDUCE;
  kvrm_collective_type type = KVRM_COLLECTIVE_F32;
  int64_t elements = 0;

  bool operator==(const Collective &) const = default;
};

class CudaGroup final : public RankGroup {
public:
  /// The devices are those of the ranks, all different. Errors: IoError, with
  /// the library's call and its words.
  static Expected<std::shared_ptr<CudaGroup>>
  create(std::shared_ptr<const CollectiveLibrary> library,
         std::vector<std::shared_ptr<const CudaDevice>> devices);
  /// Whatever recorded a collective of the group is gone before it.
  ~CudaGroup() override;

  int32_t ranks() const { return static_cast<int32_t>(devices.size()); }
  const std::shared_ptr<const CudaDevice> &device(int32_t rank) const {
    return devices[static_cast<size_t>(rank)];
  }
  /// Takes mailboxes of that many bytes for sums, if the devices reach one
  /// another; before any rank is made. Errors: ResourceExhausted.
  Status takeMailboxes(int64_t bytes);
  /// Null without mailboxes.
  const CudaPeers *peers() const { return mailboxes.get(); }
  /// "NCCL 2.27.3".
  const std::string &name() const { return library->name(); }

  /// Starts, or records, a rank's part of a collective on a stream of its
  /// device. The first of a kind waits for the other ranks to make the same
  /// call. Errors: IoError, also once the group is aborted.
  Status run(int32_t rank, const CudaStream &stream,
             const Collective &collective, uint64_t out, uint64_t in);

  /// Kernels of collectives that wait end soon after; what was recorded is not
  /// to be started any more. Threads of its own see to it that all that the
  /// library has is given back, which it is when the graphs are gone.
  void abort() override;

private:
  CudaGroup() = default;

  std::shared_ptr<const CollectiveLibrary> library;
  std::vector<std::shared_ptr<const CudaDevice>> devices;
  std::unique_ptr<CudaPeers> mailboxes;
  std::vector<cuda::NcclCommunicator *> communicators;
  std::atomic<bool> isAborted = false;
  std::mutex mutex; ///< of the threads
  std::vector<std::thread> aborting;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDAGROUP_H
