//===- CollectiveLibrary.h - NCCL, found at run time ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The library that runs the collectives of a step program. The runtime is built
// without it and opens it when a package for several GPUs is to run.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_COLLECTIVELIBRARY_H
#define KVRM_RUNTIME_CUDA_COLLECTIVELIBRARY_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <string>

namespace kvrm {

namespace cuda {
struct NcclApi; ///< the library's entry points; runtime/cuda/NcclApi.h
} // namespace cuda

class CollectiveLibrary {
public:
  /// 10000 * major + 100 * minor + patch: the first that captures collectives
  /// of several threads in graphs for sm_90.
  static constexpr int32_t leastVersion = 21800;

  /// Opens `file`. It is never closed again, as what it puts on a device does
  /// not survive that. Errors, one line each: NotFound without such a file,
  /// Incompatible for one that lacks a call or is too old.
  static Expected<std::shared_ptr<const CollectiveLibrary>>
  load(const std::string &file);

  /// The library that `choice` names; or, if it is empty, what the
  /// environment's KVRM_NCCL names, or else libnccl.so.2 of the system. Errors:
  /// those of load().
  static Expected<std::shared_ptr<const CollectiveLibrary>>
  find(const std::string &choice);

  ~CollectiveLibrary();
  CollectiveLibrary(const CollectiveLibrary &) = delete;
  CollectiveLibrary &operator=(const CollectiveLibrary &) = delete;

  /// "NCCL 2.27.3".
  const std::string &name() const { return text; }

  const cuda::NcclApi &api() const { return *entries; }
  /// Ok, or "ncclAllReduce: unhandled system error (2)".
  Status statusOf(int32_t result, const char *call) const;

private:
  CollectiveLibrary();

  std::unique_ptr<cuda::NcclApi> entries;
  std::string text;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_COLLECTIVELIBRARY_H
