//===- ToyPackage.cpp - Toy decoders, whole and broken --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ToyPackage.h"
#include "ToyModel.h"
#include "kvrm/runtime/abi.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#define XXH_INLINE_ALL
#include <xxhash.h>

using nlohmann::json;
namespace fs = std::filesystem;

static std::string readAll(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void toy::write(const std::string &path, const std::string &bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
}

std::string toy::checksum(const std::string &path) {
  std::string bytes = readAll(path);
  char text[17];
  std::snprintf(
      text, sizeof(text), "%016llx",
      static_cast<unsigned long long>(XXH3_64bits(bytes.data(), bytes.size())));
  return text;
}

void toy::writeManifest(const std::string &folder, const json &manifest) {
  std::string text = manifest.dump(2);
  text.resize(text.size() - 2); // "\n}"
  text += ",\n  ";
  char sum[17];
  std::snprintf(
      sum, sizeof(sum), "%016llx",
      static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
  write(folder + "/manifest.json", text + "\"xxh3\": \"" + sum + "\"\n}\n");
}

json toy::manifestOf(const PackageOptions &options, const std::string &folder) {
  auto entry = [&](const char *name, const char *symbol, int rows, int queries,
                   int qTile) {
    return json{{"name", name},
                {"symbol", symbol},
                {"rows", rows},
                {"queries", queries},
                {"q_tile", qTile},
                {"kv_tile", kvTile},
                {"schedule", options.schedule},
                {"splits", options.splits},
                {"transport", options.transport},
                {"arena_bytes", arenaBytes(rows * queries)},
                {"scratch_bytes", qTile * group * (headDim + 2) * 4}};
  };
  json files = json::array();
  for (const char *name : {"code.so", "weights.safetensors"}) {
    std::string path = folder + "/" + name;
    files.push_back({{"name", name},
                     {"bytes", fs::file_size(path)},
                     {"xxh3", checksum(path)}});
  }
#if defined(__x86_64__)
  const char *triple = "x86_64-unknown-linux-gnu";
  json features = {"sse2"};
#else
  const char *triple = "aarch64-unknown-linux-gnu";
  json features = json::array();
#endif
  json cache = {{"slots", slots},
                {"capacity", capacity},
                {"page_tokens", pageTokens},
                {"element", "f16"}};
  int tokens = capacity;
  if (options.drops)
    tokens = farWindow + prefillQueries;
  else if (options.isFar)
    tokens = farWindow + farEntries + prefillQueries;
  if (options.mode == "paged")
    cache["pages_per_slot"] = (tokens + pageTokens - 1) / pageTokens;
  if (options.drops)
    cache["far_history"] = {
        {"window", farWindow}, {"entries", 0}, {"sinks", 0}};
  else if (options.isFar)
    cache["far_history"] = {
        {"window", farWindow}, {"entries", farEntries}, {"sinks", farSinks}};
  json entries = {
      entry("decode_step", "kvrm_decode_step", slots, 1, 1),
      entry("prefill", "kvrm_prefill", 1, prefillQueries, prefillQTile)};
  if (options.mixes)
    entries.push_back({{"name", "mixed_step"},
                       {"symbol", "kvrm_mixed_step"},
                       {"batches", {"decode_step", "prefill"}},
                       {"arena_bytes", arenaBytes(slots + prefillQueries)}});
  return {{"format", "kvrm-package"},
          {"abi_version", KVRM_ABI_VERSION},
          {"producer", "test"},
          {"mode", options.mode},
          {"target",
           {{"kind", "host"},
            {"triple", triple},
            {"cpu", "generic"},
            {"requires", features}}},
          {"model",
           {{"name", "toy"},
            {"architecture", "toy"},
            {"vocabulary", vocabulary},
            {"hidden", hidden},
            {"layers", layers},
            {"heads", heads},
            {"kv_heads", kvHeads},
            {"head_dim", headDim},
            {"context", 64},
            {"bos", -1},
            {"eos", 7}}},
          {"cache", cache},
          {"entries", entries},
          {"files", files}};
}

std::string toy::makePackage(const PackageOptions &options) {
  std::string pattern =
      (fs::temp_directory_path() / "kvrm-toy-XXXXXX").string();
  if (!mkdtemp(pattern.data()))
    std::abort();
  std::string module = options.mode == "static"        ? TOY_MODULE_STATIC
                       : options.isFar                 ? TOY_MODULE_FAR
                       : options.drops                 ? TOY_MODULE_DROPS
                       : options.transport == "staged" ? TOY_MODULE_STAGED
                                                       : TOY_MODULE_NATIVE;
  fs::copy_file(module, pattern + "/code.so");
  // One tensor of 64 bytes, the first of them the softmax scale.
  std::string header =
      R"({"__metadata__":{"producer":"test"},"scale":{"dtype":"F32",)"
      R"("shape":[16],"data_offsets":[0,64]}})";
  std::string weights(8, '\0');
  weights[0] = static_cast<char>(header.size());
  weights += header;
  std::string data(64, '\0');
  std::memcpy(data.data(), &softmaxScale, sizeof(float));
  write(pattern + "/weights.safetensors", weights + data);
  writeManifest(pattern, manifestOf(options, pattern));
  return pattern;
}
