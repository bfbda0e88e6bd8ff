//===- CudaProgram.h - A step program on a GPU ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A verified step program with every argument resolved to an address. It is
// recorded into one graph a schedule, or launched command by command; what it
// does is what the table says, nothing is added here.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDAPROGRAM_H
#define KVRM_RUNTIME_CUDA_CUDAPROGRAM_H

#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/CudaGroup.h"
#include "kvrm/runtime/cuda/CudaPool.h"
#include "kvrm/runtime/cuda/CudaProducts.h"
#include "kvrm/runtime/cuda/DeviceCode.h"
#include "kvrm/runtime/program/StepProgram.h"

#include <array>
#include <cstdint>
#include <vector>

namespace kvrm {

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

  /// The kvrm_program_schedule of its commands.
  int32_t bit() const {
    return isStaged      ? int32_t(KVRM_RUN_STAGED)
           : cluster > 0 ? int32_t(KVRM_RUN_CLUSTER)
                         : int32_t(KVRM_RUN_WORKQUEUE);
  }
};

/// What of one batch a program's arguments, and its grids, depend on.
struct ProgramBatch {
  uint64_t descriptor = 0;
  uint64_t delta = 0;
  kvrm_descriptor_limits limits{};
};

/// Device memory that a program's arguments lie in, which outlives it.
struct ProgramMemory {
  PoolShape pool;
  uint64_t poolAddress = 0;
  uint64_t stagedAddress = 0; ///< of a layer's pool; 0 = no staging
  std::vector<ProgramBatch> batches;
  uint64_t partials = 0;
  uint64_t arena = 0;
  uint64_t weights = 0;
  // Of a decoder:
  uint64_t logits = 0;
  uint64_t next = 0; ///< pinned host memory will do
  /// Of a rank with mailboxes, else 0: its kvrm_peers, by mailbox.
  std::array<uint64_t, KVRM_MAILBOXES> peers{};
  std::vector<uint64_t> tensors; ///< by index
};

class CudaProgram {
public:
  CudaProgram() = default;
  /// `code` outlives the program. `usesPdl` says whether it heeds
  /// KVRM_COMMAND_PROGRAMMATIC.
  CudaProgram(const StepProgram &program, const DeviceCode &code,
              const ProgramMemory &memory, bool usesPdl);

  /// Has `library` run the products from now on, and not the kernels that stand
  /// in for them. It outlives the program, and what was captured stays as it
  /// is. A shape that is new to it is tuned on `stream`, which also has the
  /// library load its kernels, for which a capture is no time: what a product
  /// writes holds anything afterwards. Errors: those of CudaProducts.h.
  Status useProducts(CudaProducts &library, const CudaStream &stream);

  /// Has `ranks` run the collectives, as one of its ranks, or the kernels that
  /// stand in for them if its ranks have mailboxes; a program that has
  /// some is not captured or launched before. It outlives the program. Each
  /// collective is run once on `stream`, by all ranks in the same order, since
  /// a library connects them when it is first asked to, for which a capture is
  /// no time: what they write holds anything afterwards. Errors: those of
  /// CudaGroup.h.
  Status useCollectives(CudaGroup &ranks, int32_t rank,
                        const CudaStream &stream);

  /// Whether the program has a schedule and the device holds its clusters.
  /// Errors: InvalidArgument, Incompatible.
  Status check(CudaSchedule schedule) const;

  /// Records the commands of a schedule; nothing happens the second time.
  /// Errors: as check(), and those of the driver.
  Status capture(const CudaStream &stream, CudaSchedule schedule);
  /// Starts a recorded schedule. Errors: InvalidArgument if it was not.
  Status replay(const CudaStream &stream, CudaSchedule schedule) const;
  /// Starts the commands of a schedule one by one.
  Status launch(const CudaStream &stream, CudaSchedule schedule) const;
  /// Starts one command; `isProgrammatic` stands in for its flag. Nothing
  /// happens for a product without a library.
  Status launchCommand(const CudaStream &stream, size_t index,
                       CudaSchedule schedule, bool isProgrammatic) const;

  size_t size() const { return commands.size(); }
  const kvrm_program_command &command(size_t index) const {
    return commands[index].table;
  }
  kvrm_kernel_role role(size_t index) const;
  /// Schedules that capture() recorded.
  int32_t captures() const { return captureCount; }

private:
  struct Command {
    kvrm_program_command table{};
    size_t firstValue = 0;           ///< in values
    int64_t bytes = 0;               ///< of a copy
    kvrm_descriptor_limits limits{}; ///< of its batch
    size_t product = 0;              ///< its number in products
    bool writesLogits = false;
  };
  static constexpr size_t schedules = 6;

  static size_t indexOf(CudaSchedule schedule);
  CudaLaunch launchOf(const Command &command, CudaSchedule schedule) const;
  Status checkClusters(CudaSchedule schedule) const;
  Status launchCollective(const CudaStream &stream,
                          const Command &command) const;
  Status launchAll(const CudaStream &stream, CudaSchedule schedule) const;
  /// Of a product.
  ProductAddresses addressesOf(const Command &command) const;

  const DeviceCode *code = nullptr;
  const CudaProducts *products = nullptr; ///< null: kernels stand in
  CudaGroup *group = nullptr;             ///< null: there are no collectives
  bool hasMailboxes = false;              ///< kernels stand in for sums
  int32_t ownRank = 0;
  int32_t ranks = 1;
  bool usesPdl = true;
  int32_t runnable = 0; ///< kvrm_program_schedule bits
  bool hasStaging = false;
  std::vector<Command> commands;
  std::vector<uint64_t> values; ///< arguments of all commands, resolved
  std::array<CudaGraph, schedules> graphs;
  int32_t captureCount = 0;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDAPROGRAM_H
