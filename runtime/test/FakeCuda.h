//===- FakeCuda.h - A CUDA driver over host memory --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A shared library that stands in for libcuda.so.1. It keeps to what the driver
// promises, at its least helpful: memory starts as garbage, and work on a
// stream is done when somebody waits for it and not before. It runs the commit
// and append kernels, told by their symbols, and all those of the toy decoder.
// What is asked of it that a driver would not do is a violation.
//
// It stands in for libcublasLt.so, too: a product is a launch of `product`. And
// for libnccl.so: a collective is one of `all_reduce` or `all_gather`, which
// ends when every rank's stream has come to it. Threads may call at once, each
// with the device of its context; what follows is looked at by one, between
// the calls of others.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_FAKECUDA_H
#define KVRM_TEST_FAKECUDA_H

#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/abi/pool.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace fake {

/// One launch of a kernel, or one node of a captured graph.
struct Launch {
  std::string symbol;
  std::array<uint32_t, 3> grid{};
  std::array<uint32_t, 3> block{};
  uint32_t sharedBytes = 0;
  uint32_t cluster = 0; ///< 0 = not said
  bool isProgrammatic = false;
  bool isCaptured = false;
  kvrm_device_args args{};
};

/// What the fake pretends, what it is to do wrong, and what it saw.
struct Control {
  // The machine.
  int32_t version = 12040;
  int32_t devices = 1;
  int32_t initResult = 0;
  int32_t major = 9;
  int32_t minor = 0;
  int32_t multiprocessors = 3;
  int32_t sharedBytes = 232448;
  int64_t memoryBytes = int64_t(1) << 30;
  int64_t pinnedBytes = int64_t(1) << 30;
  int32_t activeBlocks = 2;
  int32_t activeClusters = 4;
  int32_t maxThreads = 1024; ///< of any kernel
  int32_t productVersion = 120405;
  int32_t headDim = 64; ///< that the append kernel is compiled for

  // Faults.
  int64_t failAt = 0;        ///< the how manieth call fails, once; 0 = none
  const char *failCall = ""; ///< or all calls of this name do
  int32_t failResult = 999;
  const char *missingCall = "";
  bool hasNoProducts = false; ///< the library of products has no way for any
  /// What events tell after the library's second way for a product.
  float secondWayMilliseconds = 0.25f;
  float elapsedMilliseconds = 0.25f; ///< what events tell
  int productWay = -1;               ///< that the last product was run in
  int32_t collectiveVersion = 22703;
  /// Of a launched graph, the rank that never comes to its first collective
  /// until the group is aborted; -1 = none.
  int32_t stuckRank = -1;

  /// Work is done at once, and nothing is recorded: then no call allocates.
  bool isEager = false;

  // What happened.
  int64_t calls = 0;  ///< that may be made to fail
  int64_t copies = 0; ///< from the host
  int64_t graphLaunches = 0;
  const char *lastFailed = "";  ///< call that was made to fail
  std::vector<Launch> launches; ///< not those of launched graphs
  int64_t products = 0;         ///< that were run
  int64_t collectives = 0;      ///< that were run, counted on each rank
  int64_t aborts = 0;           ///< of communicators
  std::vector<std::string> violations;

  // What was not given back.
  int64_t live = 0;
  int64_t liveBytes = 0;
  int64_t livePinned = 0;

  /// Forgets all but what is live.
  void reset() {
    Control fresh;
    fresh.live = live;
    fresh.liveBytes = liveBytes;
    fresh.livePinned = livePinned;
    *this = fresh;
  }
};

/// The symbol and the parameters of a launch that is a product: addresses of
/// out, in, weight and addend (0 = none), then M, N, K and a
/// kvrm_product_type.
inline constexpr const char *productSymbol = "product";
inline constexpr int32_t productParameters = 8;

/// Symbols of launches that are collectives, with the addresses of out and in,
/// then elements, a kvrm_collective_type, and the communicator.
inline constexpr const char *reduceSymbol = "all_reduce";
inline constexpr const char *gatherSymbol = "all_gather";

} // namespace fake

extern "C" fake::Control *fakeCudaControl();

#endif // KVRM_TEST_FAKECUDA_H
