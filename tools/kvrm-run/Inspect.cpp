//===- Inspect.cpp - kvrm-run inspect ---------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include "kvrm/runtime/package/Package.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

static int64_t kvBytesPerToken(const Manifest &m) {
  return int64_t(m.layers) * m.kvHeads * 2 *
         kvrm_token_bytes(m.headDim, m.element);
}

/// Of all slots when they are full.
static int64_t fullKvBytes(const Manifest &m) {
  return kvBytesPerToken(m) * m.slots *
         (m.isPaged ? int64_t(m.pagesPerSlot) * m.pageTokens
                    : int64_t(m.capacity));
}

//===----------------------------------------------------------------------===//
// JSON
//===----------------------------------------------------------------------===//

static json targetJson(const Manifest &m) {
  if (m.target == TargetKind::NVPTX)
    return {{"kind", "nvptx"}, {"arch", m.arch}};
  return {{"kind", "host"},
          {"triple", m.triple},
          {"cpu", m.cpu},
          {"requires", m.requiredFeatures}};
}

static json kernelJson(const KernelInfo &kernel) {
  return {{"role", kvrm_kernel_role_name(kernel.role)},
          {"symbol", kernel.symbol},
          {"threads", kernel.threads},
          {"shared_bytes", kernel.sharedBytes},
          {"blocks_per_sm", kernel.blocksPerSm},
          {"max_cluster", kernel.maxCluster}};
}

static json entryJson(const EntryInfo &entry, bool isPaged) {
  json out = {{"name", entry.name},
              {"rows", entry.rows},
              {"arena_bytes", entry.arenaBytes}};
  if (entry.batches.empty())
    out["queries"] = entry.queries;
  else
    out["batches"] = entry.batches;
  if (isPaged && entry.batches.empty())
    out.update({{"q_tile", entry.qTile},
                {"kv_tile", entry.kvTile},
                {"schedule", scheduleName(entry.schedule)},
                {"splits", entry.splits},
                {"transport", transportName(entry.transport)},
                {"scratch_bytes", entry.scratchBytes}});
  if (!entry.symbol.empty())
    out["symbol"] = entry.symbol;
  if (!entry.program.empty())
    out["program"] = entry.program;
  return out;
}

static json modelJson(const Manifest &m) {
  return {{"name", m.modelName},
          {"architecture", m.architecture},
          {"vocabulary", m.vocabulary},
          {"hidden", m.hidden},
          {"layers", m.layers},
          {"heads", m.heads},
          {"kv_heads", m.kvHeads},
          {"head_dim", m.headDim},
          {"context", m.context},
          {"bos", m.bos},
          {"eos", m.eos},
          {"ends", m.ends}};
}

static json cacheJson(const Manifest &m) {
  json out = {{"slots", m.slots},
              {"capacity", m.capacity},
              {"page_tokens", m.pageTokens},
              {"element", kvrm_element_name(m.element)},
              {"bytes_per_token", kvBytesPerToken(m)},
              {"bytes_full", fullKvBytes(m)}};
  if (m.window > 0)
    out["far_history"] = {
        {"window", m.window}, {"entries", m.summaries}, {"sinks", m.sinks}};
  return out;
}

static void printJson(const std::string &package, const Manifest &m) {
  json files = json::array();
  for (const FileInfo &file : m.files)
    files.push_back({{"name", file.name}, {"bytes", file.bytes}});
  json entries = json::array();
  for (const EntryInfo *entry : m.entries())
    entries.push_back(entryJson(*entry, m.isPaged));
  json out = {
      {"package", package},     {"abi_version", KVRM_ABI_VERSION},
      {"producer", m.producer}, {"mode", m.isPaged ? "paged" : "static"},
      {"ranks", m.ranks},       {"target", targetJson(m)},
      {"model", modelJson(m)},  {"cache", cacheJson(m)},
      {"entries", entries},     {"files", files}};
  for (const KernelInfo &kernel : m.kernels)
    out["kernels"].push_back(kernelJson(kernel));
  std::cout << out.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
  std::cout.flush();
}

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

static double mebibytes(int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

static void printHead(const std::string &package, const Manifest &m) {
  std::printf("%s: %s (%s), %s, by %s\n", package.c_str(),
              oneLine(m.modelName).c_str(), m.architecture.c_str(),
              m.isPaged ? "paged" : "static", m.producer.c_str());
  if (m.target == TargetKind::NVPTX)
    std::printf("  target   %s", m.arch.c_str());
  else
    std::printf("  target   %s, %s", m.triple.c_str(), m.cpu.c_str());
  for (const std::string &feature : m.requiredFeatures)
    std::printf(" +%s", feature.c_str());
  if (m.ranks > 1)
    std::printf("\n  ranks    %d, of %d KV heads and %d heads each", m.ranks,
                m.rankKvHeads(), m.rankHeads());
  std::printf("\n  model    vocabulary %d, hidden %d, %d layers, %d heads over "
              "%d KV heads of %d, context %d\n",
              m.vocabulary, m.hidden, m.layers, m.heads, m.kvHeads, m.headDim,
              m.context);
}

static void printCache(const Manifest &m) {
  std::printf("  cache    %d slots of %d tokens, %s, pages of %d; %lld bytes a "
              "token, %.1f MiB when full\n",
              m.slots, m.capacity, kvrm_element_name(m.element), m.pageTokens,
              static_cast<long long>(kvBytesPerToken(m)),
              mebibytes(fullKvBytes(m)));
  if (m.window > 0)
    std::printf("  far      the last %d tokens exactly, %d entries for those "
                "before, %d of them sinks\n",
                m.window, m.summaries, m.sinks);
}

static void printEntry(const EntryInfo &entry, bool isPaged) {
  std::printf("  entry    %-11s ", entry.name.c_str());
  if (!entry.batches.empty()) {
    for (const std::string &batch : entry.batches)
      std::printf("%s%s", batch == entry.batches.front() ? "" : " + ",
                  batch.c_str());
    std::printf(", arena %.1f MiB\n", mebibytes(entry.arenaBytes));
    return;
  }
  std::printf("%d x %d tokens", entry.rows, entry.queries);
  if (isPaged) {
    std::printf(", tile %d x %d, %s", entry.qTile, entry.kvTile,
                scheduleName(entry.schedule));
    if (entry.schedule == KVRM_SCHEDULE_SPLIT)
      std::printf("(%d)", entry.splits);
    std::printf(", %s", transportName(entry.transport));
  }
  std::printf(", arena %.1f MiB\n", mebibytes(entry.arenaBytes));
}

/// The commands of a GPU's step, one a line.
static void printProgram(const Package &package, const StepProgram &program,
                         const EntryInfo &entry) {
  if (program.commands().empty())
    return;
  std::vector<std::string> symbols;
  for (const KernelInfo &kernel : package.manifest().kernels)
    symbols.push_back(kernel.symbol);
  std::printf("  program  %s: %zu commands\n%s", entry.program.c_str(),
              program.commands().size(),
              program.print(package.manifest().kernelRoles(), symbols).c_str());
}

static void printKernels(const Manifest &m) {
  for (const KernelInfo &kernel : m.kernels)
    std::printf("  kernel   %-23s %d threads, %d bytes shared\n",
                kernel.role == KVRM_ROLE_DENSE
                    ? kernel.symbol.c_str()
                    : kvrm_kernel_role_name(kernel.role),
                kernel.threads, kernel.sharedBytes);
}

static void printText(const std::string &package, const Manifest &m) {
  printHead(package, m);
  printCache(m);
  printKernels(m);
  for (const EntryInfo *entry : m.entries())
    printEntry(*entry, m.isPaged);
  for (const FileInfo &file : m.files)
    std::printf("  file     %-20s %.1f MiB\n", file.name.c_str(),
                mebibytes(file.bytes));
}

//===----------------------------------------------------------------------===//
// The command
//===----------------------------------------------------------------------===//

static Status inspect(const CommonOptions &common) {
  KVRM_TRY(checkPackage(common));
  Expected<Manifest> m = Package::readManifest(common.package);
  KVRM_TRY(m.status());
  if (common.isJson)
    printJson(common.package, *m);
  else
    printText(common.package, *m);
  if (common.isJson || m->target == TargetKind::Host)
    return Status::ok();
  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  printProgram(**package, (*package)->decodeProgram(), m->decode);
  printProgram(**package, (*package)->prefillProgram(), m->prefill);
  printProgram(**package, (*package)->mixedProgram(), m->mixed);
  return Status::ok();
}

Command run::addInspect(CLI::App &app) {
  CLI::App *command = app.add_subcommand("inspect", "Show what a package is");
  auto common = std::make_shared<CommonOptions>();
  addPackageOptions(*command, *common);
  return {command, [common] { return inspect(*common); }};
}
