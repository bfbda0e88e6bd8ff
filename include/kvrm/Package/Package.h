//===- Package.h - Writer of compiled packages ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writes the folder that docs/package.md describes. Files are put into a
// temporary folder beside the destination, which is renamed at the end: a
// package is whole or absent, and a failed write leaves an existing package of
// that name as it was.
//
//   auto writer = PackageWriter::create("model.kvrm");
//   writer->addWeights(model, layouts);
//   writer->addTokenizer(*model.tokenizer);
//   link(..., writer->pathOf("code.so"));
//   writer->addWritten("code.so");
//   writer->commit(manifest);
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_PACKAGE_PACKAGE_H
#define KVRM_PACKAGE_PACKAGE_H

#include "kvrm/Package/Weights.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace kvrm {

/// The contents of manifest.json, field by field. `files` is filled by the
/// writer.
struct PackageManifest {
  struct Target {
    std::string kind = "host"; ///< or "nvptx"
    // Host:
    std::string triple;
    std::string cpu;
    std::vector<std::string> requiredFeatures; ///< "requires"
    // NVPTX:
    std::string arch;
  };
  struct Cache {
    int64_t slots = 0;
    int64_t capacity = 0;
    int64_t pageTokens = 0;
    int64_t pagesPerSlot = 0; ///< 0 if not paged
    std::string element = "f16";
    /// nvptx; empty: as `element`.
    // Set, so that initializers may leave it out.
    // NOLINTNEXTLINE(readability-redundant-member-init)
    std::string io = {};
    /// "far_history", absent if `window` is 0.
    int64_t window = 0;
    int64_t summaries = 0; ///< "entries"
    int64_t sinks = 0;
  };
  /// A device kernel.
  struct Kernel {
    std::string role; ///< commit, append, attend_workqueue, ...
    std::string symbol;
    int64_t threads = 0;
    int64_t sharedBytes = 0;
    int64_t blocksPerSM = 1;
    int64_t maxCluster = 1;
  };
  struct Tensor {
    std::string name;
    int64_t rowBytes = 0;
  };
  struct Entry {
    std::string name;
    std::string symbol;          ///< host
    std::string program;         ///< nvptx: its file
    std::vector<Tensor> tensors; ///< nvptx
    /// Entries whose batches a step of several batches has, and whose plans;
    /// it has no rows and no plan of its own then.
    std::vector<std::string> batches;
    int64_t rows = 0;
    int64_t queries = 0;
    int64_t queryTile = 1; ///< "q_tile"
    int64_t kvTile = 0;    ///< "kv_tile"
    std::string schedule = "rows";
    int64_t splits = 1;
    std::string transport = "native";
    int64_t arenaBytes = 0;
    int64_t scratchBytes = 0;
  };
  struct File {
    std::string name;
    uint64_t bytes = 0;
    uint64_t xxh3 = 0;
  };

  std::string producer;
  std::string mode = "paged";
  int64_t ranks = 1; ///< that run it together
  Target target;
  DecoderConfig model;
  Cache cache;
  std::vector<Kernel> kernels; ///< nvptx
  std::vector<Entry> entries;
  std::vector<File> files;
};

void writeManifest(llvm::raw_ostream &os, const PackageManifest &manifest);
void writeTokenizer(llvm::raw_ostream &os, const TokenizerData &tokenizer);

/// Whether there is a package's manifest in the folder `path`; "": here.
bool isPackage(llvm::StringRef path);

class PackageWriter {
public:
  /// Makes the temporary folder. Refuses a `path` that is there and is neither
  /// an empty folder nor a package: what its manifest lists, all of that, and
  /// nothing else. Links are followed. Before the folder is there, `announce`
  /// is told what it will be called: a signal may come at any time.
  static llvm::Expected<PackageWriter>
  create(llvm::StringRef path,
         llvm::function_ref<void(llvm::StringRef)> announce = nullptr);
  PackageWriter(PackageWriter &&other) noexcept;
  PackageWriter &operator=(PackageWriter &&) = delete;
  /// Removes the temporary folder unless the package was committed.
  ~PackageWriter();

  /// The temporary folder.
  const std::string &folder() const { return temporary; }
  /// Path of a file of the package while it is being written.
  std::string pathOf(llvm::StringRef name) const;

  /// Adds a file that was written to pathOf(name).
  llvm::Error addWritten(llvm::StringRef name);
  llvm::Error addFile(llvm::StringRef name, llvm::StringRef contents);
  /// Adds weights.safetensors of a rank. `layouts` have their offsets.
  llvm::Error addWeights(const DecoderModel &model,
                         llvm::ArrayRef<WeightLayout> layouts,
                         unsigned threads = 0, int64_t rank = 0);
  /// Adds seeds.json in their stead for all weights that a seed makes, and
  /// weights.safetensors for the others.
  llvm::Error addSeededWeights(const DecoderModel &model,
                               llvm::ArrayRef<WeightLayout> layouts,
                               int64_t rank = 0);
  /// Adds tokenizer.json.
  llvm::Error addTokenizer(const TokenizerData &tokenizer);

  /// Writes manifest.json and renames the folder to its final name.
  llvm::Error commit(PackageManifest manifest);

private:
  explicit PackageWriter(std::string path) : path(std::move(path)) {}
  std::error_code
  createFolder(llvm::function_ref<void(llvm::StringRef)> announce);
  llvm::Error writeFile(llvm::StringRef name,
                        llvm::function_ref<void(llvm::raw_ostream &)> print);

  std::string path;
  std::string temporary; ///< empty once committed or moved from
  std::vector<PackageManifest::File> files;
};

} // namespace kvrm

#endif // KVRM_PACKAGE_PACKAGE_H
