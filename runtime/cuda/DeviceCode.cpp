//===- DeviceCode.cpp - A package's code on a device ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/DeviceCode.h"

#include "kvrm/runtime/paging/Planner.h"

using namespace kvrm;

Status kvrm::checkDevice(const Package &package, const CudaDeviceInfo &device) {
  const Manifest &m = package.manifest();
  if (m.target != TargetKind::NVPTX)
    return makeError(StatusCode::Incompatible, package.path(),
                     ": is for CPUs; it has no kernels for a GPU");
  bool isFit = m.isArchExact ? device.capability() == m.capability
                             : device.capability() >= m.capability;
  if (isFit)
    return Status::ok();
  return makeError(StatusCode::Incompatible, package.path(),
                   ": kernels are for ", m.arch, "; device ", device.index,
                   ", ", device.name, ", is sm_", device.capability());
}

/// What a work item costs a block beside its tiles: so many bytes of KV could
/// it read meanwhile. Loads of the item, its row, its block table and its query
/// that wait for one another, and three barriers.
static constexpr int64_t itemBytes = 128 << 10;

int32_t kvrm::deviceItemCost(int32_t kvTile, int32_t headDim,
                             kvrm_element element) {
  int64_t tileBytes = 2 * int64_t(kvTile) * kvrm_token_bytes(headDim, element);
  return static_cast<int32_t>(itemBytes * PlanShape::tileCost / tileBytes);
}

static Expected<CudaModule> loadModule(std::shared_ptr<const CudaDevice> device,
                                       const Package &package) {
  bool isExact = device->info().capability() == package.manifest().capability;
  const DeviceImage &image = package.deviceImage();
  if (!image.cubin.empty() && isExact)
    return CudaModule::load(std::move(device), image.cubin,
                            package.path() + "/kernels.cubin");
  return CudaModule::load(std::move(device), image.ptx,
                          package.path() + "/kernels.ptx");
}

/// Whether the device can launch it at all.
static Status checkKernel(const DeviceCode::Kernel &kernel,
                          const CudaDeviceInfo &device,
                          const std::string &path) {
  const KernelInfo &info = kernel.info;
  const char *name = info.name();
  if (kernel.code.info().maxThreads < info.threads)
    return makeError(StatusCode::Incompatible, path, ": kernel ", name, ": ",
                     info.threads, " threads are more than the ",
                     kernel.code.info().maxThreads, " that it can have");
  if (info.role != KVRM_ROLE_ATTEND_WORKQUEUE &&
      info.role != KVRM_ROLE_ATTEND_STAGED)
    return Status::ok();
  Expected<int32_t> blocks =
      kernel.code.maxActiveBlocks(info.threads, info.sharedBytes);
  KVRM_TRY(blocks.status());
  if (*blocks < 1)
    return makeError(StatusCode::Incompatible, path, ": kernel ", name,
                     ": a block does not fit device ", device.index, ", ",
                     device.name);
  return Status::ok();
}

Expected<DeviceCode> DeviceCode::load(std::shared_ptr<const CudaDevice> device,
                                      const Package &package) {
  KVRM_CHECK(device, "code is loaded on a device");
  KVRM_TRY(checkDevice(package, device->info()));
  Expected<CudaModule> loaded = loadModule(device, package);
  KVRM_TRY(loaded.status());
  DeviceCode code;
  code.owner = std::move(device);
  code.module = loaded.take();
  for (const KernelInfo &info : package.manifest().kernels) {
    Expected<CudaKernel> kernel =
        code.module.kernel(info.symbol, info.sharedBytes);
    KVRM_TRY(kernel.status());
    code.loaded.push_back({kernel.take(), info});
    KVRM_TRY(
        checkKernel(code.loaded.back(), code.owner->info(), package.path()));
  }
  return code;
}

const DeviceCode::Kernel *DeviceCode::find(kvrm_kernel_role role) const {
  for (const Kernel &kernel : loaded)
    if (kernel.info.role == role)
      return &kernel;
  return nullptr;
}
