//===- KernelSetTest.cpp - Kernel sets with one thing wrong each ----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/KernelSet.h"
#include "ToyKernels.h"

#include <functional>
#include <gtest/gtest.h>

using namespace kvrm;
using nlohmann::json;

namespace {

/// A set to break, removed at the end.
class KernelSets : public testing::Test {
protected:
  void SetUp() override {
    path = toy::makeKernels({.hasCubin = true});
    manifest = toy::kernelManifestOf({.hasCubin = true}, path);
  }
  void TearDown() override { std::filesystem::remove_all(path); }

  std::string parseError(const std::function<void(json &)> &change) {
    json changed = manifest;
    change(changed);
    Expected<KernelManifest> parsed = parseKernelManifest(changed.dump(), "M");
    return parsed ? "" : parsed.status().message();
  }
  std::string loadError() {
    Expected<KernelSet> set = KernelSet::load(path);
    return set ? "" : set.status().message();
  }

  std::string path;
  json manifest;
};

} // namespace

TEST_F(KernelSets, LoadsAWholeOne) {
  Expected<KernelSet> set = KernelSet::load(path);
  ASSERT_TRUE(set) << set.status().message();
  const KernelManifest &m = set->manifest();
  EXPECT_EQ(m.arch, "sm_90");
  EXPECT_EQ(m.capability, 90);
  EXPECT_FALSE(m.isArchExact);
  EXPECT_EQ(m.heads, 6);
  EXPECT_EQ(m.groupHeads(), 3);
  EXPECT_EQ(m.queryTiles(), 1);
  EXPECT_EQ(m.pageBytes(), 2048);
  EXPECT_EQ(m.element, KVRM_F16);
  ASSERT_NE(m.kernel("attend_cluster"), nullptr);
  EXPECT_EQ(m.kernel("attend_cluster")->maxCluster, 8);
  EXPECT_EQ(m.kernel("attend_workqueue")->blocksPerSm, 2);
  EXPECT_EQ(m.kernel("attend_workqueue")->sharedBytes, 100000);
  EXPECT_EQ(m.kernel("stage"), nullptr);
  EXPECT_NE(m.file("kernels.cubin"), nullptr);
}

TEST_F(KernelSets, ManifestFieldsAreChecked) {
  struct Broken {
    const char *pointer;
    json value;
    const char *message;
  };
  const Broken cases[] = {
      {"/format", "kvrm-package",
       "M: format: 'kvrm-package' is not one of kvrm-kernels"},
      {"/abi_version", 1,
       "M: abi_version: 1 is not this runtime's 3; compile the kernels again"},
      {"/abi_version", "2", "M: abi_version: is not an integer"},
      {"/producer", 1, "M: producer: is not a string"},
      {"/target", 1, "M: target: is not an object"},
      {"/target/kind", "host", "M: target.kind: 'host' is not one of nvptx"},
      {"/target/arch", "gfx90a",
       "M: target.arch: 'gfx90a' is not sm_80 or later"},
      {"/target/arch", "sm_", "M: target.arch: 'sm_' is not sm_80 or later"},
      {"/target/arch", "sm_75",
       "M: target.arch: 'sm_75' is not sm_80 or later"},
      {"/target/arch", "sm_90b",
       "M: target.arch: 'sm_90b' is not sm_80 or later"},
      {"/attention/heads", 0, "M: attention.heads: 0 is outside 1..4096"},
      {"/attention/heads", 7,
       "M: attention.heads: 7 is not a multiple of attention.kv_heads, 2"},
      {"/attention/kv_heads", 257,
       "M: attention.kv_heads: 257 is outside 1..256"},
      {"/attention/head_dim", 96,
       "M: attention.head_dim: 96 is not one of 64, 128"},
      {"/attention/page_tokens", 8,
       "M: attention.page_tokens: 8 is not one of 16, 32, 64"},
      {"/attention/element", "f32",
       "M: attention.element: 'f32' is not one of f16, bf16"},
      {"/attention/queries", 513,
       "M: attention.queries: 513 is outside 1..512"},
      {"/attention/q_tile", 0, "M: attention.q_tile: 0 is outside 1..512"},
      {"/attention/kv_tile", 24,
       "M: attention.kv_tile: 24 is neither a multiple nor a divisor of "
       "attention.page_tokens, 16"},
      {"/kernels", json::array(), "M: kernels: has 0 entries, outside 1..64"},
      {"/kernels/0", 3, "M: kernels[0]: is not an object"},
      {"/kernels/0/name", "commit2",
       "M: kernels[0].name: 'commit2' is not one of commit, append, "
       "attend_workqueue, attend_cluster, stage, attend_workqueue_staged"},
      {"/kernels/0/name", "append",
       "M: kernels[1].name: 'append' is there already"},
      {"/kernels/0/name", "stage", "M: kernels: has no commit"},
      {"/kernels/0/symbol", "", "M: kernels[0].symbol: is empty"},
      {"/kernels/1/threads", 1056,
       "M: kernels[1].threads: 1056 is outside 32..1024"},
      {"/kernels/1/threads", 100,
       "M: kernels[1].threads: 100 is not a multiple of 32"},
      {"/kernels/2/shared_bytes", -1,
       "M: kernels[2].shared_bytes: -1 is outside 0..1048576"},
      {"/kernels/2/blocks_per_sm", 0,
       "M: kernels[2].blocks_per_sm: 0 is outside 1..32"},
      {"/kernels/3/max_cluster", 3,
       "M: kernels[3].max_cluster: 3 is not one of 1, 2, 4, 8"},
      {"/files/0/name", "../kernels.ptx",
       "M: files[0].name: is not a plain file name"},
      {"/files/0/name", "other.ptx", "M: files: has no kernels.ptx"},
      {"/files/1/name", "kernels.ptx",
       "M: files[1].name: 'kernels.ptx' is there already"},
      {"/files/0/bytes", int64_t(1) << 30,
       "M: files: kernels.ptx is 1073741824 bytes long, over the limit "
       "67108864"},
      {"/files/0/xxh3", "12",
       "M: files[0].xxh3: is not 16 lower-case hex "
       "digits"},
  };
  for (const Broken &broken : cases)
    EXPECT_EQ(parseError([&](json &m) {
                m[json::json_pointer(broken.pointer)] = broken.value;
              }),
              broken.message);
  EXPECT_EQ(parseError([](json &) {}), "");
  EXPECT_EQ(parseError([](json &m) { m.erase("attention"); }),
            "M: attention: is missing");
  EXPECT_EQ(parseError([](json &m) { m["kernels"][2].erase("blocks_per_sm"); }),
            "M: kernels[2].blocks_per_sm: is missing");
  EXPECT_EQ(parseError([](json &m) { m["kernels"][3].erase("max_cluster"); }),
            "M: kernels[3].max_cluster: is missing");
  EXPECT_EQ(parseError([](json &m) {
              m["kernels"].push_back(m["kernels"][0]);
              m["kernels"][4]["name"] = "stage";
            }),
            "M: kernels: has one of stage and attend_workqueue_staged alone");
  EXPECT_EQ(parseKernelManifest("{", "M").status().message(),
            "M: is not valid JSON");
  EXPECT_EQ(parseKernelManifest("[]", "M").status().message(),
            "M: is not a JSON object");
}

TEST_F(KernelSets, FilesAreChecked) {
  toy::write(path + "/kernels.ptx", "short");
  EXPECT_NE(loadError().find("kernels.ptx: is 5 bytes long, the manifest says"),
            std::string::npos);
  manifest = toy::kernelManifestOf({}, path);
  toy::write(path + "/kernels.ptx", "SHORT");
  toy::writeManifest(path, manifest);
  EXPECT_EQ(loadError(), path + "/kernels.ptx: checksum differs from the "
                                "manifest's; the file is damaged");
  std::filesystem::remove(path + "/kernels.ptx");
  EXPECT_EQ(loadError(), path + "/kernels.ptx: there is no such file");
  toy::write(path + "/manifest.json", manifest.dump(2) + "\n");
  EXPECT_EQ(loadError(), path + "/manifest.json: has no checksum at its end");
  std::filesystem::remove(path + "/manifest.json");
  EXPECT_EQ(loadError(), path + "/manifest.json: there is no such file");
  EXPECT_EQ(KernelSet::load(path + "/none").status().message(),
            path + "/none: there is no such kernel set");
  toy::write(path + "/file", "");
  EXPECT_EQ(KernelSet::load(path + "/file").status().message(),
            path + "/file: is not a kernel set (a folder with manifest.json)");
}

TEST_F(KernelSets, DevicesAreChecked) {
  CudaDeviceInfo device;
  device.name = "NAME";
  device.major = 8;
  auto deviceError = [&](const char *arch) {
    manifest["target"]["arch"] = arch;
    toy::writeManifest(path, manifest);
    Expected<KernelSet> set = KernelSet::load(path);
    EXPECT_TRUE(set) << set.status().message();
    return set->checkDevice(device).message();
  };
  EXPECT_EQ(deviceError("sm_90"),
            path + ": kernels are for sm_90; device 0, NAME, is sm_80");
  EXPECT_EQ(deviceError("sm_80"), "");
  device.major = 10;
  EXPECT_EQ(deviceError("sm_90"), "");
  EXPECT_EQ(deviceError("sm_90a"),
            path + ": kernels are for sm_90a; device 0, NAME, is sm_100");
  device.major = 9;
  EXPECT_EQ(deviceError("sm_90a"), "");
}
