//===- KernelSet.cpp - Attention kernels for a GPU, checked ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/KernelSet.h"

#include "../package/CheckedFile.h"
#include "../package/JsonReader.h"

#include <charconv>

using namespace kvrm;
using nlohmann::json;

static constexpr int64_t maxImageBytes = 64 << 20;
static constexpr int64_t maxSharedBytes = 1 << 20;

const KernelInfo *KernelManifest::kernel(std::string_view name) const {
  for (const KernelInfo &info : kernels)
    if (info.name == name)
      return &info;
  return nullptr;
}

const FileInfo *KernelManifest::file(std::string_view name) const {
  for (const FileInfo &info : files)
    if (info.name == name)
      return &info;
  return nullptr;
}

static constexpr std::array knownKernels = {
    "commit",         "append", "attend_workqueue",
    "attend_cluster", "stage",  "attend_workqueue_staged"};

/// An integer that is one of `values`.
template <size_t N>
static int32_t oneOfIntegers(ObjectReader &reader, const char *key,
                             const std::array<int32_t, N> &values) {
  int32_t value = reader.integer32(key, 0, INT32_MAX);
  if (std::ranges::find(values, value) != values.end())
    return value;
  std::string known;
  for (int32_t one : values)
    known += (known.empty() ? "" : ", ") + std::to_string(one);
  reader.fail(key, std::to_string(value) + " is not one of " + known);
  return values[0];
}

/// sm_90, or sm_90a for code that runs on that capability alone.
static void readArch(ObjectReader &target, KernelManifest &manifest) {
  manifest.arch = target.string("arch");
  std::string_view text = manifest.arch;
  bool isKnown = text.starts_with("sm_");
  text.remove_prefix(isKnown ? 3 : 0);
  if (text.ends_with('a')) {
    manifest.isArchExact = true;
    text.remove_suffix(1);
  }
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(),
                                      manifest.capability);
  isKnown &= error == std::errc() && end == text.data() + text.size() &&
             manifest.capability >= 80 && manifest.capability < 1000;
  if (!isKnown)
    target.fail("arch", "'" + manifest.arch + "' is not sm_80 or later");
}

static KernelInfo readKernel(ObjectReader &fields) {
  KernelInfo kernel;
  kernel.name = knownKernels[fields.oneOf("name", knownKernels)];
  kernel.symbol = fields.string("symbol");
  if (kernel.symbol.empty())
    fields.fail("symbol", "is empty");
  kernel.threads = fields.integer32("threads", 32, 1024);
  if (kernel.threads % 32 != 0)
    fields.fail("threads",
                std::to_string(kernel.threads) + " is not a multiple of 32");
  kernel.sharedBytes = fields.integer32("shared_bytes", 0, maxSharedBytes);
  bool isPersistent = kernel.name.starts_with("attend_workqueue");
  if (isPersistent || fields.has("blocks_per_sm"))
    kernel.blocksPerSm = fields.integer32("blocks_per_sm", 1, 32);
  if (kernel.name == "attend_cluster" || fields.has("max_cluster"))
    kernel.maxCluster =
        oneOfIntegers(fields, "max_cluster", std::array{1, 2, 4, 8});
  return kernel;
}

Expected<KernelManifest> kvrm::parseKernelManifest(std::string_view text,
                                                   std::string_view where) {
  Expected<nlohmann::json> root = parseObject(text, where);
  KVRM_TRY(root.status());
  Status status;
  ObjectReader reader(*root, "", where, status);
  KernelManifest manifest;

  reader.oneOf("format", std::array{"kvrm-kernels"});
  int64_t version = reader.integer("abi_version", 0, INT32_MAX);
  if (status.isOk() && version != KVRM_ABI_VERSION)
    return makeError(StatusCode::Incompatible, where,
                     ": abi_version: ", version, " is not this runtime's ",
                     int32_t(KVRM_ABI_VERSION), "; compile the kernels again");
  manifest.producer = reader.string("producer");
  ObjectReader target = reader.member("target");
  target.oneOf("kind", std::array{"nvptx"});
  readArch(target, manifest);

  ObjectReader attention = reader.member("attention");
  manifest.heads = attention.integer32("heads", 1, 4096);
  manifest.kvHeads = attention.integer32("kv_heads", 1, KVRM_MAX_KV_HEADS);
  if (status.isOk() && manifest.heads % manifest.kvHeads != 0)
    attention.fail("heads", std::to_string(manifest.heads) +
                                " is not a multiple of attention.kv_heads, " +
                                std::to_string(manifest.kvHeads));
  manifest.headDim = oneOfIntegers(attention, "head_dim", std::array{64, 128});
  manifest.pageTokens =
      oneOfIntegers(attention, "page_tokens", std::array{16, 32, 64});
  manifest.element = static_cast<kvrm_element>(
      attention.oneOf("element", std::array{"f16", "bf16"}));
  manifest.queries = attention.integer32("queries", 1, KVRM_MAX_QUERIES);
  manifest.qTile = attention.integer32("q_tile", 1, KVRM_MAX_QUERIES);
  manifest.kvTile = attention.integer32("kv_tile", 1, 1 << 16);
  if (status.isOk() && manifest.kvTile % manifest.pageTokens != 0 &&
      manifest.pageTokens % manifest.kvTile != 0)
    attention.fail("kv_tile", std::to_string(manifest.kvTile) +
                                  " is neither a multiple nor a divisor of "
                                  "attention.page_tokens, " +
                                  std::to_string(manifest.pageTokens));

  reader.each("kernels", 1, [&](ObjectReader &fields) {
    KernelInfo kernel = readKernel(fields);
    if (manifest.kernel(kernel.name))
      fields.fail("name", "'" + kernel.name + "' is there already");
    manifest.kernels.push_back(std::move(kernel));
  });
  for (const char *name :
       {"commit", "append", "attend_workqueue", "attend_cluster"})
    if (status.isOk() && !manifest.kernel(name))
      reader.fail("kernels", std::string("has no ") + name);
  if (status.isOk() &&
      !manifest.kernel("stage") != !manifest.kernel("attend_workqueue_staged"))
    reader.fail("kernels",
                "has one of stage and attend_workqueue_staged alone");
  manifest.files = readFiles(reader);
  if (status.isOk() && !manifest.file("kernels.ptx"))
    reader.fail("files", "has no kernels.ptx");
  for (const FileInfo &file : manifest.files)
    if (status.isOk() && file.bytes > maxImageBytes)
      reader.fail("files", file.name + " is " + std::to_string(file.bytes) +
                               " bytes long, over the limit " +
                               std::to_string(maxImageBytes));
  if (!status.isOk())
    return status;
  return manifest;
}

Expected<KernelSet> KernelSet::load(const std::string &path) {
  std::string where;
  Expected<std::string> text = readManifestText(path, "kernel set", where);
  KVRM_TRY(text.status());
  Expected<KernelManifest> manifest = parseKernelManifest(*text, where);
  KVRM_TRY(manifest.status());
  KVRM_TRY(checkSeal(*text, where));
  KernelSet set;
  set.info = manifest.take();
  set.folder = path;
  for (const FileInfo &info : set.info.files) {
    Expected<CheckedFile> file = CheckedFile::open(joinPath(path, info.name));
    KVRM_TRY(file.status());
    Expected<std::string> bytes = file->readAll(info);
    KVRM_TRY(bytes.status());
    if (info.name == "kernels.ptx")
      set.ptx = bytes.take();
    else if (info.name == "kernels.cubin")
      set.cubin = bytes.take();
  }
  return set;
}

Status KernelSet::checkDevice(const CudaDeviceInfo &device) const {
  bool isFit = info.isArchExact ? device.capability() == info.capability
                                : device.capability() >= info.capability;
  if (isFit)
    return Status::ok();
  return makeError(StatusCode::Incompatible, folder, ": kernels are for ",
                   info.arch, "; device ", device.index, ", ", device.name,
                   ", is sm_", device.capability());
}

Expected<CudaModule>
KernelSet::loadModule(std::shared_ptr<const CudaDevice> device) const {
  KVRM_CHECK(device, "a module has a device");
  KVRM_TRY(checkDevice(device->info()));
  bool isExact = device->info().capability() == info.capability;
  if (!cubin.empty() && isExact)
    return CudaModule::load(std::move(device), cubin,
                            joinPath(folder, "kernels.cubin"));
  return CudaModule::load(std::move(device), ptx,
                          joinPath(folder, "kernels.ptx"));
}
