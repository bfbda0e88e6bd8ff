//===- CudaDriver.h - The CUDA driver, found at run time --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The runtime is built without CUDA: it opens the driver's library when a
// device is asked for, and has its own declarations of the few calls it makes.
// So one build runs on machines with and without a GPU, and a machine without
// one gets an error in one line.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDADRIVER_H
#define KVRM_RUNTIME_CUDA_CUDADRIVER_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <string>

namespace kvrm {

namespace cuda {
struct Api; ///< the driver's entry points; runtime/cuda/DriverApi.h
// What the driver calls CUcontext, CUstream, CUevent and so on.
struct ContextObject;
struct StreamObject;
struct EventObject;
struct ModuleObject;
struct FunctionObject;
struct GraphObject;
struct GraphExecObject;
} // namespace cuda

class CudaDriver {
public:
  /// Graphs with programmatic dependent launch need CUDA 12.3.
  static constexpr int32_t leastVersion = 12030;

  /// Opens `library` (null: libcuda.so.1) and starts the driver. It is never
  /// closed again, as drivers do not survive that. Errors, one line each:
  /// NotFound without a driver or a device, Incompatible for an old driver.
  static Expected<std::shared_ptr<const CudaDriver>>
  load(const char *library = nullptr);

  ~CudaDriver();
  CudaDriver(const CudaDriver &) = delete;
  CudaDriver &operator=(const CudaDriver &) = delete;

  /// 1000 * major + 10 * minor of the CUDA version that the driver is for.
  int32_t version() const { return driverVersion; }
  int32_t devices() const { return deviceCount; }

  const cuda::Api &api() const { return *entries; }
  /// Ok, or "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (out of memory)".
  Status statusOf(int32_t result, const char *call) const;

private:
  CudaDriver();

  std::unique_ptr<cuda::Api> entries;
  int32_t driverVersion = 0;
  int32_t deviceCount = 0;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDADRIVER_H
