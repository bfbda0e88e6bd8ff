//===- KernelManifestFuzzer.cpp - Manifests of kernel sets ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/cuda/KernelSet.h"

using namespace kvrm;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Expected<KernelManifest> manifest = parseKernelManifest(
      fuzz::withAbi(fuzz::textOf(data, size)), "manifest.json");
  if (!manifest) {
    fuzz::checkFailure(manifest.status());
    return 0;
  }
  const KernelManifest &m = *manifest;
  fuzz::check(m.heads % m.kvHeads == 0 && m.groupHeads() >= 1 &&
                  m.queryTiles() >= 1 && m.pageBytes() > 0,
              "sizes are positive and heads are in whole groups");
  fuzz::check(m.capability >= 80 && m.capability < 1000,
              "a capability is known", m.arch);
  for (const char *name :
       {"commit", "append", "attend_workqueue", "attend_cluster"})
    fuzz::check(m.kernel(name), "a set has its kernels", name);
  for (const KernelInfo &kernel : m.kernels)
    fuzz::check(!kernel.symbol.empty() && kernel.threads % 32 == 0 &&
                    kernel.threads >= 32 && kernel.blocksPerSm >= 1 &&
                    kernel.maxCluster >= 1,
                "a kernel can be launched", kernel.name);
  fuzz::check(m.file("kernels.ptx"), "a set has its code");
  return 0;
}
