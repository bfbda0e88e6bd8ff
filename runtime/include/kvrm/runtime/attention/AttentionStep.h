//===- AttentionStep.h - Attention alone on a GPU ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The attention of a decoder and nothing else, for benches, calibration and
// tests of kernels: a pool, a pager, a planner, and the step program of a
// package that `kvrmc attention` wrote, repeated for any number of layers,
// slots and pages. A step is
//
//   pager().appendAll(...)   pages for the new tokens
//   plan(rows)               the planned descriptor
//   commit()                 one copy of the words that changed
//   replay(schedule)         one graph launch:
//                            commit kernel, [append, attend] a layer
//
// and nothing that the graph holds ever changes: what a step does is said by
// the descriptor alone (KV-RM, arXiv 2605.09735).
//
// All memory is taken by create(). A call that fails changes no history, and
// the next commit() makes up for a delta that never reached the device.
//
// Not thread-safe. Everything runs on stream(), in order.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ATTENTION_ATTENTIONSTEP_H
#define KVRM_RUNTIME_ATTENTION_ATTENTIONSTEP_H

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/cuda/CudaDescriptor.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/CudaPool.h"
#include "kvrm/runtime/cuda/CudaProgram.h"
#include "kvrm/runtime/cuda/DeviceCode.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/paging/BlockPager.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/paging/StepDescriptor.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace kvrm {

/// What fixes an attention step for its life; the package says the rest.
struct AttentionShape {
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
  int32_t blocksPerSm = 0; ///< of the persistent grid; 0 = the package's
  /// What a work item costs beside its tiles, as PlanShape says; -1 = what was
  /// measured.
  int32_t itemCost = -1;
};

/// Head shape and tiles of the kernels.
struct AttentionInfo {
  int32_t heads = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;
  int32_t pageTokens = 0;
  kvrm_element element = KVRM_F16; ///< of the pool
  kvrm_element io = KVRM_F16;      ///< of queries, new keys, values, outputs
  int32_t queries = 0;             ///< query tokens of a row
  int32_t qTile = 0;
  int32_t kvTile = 0;
  int32_t capability = 0; ///< 90 for sm_90
  int32_t maxCluster = 1;

  static AttentionInfo of(const Manifest &manifest);
  /// Of a page; without layers and pages.
  PoolShape pageShape() const {
    return {.kvHeads = kvHeads,
            .headDim = headDim,
            .pageTokens = pageTokens,
            .element = element};
  }
  int32_t groupHeads() const { return heads / kvHeads; }
  int32_t queryTiles() const { return (queries + qTile - 1) / qTile; }
  /// Bytes of one page of one head, K or V.
  int64_t pageBytes() const { return pageShape().pageBytes(); }
};

/// Inputs and outputs of attention, elements of AttentionInfo::io; a tensor of
/// the program each.
enum class AttentionTensor : int32_t {
  Q = 0,   ///< [rows][queries][heads][head_dim]
  K = 1,   ///< [rows][queries][kv_heads][head_dim], to append
  V = 2,   ///< like K
  Out = 3, ///< like Q
};
inline constexpr size_t attentionTensors = 4;

class AttentionStep {
public:
  /// Loads the kernels and takes all memory. Errors: InvalidArgument for a
  /// shape out of range or a package that does more than attend, Incompatible
  /// for a device that cannot run the kernels, ResourceExhausted.
  static Expected<std::unique_ptr<AttentionStep>>
  create(std::shared_ptr<const CudaDevice> device, const Package &package,
         const AttentionShape &shape);
  /// Waits for the device first.
  ~AttentionStep();
  AttentionStep(const AttentionStep &) = delete;
  AttentionStep &operator=(const AttentionStep &) = delete;

  // Histories.

  BlockPager &pager() { return *pages; }
  /// Copies a page in all layers, K and V, all heads, before what comes later.
  Status copyPage(const PageCopy &copy) { return kv.copyPage(queue, copy); }

  // A step.

  /// Plans a step: one entry a row, whose tokens the pager already holds.
  const PlanStats &plan(std::span<const PlanRow> rows) {
    return work->plan(rows, *pages, *step);
  }
  /// Starts the one copy that brings the plan to the device.
  Status commit() { return onDevice.send(queue, *step); }
  const CudaCommitStats &commitStats() const { return onDevice.stats(); }

  /// Captures the step for a schedule; nothing happens the second time. Errors:
  /// InvalidArgument for a schedule that the program does not have,
  /// Incompatible for clusters that the device does not hold.
  Status capture(CudaSchedule schedule) {
    return program.capture(queue, schedule);
  }
  /// Starts a captured step. May be repeated without a commit: it does the same
  /// again. Errors: InvalidArgument if it was not captured.
  Status replay(CudaSchedule schedule);
  /// The launches of a step without a graph.
  Status launch(CudaSchedule schedule);
  /// Steps that capture() captured.
  int32_t captures() const { return program.captures(); }
  /// Captures `launches` attentions and nothing else, of the layers in turn;
  /// `usesPdl` stands in for the shape's. For timing; the graph may not outlive
  /// the step. Errors: as capture().
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
  DeviceSpan tensor(AttentionTensor which, int32_t layer = 0) const;
  /// The whole pool, [layer][K or V][kv_head][page][page bytes].
  DeviceSpan pool() const { return kv.span(); }
  DeviceSpan page(const CudaPage &where) const { return kv.page(where); }
  DeviceSpan partials() const { return partialStates.span(); }
  DeviceSpan deviceDescriptor() const { return onDevice.span(); }
  /// Bytes of device memory that the step took.
  int64_t deviceBytes() const;

  /// Writes a page from rows as packPage() takes them, and reads one. Both wait
  /// for the stream.
  Status importPage(const CudaPage &where, std::span<const uint8_t> rows) {
    return kv.importPage(queue, where, rows);
  }
  Status exportPage(const CudaPage &where, std::span<uint8_t> rows) {
    return kv.exportPage(queue, where, rows);
  }
  /// The same of rows of 16-bit elements.
  Status importPage(const CudaPage &where, std::span<const uint16_t> rows) {
    return importPage(where, {reinterpret_cast<const uint8_t *>(rows.data()),
                              rows.size_bytes()});
  }
  Status exportPage(const CudaPage &where, std::span<uint16_t> rows) {
    return exportPage(
        where, {reinterpret_cast<uint8_t *>(rows.data()), rows.size_bytes()});
  }
  /// Copies from and to memory that is not pinned, and waits. Sizes are equal.
  Status write(DeviceSpan to, std::span<const uint8_t> from);
  Status read(std::span<uint8_t> to, DeviceSpan from);

  // What it is.

  const AttentionShape &shape() const { return bounds; }
  const AttentionInfo &info() const { return attention; }
  const CudaDevice &device() const { return *gpu; }
  const CudaStream &stream() const { return queue; }
  const StepDescriptor &descriptor() const { return *step; }
  const Planner &planner() const { return *work; }
  /// Blocks of the persistent grid.
  int32_t shares() const { return work->shape().shares; }
  int64_t headStride() const { return kv.shape().headStride(); }
  const DeviceCode &kernels() const { return code; }

private:
  AttentionStep() = default;

  Status createPlan(const Package &package);
  Status takeMemory();
  Status take(DeviceBuffer &buffer, int64_t bytes, const char *purpose);
  ProgramMemory memory() const;
  /// The command of a layer's kernel; -1 if there is none.
  int64_t find(kvrm_kernel_role role, int32_t layer) const;
  Status launchOne(kvrm_kernel_role role, int32_t layer, CudaSchedule schedule,
                   bool isProgrammatic);

  std::shared_ptr<const CudaDevice> gpu;
  AttentionInfo attention;
  AttentionShape bounds;
  std::array<int64_t, attentionTensors> tensorBytes{};

  CudaStream queue;
  DeviceCode code;
  std::optional<BlockPager> pages;
  std::optional<Planner> work;
  std::optional<StepDescriptor> step;
  CudaPool kv;
  CudaDescriptor onDevice;
  DeviceBuffer staged;
  DeviceBuffer partialStates;
  std::array<DeviceBuffer, attentionTensors> tensors;
  /// [layer][role], what find() looks up.
  std::vector<std::array<int64_t, KVRM_KERNEL_ROLES>> commands;
  // Graphs go before what they name.
  CudaProgram program;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_ATTENTION_ATTENTIONSTEP_H
