//===- Manifest.cpp - manifest.json, every field checked --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/Package.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

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

namespace {

/// Sizes beyond these are a damaged manifest, not a large model.
constexpr int64_t maxVocabulary = 1 << 24;
constexpr int64_t maxHidden = 1 << 20;
constexpr int64_t maxHeads = 4096;
constexpr int64_t maxContext = 1 << 28;
constexpr int64_t maxBytes = int64_t(1) << 44;
constexpr size_t maxString = 1024;
constexpr size_t maxList = 64;

/// Reads fields of one JSON object and keeps the first error.
class ObjectReader {
public:
  ObjectReader(const json &object, std::string fieldPrefix,
               std::string_view file, Status &status)
      : object(object), prefix(std::move(fieldPrefix)), file(file),
        status(status) {}

  bool has(const char *key) const { return object.contains(key); }

  void fail(const char *key, const std::string &message) {
    if (status.isOk())
      status = makeError(StatusCode::Corrupt, file, ": ", prefix, key, ": ",
                         message);
  }

  const json *find(const char *key) {
    if (!status.isOk())
      return nullptr;
    auto found = object.find(key);
    if (found == object.end()) {
      fail(key, "is missing");
      return nullptr;
    }
    return &*found;
  }

  int64_t integer(const char *key, int64_t low, int64_t high) {
    const json *value = find(key);
    if (!value)
      return low;
    if (!value->is_number_integer()) {
      fail(key, "is not an integer");
      return low;
    }
    bool isTooLarge = value->is_number_unsigned() &&
                      value->get<uint64_t>() > uint64_t(INT64_MAX);
    int64_t number = isTooLarge ? INT64_MAX : value->get<int64_t>();
    if (isTooLarge || number < low || number > high) {
      fail(key, value->dump() + " is outside " + std::to_string(low) + ".." +
                    std::to_string(high));
      return low;
    }
    return number;
  }
  int32_t integer32(const char *key, int64_t low, int64_t high) {
    KVRM_CHECK(high <= INT32_MAX, "a limit fits its type");
    return static_cast<int32_t>(integer(key, low, high));
  }

  std::string string(const char *key) {
    const json *value = find(key);
    if (!value)
      return {};
    if (!value->is_string()) {
      fail(key, "is not a string");
      return {};
    }
    const auto &text = value->get_ref<const std::string &>();
    if (text.size() > maxString) {
      fail(key, "is longer than " + std::to_string(maxString) + " bytes");
      return {};
    }
    return text;
  }

  /// The index of the string in `names`.
  template <size_t N>
  size_t oneOf(const char *key, const std::array<const char *, N> &names) {
    std::string text = string(key);
    if (!status.isOk())
      return 0;
    for (size_t i = 0; i < N; ++i)
      if (text == names[i])
        return i;
    std::string known;
    for (const char *name : names)
      known += std::string(known.empty() ? "" : ", ") + name;
    fail(key, "'" + text + "' is not one of " + known);
    return 0;
  }

  const json *list(const char *key, size_t low) {
    const json *value = find(key);
    if (!value)
      return nullptr;
    if (!value->is_array()) {
      fail(key, "is not a list");
      return nullptr;
    }
    if (value->size() < low || value->size() > maxList) {
      fail(key, "has " + std::to_string(value->size()) + " entries, outside " +
                    std::to_string(low) + ".." + std::to_string(maxList));
      return nullptr;
    }
    return value;
  }

  /// A member object; `empty` stands in for a missing one.
  ObjectReader member(const char *key) {
    static const json empty = json::object();
    const json *value = find(key);
    if (value && !value->is_object()) {
      fail(key, "is not an object");
      value = nullptr;
    }
    return {value ? *value : empty, prefix + key + ".", file, status};
  }

private:
  const json &object;
  std::string prefix;
  std::string_view file;
  Status &status;
};

} // namespace

static EntryInfo readEntry(ObjectReader &reader, const Manifest &manifest) {
  EntryInfo entry;
  entry.name = reader.string("name");
  entry.symbol = reader.string("symbol");
  if (entry.symbol.empty())
    reader.fail("symbol", "is empty");
  entry.rows = reader.integer32("rows", 1, KVRM_MAX_ROWS);
  entry.queries = reader.integer32("queries", 1, KVRM_MAX_QUERIES);
  entry.arenaBytes = reader.integer("arena_bytes", 0, maxBytes);
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
    entry.scratchBytes = reader.integer("scratch_bytes", 0, maxBytes);
  return entry;
}

static bool isPlainName(const std::string &name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' &&
         std::ranges::all_of(name, [](unsigned char c) {
           return std::isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

static FileInfo readFile(ObjectReader &reader) {
  FileInfo file;
  file.name = reader.string("name");
  if (!isPlainName(file.name))
    reader.fail("name", "is not a plain file name");
  file.bytes = reader.integer("bytes", 0, maxBytes);
  std::string sum = reader.string("xxh3");
  bool isHex =
      sum.size() == 16 && std::ranges::all_of(sum, [](unsigned char c) {
        return std::isxdigit(c) && !std::isupper(c);
      });
  if (!isHex)
    reader.fail("xxh3", "is not 16 lower-case hex digits");
  else
    file.xxh3 = std::stoull(sum, nullptr, 16);
  return file;
}

Expected<Manifest> kvrm::parseManifest(std::string_view text,
                                       std::string_view where) {
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded())
    return makeError(StatusCode::Corrupt, where, ": is not valid JSON");
  if (!root.is_object())
    return makeError(StatusCode::Corrupt, where, ": is not a JSON object");
  Status status;
  ObjectReader reader(root, "", where, status);
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
  if (!status.isOk())
    return status;

  bool hasDecode = false;
  bool hasPrefill = false;
  if (const json *entries = reader.list("entries", 1)) {
    for (size_t i = 0; i < entries->size() && status.isOk(); ++i) {
      std::string prefix = "entries[" + std::to_string(i) + "]";
      if (!(*entries)[i].is_object()) {
        reader.fail(prefix.c_str(), "is not an object");
        break;
      }
      ObjectReader fields((*entries)[i], prefix + ".", where, status);
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
      } else if (status.isOk()) {
        fields.fail("name", "'" + entry.name + "' is unknown or there already");
      }
    }
  }
  if (status.isOk() && !hasDecode)
    reader.fail("entries", "has no decode_step");
  if (status.isOk() && !hasPrefill)
    reader.fail("entries", "has no prefill");

  if (const json *files = reader.list("files", 1)) {
    for (size_t i = 0; i < files->size() && status.isOk(); ++i) {
      std::string prefix = "files[" + std::to_string(i) + "]";
      if (!(*files)[i].is_object()) {
        reader.fail(prefix.c_str(), "is not an object");
        break;
      }
      ObjectReader fields((*files)[i], prefix + ".", where, status);
      FileInfo file = readFile(fields);
      if (status.isOk() && manifest.file(file.name))
        fields.fail("name", "'" + file.name + "' is there already");
      manifest.files.push_back(std::move(file));
    }
  }
  for (const char *name : {"code.so", "weights.safetensors"})
    if (status.isOk() && !manifest.file(name))
      reader.fail("files", std::string("has no ") + name);
  if (!status.isOk())
    return status;
  return manifest;
}
