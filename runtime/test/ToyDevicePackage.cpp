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
#include "kvrm/runtime/support/RankFile.h"

#include <cstdlib>
#include <filesystem>

using nlohmann::json;
namespace fs = std::filesystem;
using namespace toy;

//===----------------------------------------------------------------------===//
// Programs
//===----------------------------------------------------------------------===//

namespace {

/// A batch of a step.
struct BatchShape {
  int rows;
  int queries;
};

/// Writes the commands of one batch.
class BatchWriter {
public:
  BatchWriter(ProgramParts &parts, BatchShape shape, uint16_t batch,
              uint32_t firstRow, int64_t arenaStart, bool isAlone)
      : parts(parts), rows(static_cast<uint32_t>(shape.rows)),
        queries(static_cast<uint32_t>(shape.queries)), batch(batch),
        firstRow(firstRow), isAlone(isAlone),
        arena(int64_t(shape.rows) * shape.queries, arenaStart) {}

  void commit() {
    addKernel(Commit, KVRM_RUN_ALL, KVRM_GRID_FIXED, {4, 1, 1}, 0, false);
  }
  void embed() {
    addDense(Embed, {of(KVRM_BASE_TOKENS), of(KVRM_BASE_ROWS), x()}, false);
  }
  void layer(int layer) {
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
  /// To `out`, which is all logits.
  void logits(const kvrm_program_arg &out) {
    addDense(Logits, {of(KVRM_BASE_ROWS),
                      x(),
                      {KVRM_BASE_WEIGHTS, 0, 0, 0, headWeightBytes},
                      out,
                      {KVRM_BASE_IMMEDIATE, 0, 0, queries, 0},
                      {KVRM_BASE_IMMEDIATE, 0, 0, firstRow, 0}});
  }
  void sample() {
    kvrm_program_arg logits = of(KVRM_BASE_LOGITS);
    logits.offset = int64_t(firstRow) * vocabulary * int64_t(sizeof(float));
    kvrm_program_arg next = of(KVRM_BASE_NEXT);
    next.offset = int64_t(firstRow) * int64_t(sizeof(int32_t));
    parts.addDense(Sample, KVRM_GRID_ROWS, {1, 1, 1},
                   {logits, of(KVRM_BASE_ROWS), of(KVRM_BASE_SAMPLING), next},
                   true);
  }
  int64_t arenaEnd() const { return arena.bytes; }

private:
  kvrm_program_arg of(kvrm_program_base base) const {
    uint16_t index = kvrm_base_has_batch(base) ? batch : uint16_t(0);
    return {static_cast<uint16_t>(base), index, 0, 0, 0};
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
    for (size_t i = 0; i < KVRM_DEVICE_ARGS; ++i)
      if (kvrm_base_has_batch(args[i].base))
        args[i].index = batch;
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
    if (isAlone)
      addKernel(AttendCluster, KVRM_RUN_CLUSTER, KVRM_GRID_CLUSTERS,
                {kvHeads, 1, 1}, layer);
  }

  ProgramParts &parts;
  uint32_t rows;
  uint32_t queries;
  uint16_t batch;
  uint32_t firstRow;
  bool isAlone; ///< in its step
  DeviceArena arena;
};

} // namespace

static constexpr BatchShape decodeBatch = {slots, 1};
static constexpr BatchShape prefillBatch = {1, prefillQueries};

/// A step of such batches, layer by layer. Of several ranks, each has a part of
/// the logits, behind all else in the arena.
static std::string programOf(std::initializer_list<BatchShape> shapes,
                             int64_t &arenaBytes, int ranks) {
  ProgramParts parts;
  parts.layers = layers;
  parts.tensors = 0;
  parts.batches = static_cast<uint32_t>(shapes.size());
  std::vector<BatchWriter> batches;
  uint32_t firstRow = 0;
  arenaBytes = 0;
  for (BatchShape shape : shapes) {
    batches.emplace_back(parts, shape, static_cast<uint16_t>(batches.size()),
                         firstRow, arenaBytes, shapes.size() == 1);
    firstRow += static_cast<uint32_t>(shape.rows);
    arenaBytes = batches.back().arenaEnd();
  }
  auto each = [&](auto write) {
    for (BatchWriter &batch : batches)
      write(batch);
  };
  each([](BatchWriter &batch) { batch.commit(); });
  each([](BatchWriter &batch) { batch.embed(); });
  for (int layer = 0; layer < layers; ++layer)
    each([&](BatchWriter &batch) { batch.layer(layer); });
  kvrm_program_arg logits{KVRM_BASE_LOGITS, 0, 0, 0, 0};
  kvrm_program_arg out = logits;
  if (ranks > 1) {
    int64_t bytes = int64_t(firstRow) * vocabulary * int64_t(sizeof(float));
    out = {KVRM_BASE_ARENA, 0, 0, arenaBytes, bytes};
    arenaBytes = kvrm_align_up(arenaBytes + bytes);
  }
  each([&](BatchWriter &batch) { batch.logits(out); });
  if (ranks > 1)
    parts.addCollective(KVRM_COMMAND_ALL_REDUCE, firstRow * vocabulary, logits,
                        out);
  parts.ranks = static_cast<uint32_t>(ranks);
  each([](BatchWriter &batch) { batch.sample(); });
  return parts.build().serialize();
}

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

static json entryOf(const char *name, const char *program, BatchShape shape,
                    int qTile, int ranks) {
  int64_t arenaBytes = 0;
  programOf({shape}, arenaBytes, ranks);
  return {{"name", name},
          {"program", program},
          {"rows", shape.rows},
          {"queries", shape.queries},
          {"q_tile", qTile},
          {"kv_tile", kvTile},
          {"schedule", "workqueue"},
          {"splits", 1},
          {"transport", "native"},
          {"arena_bytes", arenaBytes}};
}

json toy::deviceManifestOf(const std::string &folder, bool mixes, int ranks) {
  std::vector<std::string> names = {"kernels.ptx", "decode.program",
                                    "prefill.program"};
  for (int rank = 0; rank < ranks; ++rank)
    names.push_back(kvrm::weightsFile(rank));
  json entries = {
      entryOf("decode_step", "decode.program", decodeBatch, 1, ranks),
      entryOf("prefill", "prefill.program", prefillBatch, prefillQTile, ranks)};
  if (mixes) {
    names.emplace_back("mixed.program");
    int64_t arenaBytes = 0;
    programOf({decodeBatch, prefillBatch}, arenaBytes, ranks);
    entries.push_back({{"name", "mixed_step"},
                       {"program", "mixed.program"},
                       {"batches", {"decode_step", "prefill"}},
                       {"arena_bytes", arenaBytes}});
  }
  json files = json::array();
  for (const std::string &name : names) {
    std::string path = folder + "/";
    path += name;
    files.push_back({{"name", name},
                     {"bytes", fs::file_size(path)},
                     {"xxh3", checksum(path)}});
  }
  return {{"format", "kvrm-package"},
          {"abi_version", KVRM_ABI_VERSION},
          {"producer", "test"},
          {"mode", "paged"},
          {"ranks", ranks},
          {"target", {{"kind", "nvptx"}, {"arch", "sm_90"}}},
          {"model",
           {{"name", "toy"},
            {"architecture", "toy"},
            {"vocabulary", vocabulary},
            {"hidden", hidden},
            {"layers", layers},
            {"heads", ranks * heads},
            {"kv_heads", ranks * kvHeads},
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
          {"entries", entries},
          {"files", files}};
}

/// Of the head's channels every `ranks`th, from `rank` on; the rest are zero.
static std::string weightsOf(int rank, int ranks) {
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
      float weight = i % ranks == rank ? hashed(token, i, 5) : 0.0f;
      bytes.append(reinterpret_cast<const char *>(&weight), sizeof(weight));
    }
  for (int to = 0; to < headDim; ++to)
    for (int from = 0; from < headDim; ++from) {
      uint16_t weight = from == mixedFrom(to) ? toHalf(1) : 0;
      bytes.append(reinterpret_cast<const char *>(&weight), sizeof(weight));
    }
  return bytes;
}

std::string toy::makeDevicePackage(const std::string &mode, bool mixes,
                                   int ranks) {
  std::string path = (fs::temp_directory_path() / "kvrm-toy-XXXXXX").string();
  if (!mkdtemp(path.data()))
    std::abort();
  std::string body;
  for (const DeviceKernelInfo &kernel : deviceKernels)
    body += std::string(".visible .entry ") + kernel.symbol + "() {}\n";
  write(path + "/kernels.ptx", ".version 8.4\n" + body);
  for (int rank = 0; rank < ranks; ++rank)
    write(path + "/" + kvrm::weightsFile(rank), weightsOf(rank, ranks));
  int64_t arenaBytes = 0;
  write(path + "/decode.program", programOf({decodeBatch}, arenaBytes, ranks));
  write(path + "/prefill.program",
        programOf({prefillBatch}, arenaBytes, ranks));
  if (mixes)
    write(path + "/mixed.program",
          programOf({decodeBatch, prefillBatch}, arenaBytes, ranks));
  json manifest = deviceManifestOf(path, mixes, ranks);
  manifest["mode"] = mode;
  writeManifest(path, manifest);
  return path;
}
