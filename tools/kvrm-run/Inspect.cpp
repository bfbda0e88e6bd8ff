//===- Inspect.cpp - kvrm-run inspect ---------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

using namespace kvrm;
using nlohmann::json;

static int64_t kvBytesPerToken(const Manifest &m) {
  return int64_t(m.layers) * m.kvHeads * m.headDim * 2 * 2;
}

static json describe(const EntryInfo &entry, bool isPaged) {
  json out = {{"name", entry.name},
              {"symbol", entry.symbol},
              {"rows", entry.rows},
              {"queries", entry.queries},
              {"arena_bytes", entry.arenaBytes}};
  if (isPaged)
    out.update({{"q_tile", entry.qTile},
                {"kv_tile", entry.kvTile},
                {"schedule", scheduleName(entry.schedule)},
                {"splits", entry.splits},
                {"transport", transportName(entry.transport)},
                {"scratch_bytes", entry.scratchBytes}});
  return out;
}

Status run::inspect(const CommonOptions &common) {
  Expected<Manifest> read = Package::readManifest(common.package);
  KVRM_TRY(read.status());
  const Manifest &m = *read;
  int64_t full = kvBytesPerToken(m) * m.slots *
                 (m.isPaged ? int64_t(m.pagesPerSlot()) * m.pageTokens
                            : int64_t(m.capacity));
  if (common.isJson) {
    json files = json::array();
    for (const FileInfo &file : m.files)
      files.push_back({{"name", file.name}, {"bytes", file.bytes}});
    json out = {
        {"package", common.package},
        {"abi_version", KVRM_ABI_VERSION},
        {"producer", m.producer},
        {"mode", m.isPaged ? "paged" : "static"},
        {"target",
         {{"triple", m.triple},
          {"cpu", m.cpu},
          {"requires", m.requiredFeatures}}},
        {"model",
         {{"name", m.modelName},
          {"architecture", m.architecture},
          {"vocabulary", m.vocabulary},
          {"hidden", m.hidden},
          {"layers", m.layers},
          {"heads", m.heads},
          {"kv_heads", m.kvHeads},
          {"head_dim", m.headDim},
          {"context", m.context},
          {"bos", m.bos},
          {"eos", m.eos}}},
        {"cache",
         {{"slots", m.slots},
          {"capacity", m.capacity},
          {"page_tokens", m.pageTokens},
          {"element", elementName(m.element)},
          {"bytes_per_token", kvBytesPerToken(m)},
          {"bytes_full", full}}},
        {"entries",
         {describe(m.decode, m.isPaged), describe(m.prefill, m.isPaged)}},
        {"files", files}};
    if (m.window > 0)
      out["cache"]["far_history"] = {
          {"window", m.window}, {"entries", m.summaries}, {"sinks", m.sinks}};
    std::cout << out.dump(2, ' ', false, json::error_handler_t::replace)
              << "\n";
    std::cout.flush();
    return Status::ok();
  }
  auto mib = [](int64_t bytes) {
    return static_cast<double>(bytes) / (1 << 20);
  };
  std::printf("%s: %s (%s), %s, by %s\n", common.package.c_str(),
              m.modelName.c_str(), m.architecture.c_str(),
              m.isPaged ? "paged" : "static", m.producer.c_str());
  std::printf("  target   %s, %s", m.triple.c_str(), m.cpu.c_str());
  for (const std::string &feature : m.requiredFeatures)
    std::printf(" +%s", feature.c_str());
  std::printf("\n  model    vocabulary %d, hidden %d, %d layers, %d heads over "
              "%d KV heads of %d, context %d\n",
              m.vocabulary, m.hidden, m.layers, m.heads, m.kvHeads, m.headDim,
              m.context);
  std::printf("  cache    %d slots of %d tokens, %s, pages of %d; %lld bytes a "
              "token, %.1f MiB when full\n",
              m.slots, m.capacity, elementName(m.element), m.pageTokens,
              static_cast<long long>(kvBytesPerToken(m)), mib(full));
  if (m.window > 0)
    std::printf("  far      the last %d tokens exactly, %d entries for those "
                "before, %d of them sinks\n",
                m.window, m.summaries, m.sinks);
  for (const EntryInfo *entry : {&m.decode, &m.prefill}) {
    std::printf("  entry    %-11s %d x %d tokens", entry->name.c_str(),
                entry->rows, entry->queries);
    if (m.isPaged) {
      std::printf(", tile %d x %d, %s", entry->qTile, entry->kvTile,
                  scheduleName(entry->schedule));
      if (entry->schedule == KVRM_SCHEDULE_SPLIT)
        std::printf("(%d)", entry->splits);
      std::printf(", %s", transportName(entry->transport));
    }
    std::printf(", arena %.1f MiB\n", mib(entry->arenaBytes));
  }
  for (const FileInfo &file : m.files)
    std::printf("  file     %-20s %.1f MiB\n", file.name.c_str(),
                mib(file.bytes));
  return Status::ok();
}
