//===- ManifestFuzzer.cpp - Manifests of packages -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/package/Package.h"

// Private to the runtime: the checksum that a manifest ends with.
#include "../runtime/package/CheckedFile.h"

using namespace kvrm;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string text = fuzz::withAbi(fuzz::textOf(data, size));
  if (Status seal = checkSeal(text, "manifest.json"); !seal.isOk())
    fuzz::checkFailure(seal);
  Expected<Manifest> manifest = parseManifest(text, "manifest.json");
  if (!manifest) {
    fuzz::checkFailure(manifest.status());
    return 0;
  }
  // What the rest of the runtime takes for granted.
  const Manifest &m = *manifest;
  fuzz::check(m.layers >= 1 && m.slots >= 1 && m.pageTokens >= 1 &&
                  m.heads % m.kvHeads == 0 && m.headDim >= 1,
              "sizes are positive and heads are in whole groups");
  fuzz::check(m.pagesPerSlot() >= 1 &&
                  m.pagesPerSlot() <= KVRM_MAX_PAGES_PER_SLOT,
              "a block table is in its limits");
  fuzz::check(m.window >= 0 && m.window < m.capacity && m.sinks >= 0 &&
                  m.sinks <= m.summaries && m.summaries <= KVRM_MAX_SUMMARIES &&
                  m.window % m.pageTokens == 0 &&
                  m.summaries % m.pageTokens == 0,
              "a far history is in whole pages");
  fuzz::check(m.decode.rows == m.slots && m.decode.queries == 1 &&
                  m.prefill.rows == 1 && m.prefill.queries >= 1,
              "both entries have the shapes of their steps");
  for (const EntryInfo *entry : {&m.decode, &m.prefill})
    fuzz::check(!entry->symbol.empty() && entry->kvTile >= 1 &&
                    entry->qTile >= 1 && entry->splits >= 1 &&
                    entry->arenaBytes >= 0 && entry->scratchBytes >= 0 &&
                    (!m.isPaged || entry->kvTile % m.pageTokens == 0),
                "an entry is whole");
  for (const char *name : {"code.so", "weights.safetensors"})
    fuzz::check(m.file(name), "a package has its files", name);
  for (const FileInfo &file : m.files)
    fuzz::check(file.name.find('/') == std::string::npos && file.name[0] != '.',
                "a file stays in its folder", file.name);
  if (Status cpu = checkCpuFeatures(m.requiredFeatures, "manifest.json");
      !cpu.isOk())
    fuzz::checkFailure(cpu);
  return 0;
}
