//===- Manifest.cpp - manifest.json, every field checked --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/package/Package.h"

#include "JsonReader.h"

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

const char *kvrm::elementName(kvrm_element element) {
  return element == KVRM_BF16 ? "bf16" : "f16";
}

const FileInfo *Manifest::file(std::string_view name) const {
  for (const FileInfo &info : files)
    if (info.name == name)
      return &info;
  return nullptr;
}

/// Sizes beyond these are a damaged manifest, not a large model.
static constexpr int64_t maxVocabulary = 1 << 24;
static constexpr int64_t maxHidden = 1 << 20;
static constexpr int64_t maxHeads = 4096;
static constexpr int64_t maxContext = 1 << 28;

static EntryInfo readEntry(ObjectReader &reader, const Manifest &manifest) {
  EntryInfo entry;
  entry.name = reader.string("name");
  entry.symbol = reader.string("symbol");
  if (entry.symbol.empty())
    reader.fail("symbol", "is empty");
  entry.rows = reader.integer32("rows", 1, KVRM_MAX_ROWS);
  entry.queries = reader.integer32("queries", 1, KVRM_MAX_QUERIES);
  entry.arenaBytes = reader.integer("arena_bytes", 0, maxFileBytes);
  // How attention is cut up says nothing in a static package.
  auto isNeeded = [&](const char *key) {
    return manifest.isPaged || reader.has(key);
  };
  if (isNeeded("q_tile"))
    entry.qTile = reader.integer32("q_tile", 1, KVRM_MAX_QUERIES);
  entry.kvTile = manifest.pageTokens;
  if (isNeeded("kv_tile"))
    entry.kvTile = reader.integer32("kv_tile", 1, 1 << 16);
  if (manifest.isPaged && entry.kvTile % manifest.pageTokens != 0)
    reader.fail("kv_tile", std::to_string(entry.kvTile) +
                               " is not a multiple of cache.page_tokens, " +
                               std::to_string(manifest.pageTokens));
  if (isNeeded("schedule"))
    entry.schedule = static_cast<kvrm_schedule>(
        reader.oneOf("schedule", std::array{"rows", "split", "workqueue"}));
  if (entry.schedule == KVRM_SCHEDULE_SPLIT || reader.has("splits"))
    entry.splits = reader.integer32("splits", 1, 1024);
  if (isNeeded("transport"))
    entry.transport = static_cast<kvrm_transport>(
        reader.oneOf("transport", std::array{"native", "staged"}));
  if (isNeeded("scratch_bytes"))
    entry.scratchBytes = reader.integer("scratch_bytes", 0, maxFileBytes);
  return entry;
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

Expected<Manifest> kvrm::parseManifest(std::string_view text,
                                       std::string_view where) {
  Expected<nlohmann::json> root = parseObject(text, where);
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
  target.oneOf("kind", std::array{"host"});
  manifest.triple = target.string("triple");
  manifest.cpu = target.string("cpu");
  if (const json *features = target.list("requires", 0))
    for (const json &feature : *features) {
      if (!feature.is_string()) {
        target.fail("requires", "is not a list of strings");
        break;
      }
      manifest.requiredFeatures.push_back(feature.get<std::string>());
    }

  ObjectReader model = reader.member("model");
  manifest.modelName = model.string("name");
  manifest.architecture = model.string("architecture");
  manifest.vocabulary = model.integer32("vocabulary", 1, maxVocabulary);
  manifest.hidden = model.integer32("hidden", 1, maxHidden);
  manifest.layers = model.integer32("layers", 1, KVRM_MAX_LAYERS);
  manifest.heads = model.integer32("heads", 1, maxHeads);
  manifest.kvHeads = model.integer32("kv_heads", 1, KVRM_MAX_KV_HEADS);
  if (status.isOk() && manifest.heads % manifest.kvHeads != 0)
    model.fail("heads", std::to_string(manifest.heads) +
                            " is not a multiple of model.kv_heads, " +
                            std::to_string(manifest.kvHeads));
  manifest.headDim = model.integer32("head_dim", 1, KVRM_MAX_HEAD_DIM);
  manifest.context = model.integer32("context", 1, maxContext);
  manifest.bos = model.integer32("bos", -1, manifest.vocabulary - 1);
  manifest.eos = model.integer32("eos", -1, manifest.vocabulary - 1);

  ObjectReader cache = reader.member("cache");
  manifest.slots = cache.integer32("slots", 1, KVRM_MAX_ROWS);
  manifest.pageTokens = cache.integer32("page_tokens", 1, KVRM_MAX_PAGE_TOKENS);
  manifest.capacity = cache.integer32("capacity", 1,
                                      int64_t(KVRM_MAX_PAGES_PER_SLOT) *
                                          std::max(manifest.pageTokens, 1));
  manifest.element = static_cast<kvrm_element>(
      cache.oneOf("element", std::array{"f16", "bf16"}));
  if (status.isOk() && cache.has("far_history"))
    readFarHistory(cache, manifest);
  if (!status.isOk())
    return status;

  bool hasDecode = false;
  bool hasPrefill = false;
  reader.each("entries", 1, [&](ObjectReader &fields) {
    EntryInfo entry = readEntry(fields, manifest);
    if (entry.name == "decode_step" && !hasDecode) {
      if (entry.rows != manifest.slots)
        fields.fail("rows", std::to_string(entry.rows) +
                                " is not cache.slots, " +
                                std::to_string(manifest.slots));
      if (entry.queries != 1)
        fields.fail("queries", std::to_string(entry.queries) +
                                   " is not 1 for decode_step");
      manifest.decode = std::move(entry);
      hasDecode = true;
    } else if (entry.name == "prefill" && !hasPrefill) {
      if (entry.rows != 1)
        fields.fail("rows",
                    std::to_string(entry.rows) + " is not 1 for prefill");
      manifest.prefill = std::move(entry);
      hasPrefill = true;
    } else {
      fields.fail("name", "'" + entry.name + "' is unknown or there already");
    }
  });
  if (status.isOk() && !hasDecode)
    reader.fail("entries", "has no decode_step");
  if (status.isOk() && !hasPrefill)
    reader.fail("entries", "has no prefill");

  // With far history a table also holds the summaries and a step's tokens.
  if (status.isOk() && manifest.pagesPerSlot() > KVRM_MAX_PAGES_PER_SLOT)
    cache.fail("far_history", "needs " +
                                  std::to_string(manifest.pagesPerSlot()) +
                                  " pages a slot, over the limit " +
                                  std::to_string(KVRM_MAX_PAGES_PER_SLOT));

  manifest.files = readFiles(reader);
  for (const char *name : {"code.so", "weights.safetensors"})
    if (status.isOk() && !manifest.file(name))
      reader.fail("files", std::string("has no ") + name);
  if (!status.isOk())
    return status;
  return manifest;
}
