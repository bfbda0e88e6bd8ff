//===- Package.h - An ahead-of-time package, checked and loaded -*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads what docs/package.md describes. Nothing of a package is believed: every
// manifest field is checked against its limits, every file against its size and
// checksum, and the CPU against what the code requires, before any of it is
// used. An error names file, field and limit in one line:
//
//   NAME.kvrm/manifest.json: cache.slots: 0 is outside 1..1024
//
// Code in a package runs in this process: load packages you trust. Checksums
// guard against damage, not against malice.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PACKAGE_PACKAGE_H
#define KVRM_RUNTIME_PACKAGE_PACKAGE_H

#include "kvrm/runtime/abi/host.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// One compiled entry point.
struct EntryInfo {
  std::string name;
  std::string symbol;
  int32_t rows = 0;
  int32_t queries = 0;
  int32_t qTile = 1;
  int32_t kvTile = 0;
  kvrm_schedule schedule = KVRM_SCHEDULE_ROWS;
  int32_t splits = 1;
  kvrm_transport transport = KVRM_TRANSPORT_NATIVE;
  int64_t arenaBytes = 0;
  int64_t scratchBytes = 0; ///< a worker
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
  bool isPaged = true;
  std::string triple;
  std::string cpu;
  std::vector<std::string> requiredFeatures;

  std::string modelName;
  std::string architecture;
  int32_t vocabulary = 0;
  int32_t hidden = 0;
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;
  int32_t context = 0;
  int32_t bos = -1; ///< -1 = none
  int32_t eos = -1; ///< -1 = none

  int32_t slots = 0;
  int32_t capacity = 0; ///< tokens a slot
  int32_t pageTokens = 0;
  kvrm_element element = KVRM_F16;
  int32_t window = 0;    ///< tokens of a slot kept exactly; 0 = all
  int32_t summaries = 0; ///< entries of a slot for those before
  int32_t sinks = 0;     ///< of these, for its first tokens

  EntryInfo decode;
  EntryInfo prefill;
  std::vector<FileInfo> files;

  /// Entries of one block table: the capacity, or with far history the
  /// summaries, the window and the tokens of one step.
  int32_t pagesPerSlot() const {
    int32_t tokens =
        window > 0 ? window + summaries + prefill.queries : capacity;
    return (tokens + pageTokens - 1) / pageTokens;
  }
  const FileInfo *file(std::string_view name) const;
};

const char *scheduleName(kvrm_schedule schedule);
const char *transportName(kvrm_transport transport);
const char *elementName(kvrm_element element);

/// Parses and checks a manifest. `where` names it in errors.
Expected<Manifest> parseManifest(std::string_view text, std::string_view where);

/// Refuses CPU features that this CPU lacks or this runtime does not know.
Status checkCpuFeatures(const std::vector<std::string> &features,
                        std::string_view where);

/// A loaded package: weights in memory, code linked. Immutable, and shared by
/// the sessions that run it.
class Package {
public:
  /// Loads the folder at `path`. Errors: NotFound, Corrupt, Incompatible,
  /// IoError, ResourceExhausted.
  static Expected<std::shared_ptr<const Package>> load(const std::string &path);

  /// Reads and checks manifest.json alone.
  static Expected<Manifest> readManifest(const std::string &path);

  ~Package();
  Package(const Package &) = delete;
  Package &operator=(const Package &) = delete;

  const Manifest &manifest() const { return info; }
  const std::string &path() const { return folder; }
  /// tokenizer.json of the package, empty if it has none.
  std::string tokenizerPath() const;
  /// The weights' data section, aligned; never null.
  const uint8_t *weights() const { return weightData.data(); }
  int64_t weightBytes() const { return weightData.size(); }
  kvrm_step_fn decodeStep() const { return decodeFn; }
  kvrm_step_fn prefillStep() const { return prefillFn; }

private:
  Package() = default;

  Manifest info;
  std::string folder;
  AlignedBuffer weightData;
  void *code = nullptr;
  kvrm_step_fn decodeFn = nullptr;
  kvrm_step_fn prefillFn = nullptr;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_PACKAGE_H
