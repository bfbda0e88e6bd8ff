//===- NcclApi.h - The calls of NCCL in use ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Declarations of our own of what NCCL documents, as DriverApi.h has those of
// the driver: no header of NCCL is needed to build. All of it is the same in
// all versions 2.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_NCCLAPI_H
#define KVRM_RUNTIME_CUDA_NCCLAPI_H

#include "kvrm/runtime/cuda/CudaDriver.h"

#include <cstddef>
#include <cstdint>

namespace kvrm::cuda {

struct NcclCommunicator;

/// ncclResult_t, as far as we look at it.
using NcclResult = int32_t;
enum : NcclResult {
  ncclSuccess = 0,
  ncclSystemError = 2,
};

/// ncclDataType_t.
enum NcclType : int32_t {
  ncclF16 = 6,
  ncclF32 = 7,
  ncclBF16 = 9,
};

/// ncclRedOp_t.
constexpr int32_t ncclSum = 0;

/// Every call: its name, and its parameters. All return an NcclResult. A stream
/// is the driver's, too.
// clang-format off
#define KVRM_NCCL_CALLS(CALL)                                                  \
  CALL(ncclGetVersion, (int32_t *version))                                     \
  CALL(ncclCommInitAll, (NcclCommunicator **communicators, int32_t ranks,      \
                         const int32_t *devices))                              \
  CALL(ncclCommDestroy, (NcclCommunicator *communicator))                      \
  CALL(ncclCommAbort, (NcclCommunicator *communicator))                        \
  CALL(ncclAllReduce, (const void *in, void *out, size_t count, NcclType type, \
                       int32_t operation, NcclCommunicator *communicator,      \
                       StreamObject *stream))                                  \
  CALL(ncclAllGather, (const void *in, void *out, size_t count, NcclType type, \
                       NcclCommunicator *communicator, StreamObject *stream))
// clang-format on

/// The entry points.
struct NcclApi {
// NOLINTBEGIN(bugprone-macro-parentheses): a declarator takes none.
#define KVRM_NCCL_POINTER(name, parameters)                                    \
  NcclResult(*name) parameters = nullptr;
  KVRM_NCCL_CALLS(KVRM_NCCL_POINTER)
#undef KVRM_NCCL_POINTER
  // NOLINTEND(bugprone-macro-parentheses)
  const char *(*ncclGetErrorString)(NcclResult result) = nullptr;
};

} // namespace kvrm::cuda

#endif // KVRM_RUNTIME_CUDA_NCCLAPI_H
