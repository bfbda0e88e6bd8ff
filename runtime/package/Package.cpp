//===- Package.cpp - An ahead-of-time package, checked and loaded ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/package/Package.h"

#include "CheckedFile.h"
#include "HostTarget.h"
#include "SeededWeights.h"
#include "WeightsFile.h"
#include "kvrm/runtime/support/RankFile.h"

#include <dlfcn.h>

using namespace kvrm;

Expected<Manifest> Package::readManifest(const std::string &path) {
  std::string where;
  Expected<std::string> text = readManifestText(path, "package", where);
  KVRM_TRY(text.status());
  Expected<Manifest> manifest = parseManifest(*text, where);
  KVRM_TRY(manifest.status());
  KVRM_TRY(checkSeal(*text, where));
  return manifest;
}

/// Reads a file that is kept, or checks one that is not.
Status Package::loadFile(const FileInfo &file) {
  std::string name = joinPath(folder, file.name);
  for (int32_t rank = 0; rank < info.ranks; ++rank)
    if (file.name == weightsFile(rank))
      return Status::ok(); // loadRank() does
  Expected<CheckedFile> opened = CheckedFile::open(name);
  KVRM_TRY(opened.status());
  std::string *kept = file.name == "kernels.ptx"     ? &image.ptx
                      : file.name == "kernels.cubin" ? &image.cubin
                                                     : nullptr;
  if (!kept)
    return opened->checkAll(file);
  Expected<std::string> bytes = opened->readAll(file);
  KVRM_TRY(bytes.status());
  *kept = bytes.take();
  return Status::ok();
}

/// Reads or makes the weights of a rank.
Status Package::loadRank(int32_t rank) {
  AlignedBuffer &weights = weightData[static_cast<size_t>(rank)];
  if (const FileInfo *file = info.file(weightsFile(rank))) {
    Expected<AlignedBuffer> loaded =
        loadWeights(joinPath(folder, file->name), *file);
    KVRM_TRY(loaded.status());
    weights = loaded.take();
  }
  KVRM_TRY(growSeededWeights(rank));
  if (weights.size() != weightBytes())
    return makeError(StatusCode::Corrupt, folder, ": the weights of rank ",
                     rank, " are ", weights.size(),
                     " bytes, and those of "
                     "rank 0 ",
                     weightBytes());
  return Status::ok();
}

/// Makes the weights that the package has as seeds, if it has such.
Status Package::growSeededWeights(int32_t rank) {
  AlignedBuffer &weights = weightData[static_cast<size_t>(rank)];
  const FileInfo *file = info.file(seedsFile(rank));
  if (!file)
    return Status::ok();
  std::string name = joinPath(folder, file->name);
  Expected<CheckedFile> opened = CheckedFile::open(name);
  KVRM_TRY(opened.status());
  Expected<std::string> text = opened->readAll(*file);
  KVRM_TRY(text.status());
  Expected<WeightSeeds> seeds = parseSeeds(*text, name, weights.size());
  KVRM_TRY(seeds.status());
  Expected<AlignedBuffer> grown = growWeights(
      *seeds, {weights.data(), static_cast<size_t>(weights.size())});
  KVRM_TRY(grown.status());
  weights = grown.take();
  return Status::ok();
}

Status Package::linkHostCode() {
  // A name without a slash would be looked up in the library path.
  std::string path = joinPath(folder, "code.so");
  if (path.find('/') == std::string::npos)
    path.insert(0, "./");
  code = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!code) {
    const char *reason = dlerror();
    return makeError(StatusCode::Incompatible, path,
                     ": cannot link: ", reason ? reason : "unknown reason");
  }
  auto lookUp = [&](const EntryInfo &entry, kvrm_step_fn &fn) {
    fn = reinterpret_cast<kvrm_step_fn>(dlsym(code, entry.symbol.c_str()));
    if (!fn)
      return makeError(StatusCode::Corrupt, path, ": has no symbol '",
                       entry.symbol, "' for entry ", entry.name);
    return Status::ok();
  };
  KVRM_TRY(lookUp(info.decode, decodeFn));
  KVRM_TRY(lookUp(info.prefill, prefillFn));
  return info.hasMixed() ? lookUp(info.mixed, mixedFn) : Status::ok();
}

/// Rows of each batch of a GPU's entry.
static std::vector<int32_t> batchRows(const Manifest &manifest,
                                      const EntryInfo &entry) {
  if (!entry.batches.empty())
    return {manifest.decode.rows, manifest.prefill.rows};
  return {entry.rows};
}

Status Package::readProgram(const EntryInfo &entry, StepProgram &program) {
  if (entry.name.empty())
    return Status::ok();
  std::string where = joinPath(folder, entry.program);
  const FileInfo *file = info.file(entry.program);
  KVRM_CHECK(file, "a manifest lists its programs");
  Expected<CheckedFile> opened = CheckedFile::open(where);
  KVRM_TRY(opened.status());
  Expected<std::string> bytes = opened->readAll(*file);
  KVRM_TRY(bytes.status());
  Expected<StepProgram> parsed = StepProgram::parse(*bytes, where);
  KVRM_TRY(parsed.status());
  std::vector<kvrm_kernel_role> roles = info.kernelRoles();
  std::vector<int32_t> rows = batchRows(info, entry);
  KVRM_TRY(
      parsed->verify({.kernels = roles,
                      .layers = info.layers,
                      .tensors = static_cast<int32_t>(entry.tensors.size()),
                      .arenaBytes = entry.arenaBytes,
                      .weightBytes = weightBytes(),
                      .hasLogits = info.vocabulary > 0,
                      .logitBytes = int64_t(entry.rows) * info.vocabulary *
                                    int64_t(sizeof(float)),
                      .batchRows = rows,
                      .ranks = info.ranks},
                     where));
  program = parsed.take();
  return Status::ok();
}

Expected<std::shared_ptr<const Package>>
Package::load(const std::string &path) {
  Expected<Manifest> manifest = readManifest(path);
  KVRM_TRY(manifest.status());
  std::string where = joinPath(path, "manifest.json");
  bool isHost = manifest->target == TargetKind::Host;
  if (isHost) {
    KVRM_TRY(checkTriple(manifest->triple, where));
    KVRM_TRY(checkCpuFeatures(manifest->requiredFeatures, where));
  }
  std::shared_ptr<Package> package(new Package());
  package->info = manifest.take();
  package->folder = path;
  for (const FileInfo &file : package->info.files)
    KVRM_TRY(package->loadFile(file));
  package->weightData.resize(static_cast<size_t>(package->info.ranks));
  for (int32_t rank = 0; rank < package->info.ranks; ++rank)
    KVRM_TRY(package->loadRank(rank));
  if (isHost) {
    KVRM_TRY(package->linkHostCode());
  } else {
    KVRM_TRY(
        package->readProgram(package->info.decode, package->decodeCommands));
    KVRM_TRY(
        package->readProgram(package->info.prefill, package->prefillCommands));
    KVRM_TRY(package->readProgram(package->info.mixed, package->mixedCommands));
  }
  return std::shared_ptr<const Package>(std::move(package));
}

Package::~Package() {
  if (code)
    dlclose(code);
}

std::string Package::tokenizerPath() const {
  return info.file("tokenizer.json") ? joinPath(folder, "tokenizer.json")
                                     : std::string();
}
