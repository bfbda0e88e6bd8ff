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
#include "kvrm/runtime/package/Manifest.h"
#include "kvrm/runtime/program/StepProgram.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kvrm {

/// Device code, as its files hold it.
struct DeviceImage {
  std::string ptx;
  std::string cubin; ///< empty = none
};

/// A loaded package: weights in memory, and code linked (host) or read (nvptx).
/// Immutable, and shared by the sessions that run it.
class Package {
public:
  /// Loads the folder at `path`. Whether a GPU can run it is not asked; see
  /// DeviceCode.h. Errors: NotFound, Corrupt, Incompatible, IoError,
  /// ResourceExhausted.
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
  /// The data section of a rank's weights, aligned; null in a package without
  /// logits. Those of all ranks are equally long.
  const uint8_t *weights(int32_t rank = 0) const {
    KVRM_CHECK(rank >= 0 && rank < info.ranks, "a rank of the package");
    return weightData[static_cast<size_t>(rank)].data();
  }
  int64_t weightBytes() const { return weightData.front().size(); }

  // Host.
  kvrm_step_fn decodeStep() const { return decodeFn; }
  kvrm_step_fn prefillStep() const { return prefillFn; }
  kvrm_step_fn mixedStep() const { return mixedFn; } ///< null if none

  // NVPTX. Programs are verified; that of an entry that is not there is empty.
  const DeviceImage &deviceImage() const { return image; }
  const StepProgram &decodeProgram() const { return decodeCommands; }
  const StepProgram &prefillProgram() const { return prefillCommands; }
  const StepProgram &mixedProgram() const { return mixedCommands; }
  /// Whether a program has products that a library could run.
  bool hasProducts() const {
    return decodeCommands.hasProducts() || prefillCommands.hasProducts() ||
           mixedCommands.hasProducts();
  }

private:
  Package() = default;

  Status loadFile(const FileInfo &file);
  Status loadRank(int32_t rank);
  Status growSeededWeights(int32_t rank);
  Status linkHostCode();
  Status readProgram(const EntryInfo &entry, StepProgram &program);

  Manifest info;
  std::string folder;
  std::vector<AlignedBuffer> weightData; ///< of each rank
  void *code = nullptr;
  kvrm_step_fn decodeFn = nullptr;
  kvrm_step_fn prefillFn = nullptr;
  kvrm_step_fn mixedFn = nullptr;
  DeviceImage image;
  StepProgram decodeCommands;
  StepProgram prefillCommands;
  StepProgram mixedCommands;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_PACKAGE_H
