//===- CudaBackend.h - The backend of NVIDIA GPUs ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A Backend.h whose steps are the programs of a GPU package. It owns a stream
// and all device memory: the KV pool, weights, the arena, partials, logits, and
// for each entry a step descriptor and the graphs of its schedules. Everything
// is taken and recorded by create(); what a step does is said by its descriptor
// alone. One step is
//
//   1. one copy to the device: the words of the descriptor that changed;
//   2. one graph launch: commit, then all that the program has;
//   3. one copy from the device: the tokens that were chosen, or logits;
//   4. a wait for it, at once or, for later, when the next step is started.
//
// Pages are copied on the stream too, so that calls take effect in their order
// while the host goes on; moves to and from parking memory, which is pinned,
// are waited for, as the session gives up one of the copies then.
//
// Errors are those of the driver (see CudaDevice.h). A commit that did not
// reach the device is made up for by the next (CudaDescriptor.h).
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDABACKEND_H
#define KVRM_RUNTIME_CUDA_CUDABACKEND_H

#include "kvrm/runtime/cuda/CudaDescriptor.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/CudaPool.h"
#include "kvrm/runtime/cuda/CudaProducts.h"
#include "kvrm/runtime/cuda/CudaProgram.h"
#include "kvrm/runtime/cuda/CudaSummaries.h"
#include "kvrm/runtime/cuda/CudaTokens.h"
#include "kvrm/runtime/cuda/DeviceCode.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/session/Backend.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <memory>
#include <span>

namespace kvrm {

/// What fixes the backend for its life; the package says the rest.
struct CudaShape {
  int32_t pages = 0;        ///< of the pool
  int32_t parkingPages = 0; ///< of pinned host memory
  /// What entries are planned with; `shares` are the backend's.
  std::array<PlanShape, plannedEntries> plans;
  /// Decode steps can run as clusters too: a graph a size.
  bool usesClusters = false;
  /// What runs products; null: the kernels that stand in for them.
  std::shared_ptr<const ProductLibrary> products;
  /// Whom the collectives of a package for several ranks are with, and which
  /// rank this is; its weights are taken, and its device is the group's.
  std::shared_ptr<CudaGroup> group;
  int32_t rank = 0;
  /// Of pinned memory that weights go through.
  int64_t stagingBytes = 32 << 20;
};

class CudaBackend final : public Backend {
public:
  /// Loads the kernels of a package with logits, takes all memory, brings the
  /// weights to the device and records the graphs. The package is not needed
  /// any more then. Errors: Incompatible for a device that cannot run it,
  /// InvalidArgument for plans out of range, ResourceExhausted, with what
  /// memory was for and how much there is.
  static Expected<std::unique_ptr<CudaBackend>>
  create(std::shared_ptr<const CudaDevice> device, const Package &package,
         const CudaShape &shape);
  /// Waits for the device first.
  ~CudaBackend() override;

  const BackendInfo &info() const override { return facts; }
  Status copyPage(const PageCopy &copy) override {
    return pool.copyPage(queue, copy);
  }
  /// One copy a run, of all layers, K and V, and heads.
  Status movePages(std::span<const PageRun> runs,
                   MoveDirection direction) override;
  Status collapsePage(const PageCollapse &collapse) override {
    KVRM_CHECK(facts.canCollapse, "sessions ask");
    return summaries.write(queue, pool, collapse);
  }
  Status runStep(const BackendStep &step, BackendStats &stats) override;
  Status awaitStep(std::span<int32_t> out) override {
    return tokens.receive(out);
  }

  // For tests and tools.
  const CudaDevice &device() const { return *gpu; }
  const CudaStream &stream() const { return queue; }
  const CudaPool &kvPool() const { return pool; }
  DeviceSpan deviceWeights() const { return weights.span(); }
  DeviceSpan deviceDescriptor(StepEntry entry) const {
    return batchOf(entry).descriptor.span();
  }
  /// Bytes of device memory that the backend took.
  int64_t deviceBytes() const;

private:
  /// What a batch needs on the device.
  struct Batch {
    PlanCapacity room;
    CudaDescriptor descriptor;
  };

  CudaBackend() = default;

  /// The one batch of an entry that is planned.
  const Batch &batchOf(StepEntry entry) const {
    return perBatch[static_cast<size_t>(entry)];
  }
  std::span<Batch> batchesOf(StepEntry entry);
  Status takePools(const Manifest &manifest, const CudaShape &shape);
  Status takeStepMemory(const Manifest &manifest);
  Status copyWeights(const Package &package, int64_t stagingBytes);
  Status createProducts(const Package &package, const CudaShape &shape);
  Status createDescriptor(StepEntry which);
  Status createProgram(StepEntry which, const Package &package);
  Status recordClusters();
  Status startMove(const PageRun &run, MoveDirection direction);
  Status startStep(const BackendStep &step, BackendStats &stats);
  Status readLogits(const BackendStep &step);
  int64_t firstTokenOf(StepEntry entry) const;
  ProgramMemory memoryOf(StepEntry entry);

  std::shared_ptr<const CudaDevice> gpu;
  BackendInfo facts;
  int32_t vocabulary = 0;
  CudaStream queue;
  DeviceCode code;
  CudaPool pool;
  CudaSummaries summaries; ///< if the package has far history
  PinnedBuffer parking;    ///< laid out like a pool of its own pages
  DeviceBuffer weights;
  DeviceBuffer arena;    ///< of the largest entry; one step runs at a time
  DeviceBuffer partials; ///< the same; mailboxes are empty between steps
  DeviceBuffer logits;
  PinnedBuffer hostLogits;
  /// Those of decode rows, then of a prompt: steps between two decode steps
  /// leave alone what the second is fed from.
  CudaTokens tokens;
  std::unique_ptr<CudaProducts> products; ///< null: kernels stand in
  std::shared_ptr<CudaGroup> group;       ///< null: one rank
  int32_t rank = 0;
  std::array<Batch, plannedEntries> perBatch;
  // Graphs go before what they name.
  std::array<CudaProgram, stepEntries> programs;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDABACKEND_H
