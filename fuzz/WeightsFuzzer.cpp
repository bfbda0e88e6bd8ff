//===- WeightsFuzzer.cpp - weights.safetensors of a package ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The first byte says what follows: '0', the file as it is; else the header
// alone, in front of which goes its length and behind it 256 bytes of data.
// Package::load() reads the file from a folder whose manifest has the right
// checksum, and then fails at code.so, which is not there.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/package/Package.h"

#include <cinttypes>
#include <filesystem>
#include <fstream>
#include <string>

#define XXH_INLINE_ALL
#include <xxhash.h>

using namespace kvrm;
namespace fs = std::filesystem;

static std::string hashOf(std::string_view bytes) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64,
                uint64_t(XXH3_64bits(bytes.data(), bytes.size())));
  return text;
}

static void write(const fs::path &path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  fuzz::check(bool(out.flush()), "a file can be written", path.native());
}

/// manifest.json of a package with such weights, sealed.
static std::string manifestOf(std::string_view weights) {
#if defined(__aarch64__)
  const char *triple = "aarch64-";
#else
  const char *triple = "x86_64-";
#endif
  std::string text =
      std::string(R"({"format":"kvrm-package","abi_version":)") +
      std::to_string(KVRM_ABI_VERSION) +
      R"(,"producer":"","mode":"static","target":{"kind":"host","triple":")" +
      triple +
      R"(","cpu":"","requires":[]},"model":{"name":"","architecture":"",)"
      R"("vocabulary":8,"hidden":8,"layers":1,"heads":1,"kv_heads":1,)"
      R"("head_dim":8,"context":8,"bos":-1,"eos":-1},"cache":{"slots":1,)"
      R"("capacity":8,"page_tokens":8,"element":"f16"},"entries":[)"
      R"({"name":"decode_step","symbol":"d","rows":1,"queries":1,)"
      R"("arena_bytes":0},{"name":"prefill","symbol":"p","rows":1,)"
      R"("queries":1,"arena_bytes":0}],"files":[{"name":)"
      R"("weights.safetensors","bytes":)" +
      std::to_string(weights.size()) + R"(,"xxh3":")" + hashOf(weights) +
      R"("},{"name":"code.so","bytes":0,"xxh3":"0000000000000000"}],)";
  return text + "\"xxh3\": \"" + hashOf(text) + "\"\n}\n";
}

namespace {
/// A folder that goes when the process ends well.
struct Scratch {
  Scratch() {
    std::string pattern = fs::temp_directory_path() / "kvrm-fuzz-XXXXXX";
    fuzz::check(mkdtemp(pattern.data()), "there is room for a folder");
    path = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};
} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const Scratch scratch;
  std::string_view text = fuzz::textOf(data, size);
  if (text.empty())
    return 0;
  bool isWhole = text[0] == '0';
  text.remove_prefix(1);
  std::string weights;
  if (!isWhole) {
    uint64_t length = text.size();
    for (int i = 0; i < 8; ++i)
      weights.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  }
  weights += text;
  if (!isWhole)
    weights.resize(weights.size() + 256);
  write(scratch.path / "weights.safetensors", weights);
  write(scratch.path / "manifest.json", manifestOf(weights));
  auto package = Package::load(scratch.path);
  fuzz::check(!package, "a package without code is refused");
  fuzz::checkFailure(package.status());
  fuzz::check(package.status().message().find("manifest.json") ==
                  std::string::npos,
              "the manifest is right", package.status().message());
  return 0;
}
