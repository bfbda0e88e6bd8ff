//===- ToyKernels.h - Packages of kernels for tests -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Packages for GPUs that attend and no more, as FakeCuda.cpp loads them: the
// right manifest and program, and a few words of PTX.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYKERNELS_H
#define KVRM_TEST_TOYKERNELS_H

#include "ToyPackage.h"
#include "ToyProgram.h"

#include "kvrm/runtime/abi.h"

#include <cstdlib>
#include <filesystem>

namespace toy {

struct KernelOptions {
  int queries = 1;
  int qTile = 1;
  int headDim = 64;
  bool isStaged = false;
  bool hasCubin = false;
};

/// Kernels by role, in the order of kernelRoles().
inline nlohmann::json kernelsOf(const KernelOptions &options) {
  using nlohmann::json;
  json kernels = json::array();
  for (kvrm_kernel_role role : kernelRoles(options.isStaged)) {
    const char *name = kvrm_kernel_role_name(role);
    kernels.push_back({{"role", name},
                       {"symbol", std::string("kvrm_") + name},
                       {"threads", 256},
                       {"shared_bytes", 0},
                       {"blocks_per_sm", 1}});
  }
  kernels[KVRM_ROLE_COMMIT]["threads"] = 128;
  kernels[KVRM_ROLE_APPEND]["threads"] = 64;
  kernels[KVRM_ROLE_ATTEND_WORKQUEUE]["shared_bytes"] = 100000;
  kernels[KVRM_ROLE_ATTEND_WORKQUEUE]["blocks_per_sm"] = 2;
  kernels[KVRM_ROLE_ATTEND_CLUSTER]["shared_bytes"] = 90000;
  kernels[KVRM_ROLE_ATTEND_CLUSTER]["max_cluster"] = 8;
  if (options.isStaged)
    kernels[KVRM_ROLE_ATTEND_STAGED]["shared_bytes"] = 100000;
  return kernels;
}

inline nlohmann::json kernelManifestOf(const KernelOptions &options,
                                       const std::string &folder) {
  using nlohmann::json;
  json files = json::array();
  for (const char *name : {"kernels.ptx", "kernels.cubin", "decode.program"}) {
    std::string path = folder + "/" + name;
    if (std::filesystem::exists(path))
      files.push_back({{"name", name},
                       {"bytes", std::filesystem::file_size(path)},
                       {"xxh3", checksum(path)}});
  }
  constexpr int slots = 8, heads = 6, kvHeads = 2;
  json tensors = json::array();
  for (auto [name, tensorHeads] :
       {std::pair("input0", heads), std::pair("input1", kvHeads),
        std::pair("input2", kvHeads), std::pair("output0", heads)})
    tensors.push_back(
        {{"name", name},
         {"row_bytes", options.queries * tensorHeads * options.headDim * 2}});
  return {{"format", "kvrm-package"},
          {"abi_version", KVRM_ABI_VERSION},
          {"producer", "test"},
          {"mode", "paged"},
          {"target", {{"kind", "nvptx"}, {"arch", "sm_90"}}},
          {"model",
           {{"name", "attention"},
            {"architecture", "attention"},
            {"vocabulary", 0},
            {"hidden", 0},
            {"layers", 1},
            {"heads", heads},
            {"kv_heads", kvHeads},
            {"head_dim", options.headDim},
            {"context", 1024},
            {"bos", -1},
            {"eos", -1}}},
          {"cache",
           {{"slots", slots},
            {"capacity", 1024},
            {"page_tokens", 16},
            {"pages_per_slot", 64},
            {"element", "f16"}}},
          {"kernels", kernelsOf(options)},
          {"entries",
           {{{"name", "decode_step"},
             {"program", "decode.program"},
             {"tensors", tensors},
             {"rows", slots},
             {"queries", options.queries},
             {"q_tile", options.qTile},
             {"kv_tile", 32},
             {"schedule", "workqueue"},
             {"splits", 1},
             {"transport", "native"},
             {"arena_bytes", 0}}}},
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
  int tiles = (options.queries + options.qTile - 1) / options.qTile;
  write(path + "/decode.program", attentionParts({.layers = 1,
                                                  .queries = options.queries,
                                                  .outputs = 2 * tiles,
                                                  .isStaged = options.isStaged})
                                      .build()
                                      .serialize());
  writeManifest(path, kernelManifestOf(options, path));
  return path;
}

} // namespace toy

#endif // KVRM_TEST_TOYKERNELS_H
