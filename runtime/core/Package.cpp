//===- Package.cpp - An ahead-of-time package, checked and loaded ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/Package.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <span>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

using namespace kvrm;
using nlohmann::json;

static constexpr int64_t maxManifestBytes = 1 << 20;
static constexpr int64_t maxTensorHeaderBytes = 64 << 20;
static constexpr int64_t readChunk = 4 << 20;

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

namespace {

/// An open file that knows its name, size and, at the end, checksum.
class CheckedFile {
public:
  CheckedFile() = default;
  CheckedFile(CheckedFile &&other) noexcept
      : descriptor(std::exchange(other.descriptor, -1)),
        hash(std::exchange(other.hash, nullptr)), path(std::move(other.path)),
        size(other.size) {}
  CheckedFile(const CheckedFile &) = delete;
  CheckedFile &operator=(const CheckedFile &) = delete;
  CheckedFile &operator=(CheckedFile &&) = delete;
  ~CheckedFile() {
    if (descriptor >= 0)
      ::close(descriptor);
    if (hash)
      XXH3_freeState(hash);
  }

  static Expected<CheckedFile> open(const std::string &path) {
    CheckedFile file;
    file.path = path;
    file.descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file.descriptor < 0) {
      if (errno == ENOENT || errno == ENOTDIR)
        return makeError(StatusCode::NotFound, path, ": there is no such file");
      return makeError(StatusCode::IoError, path,
                       ": cannot open: ", std::strerror(errno));
    }
    struct stat info{};
    if (fstat(file.descriptor, &info) != 0)
      return makeError(StatusCode::IoError, path, ": ", std::strerror(errno));
    if (!S_ISREG(info.st_mode))
      return makeError(StatusCode::Corrupt, path, ": is not a regular file");
    file.size = info.st_size;
    file.hash = XXH3_createState();
    if (!file.hash)
      return makeError(StatusCode::ResourceExhausted, path, ": no memory");
    XXH3_64bits_reset(file.hash);
    return file;
  }

  Status checkSize(const FileInfo &want) const {
    if (size == want.bytes)
      return Status::ok();
    return makeError(StatusCode::Corrupt, path, ": is ", size,
                     " bytes long, the manifest says ", want.bytes);
  }

  /// Reads the next `bytes` bytes, in pieces that are hashed while in cache.
  Status read(uint8_t *to, int64_t bytes) {
    for (int64_t done = 0; done < bytes;) {
      int64_t want = std::min(bytes - done, readChunk);
      ssize_t got = ::read(descriptor, to + done, static_cast<size_t>(want));
      if (got < 0 && errno == EINTR)
        continue;
      if (got < 0)
        return makeError(StatusCode::IoError, path,
                         ": cannot read: ", std::strerror(errno));
      if (got == 0)
        return makeError(StatusCode::Corrupt, path, ": ends early");
      XXH3_64bits_update(hash, to + done, static_cast<size_t>(got));
      done += got;
    }
    return Status::ok();
  }

  Status checkHash(const FileInfo &want) const {
    if (XXH3_64bits_digest(hash) == want.xxh3)
      return Status::ok();
    return makeError(StatusCode::Corrupt, path,
                     ": checksum differs from the manifest's; the file is "
                     "damaged");
  }

  /// Reads all of it for its checksum alone.
  Status checkAll(const FileInfo &want) {
    KVRM_TRY(checkSize(want));
    std::vector<uint8_t> chunk(
        static_cast<size_t>(std::min(std::max<int64_t>(size, 1), readChunk)));
    for (int64_t done = 0; done < size;) {
      int64_t next = std::min(size - done, static_cast<int64_t>(chunk.size()));
      KVRM_TRY(read(chunk.data(), next));
      done += next;
    }
    return checkHash(want);
  }

  int64_t bytes() const { return size; }
  const std::string &name() const { return path; }

private:
  int descriptor = -1;
  XXH3_state_t *hash = nullptr;
  std::string path;
  int64_t size = 0;
};

} // namespace

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

static std::string join(const std::string &folder, std::string_view name) {
  std::string path = folder;
  if (!path.empty() && path.back() != '/')
    path += '/';
  return path.append(name);
}

/// Checks the checksum that a manifest ends with, of all bytes before it.
static Status checkSeal(std::string_view text, const std::string &path) {
  constexpr std::string_view start = "\"xxh3\": \"";
  constexpr std::string_view end = "\"\n}\n";
  constexpr size_t digits = 16;
  constexpr size_t size = start.size() + digits + end.size();
  if (text.size() < size)
    return makeError(StatusCode::Corrupt, path, ": has no checksum at its end");
  std::string_view body = text.substr(0, text.size() - size);
  std::string_view seal = text.substr(body.size());
  if (!seal.starts_with(start) || !seal.ends_with(end))
    return makeError(StatusCode::Corrupt, path, ": has no checksum at its end");
  char sum[digits + 1];
  std::snprintf(
      sum, sizeof(sum), "%016llx",
      static_cast<unsigned long long>(XXH3_64bits(body.data(), body.size())));
  if (seal.substr(start.size(), digits) != sum)
    return makeError(StatusCode::Corrupt, path,
                     ": checksum differs from the one at its end; the file is "
                     "damaged");
  return Status::ok();
}

Expected<Manifest> Package::readManifest(const std::string &path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0)
    return makeError(StatusCode::NotFound, path, ": there is no such package");
  if (!S_ISDIR(info.st_mode))
    return makeError(StatusCode::Corrupt, path,
                     ": is not a package (a folder with manifest.json)");
  std::string where = join(path, "manifest.json");
  Expected<CheckedFile> file = CheckedFile::open(where);
  KVRM_TRY(file.status());
  if (file->bytes() > maxManifestBytes)
    return makeError(StatusCode::Corrupt, where, ": is ", file->bytes(),
                     " bytes long, over the limit ", maxManifestBytes);
  std::string text(static_cast<size_t>(file->bytes()), '\0');
  KVRM_TRY(file->read(reinterpret_cast<uint8_t *>(text.data()), file->bytes()));
  // What is wrong with a field, another ABI above all, says more than that the
  // checksum is.
  Expected<Manifest> manifest = parseManifest(text, where);
  KVRM_TRY(manifest.status());
  KVRM_TRY(checkSeal(text, where));
  return manifest;
}

Expected<std::shared_ptr<const Package>>
Package::load(const std::string &path) {
  Expected<Manifest> manifest = readManifest(path);
  KVRM_TRY(manifest.status());
  std::string where = join(path, "manifest.json");
  KVRM_TRY(checkTriple(manifest->triple, where));
  KVRM_TRY(checkCpuFeatures(manifest->requiredFeatures, where));

  std::shared_ptr<Package> package(new Package());
  package->info = manifest.take();
  package->folder = path;
  for (const FileInfo &info : package->info.files) {
    std::string name = join(path, info.name);
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
  std::string code = join(path, "code.so");
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
  return info.file("tokenizer.json") ? join(folder, "tokenizer.json")
                                     : std::string();
}
