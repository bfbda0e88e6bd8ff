//===- CreateDecoder.h - Packages to decoders -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one place that knows which decoder and which backend a package wants.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_CREATEDECODER_H
#define KVRM_RUNTIME_SESSION_CREATEDECODER_H

#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/session/Decoder.h"
#include "kvrm/runtime/session/Session.h"
#include "kvrm/runtime/support/Status.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace kvrm {

class CudaDevice;

struct SessionConfig {
  /// Pages of the pool; 0 = slots x pages a slot, with which no request can run
  /// out. Static packages ignore it.
  int64_t poolPages = 0;
  /// Worker threads, the caller among them; 0 = one a usable CPU. CPUs only.
  int32_t threads = 0;
  /// Shares that the work queue is cut into; 0 = one a worker. CPUs only; on a
  /// GPU they are the blocks that it runs at once.
  int32_t shares = 0;
  /// Histories besides the slots' that can be kept in the pool. Paged only.
  int32_t keptHistories = 0;
  /// Histories that can be parked in host memory at a time, and the pages that
  /// they have there together. Paged only.
  int32_t parkingPlaces = 0;
  int64_t parkingPages = 0;
  /// A file that `kvrm-run calibrate` wrote, to choose schedules by; empty =
  /// the work queue always. Not read where a backend has one schedule.
  std::string calibration = {}; // NOLINT(readability-redundant-member-init)
  /// The GPU that a package for GPUs runs on, as CUDA numbers them.
  int32_t device = 0;
  /// It, if it is open already; else it is opened for the decoder.
  std::shared_ptr<const CudaDevice> gpu = nullptr;
  /// The library that runs products of a package for GPUs, if that has any for
  /// one: a file or "none"; empty = as ProductLibrary::find() says.
  std::string products = {}; // NOLINT(readability-redundant-member-init)
  /// The library that runs collectives of a package for several GPUs, which are
  /// `device` and those behind it: a file; empty = as
  /// CollectiveLibrary::find() says.
  std::string collectives = {}; // NOLINT(readability-redundant-member-init)
  /// Whether small sums over GPUs that reach one another go through mailboxes
  /// in their memory; else all are the library's.
  bool usesMailboxes = true;
  /// That any one call of a group of ranks may take; then it is given up
  /// (ShardedBackend.h).
  std::chrono::milliseconds rankTimeout{30000};

  /// Worker threads that there will be.
  int32_t workers() const { return threads > 0 ? threads : usableCpus(); }
};

/// Takes all memory of a decoder and starts its workers, or records its graphs.
/// Errors: InvalidArgument, ResourceExhausted, and those of calibration files;
/// of a package for GPUs also those of CudaDriver.h and CudaBackend.h.
Expected<std::unique_ptr<Decoder>>
createDecoder(std::shared_ptr<const Package> package,
              const SessionConfig &config);

/// The same of a paged package. Errors: InvalidArgument for a static one.
Expected<std::unique_ptr<Session>>
createSession(const std::shared_ptr<const Package> &package,
              const SessionConfig &config);

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_CREATEDECODER_H
