//===- CudaBackend.h - The CUDA backend -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The GPU side of a step: owns the KV pool of all layers, the step descriptor
// on the device, and a graph a schedule that was captured once. A step is
//
//   pager().appendAll(...)   pages for the new tokens
//   plan(rows)               the planned descriptor
//   commit()                 one copy of the words that changed
//   replay(schedule)         one graph launch:
//                            commit kernel, [append, attend] a layer
//
// and nothing that the graph holds ever changes: what a step does is said by
// the descriptor alone (KV-RM, arXiv 2605.09735). Attention runs as a grid of
// persistent blocks, each on its share of a work queue (PersistentKV, arXiv
// 2606.26666), or as a cluster of blocks a (row, KV head, query tile), which
// reduce over distributed shared memory.
//
// All memory is taken by create(). A call that fails changes no history, and
// the next commit() makes up for a delta that never reached the device.
//
// Not thread-safe. Everything runs on stream(), in order.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDABACKEND_H
#define KVRM_RUNTIME_CUDA_CUDABACKEND_H

#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/KernelSet.h"
#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace kvrm {

/// What fixes a backend for its life; the kernel set says the rest.
struct CudaShape {
  int32_t layers = 0;         ///< 1..KVRM_MAX_LAYERS
  int32_t slots = 0;          ///< histories, and rows of a step
  int32_t capacityTokens = 0; ///< of a history
  int32_t poolPages = 0;      ///< 0 = slots at full capacity
  /// Launches overlap with the end of the one before (programmatic dependent
  /// launch), but for kernels of GPUs that cannot.
  bool usesPdl = true;
  bool appends = true; ///< else K and V are imported, and steps only attend
  /// Schedule `staged` too. Takes memory for a layer more, in which page p of
  /// row r lies as page r * pages_per_slot + p; the pool holds all slots.
  bool usesStaging = false;
  /// Whether each layer has q, out, k and v of its own, or all share one set.
  bool hasLayerTensors = false;
  int32_t blocksPerSm = 0; ///< of the persistent grid; 0 = the kernel set's
  /// What a work item costs beside its tiles, as PlanShape says; -1 = what was
  /// measured.
  int32_t itemCost = -1;
};

/// How attention is laid over the device.
struct CudaSchedule {
  /// 0: persistent blocks on shares of the work queue. 1, 2, 4, 8: blocks of
  /// the cluster that a (row, KV head, query tile) gets.
  int32_t cluster = 0;
  /// Pages are gathered into contiguous memory first; workqueue only.
  bool isStaged = false;

  static CudaSchedule workqueue() { return {}; }
  static CudaSchedule staged() { return {0, true}; }
  static CudaSchedule clusters(int32_t blocks) { return {blocks, false}; }
  bool operator==(const CudaSchedule &) const = default;
};

/// What the last commit() moved.
struct CudaCommitStats {
  int32_t words = 0;       ///< of the descriptor, that changed
  int64_t bytes = 0;       ///< of the copy
  int64_t nanoseconds = 0; ///< host time of commit()
  bool isWhole = false;    ///< all words went, to make up for a lost commit
};

/// Inputs and outputs of attention, elements as in the pool.
enum class CudaTensor : int32_t {
  Q = 0,   ///< [rows][queries][heads][head_dim]
  Out = 1, ///< like Q
  K = 2,   ///< [rows][queries][kv_heads][head_dim], to append
  V = 3,   ///< like K
};

/// One page of one head in the pool.
struct CudaPage {
  int32_t layer = 0;
  bool isValue = false; ///< V, else K
  int32_t head = 0;     ///< KV head
  int32_t page = 0;     ///< physical
};

/// [token][head_dim] rows of 2-byte elements to the bytes of a page: the
/// 16-byte chunk c of token t lies at chunk c ^ (t & 7) of that token. head_dim
/// is a multiple of 64. Both have page_tokens * head_dim elements.
void packPage(std::span<const uint16_t> rows, int32_t headDim,
              std::span<uint16_t> page);
/// The way back.
void unpackPage(std::span<const uint16_t> page, int32_t headDim,
                std::span<uint16_t> rows);

class CudaBackend {
public:
  /// Loads the kernels and takes all memory. Errors: InvalidArgument for a
  /// shape out of range, Incompatible for a device that cannot run the kernels,
  /// ResourceExhausted.
  static Expected<std::unique_ptr<CudaBackend>>
  create(std::shared_ptr<const CudaDevice> device, const KernelSet &kernels,
         const CudaShape &shape);
  /// Waits for the device first.
  ~CudaBackend();
  CudaBackend(const CudaBackend &) = delete;
  CudaBackend &operator=(const CudaBackend &) = delete;

  // Histories.

  BlockPager &pager() { return *pages; }
  /// Copies a page in all layers, K and V, all heads, before what comes later.
  Status copyPage(const PageCopy &copy);

  // A step.

  /// Plans a step: one entry a row, whose tokens the pager already holds.
  const PlanStats &plan(std::span<const PlanRow> rows);
  /// Starts the one copy that brings the plan to the device. If it fails, or if
  /// nothing was launched since the last one, the next commit sends all words.
  Status commit();
  const CudaCommitStats &commitStats() const { return lastCommit; }

  /// Captures the step for a schedule; nothing happens the second time. Errors:
  /// InvalidArgument for a schedule that the kernel set does not have,
  /// Incompatible for clusters that the device does not hold.
  Status capture(CudaSchedule schedule);
  /// Starts a captured step. May be repeated without a commit: it does the same
  /// again. Errors: InvalidArgument if it was not captured.
  Status replay(CudaSchedule schedule);
  /// The launches of a step without a graph.
  Status launch(CudaSchedule schedule);
  /// Steps that capture() captured.
  int32_t captures() const { return captureCount; }
  /// Captures `launches` attentions and nothing else, of the layers in turn;
  /// `usesPdl` stands in for the shape's. For timing; the graph may not outlive
  /// the backend. Errors: as capture().
  Expected<CudaGraph> captureAttention(CudaSchedule schedule, int32_t launches,
                                       bool usesPdl);
  Status synchronize() const { return queue.synchronize(); }

  // The launches one by one.

  Status launchCommit();
  Status launchAppend(int32_t layer);
  Status launchStage(int32_t layer);
  Status launchAttend(int32_t layer, CudaSchedule schedule);

  // Memory.

  /// A layer's tensor; the same for all layers without hasLayerTensors.
  DeviceSpan tensor(CudaTensor which, int32_t layer = 0) const;
  /// The whole pool, [layer][K or V][kv_head][page][page bytes].
  DeviceSpan pool() const { return kv.span(); }
  DeviceSpan page(const CudaPage &where) const;
  DeviceSpan partials() const { return partialStates.span(); }
  DeviceSpan deviceDescriptor() const { return descriptorCopy.span(); }
  /// Bytes of device memory that the backend took.
  int64_t deviceBytes() const { return takenBytes; }

  /// Writes a page from [page_tokens][head_dim] rows, and reads one. Both wait
  /// for the stream.
  Status importPage(const CudaPage &where, std::span<const uint16_t> rows);
  Status exportPage(const CudaPage &where, std::span<uint16_t> rows);
  /// Copies from and to memory that is not pinned, and waits. Sizes are equal.
  Status write(DeviceSpan to, std::span<const uint8_t> from);
  Status read(std::span<uint8_t> to, DeviceSpan from);

  // What it is.

  const CudaShape &shape() const { return bounds; }
  const KernelManifest &manifest() const { return info; }
  const CudaDevice &device() const { return *gpu; }
  const CudaStream &stream() const { return queue; }
  const StepDescriptor &descriptor() const { return *step; }
  const Planner &planner() const { return *work; }
  /// Blocks of the persistent grid.
  int32_t shares() const { return work->shape().shares; }
  int64_t headStride() const { return strideBytes; }
  /// A kernel by its name in the manifest, for its registers and occupancy.
  /// Null if the set has none.
  const CudaKernel *kernel(std::string_view name) const;

private:
  enum KernelIndex : size_t {
    Commit,
    Append,
    AttendWorkqueue,
    AttendCluster,
    Stage,
    AttendStaged,
    KernelCount
  };
  struct Kernel {
    CudaKernel code;
    KernelInfo info;
  };
  /// Pinned deltas, and the copies that still read them. An event takes longer
  /// to record than a delta to collect, so that one tells of several.
  struct DeltaLap {
    static constexpr size_t slots = 4;
    std::array<PinnedBuffer, slots> memory;
    CudaEvent copied;       ///< all of them
    bool isUnknown = false; ///< in flight without an event to tell
  };
  static constexpr size_t schedules = 6;

  CudaBackend() = default;

  Status loadKernels(const KernelSet &set);
  Status takeMemory();
  Status checkSchedule(CudaSchedule schedule) const;
  Status checkClusters(CudaSchedule schedule) const;
  static size_t indexOf(CudaSchedule schedule);
  kvrm_device_args argsOf(int32_t layer) const;
  Status enqueue(KernelIndex kernel, int32_t layer, CudaLaunch launch);
  Status enqueueCommit();
  Status enqueueAppend(int32_t layer, bool isProgrammatic);
  Status enqueueStage(int32_t layer);
  Status enqueueAttend(int32_t layer, CudaSchedule schedule,
                       bool isProgrammatic);
  Status enqueueLayers(CudaSchedule schedule);
  Status takeScratch();
  CudaLaunch attendLaunch(CudaSchedule schedule) const;

  std::shared_ptr<const CudaDevice> gpu;
  KernelManifest info;
  CudaShape bounds;
  int64_t pageBytes = 0;
  int64_t strideBytes = 0;
  int64_t takenBytes = 0;
  std::array<int64_t, 4> tensorBytes{};

  // Graphs go before what they name.
  CudaStream queue;
  CudaModule module;
  std::array<Kernel, KernelCount> kernels;
  std::optional<BlockPager> pages;
  std::optional<Planner> work;
  std::optional<StepDescriptor> step;
  DeviceBuffer kv;
  DeviceBuffer staged;
  DeviceBuffer descriptorCopy;
  DeviceBuffer delta;
  DeviceBuffer partialStates;
  std::array<DeviceBuffer, 4> tensors;
  std::array<DeltaLap, 2> ring;
  PinnedBuffer pageScratch;
  bool isScratchBusy = false; ///< a copy may still use it
  std::array<CudaGraph, schedules> graphs;

  size_t nextSlot = 0;
  int32_t captureCount = 0;
  bool isPending = false; ///< a commit that no launch has applied yet
  CudaCommitStats lastCommit;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDABACKEND_H
