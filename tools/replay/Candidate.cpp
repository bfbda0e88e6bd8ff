//===- Candidate.cpp - A package to compare ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Candidate.h"

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#define XXH_INLINE_ALL
#include <xxhash.h>

using namespace kvrm;
using namespace kvrm::replay;
using nlohmann::json;

/// A checksum of all weights that do not follow from the capacity. The tables
/// of rotary embeddings do; else the files of buckets would be equal.
static Expected<uint64_t> weightsFingerprint(const Package &package) {
  constexpr uint64_t maxHeader = 64 << 20;
  std::string path = package.path() + "/weights.safetensors";
  auto failed = [&] {
    return makeError(StatusCode::Corrupt, path, ": cannot be read again");
  };
  std::ifstream file(path, std::ios::binary);
  uint64_t length = 0;
  char bytes[8];
  if (!file.read(bytes, sizeof(bytes)))
    return failed();
  std::memcpy(&length, bytes, sizeof(bytes));
  if (length > maxHeader)
    return failed();
  std::string text(length, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(length)))
    return failed();
  json header = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object())
    return failed();
  uint64_t sum = 0;
  for (const auto &[name, tensor] : header.items()) {
    if (name == "__metadata__" || name == "rope_cos" || name == "rope_sin")
      continue;
    auto offsets = tensor.value("data_offsets", std::vector<int64_t>());
    if (offsets.size() != 2 || offsets[0] < 0 || offsets[0] > offsets[1] ||
        offsets[1] > package.weightBytes())
      return failed();
    std::string what = name + tensor.value("dtype", std::string()) +
                       tensor.value("shape", json()).dump();
    sum ^= XXH3_64bits_withSeed(package.weights() + offsets[0],
                                static_cast<size_t>(offsets[1] - offsets[0]),
                                XXH3_64bits(what.data(), what.size()));
  }
  return sum;
}

Expected<Candidate> replay::loadCandidate(const std::string &path,
                                          CacheKind kind,
                                          const std::string &option) {
  bool wantsPaged = kind == CacheKind::Paged;
  Expected<Manifest> manifest = Package::readManifest(path);
  KVRM_TRY(manifest.status());
  if (manifest->isPaged != wantsPaged)
    return invalidArgument(
        option, path, ": is a ", manifest->isPaged ? "paged" : "static",
        " package, not a ", wantsPaged ? "paged" : "static", " one");
  Expected<std::shared_ptr<const Package>> package = Package::load(path);
  KVRM_TRY(package.status());
  Expected<uint64_t> sum = weightsFingerprint(**package);
  KVRM_TRY(sum.status());
  return Candidate{path, manifest.take(), *sum};
}

Status replay::checkSameModel(const Candidate &a, const Candidate &b) {
  struct Field {
    const char *name;
    int32_t Manifest::*value;
  };
  for (const Field &field :
       {Field{"layers", &Manifest::layers}, Field{"hidden", &Manifest::hidden},
        Field{"heads", &Manifest::heads}, Field{"kv_heads", &Manifest::kvHeads},
        Field{"head_dim", &Manifest::headDim},
        Field{"vocabulary", &Manifest::vocabulary}})
    if (a.manifest.*field.value != b.manifest.*field.value)
      return invalidArgument(b.path, ": ", field.name, ": ",
                             b.manifest.*field.value, " is not ", a.path, "'s ",
                             a.manifest.*field.value,
                             "; a replay compares packages of one model");
  if (a.manifest.element != b.manifest.element)
    return invalidArgument(
        b.path, ": its KV is ", kvrm_element_name(b.manifest.element), ", not ",
        kvrm_element_name(a.manifest.element), " as ", a.path, "'s");
  if (a.fingerprint != b.fingerprint)
    return invalidArgument(b.path, ": its weights are not those of ", a.path,
                           "; a replay compares packages of one model");
  return Status::ok();
}
