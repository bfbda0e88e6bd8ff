//===- Manifest.h - manifest.json of a package, checked ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What docs/package.md describes, for every target. Each field is checked
// against its limits, and an error names file, field and limit in one line:
//
//   NAME.kvrm/manifest.json: cache.slots: 0 is outside 1..1024
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PACKAGE_MANIFEST_H
#define KVRM_RUNTIME_PACKAGE_MANIFEST_H

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// What runs a package's code.
enum class TargetKind : int32_t {
  Host = 0,  ///< code.so on a CPU
  NVPTX = 1, ///< kernels.ptx, kernels.cubin and a program an entry, on a GPU
};

/// One input or output of an entry that is neither tokens nor logits.
struct TensorInfo {
  std::string name;
  int64_t rowBytes = 0; ///< of a row of the step
};

/// One compiled entry point.
struct EntryInfo {
  std::string name;
  std::string symbol;              ///< in code.so; host alone
  std::string program;             ///< file; nvptx alone
  std::vector<TensorInfo> tensors; ///< of the program, by index
  /// Entries whose batches, and plans, it has; it says nothing of its own of
  /// queries and tiles then. Empty: it has one batch.
  std::vector<std::string> batches;
  int32_t rows = 0; ///< of all batches
  int32_t queries = 0;
  int32_t qTile = 1;
  int32_t kvTile = 0;
  kvrm_schedule schedule = KVRM_SCHEDULE_ROWS;
  int32_t splits = 1;
  kvrm_transport transport = KVRM_TRANSPORT_NATIVE;
  int64_t arenaBytes = 0;
  int64_t scratchBytes = 0; ///< a worker; host alone

  int32_t queryTiles() const { return (queries + qTile - 1) / qTile; }
};

/// One device kernel.
struct KernelInfo {
  kvrm_kernel_role role = KVRM_ROLE_COMMIT;
  std::string symbol; ///< in the module
  int32_t threads = 0;
  int32_t sharedBytes = 0; ///< dynamic
  int32_t blocksPerSm = 1; ///< that a persistent grid has
  int32_t maxCluster = 1;  ///< of attend_cluster: 1, 2, 4 or 8

  /// What errors call it: its role or, of those of which there may be many, its
  /// symbol.
  const char *name() const {
    return role == KVRM_ROLE_DENSE ? symbol.c_str()
                                   : kvrm_kernel_role_name(role);
  }
};

/// One file of a package.
struct FileInfo {
  std::string name;
  int64_t bytes = 0;
  uint64_t xxh3 = 0;
};

/// manifest.json, every field checked.
struct Manifest {
  std::string producer;
  bool isPaged = true; ///< else static: every slot has its whole capacity
  /// That run it together, each with its part of the KV heads.
  int32_t ranks = 1;

  TargetKind target = TargetKind::Host;
  // Host:
  std::string triple;
  std::string cpu;
  std::vector<std::string> requiredFeatures;
  // NVPTX:
  std::string arch;         ///< e.g. sm_90
  int32_t capability = 0;   ///< 90 of it
  bool isArchExact = false; ///< sm_90a: runs on that capability alone

  std::string modelName;
  std::string architecture;
  int32_t vocabulary = 0; ///< 0 = no logits: entries have tensors; nvptx alone
  int32_t hidden = 0;     ///< 0 with vocabulary 0
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;
  int32_t context = 0;
  int32_t bos = -1; ///< -1 = none
  int32_t eos = -1; ///< -1 = none
  /// Tokens that end a turn: eos, then others, each once.
  std::vector<int32_t> ends;

  int32_t slots = 0;
  int32_t capacity = 0; ///< tokens a slot
  int32_t pageTokens = 0;
  /// Entries of one block table, as the code was compiled for: the capacity, or
  /// with far history the summaries, the window and the tokens of one step. 0
  /// without plans.
  int32_t pagesPerSlot = 0;
  kvrm_element element = KVRM_F16; ///< of the pool
  /// NVPTX: of queries, of what is appended and of what attention returns. A
  /// pool of 16 bits has the same.
  kvrm_element io = KVRM_F16;
  int32_t window = 0;    ///< tokens of a slot kept exactly; 0 = all
  int32_t summaries = 0; ///< entries of a slot for those before
  int32_t sinks = 0;     ///< of these, for its first tokens

  std::vector<KernelInfo> kernels;
  EntryInfo decode;
  EntryInfo prefill; ///< without a name if there is none; nvptx alone
  /// Of the batches of decode and prefill; without a name if there is none.
  EntryInfo mixed;
  std::vector<FileInfo> files;

  /// Whether steps are planned: all but those of the host's static baseline.
  bool hasPlans() const { return isPaged || target == TargetKind::NVPTX; }
  bool hasPrefill() const { return !prefill.name.empty(); }
  bool hasMixed() const { return !mixed.name.empty(); }
  /// Those that are there.
  std::vector<const EntryInfo *> entries() const;
  int32_t groupHeads() const { return heads / kvHeads; }
  int32_t rankHeads() const { return heads / ranks; }
  int32_t rankKvHeads() const { return kvHeads / ranks; }
  /// Bytes of one page of one head, K or V.
  int64_t pageBytes() const {
    return kvrm_page_layout_of(pageTokens, headDim, element).bytes;
  }
  /// Null if there is none.
  const FileInfo *file(std::string_view name) const;
  /// The first kernel of a role; null if there is none.
  const KernelInfo *kernel(kvrm_kernel_role role) const;
  std::vector<kvrm_kernel_role> kernelRoles() const;
};

const char *scheduleName(kvrm_schedule schedule);
const char *transportName(kvrm_transport transport);

/// Parses and checks a manifest. `where` names it in errors. Errors: Corrupt,
/// Incompatible for another ABI version.
Expected<Manifest> parseManifest(std::string_view text, std::string_view where);

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_MANIFEST_H
