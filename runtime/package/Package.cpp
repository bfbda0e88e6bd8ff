//===- Package.cpp - An ahead-of-time package, checked and loaded ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/package/Package.h"

#include "CheckedFile.h"

#include <algorithm>
#include <dlfcn.h>
#include <nlohmann/json.hpp>
#include <span>

using namespace kvrm;
using nlohmann::json;

static constexpr int64_t maxTensorHeaderBytes = 64 << 20;

//===----------------------------------------------------------------------===//
// CPU
//===----------------------------------------------------------------------===//

Status kvrm::checkCpuFeatures(const std::vector<std::string> &features,
                              std::string_view where) {
  struct Feature {
    const char *name;
    bool isThere;
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
#define KVRM_FEATURE(name) {name, __builtin_cpu_supports(name) != 0}
  static const Feature table[] = {
      KVRM_FEATURE("sse2"),
      KVRM_FEATURE("sse3"),
      KVRM_FEATURE("ssse3"),
      KVRM_FEATURE("sse4.1"),
      KVRM_FEATURE("sse4.2"),
      KVRM_FEATURE("popcnt"),
      KVRM_FEATURE("avx"),
      KVRM_FEATURE("avx2"),
      KVRM_FEATURE("fma"),
      KVRM_FEATURE("f16c"),
      KVRM_FEATURE("bmi"),
      KVRM_FEATURE("bmi2"),
      KVRM_FEATURE("lzcnt"),
      KVRM_FEATURE("movbe"),
      KVRM_FEATURE("avx512f"),
      KVRM_FEATURE("avx512bw"),
      KVRM_FEATURE("avx512cd"),
      KVRM_FEATURE("avx512dq"),
      KVRM_FEATURE("avx512vl"),
      KVRM_FEATURE("avx512vbmi"),
      KVRM_FEATURE("avx512vbmi2"),
      KVRM_FEATURE("avx512ifma"),
      KVRM_FEATURE("avx512vnni"),
      KVRM_FEATURE("avx512bitalg"),
      KVRM_FEATURE("avx512bf16"),
      KVRM_FEATURE("avx512fp16"),
      KVRM_FEATURE("avx512vpopcntdq"),
      KVRM_FEATURE("avx512vp2intersect"),
      KVRM_FEATURE("avxvnni"),
      KVRM_FEATURE("vaes"),
      KVRM_FEATURE("vpclmulqdq"),
      KVRM_FEATURE("gfni"),
      KVRM_FEATURE("amx-tile"),
      KVRM_FEATURE("amx-int8"),
      KVRM_FEATURE("amx-bf16"),
  };
#undef KVRM_FEATURE
  const std::span<const Feature> known(table);
#else
  const std::span<const Feature> known;
#endif
  for (const std::string &name : features) {
    auto found = std::ranges::find_if(
        known, [&](const Feature &feature) { return name == feature.name; });
    if (found == known.end())
      return makeError(StatusCode::Incompatible, where, ": target.requires: '",
                       name, "' is not a CPU feature that this runtime knows");
    if (!found->isThere)
      return makeError(StatusCode::Incompatible, where,
                       ": target.requires: this CPU has no ", name);
  }
  return Status::ok();
}

static Status checkTriple(const std::string &triple, std::string_view where) {
#if defined(__x86_64__)
  const std::string_view here = "x86_64-";
#elif defined(__aarch64__)
  const std::string_view here = "aarch64-";
#else
  const std::string_view here = "";
#endif
  if (triple.compare(0, here.size(), here) != 0)
    return makeError(StatusCode::Incompatible, where, ": target.triple: '",
                     triple, "' is not for this machine (", here, "...)");
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

/// Checks that every tensor lies in the data section at a multiple of 64.
static Status checkTensors(std::string_view header, int64_t dataBytes,
                           const std::string &path) {
  auto corrupt = [&](const auto &...parts) {
    return makeError(StatusCode::Corrupt, path, ": ", parts...);
  };
  json root = json::parse(header, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded() || !root.is_object())
    return corrupt("its header is not a JSON object");
  for (const auto &[name, tensor] : root.items()) {
    if (name == "__metadata__")
      continue;
    if (!tensor.is_object() || !tensor.contains("data_offsets"))
      return corrupt("tensor '", name, "' has no data_offsets");
    const json &offsets = tensor["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 ||
        !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
      return corrupt("tensor '", name, "': data_offsets are not two offsets");
    auto begin = offsets[0].get<uint64_t>();
    auto end = offsets[1].get<uint64_t>();
    if (begin > end || end > static_cast<uint64_t>(dataBytes))
      return corrupt("tensor '", name, "': bytes ", begin, "..", end,
                     " are outside the data section of ", dataBytes);
    // Gaps between tensors are covered by tensors too, which nobody reads.
    if (begin % KVRM_ALIGNMENT != 0 && !name.starts_with("__pad."))
      return corrupt("tensor '", name, "': offset ", begin,
                     " is not a multiple of ", int32_t(KVRM_ALIGNMENT));
  }
  return Status::ok();
}

static Expected<AlignedBuffer> loadWeights(const std::string &path,
                                           const FileInfo &want) {
  Expected<CheckedFile> file = CheckedFile::open(path);
  KVRM_TRY(file.status());
  KVRM_TRY(file->checkSize(want));
  uint8_t lengthBytes[8];
  if (file->bytes() < int64_t(sizeof(lengthBytes)))
    return makeError(StatusCode::Corrupt, path, ": has no safetensors header");
  KVRM_TRY(file->read(lengthBytes, sizeof(lengthBytes)));
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | lengthBytes[i];
  int64_t rest = file->bytes() - int64_t(sizeof(lengthBytes));
  if (length > static_cast<uint64_t>(std::min(rest, maxTensorHeaderBytes)))
    return makeError(StatusCode::Corrupt, path, ": header length ", length,
                     " is outside 0..", std::min(rest, maxTensorHeaderBytes));
  std::string header(static_cast<size_t>(length), '\0');
  KVRM_TRY(file->read(reinterpret_cast<uint8_t *>(header.data()),
                      static_cast<int64_t>(length)));
  int64_t dataBytes = rest - static_cast<int64_t>(length);
  KVRM_TRY(checkTensors(header, dataBytes, path));
  // Never null, also for a model without weights.
  Expected<AlignedBuffer> data =
      AlignedBuffer::create(std::max<int64_t>(dataBytes, 64), "weights");
  KVRM_TRY(data.status());
  KVRM_TRY(file->read(data->data(), dataBytes));
  KVRM_TRY(file->checkHash(want));
  return data;
}

//===----------------------------------------------------------------------===//
// Package
//===----------------------------------------------------------------------===//

Expected<Manifest> Package::readManifest(const std::string &path) {
  std::string where;
  Expected<std::string> text = readManifestText(path, "package", where);
  KVRM_TRY(text.status());
  Expected<Manifest> manifest = parseManifest(*text, where);
  KVRM_TRY(manifest.status());
  KVRM_TRY(checkSeal(*text, where));
  return manifest;
}

Expected<std::shared_ptr<const Package>>
Package::load(const std::string &path) {
  Expected<Manifest> manifest = readManifest(path);
  KVRM_TRY(manifest.status());
  std::string where = joinPath(path, "manifest.json");
  KVRM_TRY(checkTriple(manifest->triple, where));
  KVRM_TRY(checkCpuFeatures(manifest->requiredFeatures, where));

  std::shared_ptr<Package> package(new Package());
  package->info = manifest.take();
  package->folder = path;
  for (const FileInfo &info : package->info.files) {
    std::string name = joinPath(path, info.name);
    if (info.name == "weights.safetensors") {
      Expected<AlignedBuffer> weights = loadWeights(name, info);
      KVRM_TRY(weights.status());
      package->weightData = weights.take();
      continue;
    }
    Expected<CheckedFile> file = CheckedFile::open(name);
    KVRM_TRY(file.status());
    KVRM_TRY(file->checkAll(info));
  }

  // A name without a slash would be looked up in the library path.
  std::string code = joinPath(path, "code.so");
  if (code.find('/') == std::string::npos)
    code.insert(0, "./");
  package->code = dlopen(code.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!package->code) {
    const char *reason = dlerror();
    return makeError(StatusCode::Incompatible, code,
                     ": cannot link: ", reason ? reason : "unknown reason");
  }
  auto lookUp = [&](const EntryInfo &entry, kvrm_step_fn &fn) {
    fn = reinterpret_cast<kvrm_step_fn>(
        dlsym(package->code, entry.symbol.c_str()));
    if (!fn)
      return makeError(StatusCode::Corrupt, code, ": has no symbol '",
                       entry.symbol, "' for entry ", entry.name);
    return Status::ok();
  };
  KVRM_TRY(lookUp(package->info.decode, package->decodeFn));
  KVRM_TRY(lookUp(package->info.prefill, package->prefillFn));
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
