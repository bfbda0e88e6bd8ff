//===- CudaPeers.h - Mailboxes among GPUs -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Memory of each rank that the kernels of the others write to: KVRM_MAILBOXES
// for each other rank, and the tables by which kernels find them (kvrm_peers).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDAPEERS_H
#define KVRM_RUNTIME_CUDA_CUDAPEERS_H

#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/cuda/CudaDevice.h"

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace kvrm {

class CudaPeers {
public:
  /// Mailboxes of `bytes` each, all empty. Null if there are more ranks than
  /// KVRM_MAX_PEERS, or if some device cannot write to another's memory.
  /// Errors: ResourceExhausted.
  static Expected<std::unique_ptr<CudaPeers>>
  create(std::span<const std::shared_ptr<const CudaDevice>> devices,
         int64_t bytes);

  /// The device address of a rank's kvrm_peers for mailboxes of a number.
  uint64_t table(int32_t rank, int32_t mailbox) const {
    return ranks[static_cast<size_t>(rank)].tables.address() +
           static_cast<uint64_t>(mailbox) * sizeof(kvrm_peers);
  }
  int64_t deviceBytes(int32_t rank) const {
    const Rank &own = ranks[static_cast<size_t>(rank)];
    return own.boxes.size() + own.tables.size();
  }
  /// Lets go the kernels that wait for a word, now and from now on.
  void abort();

private:
  struct Rank {
    CudaStream stream;
    DeviceBuffer boxes;  ///< [mailbox][rank that writes][bytes]
    DeviceBuffer tables; ///< kvrm_peers[mailbox]
  };

  CudaPeers() = default;

  Status take(const std::shared_ptr<const CudaDevice> &device, size_t count,
              int64_t bytes);
  uint64_t box(size_t owner, size_t writer, size_t mailbox) const;
  Status writeTables();

  int64_t boxBytes = 0;
  PinnedBuffer aborted; ///< int32_t
  std::vector<Rank> ranks;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDAPEERS_H
