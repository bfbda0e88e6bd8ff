//===- DriverApi.h - The calls of the CUDA driver in use --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Declarations of our own of what the CUDA driver API documents: no header of
// CUDA is needed to build. Versions of a call (cuMemAlloc_v2 and so on) are
// chosen by cuGetProcAddress, which is told which CUDA we were written for.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_DRIVERAPI_H
#define KVRM_RUNTIME_CUDA_DRIVERAPI_H

#include "kvrm/runtime/cuda/CudaDriver.h"

#include <cstddef>
#include <cstdint>

namespace kvrm::cuda {

using Result = int32_t;
using DeviceId = int32_t;
using Address = uint64_t;

/// CUresult, as far as we look at it.
enum : Result {
  success = 0,
  errorInvalidValue = 1,
  errorOutOfMemory = 2,
  errorNoDevice = 100,
  errorInvalidContext = 201,
  errorInvalidPtx = 218,
  errorNotFound = 500,
  errorPeerAccessAlreadyEnabled = 704,
};

/// CUdevice_attribute.
enum DeviceAttribute : int32_t {
  attributeMultiprocessors = 16,
  attributeL2Bytes = 38,
  attributeMajor = 75,
  attributeMinor = 76,
  attributeSharedOptin = 97,
};

/// CUfunction_attribute.
enum FunctionAttribute : int32_t {
  functionMaxThreads = 0,
  functionSharedBytes = 1,
  functionLocalBytes = 3,
  functionRegisters = 4,
  functionMaxDynamicShared = 8,
};

/// CUjit_option.
enum JitOption : int32_t {
  jitErrorLog = 5,
  jitErrorLogBytes = 6,
};

/// CUlaunchAttributeID.
constexpr int32_t launchCluster = 4;
constexpr int32_t launchProgrammatic = 6;

constexpr uint32_t streamNonBlocking = 1;
constexpr uint32_t eventDisableTiming = 2;
constexpr int32_t captureThreadLocal = 1;
constexpr int32_t memoryHost = 1;   ///< CU_MEMORYTYPE_HOST
constexpr int32_t memoryDevice = 2; ///< CU_MEMORYTYPE_DEVICE

/// CUlaunchAttribute.
struct LaunchAttribute {
  int32_t id;
  int32_t pad;
  union {
    uint32_t cluster[3];
    int32_t isProgrammatic;
    char bytes[64];
  } value;
};
static_assert(sizeof(LaunchAttribute) == 72);

/// CUlaunchConfig.
struct LaunchConfig {
  uint32_t grid[3];
  uint32_t block[3];
  uint32_t sharedBytes;
  StreamObject *stream;
  LaunchAttribute *attributes;
  uint32_t attributeCount;
};
static_assert(sizeof(LaunchConfig) == 56 &&
              offsetof(LaunchConfig, stream) == 32);

/// CUDA_MEMCPY2D.
struct Copy2D {
  size_t fromX, fromY;
  int32_t fromType;
  const void *fromHost;
  Address fromDevice;
  void *fromArray;
  size_t fromPitch;
  size_t toX, toY;
  int32_t toType;
  void *toHost;
  Address toDevice;
  void *toArray;
  size_t toPitch;
  size_t width, height;
};
static_assert(sizeof(Copy2D) == 128);

/// Every call: its name, and its parameters. All return a Result.
// clang-format off
#define KVRM_CUDA_CALLS(CALL)                                                  \
  CALL(cuInit, (uint32_t flags))                                               \
  CALL(cuDeviceGetCount, (int32_t *count))                                     \
  CALL(cuDeviceGet, (DeviceId *device, int32_t index))                         \
  CALL(cuDeviceGetName, (char *name, int32_t bytes, DeviceId device))          \
  CALL(cuDeviceGetAttribute,                                                   \
       (int32_t *value, DeviceAttribute attribute, DeviceId device))           \
  CALL(cuDeviceTotalMem, (size_t *bytes, DeviceId device))                     \
  CALL(cuDevicePrimaryCtxRetain, (ContextObject **context, DeviceId device))   \
  CALL(cuDevicePrimaryCtxRelease, (DeviceId device))                           \
  CALL(cuCtxSetCurrent, (ContextObject *context))                              \
  CALL(cuDeviceCanAccessPeer,                                                  \
       (int32_t *can, DeviceId device, DeviceId peer))                         \
  CALL(cuCtxEnablePeerAccess, (ContextObject *peer, uint32_t flags))           \
  CALL(cuMemGetInfo, (size_t *free, size_t *total))                            \
  CALL(cuMemAlloc, (Address *address, size_t bytes))                           \
  CALL(cuMemFree, (Address address))                                           \
  CALL(cuMemHostAlloc, (void **memory, size_t bytes, uint32_t flags))          \
  CALL(cuMemFreeHost, (void *memory))                                          \
  CALL(cuMemcpyHtoDAsync, (Address to, const void *from, size_t bytes,         \
                           StreamObject *stream))                              \
  CALL(cuMemcpyDtoHAsync, (void *to, Address from, size_t bytes,               \
                           StreamObject *stream))                              \
  CALL(cuMemcpyDtoDAsync, (Address to, Address from, size_t bytes,             \
                           StreamObject *stream))                              \
  CALL(cuMemcpy2DAsync, (const Copy2D *copy, StreamObject *stream))            \
  CALL(cuMemsetD8Async, (Address to, uint8_t value, size_t bytes,              \
                         StreamObject *stream))                                \
  CALL(cuStreamCreate, (StreamObject **stream, uint32_t flags))                \
  CALL(cuStreamDestroy, (StreamObject *stream))                                \
  CALL(cuStreamSynchronize, (StreamObject *stream))                            \
  CALL(cuStreamBeginCapture, (StreamObject *stream, int32_t mode))             \
  CALL(cuStreamEndCapture, (StreamObject *stream, GraphObject **graph))        \
  CALL(cuEventCreate, (EventObject **event, uint32_t flags))                   \
  CALL(cuEventDestroy, (EventObject *event))                                   \
  CALL(cuEventRecord, (EventObject *event, StreamObject *stream))              \
  CALL(cuEventSynchronize, (EventObject *event))                               \
  CALL(cuEventElapsedTime,                                                     \
       (float *milliseconds, EventObject *start, EventObject *end))            \
  CALL(cuModuleLoadDataEx,                                                     \
       (ModuleObject **module, const void *image, uint32_t options,            \
        JitOption *names, void **values))                                      \
  CALL(cuModuleUnload, (ModuleObject *module))                                 \
  CALL(cuModuleGetFunction, (FunctionObject **function, ModuleObject *module,  \
                             const char *name))                                \
  CALL(cuFuncGetAttribute, (int32_t *value, FunctionAttribute attribute,       \
                            FunctionObject *function))                         \
  CALL(cuFuncSetAttribute, (FunctionObject *function,                          \
                            FunctionAttribute attribute, int32_t value))       \
  CALL(cuLaunchKernelEx, (const LaunchConfig *config,                          \
                          FunctionObject *function, void **parameters,         \
                          void **extra))                                       \
  CALL(cuOccupancyMaxActiveBlocksPerMultiprocessor,                            \
       (int32_t *blocks, FunctionObject *function, int32_t threads,            \
        size_t sharedBytes))                                                   \
  CALL(cuOccupancyMaxActiveClusters,                                           \
       (int32_t *clusters, FunctionObject *function,                           \
        const LaunchConfig *config))                                           \
  CALL(cuGraphInstantiateWithFlags,                                            \
       (GraphExecObject **exec, GraphObject *graph, uint64_t flags))           \
  CALL(cuGraphUpload, (GraphExecObject *exec, StreamObject *stream))           \
  CALL(cuGraphLaunch, (GraphExecObject *exec, StreamObject *stream))           \
  CALL(cuGraphExecDestroy, (GraphExecObject *exec))                            \
  CALL(cuGraphDestroy, (GraphObject *graph))
// clang-format on

/// The entry points. The last four are what the others are found with.
struct Api {
// NOLINTBEGIN(bugprone-macro-parentheses): a declarator takes none.
#define KVRM_CUDA_POINTER(name, parameters) Result(*name) parameters = nullptr;
  KVRM_CUDA_CALLS(KVRM_CUDA_POINTER)
#undef KVRM_CUDA_POINTER
  // NOLINTEND(bugprone-macro-parentheses)
  Result (*cuDriverGetVersion)(int32_t *version) = nullptr;
  Result (*cuGetErrorName)(Result error, const char **text) = nullptr;
  Result (*cuGetErrorString)(Result error, const char **text) = nullptr;
  /// The symbol cuGetProcAddress_v2.
  Result (*cuGetProcAddress)(const char *name, void **function, int32_t version,
                             uint64_t flags, int32_t *found) = nullptr;
};

} // namespace kvrm::cuda

/// Status of a call of the driver: KVRM_CUDA(driver, cuMemFree, (address)).
#define KVRM_CUDA(driver, name, arguments)                                     \
  (driver).statusOf((driver).api().name arguments, #name)

#endif // KVRM_RUNTIME_CUDA_DRIVERAPI_H
