//===- DevicePackageTest.cpp - GPU packages with one thing wrong each -----===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ToyKernels.h"
#include "kvrm/runtime/cuda/DeviceCode.h"

#include <functional>
#include <gtest/gtest.h>

using namespace kvrm;
using nlohmann::json;

namespace {

/// A package to break, removed at the end.
class DevicePackages : public testing::Test {
protected:
  void SetUp() override {
    path = toy::makeKernels({.hasCubin = true});
    manifest = toy::kernelManifestOf({.hasCubin = true}, path);
  }
  void TearDown() override { std::filesystem::remove_all(path); }

  std::string parseError(const std::function<void(json &)> &change) {
    json changed = manifest;
    change(changed);
    Expected<Manifest> parsed = parseManifest(changed.dump(), "M");
    return parsed ? "" : parsed.status().message();
  }
  std::string loadError() { return Package::load(path).status().message(); }

  std::string path;
  json manifest;
};

} // namespace

TEST_F(DevicePackages, LoadsAWholeOne) {
  Expected<std::shared_ptr<const Package>> package = Package::load(path);
  ASSERT_TRUE(package) << package.status().message();
  const Manifest &m = (*package)->manifest();
  EXPECT_EQ(m.target, TargetKind::NVPTX);
  EXPECT_EQ(m.arch, "sm_90");
  EXPECT_EQ(m.capability, 90);
  EXPECT_FALSE(m.isArchExact);
  EXPECT_EQ(m.heads, 6);
  EXPECT_EQ(m.groupHeads(), 3);
  EXPECT_EQ(m.decode.queryTiles(), 1);
  EXPECT_EQ(m.pageBytes(), 2048);
  EXPECT_EQ(m.element, KVRM_F16);
  EXPECT_FALSE(m.hasPrefill());
  ASSERT_EQ(m.decode.tensors.size(), 4u);
  EXPECT_EQ(m.decode.tensors[2].name, "input2");
  EXPECT_EQ(m.decode.tensors[2].rowBytes, 256);
  ASSERT_NE(m.kernel(KVRM_ROLE_ATTEND_CLUSTER), nullptr);
  EXPECT_EQ(m.kernel(KVRM_ROLE_ATTEND_CLUSTER)->maxCluster, 8);
  EXPECT_EQ(m.kernel(KVRM_ROLE_ATTEND_WORKQUEUE)->blocksPerSm, 2);
  EXPECT_EQ(m.kernel(KVRM_ROLE_ATTEND_WORKQUEUE)->sharedBytes, 100000);
  EXPECT_EQ(m.kernel(KVRM_ROLE_STAGE), nullptr);
  EXPECT_EQ((*package)->decodeProgram().commands().size(), 4u);
  EXPECT_EQ((*package)->prefillProgram().commands().size(), 0u);
  EXPECT_EQ((*package)->deviceImage().cubin.substr(0, 5), "cubin");
  EXPECT_EQ((*package)->weights(), nullptr);
}

TEST_F(DevicePackages, ACollapseHasAThreadAColumn) {
  auto error = [&](int32_t threads) {
    json changed = toy::kernelManifestOf({.headDim = 128}, path);
    changed["cache"]["far_history"] = {
        {"window", 16}, {"entries", 16}, {"sinks", 4}};
    changed["kernels"].push_back({{"role", "collapse"},
                                  {"symbol", "collapse"},
                                  {"threads", threads},
                                  {"shared_bytes", 0}});
    return parseManifest(changed.dump(), "M").status().message();
  };
  EXPECT_EQ(error(160),
            "M: kernels: collapse has 160 threads, not model.head_dim, 128");
  EXPECT_EQ(error(128).find("collapse"), std::string::npos) << error(128);
}

TEST_F(DevicePackages, EveryHeadShapeLoads) {
  for (const kvrm_head_shape &shape : kvrm_head_shapes) {
    json changed = toy::kernelManifestOf({.headDim = shape.head_dim}, path);
    Expected<Manifest> parsed = parseManifest(changed.dump(), "M");
    ASSERT_TRUE(parsed) << parsed.status().message();
    EXPECT_EQ(parsed->headDim, shape.head_dim);
  }
}

TEST_F(DevicePackages, ManifestFieldsAreChecked) {
  struct Broken {
    const char *pointer;
    json value;
    const char *message;
  };
  const Broken cases[] = {
      {"/target/kind", "metal",
       "M: target.kind: 'metal' is not one of host, nvptx"},
      {"/target/kind", "host", "M: target.triple: is missing"},
      {"/target/arch", "gfx90a",
       "M: target.arch: 'gfx90a' is not sm_80 or later"},
      {"/target/arch", "sm_", "M: target.arch: 'sm_' is not sm_80 or later"},
      {"/target/arch", "sm_75",
       "M: target.arch: 'sm_75' is not sm_80 or later"},
      {"/target/arch", "sm_90b",
       "M: target.arch: 'sm_90b' is not sm_80 or later"},
      {"/model/vocabulary", -1,
       "M: model.vocabulary: -1 is outside 0..16777216"},
      {"/model/vocabulary", 8,
       "M: entries[0].tensors: a decoder's entry has none"},
      {"/model/heads", 0, "M: model.heads: 0 is outside 1..4096"},
      {"/model/heads", 7,
       "M: model.heads: 7 is not a multiple of model.kv_heads, 2"},
      {"/model/kv_heads", 257, "M: model.kv_heads: 257 is outside 1..256"},
      {"/model/head_dim", 80,
       "M: model.head_dim: 80 is none of 64, 96, 128 and 256, which GPU "
       "kernels take"},
      {"/cache/page_tokens", 8,
       "M: cache.page_tokens: 8 is not one of 16, 32, 64"},
      {"/cache/pages_per_slot", 63,
       "M: cache.pages_per_slot: 63 are not the 64 that a slot can have"},
      {"/cache/far_history",
       {{"window", 16}, {"entries", 16}, {"sinks", 4}},
       "M: kernels: has no collapse for the entries of cache.far_history"},
      {"/kernels/-",
       {{"role", "collapse"},
        {"symbol", "c"},
        {"threads", 64},
        {"shared_bytes", 0}},
       "M: kernels: has collapse, and the cache no entries of far_history"},
      {"/cache/element", "f32",
       "M: cache.element: 'f32' is not one of f16, bf16, f8e4m3, int8"},
      {"/cache/element", "f8e4m3", "M: cache.io: is missing"},
      {"/cache/io", "f8e4m3", "M: cache.io: 'f8e4m3' is not one of f16, bf16"},
      {"/cache/io", "bf16", "M: cache.io: bf16 is not cache.element, f16"},
      {"/entries/0/name", "prefill",
       "M: entries[0].rows: 8 is not 1 for prefill"},
      {"/entries/0/program", "a/b",
       "M: entries[0].program: is not a plain file name"},
      {"/entries/0/program", "b.program", "M: files: has no b.program"},
      {"/entries/0/tensors", 1, "M: entries[0].tensors: is not a list"},
      {"/entries/0/tensors/0/row_bytes", 0,
       "M: entries[0].tensors[0].row_bytes: 0 is outside 1..17592186044416"},
      {"/entries/0/schedule", "rows",
       "M: entries[0].schedule: a GPU's plan is a workqueue"},
      {"/entries/0/queries", 4097,
       "M: entries[0].queries: 4097 is outside 1..4096"},
      {"/entries/0/q_tile", 0, "M: entries[0].q_tile: 0 is outside 1..4096"},
      {"/entries/0/kv_tile", 24,
       "M: entries[0].kv_tile: 24 is neither a multiple nor a divisor of "
       "cache.page_tokens, 16"},
      {"/kernels", json::array(), "M: kernels: has 0 entries, outside 1..4096"},
      {"/kernels/0", 3, "M: kernels[0]: is not an object"},
      {"/kernels/0/role", "commit2",
       "M: kernels[0].role: 'commit2' is not one of commit, append, "
       "attend_workqueue, attend_cluster, stage, attend_workqueue_staged, "
       "dense, sample, attend_prompt, collapse"},
      {"/kernels/0/role", "append", "M: kernels: has no commit"},
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
  EXPECT_EQ(parseError([](json &m) { m.erase("kernels"); }),
            "M: kernels: is missing");
  EXPECT_EQ(parseError([](json &m) { m["kernels"][2].erase("blocks_per_sm"); }),
            "M: kernels[2].blocks_per_sm: is missing");
  EXPECT_EQ(parseError([](json &m) { m["kernels"][3].erase("max_cluster"); }),
            "M: kernels[3].max_cluster: is missing");
  EXPECT_EQ(parseError([](json &m) {
              m["kernels"].push_back(m["kernels"][0]);
              m["kernels"][4]["role"] = "stage";
            }),
            "M: kernels: has one of stage and attend_workqueue_staged alone");
  // A decoder's entries have no tensors, whether they say so or not.
  auto makeDecoder = [](json &m) {
    m["model"]["vocabulary"] = 8;
    m["entries"][0]["tensors"] = json::array();
  };
  EXPECT_EQ(parseError(makeDecoder), "M: entries: has no prefill");
  auto addPrefill = [&](json &m) {
    makeDecoder(m);
    m["entries"].push_back(m["entries"][0]);
    m["entries"][1].erase("tensors");
    m["entries"][1]["name"] = "prefill";
    m["entries"][1]["rows"] = 1;
  };
  EXPECT_EQ(parseError(addPrefill), "M: files: has no weights.safetensors");
  EXPECT_EQ(parseError([&](json &m) {
              addPrefill(m);
              m["files"].push_back(m["files"][0]);
              m["files"].back()["name"] = "weights.safetensors";
            }),
            "");
  // Kernels of one role may be several, as dense ones are.
  auto addDense = [](json &m) {
    m["kernels"].push_back(m["kernels"][1]);
    m["kernels"].back()["role"] = "dense";
  };
  EXPECT_EQ(parseError([&](json &m) {
              for (int i = 0; i < 80; ++i)
                addDense(m);
            }),
            "");
  EXPECT_EQ(parseError([&](json &m) {
              addDense(m);
              m["kernels"].back()["max_cluster"] = 2;
            }),
            "M: kernels[4].max_cluster: 2 is not 1 for dense");
  EXPECT_EQ(parseManifest("{", "M").status().message(), "M: is not valid JSON");
  EXPECT_EQ(parseManifest("[]", "M").status().message(),
            "M: is not a JSON object");
}

TEST_F(DevicePackages, FilesAreChecked) {
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
}

TEST_F(DevicePackages, ProgramsAreChecked) {
  auto error = [&](const toy::ProgramParts &parts) {
    toy::write(path + "/decode.program", parts.build().serialize());
    toy::writeManifest(path, toy::kernelManifestOf({.hasCubin = true}, path));
    return loadError();
  };
  EXPECT_EQ(error(toy::attentionParts({.layers = 1})), "");
  EXPECT_EQ(error(toy::attentionParts({.layers = 2})),
            path + "/decode.program: layers: 2 is not the package's 1");
  EXPECT_EQ(error(toy::attentionParts({.layers = 1, .isStaged = true})),
            path + "/decode.program: command 4: kernel 4 is outside 0..3");
  toy::write(path + "/decode.program", "");
  toy::writeManifest(path, toy::kernelManifestOf({.hasCubin = true}, path));
  EXPECT_EQ(loadError(), path + "/decode.program: 0 bytes are fewer than a "
                                "header's 32");
}

TEST_F(DevicePackages, DevicesAreChecked) {
  CudaDeviceInfo device;
  device.name = "NAME";
  device.major = 8;
  auto deviceError = [&](const char *arch) {
    manifest["target"]["arch"] = arch;
    toy::writeManifest(path, manifest);
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    EXPECT_TRUE(package) << package.status().message();
    return checkDevice(**package, device).message();
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

  std::string host = toy::makePackage({});
  Expected<std::shared_ptr<const Package>> package = Package::load(host);
  ASSERT_TRUE(package) << package.status().message();
  EXPECT_EQ(checkDevice(**package, device).message(),
            host + ": is for CPUs; it has no kernels for a GPU");
  std::filesystem::remove_all(host);
}
