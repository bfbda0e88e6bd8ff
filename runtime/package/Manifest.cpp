//===- Manifest.cpp - manifest.json of a package, checked -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/package/Manifest.h"

#include "JsonReader.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/abi/version.h"
#include "kvrm/runtime/support/RankFile.h"

#include <algorithm>
#include <array>
#include <charconv>

using namespace kvrm;
using nlohmann::json;

const char *kvrm::scheduleName(kvrm_schedule schedule) {
  switch (schedule) {
  case KVRM_SCHEDULE_ROWS:
    return "rows";
  case KVRM_SCHEDULE_SPLIT:
    return "split";
  case KVRM_SCHEDULE_WORKQUEUE:
    return "workqueue";
  case KVRM_SCHEDULE_CLUSTER:
    return "cluster";
  }
  return "?";
}

const char *kvrm::transportName(kvrm_transport transport) {
  return transport == KVRM_TRANSPORT_STAGED ? "staged" : "native";
}

const FileInfo *Manifest::file(std::string_view name) const {
  for (const FileInfo &info : files)
    if (info.name == name)
      return &info;
  return nullptr;
}

const KernelInfo *Manifest::kernel(kvrm_kernel_role role) const {
  for (const KernelInfo &info : kernels)
    if (info.role == role)
      return &info;
  return nullptr;
}

std::vector<kvrm_kernel_role> Manifest::kernelRoles() const {
  std::vector<kvrm_kernel_role> roles;
  for (const KernelInfo &info : kernels)
    roles.push_back(info.role);
  return roles;
}

std::vector<const EntryInfo *> Manifest::entries() const {
  std::vector<const EntryInfo *> there;
  for (const EntryInfo *entry : {&decode, &prefill, &mixed})
    if (!entry->name.empty())
      there.push_back(entry);
  return there;
}

/// GPUs have less.
static constexpr int64_t maxSharedBytes = 1 << 20;
/// Of kernels.ptx, kernels.cubin and programs.
static constexpr int64_t maxImageBytes = 64 << 20;

//===----------------------------------------------------------------------===//
// Target
//===----------------------------------------------------------------------===//

static void readHostTarget(ObjectReader &target, Manifest &manifest) {
  manifest.triple = target.string("triple");
  manifest.cpu = target.string("cpu");
  const json *features = target.list("requires", 0);
  if (!features)
    return;
  for (const json &feature : *features) {
    if (!feature.is_string())
      return target.fail("requires", "is not a list of strings");
    manifest.requiredFeatures.push_back(feature.get<std::string>());
  }
}

/// sm_90, or sm_90a for code that runs on that capability alone.
static void readArch(ObjectReader &target, Manifest &manifest) {
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

static void readTarget(ObjectReader &target, Manifest &manifest) {
  manifest.target = static_cast<TargetKind>(
      target.oneOf("kind", std::array{"host", "nvptx"}));
  if (manifest.target == TargetKind::Host)
    readHostTarget(target, manifest);
  else
    readArch(target, manifest);
}

//===----------------------------------------------------------------------===//
// Model and cache
//===----------------------------------------------------------------------===//

/// A package without a list has the one end.
static void readEnds(ObjectReader &model, Manifest &manifest) {
  if (manifest.eos >= 0)
    manifest.ends.push_back(manifest.eos);
  const json *ends =
      model.has("ends") ? model.list("ends", 0, KVRM_MAX_ENDS) : nullptr;
  if (!ends)
    return;
  for (const json &end : *ends) {
    bool isToken =
        end.is_number_integer() && end >= 0 && end < manifest.vocabulary;
    if (!isToken)
      return model.fail("ends", "is not a list of tokens below " +
                                    std::to_string(manifest.vocabulary));
    if (std::ranges::find(manifest.ends, end.get<int32_t>()) ==
        manifest.ends.end())
      manifest.ends.push_back(end.get<int32_t>());
  }
}

static void readModel(ObjectReader &model, Manifest &manifest) {
  bool isDevice = manifest.target == TargetKind::NVPTX;
  manifest.modelName = model.string("name");
  manifest.architecture = model.string("architecture");
  manifest.vocabulary =
      model.integer32("vocabulary", isDevice ? 0 : 1, KVRM_MAX_VOCABULARY);
  manifest.hidden =
      model.integer32("hidden", isDevice ? 0 : 1, KVRM_MAX_HIDDEN);
  manifest.layers = model.integer32("layers", 1, KVRM_MAX_LAYERS);
  manifest.heads = model.integer32("heads", 1, KVRM_MAX_HEADS);
  manifest.kvHeads = model.integer32("kv_heads", 1, KVRM_MAX_KV_HEADS);
  if (model.isOk() && manifest.heads % manifest.kvHeads != 0)
    model.fail("heads", std::to_string(manifest.heads) +
                            " is not a multiple of model.kv_heads, " +
                            std::to_string(manifest.kvHeads));
  manifest.headDim = model.integer32("head_dim", 1, KVRM_MAX_HEAD_DIM);
  if (model.isOk() && isDevice && !kvrm_head_shape_of(manifest.headDim))
    model.fail("head_dim", std::to_string(manifest.headDim) +
                               " is none of " KVRM_HEAD_SHAPES_TEXT
                               ", which GPU kernels take");
  manifest.context = model.integer32("context", 1, KVRM_MAX_CONTEXT);
  manifest.bos = model.integer32("bos", -1, manifest.vocabulary - 1);
  manifest.eos = model.integer32("eos", -1, manifest.vocabulary - 1);
  readEnds(model, manifest);
}

static void readFarHistory(ObjectReader &cache, Manifest &manifest) {
  if (!manifest.isPaged)
    return cache.fail("far_history", "is not for a static package");
  ObjectReader far = cache.member("far_history");
  int32_t page = manifest.pageTokens;
  manifest.window = far.integer32("window", page, manifest.capacity - 1);
  manifest.summaries = far.integer32("entries", 0, KVRM_MAX_SUMMARIES);
  auto checkPages = [&](const char *key, int32_t tokens) {
    if (tokens % page != 0)
      far.fail(key, std::to_string(tokens) +
                        " is not a multiple of cache.page_tokens, " +
                        std::to_string(page));
  };
  checkPages("window", manifest.window);
  checkPages("entries", manifest.summaries);
  manifest.sinks = far.integer32("sinks", 0, manifest.summaries);
  if (manifest.summaries - manifest.sinks == 1)
    far.fail("sinks", "leaves one entry; it takes two to merge");
}

/// Of the pool, and of what GPUs append and attend with.
static void readElements(ObjectReader &cache, Manifest &manifest) {
  std::array<const char *, KVRM_ELEMENTS> names{};
  for (int32_t element = 0; element < KVRM_ELEMENTS; ++element)
    names[static_cast<size_t>(element)] =
        kvrm_element_name(static_cast<kvrm_element>(element));
  manifest.element = static_cast<kvrm_element>(cache.oneOf("element", names));
  manifest.io = manifest.element;
  if (manifest.target != TargetKind::NVPTX ||
      (!kvrm_element_is_code(manifest.element) && !cache.has("io")))
    return;
  manifest.io =
      static_cast<kvrm_element>(cache.oneOf("io", std::array{"f16", "bf16"}));
  if (cache.isOk() && !kvrm_element_is_code(manifest.element) &&
      manifest.io != manifest.element)
    cache.fail("io", std::string(kvrm_element_name(manifest.io)) +
                         " is not cache.element, " +
                         kvrm_element_name(manifest.element));
}

static void readCache(ObjectReader &cache, Manifest &manifest) {
  manifest.slots = cache.integer32("slots", 1, KVRM_MAX_ROWS);
  manifest.pageTokens = cache.integer32("page_tokens", 1, KVRM_MAX_PAGE_TOKENS);
  if (cache.isOk() && manifest.target == TargetKind::NVPTX)
    cache.oneOfIntegers("page_tokens", std::array{16, 32, 64});
  manifest.capacity = cache.integer32("capacity", 1,
                                      int64_t(KVRM_MAX_PAGES_PER_SLOT) *
                                          std::max(manifest.pageTokens, 1));
  if (manifest.hasPlans())
    manifest.pagesPerSlot =
        cache.integer32("pages_per_slot", 1, KVRM_MAX_PAGES_PER_SLOT);
  readElements(cache, manifest);
  if (cache.isOk() && cache.has("far_history"))
    readFarHistory(cache, manifest);
}

/// A block table holds what a slot can have: the code was compiled for that.
static void checkPagesPerSlot(ObjectReader &cache, const Manifest &manifest) {
  if (!cache.isOk() || !manifest.hasPlans())
    return;
  int64_t tokens = manifest.capacity;
  if (manifest.window > 0)
    tokens = int64_t(manifest.window) + manifest.summaries +
             manifest.prefill.queries;
  int64_t pages = (tokens + manifest.pageTokens - 1) / manifest.pageTokens;
  if (manifest.pagesPerSlot != pages)
    cache.fail("pages_per_slot", std::to_string(manifest.pagesPerSlot) +
                                     " are not the " + std::to_string(pages) +
                                     " that a slot can have");
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

static KernelInfo readKernel(ObjectReader &fields) {
  std::array<const char *, KVRM_KERNEL_ROLES> names{};
  for (int32_t role = 0; role < KVRM_KERNEL_ROLES; ++role)
    names[static_cast<size_t>(role)] = kvrm_kernel_role_name(role);
  KernelInfo kernel;
  kernel.role = static_cast<kvrm_kernel_role>(fields.oneOf("role", names));
  kernel.symbol = fields.string("symbol");
  if (kernel.symbol.empty())
    fields.fail("symbol", "is empty");
  kernel.threads = fields.integer32("threads", 32, 1024);
  if (kernel.threads % 32 != 0)
    fields.fail("threads",
                std::to_string(kernel.threads) + " is not a multiple of 32");
  kernel.sharedBytes = fields.integer32("shared_bytes", 0, maxSharedBytes);
  bool isPersistent = kernel.role == KVRM_ROLE_ATTEND_WORKQUEUE ||
                      kernel.role == KVRM_ROLE_ATTEND_STAGED;
  if (isPersistent || fields.has("blocks_per_sm"))
    kernel.blocksPerSm = fields.integer32("blocks_per_sm", 1, 32);
  if (kernel.role == KVRM_ROLE_ATTEND_CLUSTER || fields.has("max_cluster"))
    kernel.maxCluster =
        fields.oneOfIntegers("max_cluster", std::array{1, 2, 4, 8});
  bool isPlain =
      kernel.role == KVRM_ROLE_DENSE || kernel.role == KVRM_ROLE_SAMPLE;
  if (isPlain && kernel.maxCluster != 1)
    fields.fail("max_cluster", std::to_string(kernel.maxCluster) +
                                   " is not 1 for " +
                                   kvrm_kernel_role_name(kernel.role));
  return kernel;
}

static void readKernels(ObjectReader &reader, Manifest &manifest) {
  auto read = [&](ObjectReader &fields) {
    manifest.kernels.push_back(readKernel(fields));
  };
  reader.each("kernels", 1, read, KVRM_MAX_KERNELS);
  if (!reader.isOk())
    return;
  for (kvrm_kernel_role role :
       {KVRM_ROLE_COMMIT, KVRM_ROLE_APPEND, KVRM_ROLE_ATTEND_WORKQUEUE,
        KVRM_ROLE_ATTEND_CLUSTER})
    if (!manifest.kernel(role))
      reader.fail("kernels",
                  std::string("has no ") + kvrm_kernel_role_name(role));
  if (!manifest.kernel(KVRM_ROLE_STAGE) !=
      !manifest.kernel(KVRM_ROLE_ATTEND_STAGED))
    reader.fail("kernels",
                "has one of stage and attend_workqueue_staged alone");
  const KernelInfo *collapse = manifest.kernel(KVRM_ROLE_COLLAPSE);
  if ((collapse != nullptr) != (manifest.summaries > 0))
    reader.fail("kernels", collapse ? "has collapse, and the cache no entries "
                                      "of far_history"
                                    : "has no collapse for the entries of "
                                      "cache.far_history");
  if (collapse && collapse->threads != manifest.headDim)
    reader.fail("kernels", "collapse has " + std::to_string(collapse->threads) +
                               " threads, not model.head_dim, " +
                               std::to_string(manifest.headDim));
}

//===----------------------------------------------------------------------===//
// Entries
//===----------------------------------------------------------------------===//

/// How attention is cut up. It says nothing where nothing is planned.
static void readTiles(ObjectReader &reader, const Manifest &manifest,
                      EntryInfo &entry) {
  auto isNeeded = [&](const char *key) {
    return manifest.hasPlans() || reader.has(key);
  };
  if (isNeeded("q_tile"))
    entry.qTile = reader.integer32("q_tile", 1, KVRM_MAX_QUERIES);
  entry.kvTile = manifest.pageTokens;
  if (isNeeded("kv_tile"))
    entry.kvTile = reader.integer32("kv_tile", 1, KVRM_MAX_KV_TILE);
  bool isWhole = entry.kvTile % manifest.pageTokens == 0;
  if (manifest.target == TargetKind::NVPTX) {
    if (reader.isOk() && !isWhole && manifest.pageTokens % entry.kvTile != 0)
      reader.fail("kv_tile", std::to_string(entry.kvTile) +
                                 " is neither a multiple nor a divisor of "
                                 "cache.page_tokens, " +
                                 std::to_string(manifest.pageTokens));
  } else if (manifest.isPaged && !isWhole) {
    reader.fail("kv_tile", std::to_string(entry.kvTile) +
                               " is not a multiple of cache.page_tokens, " +
                               std::to_string(manifest.pageTokens));
  }
  if (isNeeded("schedule"))
    entry.schedule = static_cast<kvrm_schedule>(
        reader.oneOf("schedule", std::array{"rows", "split", "workqueue"}));
  if (entry.schedule == KVRM_SCHEDULE_SPLIT || reader.has("splits"))
    entry.splits = reader.integer32("splits", 1, 1024);
  if (isNeeded("transport"))
    entry.transport = static_cast<kvrm_transport>(
        reader.oneOf("transport", std::array{"native", "staged"}));
}

static void readDeviceCode(ObjectReader &reader, const Manifest &manifest,
                           EntryInfo &entry) {
  entry.program = reader.string("program");
  if (!isPlainName(entry.program))
    reader.fail("program", "is not a plain file name");
  if (reader.isOk() && entry.schedule != KVRM_SCHEDULE_WORKQUEUE)
    reader.fail("schedule", "a GPU's plan is a workqueue");
  // A decoder takes tokens and gives logits, and nothing else.
  bool isDecoder = manifest.vocabulary > 0;
  if (isDecoder && !reader.has("tensors"))
    return;
  reader.each("tensors", 0, [&](ObjectReader &fields) {
    TensorInfo tensor;
    tensor.name = fields.string("name");
    tensor.rowBytes = fields.integer("row_bytes", 1, maxFileBytes);
    entry.tensors.push_back(std::move(tensor));
  });
  if (isDecoder && !entry.tensors.empty())
    reader.fail("tensors", "a decoder's entry has none");
}

/// What is planned of an entry: the rows of its batch, and tiles.
static void readPlan(ObjectReader &reader, const Manifest &manifest,
                     EntryInfo &entry) {
  entry.rows = reader.integer32("rows", 1, KVRM_MAX_ROWS);
  entry.queries = reader.integer32("queries", 1, KVRM_MAX_QUERIES);
  readTiles(reader, manifest, entry);
}

/// A step of several batches has those of the two other entries.
static void readBatches(ObjectReader &reader, const Manifest &manifest,
                        EntryInfo &entry) {
  entry.batches = {"decode_step", "prefill"};
  const json *names = reader.list("batches", 2);
  if (names && *names != json(entry.batches))
    reader.fail("batches", "are not decode_step and prefill");
  entry.rows = manifest.slots + 1;
  entry.schedule = KVRM_SCHEDULE_WORKQUEUE;
}

static EntryInfo readEntry(ObjectReader &reader, const Manifest &manifest) {
  EntryInfo entry;
  entry.name = reader.string("name");
  bool isHost = manifest.target == TargetKind::Host;
  if (isHost) {
    entry.symbol = reader.string("symbol");
    if (entry.symbol.empty())
      reader.fail("symbol", "is empty");
  }
  bool isMixed = entry.name == "mixed_step";
  if (isMixed)
    readBatches(reader, manifest, entry);
  else
    readPlan(reader, manifest, entry);
  entry.arenaBytes = reader.integer("arena_bytes", 0, maxFileBytes);
  bool hasScratch = manifest.isPaged && !isMixed;
  if (isHost && (hasScratch || reader.has("scratch_bytes")))
    entry.scratchBytes = reader.integer("scratch_bytes", 0, maxFileBytes);
  if (!isHost)
    readDeviceCode(reader, manifest, entry);
  return entry;
}

static void readEntries(ObjectReader &reader, Manifest &manifest) {
  bool hasDecode = false;
  // Kernels alone take several tokens of a row, logits are of one.
  bool hasLogits = manifest.vocabulary > 0;
  reader.each("entries", 1, [&](ObjectReader &fields) {
    EntryInfo entry = readEntry(fields, manifest);
    if (entry.name == "decode_step" && !hasDecode) {
      if (entry.rows != manifest.slots)
        fields.fail("rows", std::to_string(entry.rows) +
                                " is not cache.slots, " +
                                std::to_string(manifest.slots));
      if (hasLogits && entry.queries != 1)
        fields.fail("queries", std::to_string(entry.queries) +
                                   " is not 1 for decode_step");
      manifest.decode = std::move(entry);
      hasDecode = true;
    } else if (entry.name == "prefill" && !manifest.hasPrefill()) {
      if (entry.rows != 1)
        fields.fail("rows",
                    std::to_string(entry.rows) + " is not 1 for prefill");
      manifest.prefill = std::move(entry);
    } else if (entry.name == "mixed_step" && !manifest.hasMixed()) {
      if (!manifest.isPaged || !hasLogits)
        fields.fail("name", "mixed_step is of paged decoders alone");
      manifest.mixed = std::move(entry);
    } else {
      fields.fail("name", "'" + entry.name + "' is unknown or there already");
    }
  });
  if (reader.isOk() && !hasDecode)
    reader.fail("entries", "has no decode_step");
  if (reader.isOk() && hasLogits && !manifest.hasPrefill())
    reader.fail("entries", "has no prefill");
  if (reader.isOk() && manifest.hasMixed() &&
      manifest.mixed.rows > KVRM_MAX_ROWS)
    reader.fail("entries", "mixed_step has " +
                               std::to_string(manifest.mixed.rows) +
                               " rows, more than " +
                               std::to_string(int32_t(KVRM_MAX_ROWS)));
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

/// A package without the field is for one.
static void readRanks(ObjectReader &reader, Manifest &manifest) {
  if (!reader.isOk() || !reader.has("ranks"))
    return;
  manifest.ranks = reader.integer32("ranks", 1, KVRM_MAX_RANKS);
  if (!reader.isOk() || manifest.ranks == 1)
    return;
  if (manifest.kvHeads % manifest.ranks != 0)
    reader.fail("ranks", std::to_string(manifest.ranks) +
                             " do not divide model.kv_heads, " +
                             std::to_string(manifest.kvHeads));
  else if (!manifest.hasPlans())
    reader.fail("ranks", "a host's static package is for one");
  else if (manifest.vocabulary == 0)
    reader.fail("ranks", "kernels alone are for one");
}

static bool isWeights(std::string_view name, const Manifest &manifest) {
  for (int32_t rank = 0; rank < manifest.ranks; ++rank)
    if (name == weightsFile(rank))
      return true;
  return false;
}

static void checkFiles(ObjectReader &reader, const Manifest &manifest) {
  auto need = [&](std::string_view name) {
    if (reader.isOk() && !manifest.file(name))
      reader.fail("files", "has no " + std::string(name));
  };
  if (manifest.vocabulary > 0)
    for (int32_t rank = 0; rank < manifest.ranks; ++rank)
      need(weightsFile(rank));
  if (manifest.target == TargetKind::Host)
    return need("code.so");
  need("kernels.ptx");
  for (const EntryInfo *entry : manifest.entries())
    need(entry->program);
  for (const FileInfo &file : manifest.files)
    if (reader.isOk() && !isWeights(file.name, manifest) &&
        file.bytes > maxImageBytes)
      reader.fail("files", file.name + " is " + std::to_string(file.bytes) +
                               " bytes long, over the limit " +
                               std::to_string(maxImageBytes));
}

Expected<Manifest> kvrm::parseManifest(std::string_view text,
                                       std::string_view where) {
  Expected<json> root = parseObject(text, where);
  KVRM_TRY(root.status());
  Status status;
  ObjectReader reader(*root, "", where, status);
  Manifest manifest;

  reader.oneOf("format", std::array{"kvrm-package"});
  int64_t version = reader.integer("abi_version", 0, INT32_MAX);
  if (status.isOk() && version != KVRM_ABI_VERSION)
    return makeError(StatusCode::Incompatible, where,
                     ": abi_version: ", version, " is not this runtime's ",
                     int32_t(KVRM_ABI_VERSION), "; compile the model again");
  manifest.producer = reader.string("producer");
  manifest.isPaged = reader.oneOf("mode", std::array{"paged", "static"}) == 0;
  ObjectReader target = reader.member("target");
  readTarget(target, manifest);
  ObjectReader model = reader.member("model");
  readModel(model, manifest);
  readRanks(reader, manifest);
  ObjectReader cache = reader.member("cache");
  readCache(cache, manifest);
  if (!status.isOk())
    return status;
  if (manifest.target == TargetKind::NVPTX)
    readKernels(reader, manifest);
  readEntries(reader, manifest);
  checkPagesPerSlot(cache, manifest);
  manifest.files = readFiles(reader);
  checkFiles(reader, manifest);
  if (!status.isOk())
    return status;
  return manifest;
}
