//===- ManifestFuzzer.cpp - Manifests of packages -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/package/Package.h"

// Private to the runtime: the checksum that a manifest ends with, and what is
// asked of a CPU.
#include "../runtime/package/CheckedFile.h"
#include "../runtime/package/HostTarget.h"

using namespace kvrm;

static void checkEntries(const Manifest &m) {
  bool isHost = m.target == TargetKind::Host;
  bool hasLogits = m.vocabulary > 0;
  fuzz::check(m.decode.rows == m.slots && (m.decode.queries == 1 || !hasLogits),
              "decode has the shape of its step");
  fuzz::check(m.hasPrefill() || !hasLogits, "a model has both entries");
  for (const EntryInfo *entry : {&m.decode, &m.prefill}) {
    if (entry->name.empty())
      continue;
    fuzz::check(
        (isHost ? !entry->symbol.empty() : m.file(entry->program) != nullptr) &&
            entry->kvTile >= 1 && entry->qTile >= 1 && entry->splits >= 1 &&
            entry->arenaBytes >= 0 && entry->scratchBytes >= 0,
        "an entry is whole");
    bool isWhole = entry->kvTile % m.pageTokens == 0 ||
                   (!isHost && m.pageTokens % entry->kvTile == 0);
    fuzz::check(!m.isPaged || isWhole, "tiles and pages fit one another");
  }
  fuzz::check(!hasLogits || m.prefill.rows == 1, "prefill is of one row");
  fuzz::check(m.file(isHost ? "code.so" : "kernels.ptx"),
              "a package has its code");
  fuzz::check(!hasLogits || m.file("weights.safetensors"),
              "a package has its weights");
}

static void checkKernels(const Manifest &m) {
  fuzz::check(m.capability >= 80 && m.capability < 1000,
              "a capability is known", m.arch);
  for (kvrm_kernel_role role :
       {KVRM_ROLE_COMMIT, KVRM_ROLE_APPEND, KVRM_ROLE_ATTEND_WORKQUEUE,
        KVRM_ROLE_ATTEND_CLUSTER})
    fuzz::check(m.kernel(role), "a package has its kernels",
                kvrm_kernel_role_name(role));
  for (const KernelInfo &kernel : m.kernels)
    fuzz::check(!kernel.symbol.empty() && kernel.threads % 32 == 0 &&
                    kernel.threads >= 32 && kernel.blocksPerSm >= 1 &&
                    kernel.maxCluster >= 1,
                "a kernel can be launched", kernel.symbol);
}

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
  fuzz::check(m.pagesPerSlot >= (m.isPaged ? 1 : 0) &&
                  m.pagesPerSlot <= KVRM_MAX_PAGES_PER_SLOT,
              "a block table is in its limits");
  fuzz::check(m.window >= 0 && m.window < m.capacity && m.sinks >= 0 &&
                  m.sinks <= m.summaries && m.summaries <= KVRM_MAX_SUMMARIES &&
                  m.window % m.pageTokens == 0 &&
                  m.summaries % m.pageTokens == 0,
              "a far history is in whole pages");
  checkEntries(m);
  if (m.target == TargetKind::NVPTX)
    checkKernels(m);
  for (const FileInfo &file : m.files)
    fuzz::check(file.name.find('/') == std::string::npos && file.name[0] != '.',
                "a file stays in its folder", file.name);
  if (Status cpu = checkCpuFeatures(m.requiredFeatures, "manifest.json");
      !cpu.isOk())
    fuzz::checkFailure(cpu);
  return 0;
}
