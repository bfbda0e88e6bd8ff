//===- ToyKernels.h - Kernel sets for tests ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Sets that FakeCuda.cpp loads: the right manifest, and a few words of PTX.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYKERNELS_H
#define KVRM_TEST_TOYKERNELS_H

#include "ToyPackage.h"

#include "kvrm/runtime/abi.h"

#include <cstdlib>
#include <filesystem>

namespace toy {

struct KernelOptions {
  int queries = 1;
  int qTile = 1;
  bool isStaged = false;
  bool hasCubin = false;
};

inline nlohmann::json kernelManifestOf(const KernelOptions &options,
                                       const std::string &folder) {
  using nlohmann::json;
  auto kernel = [](const char *name, int threads, int sharedBytes) {
    return json{{"name", name},
                {"symbol", std::string("kvrm_") + name},
                {"threads", threads},
                {"shared_bytes", sharedBytes},
                {"blocks_per_sm", 1}};
  };
  json kernels = {kernel("commit", 128, 0), kernel("append", 64, 0),
                  kernel("attend_workqueue", 256, 100000),
                  kernel("attend_cluster", 256, 90000)};
  kernels[2]["blocks_per_sm"] = 2;
  kernels[3]["max_cluster"] = 8;
  if (options.isStaged) {
    kernels.push_back(kernel("stage", 256, 0));
    kernels.push_back(kernel("attend_workqueue_staged", 256, 100000));
  }
  json files = json::array();
  for (const char *name : {"kernels.ptx", "kernels.cubin"}) {
    std::string path = folder + "/" + name;
    if (std::filesystem::exists(path))
      files.push_back({{"name", name},
                       {"bytes", std::filesystem::file_size(path)},
                       {"xxh3", checksum(path)}});
  }
  return {{"format", "kvrm-kernels"},
          {"abi_version", KVRM_ABI_VERSION},
          {"producer", "test"},
          {"target", {{"kind", "nvptx"}, {"arch", "sm_90"}}},
          {"attention",
           {{"heads", 6},
            {"kv_heads", 2},
            {"head_dim", 64},
            {"page_tokens", 16},
            {"element", "f16"},
            {"queries", options.queries},
            {"q_tile", options.qTile},
            {"kv_tile", 32}}},
          {"kernels", kernels},
          {"files", files}};
}

/// Writes a whole set to a new folder and returns its path.
inline std::string makeKernels(const KernelOptions &options) {
  std::string path =
      (std::filesystem::temp_directory_path() / "kvrm-kernels-XXXXXX").string();
  if (!mkdtemp(path.data()))
    std::abort();
  std::string body;
  for (const char *name :
       {"commit", "append", "attend_workqueue", "attend_cluster", "stage",
        "attend_workqueue_staged"})
    body += std::string(".visible .entry kvrm_") + name + "() {}\n";
  write(path + "/kernels.ptx", ".version 8.4\n" + body);
  if (options.hasCubin)
    write(path + "/kernels.cubin", "cubin\n" + body);
  writeManifest(path, kernelManifestOf(options, path));
  return path;
}

} // namespace toy

#endif // KVRM_TEST_TOYKERNELS_H
