//===- ToyDevice.h - The toy decoder on a GPU -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What its package (ToyDevicePackage.cpp) and its kernels, as FakeCuda.cpp runs
// them, both know. Built with TOY_DEVICE.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYDEVICE_H
#define KVRM_TEST_TOYDEVICE_H

#include "ToyModel.h"

#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/program.h"

#include <array>
#include <cstdint>

namespace toy {

/// Kernels, by their number in the manifest. Entries have attention of their
/// own, as it is compiled for their queries; prefill has no clusters.
enum DeviceKernel : uint32_t {
  Commit,
  Append,
  AttendWorkqueue,
  AttendCluster,
  AttendPrefill,
  Embed,    ///< tokens, rows, x
  Project,  ///< rows, x, q, k, v, layer
  Mix,      ///< out, weight, mixed, rows of the product
  Residual, ///< rows, x, mixed
  Logits,   ///< rows, x, weights, logits, queries, first row of the batch
  Sample,
  DeviceKernels
};

struct DeviceKernelInfo {
  kvrm_kernel_role role;
  const char *symbol;
  int32_t args;
};

inline constexpr std::array<DeviceKernelInfo, DeviceKernels> deviceKernels = {
    {{KVRM_ROLE_COMMIT, "toy_commit", KVRM_DEVICE_ARGS},
     {KVRM_ROLE_APPEND, "toy_append", KVRM_DEVICE_ARGS},
     {KVRM_ROLE_ATTEND_WORKQUEUE, "toy_attend", KVRM_DEVICE_ARGS},
     {KVRM_ROLE_ATTEND_CLUSTER, "toy_attend_cluster", KVRM_DEVICE_ARGS},
     {KVRM_ROLE_ATTEND_WORKQUEUE, "toy_attend_prefill", KVRM_DEVICE_ARGS},
     {KVRM_ROLE_DENSE, "toy_embed", 3},
     {KVRM_ROLE_DENSE, "toy_project", 6},
     {KVRM_ROLE_DENSE, "toy_mix", 4},
     {KVRM_ROLE_DENSE, "toy_residual", 3},
     {KVRM_ROLE_DENSE, "toy_logits", 6},
     {KVRM_ROLE_SAMPLE, "toy_sample", 4}}};

/// Values between the kernels of a batch of so many tokens: x in float, all
/// else in f16.
struct DeviceArena {
  int64_t x, q, k, v, out, mixed; ///< offsets
  int64_t xBytes, qBytes, kvBytes;
  int64_t bytes; ///< where the next batch's can start

  /// From `start` on, which is aligned.
  explicit DeviceArena(int64_t tokens, int64_t start = 0) {
    xBytes = tokens * hidden * int64_t(sizeof(float));
    qBytes = tokens * hidden * int64_t(sizeof(uint16_t));
    kvBytes = tokens * kvHeads * headDim * int64_t(sizeof(uint16_t));
    x = start;
    q = kvrm_align_up(x + xBytes);
    k = kvrm_align_up(q + qBytes);
    v = kvrm_align_up(k + kvBytes);
    out = kvrm_align_up(v + kvBytes);
    mixed = kvrm_align_up(out + qBytes);
    bytes = kvrm_align_up(mixed + qBytes);
  }
};

/// float[vocabulary][hidden], what logits are products with.
inline constexpr int64_t headWeightBytes =
    int64_t(vocabulary) * hidden * int64_t(sizeof(float));
/// Half[headDim][headDim], what each head of the output of attention is mixed
/// with: its channels are turned around, and turned back by the residual.
inline constexpr int64_t mixWeightBytes =
    int64_t(headDim) * headDim * int64_t(sizeof(uint16_t));
inline constexpr int64_t deviceWeightBytes = headWeightBytes + mixWeightBytes;

/// The channel that channel `i` of a head is mixed from.
constexpr int mixedFrom(int i) { return (i + 5) % headDim; }

} // namespace toy

#endif // KVRM_TEST_TOYDEVICE_H
