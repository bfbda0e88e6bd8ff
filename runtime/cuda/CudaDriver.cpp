//===- CudaDriver.cpp - The CUDA driver, found at run time ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaDriver.h"

#include "DriverApi.h"
#include "SharedLibrary.h"

using namespace kvrm;

CudaDriver::CudaDriver() : entries(std::make_unique<cuda::Api>()) {}
CudaDriver::~CudaDriver() = default;

Status CudaDriver::statusOf(int32_t result, const char *call) const {
  if (result == cuda::success) [[likely]]
    return Status::ok();
  const char *name = nullptr;
  const char *text = nullptr;
  if (entries->cuGetErrorName(result, &name) != cuda::success)
    name = nullptr;
  if (entries->cuGetErrorString(result, &text) != cuda::success)
    text = nullptr;
  return makeError(result == cuda::errorOutOfMemory
                       ? StatusCode::ResourceExhausted
                       : StatusCode::IoError,
                   call, ": ", name ? name : "error " + std::to_string(result),
                   " (", text ? text : "the driver has no words for it", ")");
}

static std::string versionText(int32_t version) {
  return std::to_string(version / 1000) + "." +
         std::to_string(version % 1000 / 10);
}

Expected<std::shared_ptr<const CudaDriver>>
CudaDriver::load(const char *library) {
  if (!library)
    library = "libcuda.so.1";
  Expected<cuda::SharedLibrary> shared =
      cuda::SharedLibrary::open(library, "CUDA", "there is no driver: ");
  if (!shared)
    return shared.status();
  std::shared_ptr<CudaDriver> driver(new CudaDriver());
  cuda::Api &api = *driver->entries;
  KVRM_TRY(shared->look(api.cuGetErrorName, "cuGetErrorName"));
  KVRM_TRY(shared->look(api.cuGetErrorString, "cuGetErrorString"));
  KVRM_TRY(shared->look(api.cuDriverGetVersion, "cuDriverGetVersion"));
  KVRM_TRY(KVRM_CUDA(*driver, cuDriverGetVersion, (&driver->driverVersion)));
  if (driver->driverVersion < leastVersion)
    return makeError(StatusCode::Incompatible, "CUDA: the driver is for CUDA ",
                     versionText(driver->driverVersion), "; ",
                     versionText(leastVersion), " is needed");
  KVRM_TRY(shared->look(api.cuGetProcAddress, "cuGetProcAddress_v2"));

  struct Call {
    const char *name;
    void **entry;
  };
  const Call calls[] = {
#define KVRM_CUDA_CALL(name, parameters)                                       \
  {#name, reinterpret_cast<void **>(&api.name)},
      KVRM_CUDA_CALLS(KVRM_CUDA_CALL)
#undef KVRM_CUDA_CALL
  };
  for (const Call &call : calls) {
    int32_t found = 0;
    if (api.cuGetProcAddress(call.name, call.entry, leastVersion, /*flags=*/0,
                             &found) != cuda::success ||
        !*call.entry)
      return makeError(StatusCode::Incompatible, "CUDA: ", library,
                       " has no call ", call.name);
  }

  cuda::Result started = api.cuInit(0);
  if (started == cuda::errorNoDevice)
    return makeError(StatusCode::NotFound, "CUDA: there is no device: ",
                     driver->statusOf(started, "cuInit").message());
  KVRM_TRY(driver->statusOf(started, "cuInit"));
  KVRM_TRY(KVRM_CUDA(*driver, cuDeviceGetCount, (&driver->deviceCount)));
  if (driver->deviceCount < 1)
    return makeError(StatusCode::NotFound, "CUDA: there is no device");
  return std::shared_ptr<const CudaDriver>(std::move(driver));
}
