//===- CudaSummaries.h - Far-history summaries in a GPU's pool --*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What HostSummaries.h does on the CPU, by the package's kernel of
// KVRM_ROLE_COLLAPSE: one copy of the list of writes, one launch, both in the
// stream of steps and waited for by nobody.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDASUMMARIES_H
#define KVRM_RUNTIME_CUDA_CUDASUMMARIES_H

#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/CudaPool.h"
#include "kvrm/runtime/cuda/DeviceCode.h"
#include "kvrm/runtime/session/Backend.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace kvrm {

class CudaSummaries {
public:
  CudaSummaries() = default;
  /// Takes all memory, for histories of `entries` summaries. `kernel` outlives
  /// it. Errors: ResourceExhausted.
  static Expected<CudaSummaries>
  create(std::shared_ptr<const CudaDevice> device,
         const DeviceCode::Kernel &kernel, const PoolShape &shape,
         int32_t entries);

  /// Starts what Backend::collapsePage() is to do. If it fails, nothing is.
  Status write(const CudaStream &stream, const CudaPool &pool,
               const PageCollapse &collapse);

  int64_t deviceBytes() const { return list.size(); }

private:
  void put(const void *bytes, size_t count);

  const DeviceCode::Kernel *kernel = nullptr;
  int32_t pageTokens = 0;
  DeviceBuffer list;
  std::vector<uint8_t> hostList; ///< what goes there; as long as that at most
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDASUMMARIES_H
