//===- KernelSet.h - Attention kernels for a GPU, checked -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What `kvrmc attention` writes: a folder with manifest.json, kernels.ptx and,
// if ptxas was there, kernels.cubin. It holds the kernels of one attention
// shape for one architecture. As with packages (Package.h) every field is
// checked against its limits and every file against its size and checksum, and
// an error names file, field and limit in one line. No GPU is needed to read
// one.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_KERNELSET_H
#define KVRM_RUNTIME_CUDA_KERNELSET_H

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// One kernel of a set.
struct KernelInfo {
  std::string name;   ///< what it does, e.g. attend_workqueue
  std::string symbol; ///< in the module
  int32_t threads = 0;
  int32_t sharedBytes = 0; ///< dynamic
  int32_t blocksPerSm = 1; ///< that a persistent grid has
  int32_t maxCluster = 1;  ///< of attend_cluster: 1, 2, 4 or 8
};

/// manifest.json of a set, every field checked.
struct KernelManifest {
  std::string producer;
  std::string arch;         ///< e.g. sm_90
  int32_t capability = 0;   ///< 90 of it
  bool isArchExact = false; ///< sm_90a: runs on that capability alone

  int32_t heads = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;    ///< 64 or 128
  int32_t pageTokens = 0; ///< 16, 32 or 64
  kvrm_element element = KVRM_F16;
  int32_t queries = 0; ///< query tokens of a row
  int32_t qTile = 0;
  int32_t kvTile = 0;

  std::vector<KernelInfo> kernels;
  std::vector<FileInfo> files;

  /// Null if the set has none of that name.
  const KernelInfo *kernel(std::string_view name) const;
  const FileInfo *file(std::string_view name) const;

  int32_t groupHeads() const { return heads / kvHeads; }
  int32_t queryTiles() const { return (queries + qTile - 1) / qTile; }
  /// Bytes of one page of one head, K or V.
  int64_t pageBytes() const { return int64_t(pageTokens) * headDim * 2; }
};

/// Parses and checks a manifest. `where` names it in errors.
Expected<KernelManifest> parseKernelManifest(std::string_view text,
                                             std::string_view where);

/// A set in memory. Immutable.
class KernelSet {
public:
  /// Reads the folder at `path`. Errors: NotFound, Corrupt, Incompatible,
  /// IoError.
  static Expected<KernelSet> load(const std::string &path);

  const KernelManifest &manifest() const { return info; }
  const std::string &path() const { return folder; }

  /// Whether `device` can run it. Errors: Incompatible, e.g. "kernels are for
  /// sm_90; device 0, NVIDIA A100, is sm_80".
  Status checkDevice(const CudaDeviceInfo &device) const;

  /// Loads the cubin if it is for exactly this device, else the PTX.
  Expected<CudaModule>
  loadModule(std::shared_ptr<const CudaDevice> device) const;

private:
  KernelSet() = default;

  KernelManifest info;
  std::string folder;
  std::string ptx;
  std::string cubin; ///< empty = none
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_KERNELSET_H
