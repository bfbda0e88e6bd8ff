//===- PackageTest.cpp - Packages with one thing wrong each -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/package/Package.h"
#include "ToyPackage.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>

using namespace kvrm;
using nlohmann::json;

namespace {

/// A package to break, removed at the end.
class Packages : public testing::Test {
protected:
  void SetUp() override {
    path = toy::makePackage({});
    manifest = toy::manifestOf({}, path);
  }
  void TearDown() override { std::filesystem::remove_all(path); }

  /// The error of parsing the manifest after `change`.
  std::string parseError(const std::function<void(json &)> &change) {
    json changed = manifest;
    change(changed);
    Expected<Manifest> parsed = parseManifest(changed.dump(), "M");
    return parsed ? "" : parsed.status().message();
  }
  void writeManifest() { toy::writeManifest(path, manifest); }
  std::string loadError() {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    return package ? "" : package.status().message();
  }
  /// Writes a weights file and a manifest that agrees with it.
  std::string weightsError(const std::string &bytes) {
    toy::write(path + "/weights.safetensors", bytes);
    manifest = toy::manifestOf({}, path);
    writeManifest();
    return loadError();
  }
  static std::string tensors(const std::string &header,
                             const std::string &data) {
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; ++i)
      bytes[size_t(i)] = static_cast<char>(header.size() >> 8 * i & 0xff);
    return bytes + header + data;
  }

  std::string path;
  json manifest;
};

} // namespace

TEST_F(Packages, LoadsAWholeOne) {
  Expected<std::shared_ptr<const Package>> package = Package::load(path);
  ASSERT_TRUE(package) << package.status().message();
  const Manifest &m = (*package)->manifest();
  EXPECT_EQ(m.modelName, "toy");
  EXPECT_TRUE(m.isPaged);
  EXPECT_EQ(m.decode.schedule, KVRM_SCHEDULE_WORKQUEUE);
  EXPECT_EQ(m.pagesPerSlot, 13);
  EXPECT_EQ((*package)->weightBytes(), 64);
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*package)->weights()) % 64, 0u);
  EXPECT_NE((*package)->decodeStep(), nullptr);
  EXPECT_EQ((*package)->tokenizerPath(), "");
}

TEST_F(Packages, MixedEntriesAreChecked) {
  const json mixed = {{"name", "mixed_step"},
                      {"symbol", "m"},
                      {"batches", {"decode_step", "prefill"}},
                      {"arena_bytes", 64}};
  auto error = [&](const std::function<void(json &)> &change) {
    return parseError([&](json &m) {
      m["entries"].push_back(mixed);
      change(m);
    });
  };
  EXPECT_EQ(error([](json &) {}), "");
  EXPECT_EQ(error([](json &m) { m["entries"][2].erase("batches"); }),
            "M: entries[2].batches: is missing");
  EXPECT_EQ(
      error([](json &m) { m["entries"][2]["batches"][1] = "decode_step"; }),
      "M: entries[2].batches: are not decode_step and prefill");
  EXPECT_EQ(
      error([](json &m) { m["entries"][2]["batches"] = {"decode_step"}; }),
      "M: entries[2].batches: has 1 entries, outside 2..64");
  EXPECT_EQ(error([](json &m) { m["entries"].push_back(m["entries"][2]); }),
            "M: entries[3].name: 'mixed_step' is unknown or there already");
  EXPECT_EQ(error([](json &m) { m["mode"] = "static"; }),
            "M: entries[2].name: mixed_step is of paged decoders alone");
  manifest["entries"].push_back(mixed);
  writeManifest();
  EXPECT_EQ(loadError(),
            path + "/code.so: has no symbol 'm' for entry mixed_step");
}

TEST_F(Packages, ManifestFieldsAreChecked) {
  struct Broken {
    const char *pointer;
    json value;
    const char *message;
  };
  const Broken cases[] = {
      {"/format", "zip", "M: format: 'zip' is not one of kvrm-package"},
      {"/abi_version", 1,
       "M: abi_version: 1 is not this runtime's 12; compile the model again"},
      {"/abi_version", "1", "M: abi_version: is not an integer"},
      {"/producer", 1, "M: producer: is not a string"},
      {"/producer", std::string(2000, 'x'),
       "M: producer: is longer than 1024 bytes"},
      {"/mode", "dense", "M: mode: 'dense' is not one of paged, static"},
      {"/mode", "a\n\x1b[31mb",
       "M: mode: 'a??[31mb' is not one of paged, static"},
      {"/ranks", 0, "M: ranks: 0 is outside 1..64"},
      {"/ranks", 5, "M: ranks: 5 do not divide model.kv_heads, 2"},
      {"/ranks", 2, "M: files: has no weights.1.safetensors"},
      {"/target", 1, "M: target: is not an object"},
      {"/target/kind", "nvptx", "M: target.arch: is missing"},
      {"/target/kind", "cuda",
       "M: target.kind: 'cuda' is not one of host, nvptx"},
      {"/target/triple", 1, "M: target.triple: is not a string"},
      {"/target/cpu", nullptr, "M: target.cpu: is not a string"},
      {"/target/requires", "avx2", "M: target.requires: is not a list"},
      {"/target/requires", {1}, "M: target.requires: is not a list of strings"},
      {"/model/name", 1, "M: model.name: is not a string"},
      {"/model/architecture", 1, "M: model.architecture: is not a string"},
      {"/model/vocabulary", 0, "M: model.vocabulary: 0 is outside 1..16777216"},
      {"/model/vocabulary", 1.5, "M: model.vocabulary: is not an integer"},
      {"/model/hidden", -1, "M: model.hidden: -1 is outside 1..1048576"},
      {"/model/layers", 1025, "M: model.layers: 1025 is outside 1..1024"},
      {"/model/heads", 0, "M: model.heads: 0 is outside 1..4096"},
      {"/model/heads", 5,
       "M: model.heads: 5 is not a multiple of model.kv_heads, 2"},
      {"/model/kv_heads", 257, "M: model.kv_heads: 257 is outside 1..256"},
      {"/model/head_dim", 513, "M: model.head_dim: 513 is outside 1..512"},
      {"/model/context", 0, "M: model.context: 0 is outside 1..268435456"},
      {"/model/bos", 61, "M: model.bos: 61 is outside -1..60"},
      {"/model/eos", -2, "M: model.eos: -2 is outside -1..60"},
      {"/model/ends", 7, "M: model.ends: is not a list"},
      {"/model/ends",
       {7, 61},
       "M: model.ends: is not a list of tokens below 61"},
      {"/model/ends", {-1}, "M: model.ends: is not a list of tokens below 61"},
      {"/cache/slots", 0, "M: cache.slots: 0 is outside 1..1024"},
      {"/cache/slots", 18446744073709551615u,
       "M: cache.slots: 18446744073709551615 is outside 1..1024"},
      {"/cache/page_tokens", 257,
       "M: cache.page_tokens: 257 is outside 1..256"},
      {"/cache/capacity", 0, "M: cache.capacity: 0 is outside 1..262144"},
      {"/cache/pages_per_slot", 14,
       "M: cache.pages_per_slot: 14 are not the 13 that a slot can have"},
      {"/cache/element", "f32",
       "M: cache.element: 'f32' is not one of f16, bf16, f8e4m3, int8"},
      {"/cache/far_history", 1, "M: cache.far_history: is not an object"},
      {"/cache/far_history",
       {{"window", 16}},
       "M: cache.far_history.entries: is missing"},
      {"/cache/far_history",
       {{"window", 0}, {"entries", 8}, {"sinks", 2}},
       "M: cache.far_history.window: 0 is outside 4..49"},
      {"/cache/far_history",
       {{"window", 50}, {"entries", 8}, {"sinks", 2}},
       "M: cache.far_history.window: 50 is outside 4..49"},
      {"/cache/far_history",
       {{"window", 18}, {"entries", 8}, {"sinks", 2}},
       "M: cache.far_history.window: 18 is not a multiple of "
       "cache.page_tokens, 4"},
      {"/cache/far_history",
       {{"window", 16}, {"entries", 6}, {"sinks", 2}},
       "M: cache.far_history.entries: 6 is not a multiple of "
       "cache.page_tokens, 4"},
      {"/cache/far_history",
       {{"window", 16}, {"entries", 5000}, {"sinks", 2}},
       "M: cache.far_history.entries: 5000 is outside 0..4096"},
      {"/cache/far_history",
       {{"window", 16}, {"entries", 8}, {"sinks", 9}},
       "M: cache.far_history.sinks: 9 is outside 0..8"},
      {"/cache/far_history",
       {{"window", 16}, {"entries", 8}, {"sinks", 7}},
       "M: cache.far_history.sinks: leaves one entry; it takes two to merge"},
      {"/entries", json::array(), "M: entries: has 0 entries, outside 1..64"},
      {"/entries/0", 1, "M: entries[0]: is not an object"},
      {"/entries/0/name", "step",
       "M: entries[0].name: 'step' is unknown or there already"},
      {"/entries/1/name", "decode_step",
       "M: entries[1].name: 'decode_step' is unknown or there already"},
      {"/entries/0/symbol", "", "M: entries[0].symbol: is empty"},
      {"/entries/0/rows", 5, "M: entries[0].rows: 5 is not cache.slots, 4"},
      {"/entries/0/queries", 2,
       "M: entries[0].queries: 2 is not 1 for decode_step"},
      {"/entries/1/rows", 2, "M: entries[1].rows: 2 is not 1 for prefill"},
      {"/entries/1/queries", 4097,
       "M: entries[1].queries: 4097 is outside 1..4096"},
      {"/entries/1/q_tile", 0, "M: entries[1].q_tile: 0 is outside 1..4096"},
      {"/entries/1/kv_tile", 0, "M: entries[1].kv_tile: 0 is outside 1..65536"},
      {"/entries/1/kv_tile", 6,
       "M: entries[1].kv_tile: 6 is not a multiple of cache.page_tokens, 4"},
      {"/entries/1/schedule", "best",
       "M: entries[1].schedule: 'best' is not one of rows, split, workqueue"},
      {"/entries/1/splits", 0, "M: entries[1].splits: 0 is outside 1..1024"},
      {"/entries/1/transport", "copy",
       "M: entries[1].transport: 'copy' is not one of native, staged"},
      {"/entries/0/arena_bytes", -1,
       "M: entries[0].arena_bytes: -1 is outside 0..17592186044416"},
      {"/entries/0/scratch_bytes", "1",
       "M: entries[0].scratch_bytes: is not an integer"},
      {"/files", json::array(), "M: files: has 0 entries, outside 1..64"},
      {"/files/0", "x", "M: files[0]: is not an object"},
      {"/files/0/name", "../x", "M: files[0].name: is not a plain file name"},
      {"/files/0/name", "x", "M: files: has no code.so"},
      {"/files/1/name", "code.so",
       "M: files[1].name: 'code.so' is there already"},
      {"/files/0/bytes", -1,
       "M: files[0].bytes: -1 is outside 0..17592186044416"},
      {"/files/0/xxh3", "0123",
       "M: files[0].xxh3: is not 16 lower-case hex digits"},
      {"/files/0/xxh3", "0123456789ABCDEF",
       "M: files[0].xxh3: is not 16 lower-case hex digits"},
  };
  EXPECT_EQ(parseError([](json &) {}), "");
  for (const Broken &broken : cases)
    EXPECT_EQ(parseError([&](json &m) {
                m[json::json_pointer(broken.pointer)] = broken.value;
              }),
              broken.message)
        << broken.pointer;
}

/// Removes every field in turn.
TEST_F(Packages, MissingFieldsAreNamed) {
  int removed = 0;
  json flat = manifest.flatten();
  for (const auto &[pointer, value] : flat.items()) {
    json::json_pointer at(pointer);
    if (!manifest[at.parent_pointer()].is_object())
      continue;
    ++removed;
    std::string message =
        parseError([&](json &m) { m[at.parent_pointer()].erase(at.back()); });
    if (at.back() == "splits") {
      EXPECT_EQ(message, "") << "only `split` has it";
      continue;
    }
    EXPECT_NE(message.find(at.back() + ": is missing"), std::string::npos)
        << pointer << " gives '" << message << "'";
  }
  EXPECT_GT(removed, 40);
  EXPECT_EQ(parseError([](json &m) { m.erase("cache"); }),
            "M: cache: is missing");
  EXPECT_EQ(parseError([](json &m) { m["entries"].erase(0); }),
            "M: entries: has no decode_step");
  EXPECT_EQ(parseError([](json &m) { m["entries"].erase(1); }),
            "M: entries: has no prefill");
}

TEST_F(Packages, TextThatIsNotAManifest) {
  auto error = [](std::string_view text) {
    return parseManifest(text, "M").status().message();
  };
  EXPECT_EQ(error(""), "M: is not valid JSON");
  EXPECT_EQ(error("{\"format\": "), "M: is not valid JSON");
  EXPECT_EQ(error(std::string(100000, '[')), "M: is not valid JSON");
  EXPECT_EQ(error("[]"), "M: is not a JSON object");
  EXPECT_EQ(error("{}"), "M: format: is missing");
  EXPECT_EQ(error(std::string("{\"format\": \"\xff\"}")),
            "M: is not valid JSON");
}

/// Whatever a byte is turned into, the answer is a value or a line.
TEST_F(Packages, DamagedManifestsAreAnswers) {
  std::string text = manifest.dump();
  for (size_t i = 0; i < text.size(); ++i)
    for (char c : {'\0', '"', '}', '9', '-'}) {
      std::string damaged = text;
      damaged[i] = c;
      Expected<Manifest> parsed = parseManifest(damaged, "M");
      if (!parsed) {
        EXPECT_EQ(parsed.status().message().substr(0, 3), "M: ");
      }
    }
}

TEST_F(Packages, StaticOnesNeedNoTiles) {
  EXPECT_EQ(parseError([](json &m) {
              m["mode"] = "static";
              m["cache"].erase("pages_per_slot");
              for (json &entry : m["entries"])
                for (const char *key : {"q_tile", "kv_tile", "schedule",
                                        "splits", "transport", "scratch_bytes"})
                  entry.erase(key);
            }),
            "");
}

TEST_F(Packages, PathsThatAreNoPackage) {
  auto error = [](const std::string &path) {
    return Package::load(path).status().message();
  };
  EXPECT_EQ(error("/nowhere/x.kvrm"),
            "/nowhere/x.kvrm: there is no such package");
  EXPECT_EQ(error(path + "/code.so"),
            path + "/code.so: is not a package (a folder with manifest.json)");
  std::filesystem::remove(path + "/manifest.json");
  EXPECT_EQ(loadError(), path + "/manifest.json: there is no such file");
}

TEST_F(Packages, ManifestsAreCheckedToTheLastByte) {
  std::string name = path + "/manifest.json";
  std::string text;
  {
    std::ifstream file(name, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  ASSERT_TRUE(Package::readManifest(path));
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    toy::write(name, damaged);
    EXPECT_FALSE(Package::readManifest(path)) << "byte " << i;
  }
  toy::write(name, manifest.dump(2));
  EXPECT_EQ(loadError(), name + ": has no checksum at its end");
  std::string edited = text;
  size_t at = edited.find("\"test\"");
  ASSERT_NE(at, std::string::npos);
  toy::write(name, edited.replace(at, 6, "\"Test\""));
  EXPECT_EQ(loadError(), name + ": checksum differs from the one at its end; "
                                "the file is damaged");
}

TEST_F(Packages, FilesAreCheckedToTheLastByte) {
  std::string code = path + "/code.so";
  auto size = std::filesystem::file_size(code);
  {
    std::fstream file(code, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(size) - 1);
    char last = static_cast<char>(file.peek());
    file.seekp(static_cast<std::streamoff>(size) - 1);
    file.put(static_cast<char>(last ^ 1));
  }
  EXPECT_EQ(loadError(), code + ": checksum differs from the manifest's; the "
                                "file is damaged");
  std::filesystem::resize_file(code, size - 1);
  EXPECT_EQ(loadError(), code + ": is " + std::to_string(size - 1) +
                             " bytes long, the manifest says " +
                             std::to_string(size));
  std::filesystem::remove(code);
  EXPECT_EQ(loadError(), code + ": there is no such file");
  std::filesystem::create_directory(code);
  EXPECT_EQ(loadError(), code + ": is not a regular file");
}

TEST_F(Packages, WeightsHeadersAreChecked) {
  std::string where = path + "/weights.safetensors: ";
  std::string data(128, 'x');
  auto one = [](const char *offsets) {
    return std::string("{\"w\":{\"data_offsets\":") + offsets + "}}";
  };
  EXPECT_EQ(weightsError(tensors(one("[0,128]"), data)), "");
  EXPECT_EQ(weightsError(tensors("{}", "")), "");
  EXPECT_EQ(weightsError("1234"), where + "has no safetensors header");
  EXPECT_EQ(weightsError(std::string(8, '\xff') + data),
            where + "header length 18446744073709551615 is outside 0..128");
  EXPECT_EQ(weightsError(tensors("[1]", data)),
            where + "its header is not a JSON object");
  EXPECT_EQ(weightsError(tensors("{\"w\":1}", data)),
            where + "tensor 'w' has no data_offsets");
  EXPECT_EQ(weightsError(tensors(one("[0]"), data)),
            where + "tensor 'w': data_offsets are not two offsets");
  EXPECT_EQ(weightsError(tensors(one("[0,-1]"), data)),
            where + "tensor 'w': data_offsets are not two offsets");
  EXPECT_EQ(weightsError(tensors(one("[0,129]"), data)),
            where + "tensor 'w': bytes 0..129 are outside the data section of "
                    "128");
  EXPECT_EQ(weightsError(tensors(one("[32,64]"), data)),
            where + "tensor 'w': offset 32 is not a multiple of 64");
  EXPECT_EQ(weightsError(tensors(R"({"w":{"data_offsets":[0,10]},)"
                                 R"("__pad.0":{"data_offsets":[10,64]}})",
                                 data)),
            "");
}

TEST_F(Packages, OtherMachinesAreRefused) {
  manifest["target"]["requires"] = {"sse2", "warp-drive"};
  writeManifest();
  EXPECT_EQ(loadError(), path + "/manifest.json: target.requires: "
                                "'warp-drive' is not a CPU feature that this "
                                "runtime knows");
  manifest["target"]["requires"] = json::array();
  manifest["target"]["triple"] = "riscv64-unknown-linux-gnu";
  writeManifest();
  EXPECT_NE(loadError().find("is not for this machine"), std::string::npos);
}

TEST_F(Packages, CodeThatDoesNotLink) {
  manifest["entries"][1]["symbol"] = "nothing_here";
  writeManifest();
  EXPECT_EQ(loadError(),
            path + "/code.so: has no symbol 'nothing_here' for entry prefill");
  toy::write(path + "/code.so", "not an object");
  manifest = toy::manifestOf({}, path);
  writeManifest();
  EXPECT_NE(loadError().find("/code.so: cannot link: "), std::string::npos);
}
