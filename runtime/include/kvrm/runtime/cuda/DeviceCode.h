//===- DeviceCode.h - A package's code on a device --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_DEVICECODE_H
#define KVRM_RUNTIME_CUDA_DEVICECODE_H

#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/package/Package.h"

#include <memory>
#include <vector>

namespace kvrm {

/// Whether `device` can run a package's kernels. Errors: Incompatible, e.g.
/// "P.kvrm: kernels are for sm_90; device 0, NVIDIA A100, is sm_80", or for a
/// package for CPUs.
Status checkDevice(const Package &package, const CudaDeviceInfo &device);

/// What a work item costs a block beside its tiles, as PlanShape::itemCost
/// says: as long as it takes to read so many bytes, measured.
int32_t deviceItemCost(int32_t kvTile, int32_t headDim, kvrm_element element);

/// A package's kernels, loaded: its cubin if that is for exactly this device,
/// else the PTX.
class DeviceCode {
public:
  struct Kernel {
    CudaKernel code;
    KernelInfo info;
  };

  DeviceCode() = default;
  /// Errors: Incompatible for a device that cannot run the kernels, Corrupt for
  /// a kernel that is not in the code.
  static Expected<DeviceCode> load(std::shared_ptr<const CudaDevice> device,
                                   const Package &package);

  /// In the manifest's order, which is that of a program's kernel numbers.
  const std::vector<Kernel> &kernels() const { return loaded; }
  /// The first kernel of a role; null if there is none.
  const Kernel *find(kvrm_kernel_role role) const;
  const CudaDevice &device() const { return *owner; }

private:
  std::shared_ptr<const CudaDevice> owner;
  CudaModule module;
  std::vector<Kernel> loaded;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_DEVICECODE_H
