//===- ToyDevicePackage.cpp - The toy decoder's GPU package ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ToyDevicePackage.h"

#include "ToyDevice.h"
#include "ToyPackage.h"
#include "ToyProgram.h"

#include "kvrm/runtime/abi/version.h"

#include <cstdlib>
#include <filesystem>

using nlohmann::json;
namespace fs = std::filesystem;
using namespace toy;

//===----------------------------------------------------------------------===//
// Programs
//===----------------------------------------------------------------------===//

namespace {

/// One step of an entry.
class ProgramWriter {
public:
  ProgramWriter(int rows, int queries)
      : rows(static_cast<uint32_t>(rows)),
        queries(static_cast<uint32_t>(queries)), arena(rows * queries) {
    parts.layers = layers;
    parts.tensors = 0;
  }

  ProgramParts run() {
    addKernel(Commit, KVRM_RUN_ALL, KVRM_GRID_FIXED, {4, 1, 1}, 0, false);
    addDense(Embed, {of(KVRM_BASE_TOKENS), of(KVRM_BASE_ROWS), x()}, false);
    for (int layer = 0; layer < layers; ++layer) {
      addDense(Project, {of(KVRM_BASE_ROWS),
                         x(),
                         {KVRM_BASE_ARENA, 0, 0, arena.q, arena.qBytes},
                         {KVRM_BASE_ARENA, 0, 0, arena.k, arena.kvBytes},
                         {KVRM_BASE_ARENA, 0, 0, arena.v, arena.kvBytes},
                         {KVRM_BASE_IMMEDIATE, 0, 0, layer, 0}});
      addKernel(Append, KVRM_RUN_ALL, KVRM_GRID_ROWS, {1, queries, 1}, layer);
      addAttention(layer);
      addMix();
      addDense(Residual, {of(KVRM_BASE_ROWS), x(), mixed()});
    }
    addDense(Logits, {of(KVRM_BASE_ROWS),
                      x(),
                      {KVRM_BASE_WEIGHTS, 0, 0, 0, headWeightBytes},
                      of(KVRM_BASE_LOGITS),
                      {KVRM_BASE_IMMEDIATE, 0, 0, queries, 0}});
    parts.addDense(Sample, KVRM_GRID_ROWS, {1, 1, 1},
                   {of(KVRM_BASE_LOGITS), of(KVRM_BASE_ROWS),
                    of(KVRM_BASE_SAMPLING), of(KVRM_BASE_NEXT)},
                   true);
    return parts;
  }

private:
  static kvrm_program_arg of(kvrm_program_base base) {
    return {static_cast<uint16_t>(base), 0, 0, 0, 0};
  }
  kvrm_program_arg x() const {
    return {KVRM_BASE_ARENA, 0, 0, arena.x, arena.xBytes};
  }
  kvrm_program_arg mixed() const {
    return {KVRM_BASE_ARENA, 0, 0, arena.mixed, arena.qBytes};
  }
  /// A product of all heads of all tokens, and the kernel that stands in.
  void addMix() {
    kvrm_program_arg out{KVRM_BASE_ARENA, 0, 0, arena.out, arena.qBytes};
    kvrm_program_arg weight{KVRM_BASE_WEIGHTS, 0, 0, headWeightBytes,
                            mixWeightBytes};
    uint32_t products = rows * queries * heads;
    parts.addProduct(KVRM_PRODUCT_F16, {products, headDim, headDim},
                     {mixed(), out, weight});
    addDense(Mix,
             {out, weight, mixed(), {KVRM_BASE_IMMEDIATE, 0, 0, products, 0}});
  }
  void addDense(DeviceKernel kernel, const std::vector<kvrm_program_arg> &args,
                bool isProgrammatic = true) {
    parts.addDense(kernel, KVRM_GRID_ROWS, {1, queries, 1}, args,
                   isProgrammatic);
  }
  void addKernel(DeviceKernel kernel, uint16_t schedules, kvrm_grid_rule rule,
                 std::array<uint32_t, 3> grid, int layer,
                 bool isProgrammatic = true) {
    parts.add(deviceKernels[kernel].role, schedules, rule, grid, layer,
              isProgrammatic);
    parts.commands.back().kernel = kernel;
    kvrm_program_arg *args = &parts.args.back() + 1 - KVRM_DEVICE_ARGS;
    constexpr size_t q = offsetof(kvrm_device_args, q) / 8;
    args[q] = {KVRM_BASE_ARENA, 0, 0, arena.q, arena.qBytes};
    args[q + 1] = {KVRM_BASE_ARENA, 0, 0, arena.out, arena.qBytes};
    args[q + 2] = {KVRM_BASE_ARENA, 0, 0, arena.k, arena.kvBytes};
    args[q + 3] = {KVRM_BASE_ARENA, 0, 0, arena.v, arena.kvBytes};
  }
  void addAttention(int layer) {
    if (queries > 1)
      return addKernel(AttendPrefill, KVRM_RUN_WORKQUEUE, KVRM_GRID_SHARES,
                       {1, 1, 1}, layer);
    addKernel(AttendWorkqueue, KVRM_RUN_WORKQUEUE, KVRM_GRID_SHARES, {1, 1, 1},
              layer);
    addKernel(AttendCluster, KVRM_RUN_CLUSTER, KVRM_GRID_CLUSTERS,
              {kvHeads, 1, 1}, layer);
  }

  uint32_t rows;
  uint32_t queries;
  DeviceArena arena;
  ProgramParts parts;
};

} // namespace

//===----------------------------------------------------------------------===//
// Package
//===----------------------------------------------------------------------===//

static json kernelsOf() {
  json kernels = json::array();
  for (const DeviceKernelInfo &kernel : deviceKernels)
    kernels.push_back(
        {{"role", kvrm_kernel_role_name(kernel.role)},
         {"symbol", kernel.symbol},
         {"threads", 128},
         {"shared_bytes", 1000},
         {"blocks_per_sm", kernel.role == KVRM_ROLE_ATTEND_WORKQUEUE ? 2 : 1},
         {"max_cluster", kernel.role == KVRM_ROLE_ATTEND_CLUSTER ? 8 : 1}});
  return kernels;
}

static json entryOf(const char *name, const char *program, int rows,
                    int queries, int qTile) {
  return {{"name", name},
          {"program", program},
          {"rows", rows},
          {"queries", queries},
          {"q_tile", qTile},
          {"kv_tile", kvTile},
          {"schedule", "workqueue"},
          {"splits", 1},
          {"transport", "native"},
          {"arena_bytes", DeviceArena(rows * queries).bytes}};
}

json toy::deviceManifestOf(const std::string &folder) {
  json files = json::array();
  for (const char *name : {"kernels.ptx", "decode.program", "prefill.program",
                           "weights.safetensors"}) {
    std::string path = folder + "/" + name;
    files.push_back({{"name", name},
                     {"bytes", fs::file_size(path)},
                     {"xxh3", checksum(path)}});
  }
  return {{"format", "kvrm-package"},
          {"abi_version", KVRM_ABI_VERSION},
          {"producer", "test"},
          {"mode", "paged"},
          {"target", {{"kind", "nvptx"}, {"arch", "sm_90"}}},
          {"model",
           {{"name", "toy"},
            {"architecture", "toy"},
            {"vocabulary", vocabulary},
            {"hidden", hidden},
            {"layers", layers},
            {"heads", heads},
            {"kv_heads", kvHeads},
            {"head_dim", headDim},
            {"context", 64},
            {"bos", -1},
            {"eos", 7}}},
          {"cache",
           {{"slots", slots},
            {"capacity", capacity},
            {"page_tokens", pageTokens},
            {"pages_per_slot", pagesPerSlot},
            {"element", "f16"}}},
          {"kernels", kernelsOf()},
          {"entries",
           {entryOf("decode_step", "decode.program", slots, 1, 1),
            entryOf("prefill", "prefill.program", 1, prefillQueries,
                    prefillQTile)}},
          {"files", files}};
}

static std::string weightsFile() {
  std::string header =
      R"({"head":{"dtype":"F32","shape":[)" + std::to_string(vocabulary) + "," +
      std::to_string(hidden) + R"(],"data_offsets":[0,)" +
      std::to_string(headWeightBytes) + R"(]},"mix":{"dtype":"F16","shape":[)" +
      std::to_string(headDim) + "," + std::to_string(headDim) +
      R"(],"data_offsets":[)" + std::to_string(headWeightBytes) + "," +
      std::to_string(deviceWeightBytes) + "]}}";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  bytes += header;
  for (int token = 0; token < vocabulary; ++token)
    for (int i = 0; i < hidden; ++i) {
      float weight = hashed(token, i, 5);
      bytes.append(reinterpret_cast<const char *>(&weight), sizeof(weight));
    }
  for (int to = 0; to < headDim; ++to)
    for (int from = 0; from < headDim; ++from) {
      uint16_t weight = from == mixedFrom(to) ? toHalf(1) : 0;
      bytes.append(reinterpret_cast<const char *>(&weight), sizeof(weight));
    }
  return bytes;
}

std::string toy::makeDevicePackage(const std::string &mode) {
  std::string path = (fs::temp_directory_path() / "kvrm-toy-XXXXXX").string();
  if (!mkdtemp(path.data()))
    std::abort();
  std::string body;
  for (const DeviceKernelInfo &kernel : deviceKernels)
    body += std::string(".visible .entry ") + kernel.symbol + "() {}\n";
  write(path + "/kernels.ptx", ".version 8.4\n" + body);
  write(path + "/weights.safetensors", weightsFile());
  write(path + "/decode.program",
        ProgramWriter(slots, 1).run().build().serialize());
  write(path + "/prefill.program",
        ProgramWriter(1, prefillQueries).run().build().serialize());
  json manifest = deviceManifestOf(path);
  manifest["mode"] = mode;
  writeManifest(path, manifest);
  return path;
}
