//===- ProductLibrary.h - cuBLASLt, found at run time -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A library that runs the products of a step program (KVRM_COMMAND_PRODUCT).
// The runtime is built without it and opens it when a backend is created, if it
// is there; else the kernels that stand in for products run.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_PRODUCTLIBRARY_H
#define KVRM_RUNTIME_CUDA_PRODUCTLIBRARY_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <string>

namespace kvrm {

namespace cuda {
struct LtApi; ///< the library's entry points; runtime/cuda/LtApi.h
struct LtHandle;
} // namespace cuda

class ProductLibrary {
public:
  /// 10000 * major + 100 * minor + patch.
  static constexpr int32_t leastVersion = 120000;

  /// Opens `file`. It is never closed again, as what it puts on a device does
  /// not survive that. Errors, one line each: NotFound without such a file,
  /// Incompatible for one that lacks a call or is too old.
  static Expected<std::shared_ptr<const ProductLibrary>>
  load(const std::string &file);

  /// The library that `choice` names: a file; "none"; or, empty, what the
  /// environment's KVRM_CUBLASLT names, or else the newest libcublasLt.so of
  /// the system that the driver is for (`driverVersion` as CudaDriver has it).
  /// Null for none, or if the system has none. Errors: those of load() for a
  /// file that was named.
  static Expected<std::shared_ptr<const ProductLibrary>>
  find(const std::string &choice, int32_t driverVersion);

  ~ProductLibrary();
  ProductLibrary(const ProductLibrary &) = delete;
  ProductLibrary &operator=(const ProductLibrary &) = delete;

  /// "cuBLASLt 13.0.2".
  const std::string &name() const { return text; }

  const cuda::LtApi &api() const { return *entries; }
  /// Ok, or "cublasLtMatmul: CUBLAS_STATUS_NOT_SUPPORTED".
  Status statusOf(int32_t result, const char *call) const;

private:
  ProductLibrary();

  std::unique_ptr<cuda::LtApi> entries;
  std::string text;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_PRODUCTLIBRARY_H
