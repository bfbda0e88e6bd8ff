//===- Manifest.cpp - manifest.json of a package --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Package/Package.h"

#include "kvrm/runtime/abi/version.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/xxhash.h"

using namespace kvrm;
using llvm::StringRef;
namespace json = llvm::json;

static bool isHost(const PackageManifest &manifest) {
  return manifest.target.kind == "host";
}

/// Writes the object in `text`; its last field is the checksum of all before
/// it.
static void seal(llvm::raw_ostream &os, StringRef text) {
  text.consume_back("\n}");
  std::string sealed = text.str() + ",\n  ";
  os << sealed << "\"xxh3\": \""
     << llvm::formatv("{0:x-16}", llvm::xxh3_64bits(sealed)) << "\"\n}\n";
}

static void writeTarget(json::OStream &out, const PackageManifest &manifest) {
  const PackageManifest::Target &target = manifest.target;
  out.attributeObject("target", [&] {
    out.attribute("kind", target.kind);
    if (!isHost(manifest)) {
      out.attribute("arch", target.arch);
      return;
    }
    out.attribute("triple", target.triple);
    out.attribute("cpu", target.cpu);
    out.attributeArray("requires", [&] {
      for (const std::string &feature : target.requiredFeatures)
        out.value(feature);
    });
  });
}

static void writeModel(json::OStream &out, const DecoderConfig &model) {
  out.attributeObject("model", [&] {
    out.attribute("name", model.name);
    out.attribute("architecture", model.architecture);
    out.attribute("vocabulary", model.vocabulary);
    out.attribute("hidden", model.hidden);
    out.attribute("layers", model.layers);
    out.attribute("heads", model.heads);
    out.attribute("kv_heads", model.kvHeads);
    out.attribute("head_dim", model.headDim);
    out.attribute("context", model.context);
    out.attribute("bos", model.bos);
    out.attribute("eos", model.eos);
    out.attributeArray("ends", [&] {
      for (int32_t end : model.ends)
        out.value(end);
    });
  });
}

static void writeCache(json::OStream &out,
                       const PackageManifest::Cache &cache) {
  out.attributeObject("cache", [&] {
    out.attribute("slots", cache.slots);
    out.attribute("capacity", cache.capacity);
    out.attribute("page_tokens", cache.pageTokens);
    if (cache.pagesPerSlot > 0)
      out.attribute("pages_per_slot", cache.pagesPerSlot);
    out.attribute("element", cache.element);
    if (!cache.io.empty())
      out.attribute("io", cache.io);
    if (cache.window > 0)
      out.attributeObject("far_history", [&] {
        out.attribute("window", cache.window);
        out.attribute("entries", cache.summaries);
        out.attribute("sinks", cache.sinks);
      });
  });
}

static void writeKernels(json::OStream &out, const PackageManifest &manifest) {
  out.attributeArray("kernels", [&] {
    for (const PackageManifest::Kernel &kernel : manifest.kernels)
      out.object([&] {
        out.attribute("role", kernel.role);
        out.attribute("symbol", kernel.symbol);
        out.attribute("threads", kernel.threads);
        out.attribute("shared_bytes", kernel.sharedBytes);
        out.attribute("blocks_per_sm", kernel.blocksPerSM);
        out.attribute("max_cluster", kernel.maxCluster);
      });
  });
}

static void writeEntryCode(json::OStream &out,
                           const PackageManifest::Entry &entry, bool isHost) {
  if (isHost) {
    out.attribute("symbol", entry.symbol);
    out.attribute("scratch_bytes", entry.scratchBytes);
    return;
  }
  out.attribute("program", entry.program);
  out.attributeArray("tensors", [&] {
    for (const PackageManifest::Tensor &tensor : entry.tensors)
      out.object([&] {
        out.attribute("name", tensor.name);
        out.attribute("row_bytes", tensor.rowBytes);
      });
  });
}

static void writePlan(json::OStream &out, const PackageManifest::Entry &entry) {
  if (!entry.batches.empty()) {
    out.attributeArray("batches", [&] {
      for (const std::string &name : entry.batches)
        out.value(name);
    });
    return;
  }
  out.attribute("rows", entry.rows);
  out.attribute("queries", entry.queries);
  out.attribute("q_tile", entry.queryTile);
  out.attribute("kv_tile", entry.kvTile);
  out.attribute("schedule", entry.schedule);
  out.attribute("splits", entry.splits);
  out.attribute("transport", entry.transport);
}

static void writeEntries(json::OStream &out, const PackageManifest &manifest) {
  out.attributeArray("entries", [&] {
    for (const PackageManifest::Entry &entry : manifest.entries)
      out.object([&] {
        out.attribute("name", entry.name);
        writePlan(out, entry);
        out.attribute("arena_bytes", entry.arenaBytes);
        writeEntryCode(out, entry, isHost(manifest));
      });
  });
}

static void writeFiles(json::OStream &out,
                       llvm::ArrayRef<PackageManifest::File> files) {
  out.attributeArray("files", [&] {
    for (const PackageManifest::File &file : files)
      out.object([&] {
        out.attribute("name", file.name);
        out.attribute("bytes", static_cast<int64_t>(file.bytes));
        out.attribute("xxh3", llvm::formatv("{0:x-16}", file.xxh3).str());
      });
  });
}

void kvrm::writeManifest(llvm::raw_ostream &os,
                         const PackageManifest &manifest) {
  std::string text;
  llvm::raw_string_ostream body(text);
  json::OStream out(body, /*IndentSize=*/2);
  out.object([&] {
    out.attribute("format", "kvrm-package");
    out.attribute("abi_version", KVRM_ABI_VERSION);
    out.attribute("producer", manifest.producer);
    out.attribute("mode", manifest.mode);
    if (manifest.ranks > 1)
      out.attribute("ranks", manifest.ranks);
    writeTarget(out, manifest);
    writeModel(out, manifest.model);
    writeCache(out, manifest.cache);
    if (!isHost(manifest))
      writeKernels(out, manifest);
    writeEntries(out, manifest);
    writeFiles(out, manifest.files);
  });
  seal(os, text);
}
