//===- Calibration.cpp - Constants of a device, in a file -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/Calibration.h"
#include "kvrm/runtime/paging/Planner.h"
#include "kvrm/runtime/support/ReplaceFile.h"

#include "../package/CheckedFile.h"
#include "../package/JsonReader.h"

#include <algorithm>
#include <cstdio>

using namespace kvrm;
using nlohmann::json;

static constexpr int32_t calibrationVersion = 2;
static constexpr int64_t maxCalibrationBytes = 1 << 20;

const ScheduleCosts *Calibration::costs(bool usesPdl) const {
  for (const ScheduleCosts &setting : settings)
    if (setting.usesPdl == usesPdl)
      return &setting;
  return nullptr;
}

Status Calibration::check(std::string_view where, std::string_view onDevice,
                          const PolicyShape &wanted) const {
  auto refuse = [&](const char *field) {
    return makeError(StatusCode::Incompatible, where, ": ", field,
                     ": was measured for another; calibrate again");
  };
  if (device != onDevice)
    return makeError(StatusCode::Incompatible, where, ": device: '", device,
                     "' is not '", onDevice, "'; calibrate again");
  if (shape.heads != wanted.heads)
    return refuse("attention.heads");
  if (shape.kvHeads != wanted.kvHeads)
    return refuse("attention.kv_heads");
  if (shape.headDim != wanted.headDim)
    return refuse("attention.head_dim");
  if (shape.pageTokens != wanted.pageTokens)
    return refuse("attention.page_tokens");
  if (shape.queries != wanted.queries || shape.queryTiles != wanted.queryTiles)
    return refuse("attention.queries");
  if (shape.kvTile != wanted.kvTile)
    return refuse("attention.kv_tile");
  if (shape.element != wanted.element)
    return refuse("attention.element");
  return Status::ok();
}

/// A number in `low`..`high`; JsonReader.h reads what manifests hold, integers.
static double number(ObjectReader &reader, const char *key, double low,
                     double high) {
  const json *value = reader.find(key);
  if (!value)
    return low;
  if (!value->is_number()) {
    reader.fail(key, "is not a number");
    return low;
  }
  auto found = value->get<double>();
  if (!(found >= low && found <= high)) {
    reader.fail(key, value->dump() + " is outside " + json(low).dump() + ".." +
                         json(high).dump());
    return low;
  }
  return found;
}

static ScheduleCosts readCosts(ObjectReader &reader) {
  ScheduleCosts costs;
  const json *pdl = reader.find("pdl");
  if (pdl && !pdl->is_boolean())
    reader.fail("pdl", "is not true or false");
  costs.usesPdl = pdl && pdl->is_boolean() && pdl->get<bool>();
  ObjectReader queue = reader.member("workqueue");
  costs.workqueue.shares = queue.integer32("shares", 1, CostLimits::maxBlocks);
  costs.workqueue.itemCost =
      queue.integer32("item_cost", 0, PlanShape::maxItemCost);
  costs.workqueue.baseUs = number(queue, "base_us", 0, CostLimits::maxUs);
  costs.workqueue.gbPerS =
      number(queue, "gb_per_s", CostLimits::leastGbPerS, CostLimits::maxGbPerS);
  costs.workqueue.blockGbPerS = number(
      queue, "block_gb_per_s", CostLimits::leastGbPerS, CostLimits::maxGbPerS);
  costs.workqueue.itemUs = number(queue, "item_us", 0, CostLimits::maxUs);
  costs.workqueue.partialUs = number(queue, "partial_us", 0, CostLimits::maxUs);
  reader.each("clusters", 0, [&](ObjectReader &fields) {
    ClusterCost cost;
    cost.blocks =
        fields.integer32("blocks", 1, CostLimits::clusterSizes.back());
    int32_t before = costs.clusters.empty() ? 0 : costs.clusters.back().blocks;
    if (fields.isOk() &&
        (cost.blocks <= before ||
         std::ranges::find(CostLimits::clusterSizes, cost.blocks) ==
             CostLimits::clusterSizes.end()))
      fields.fail("blocks", std::to_string(cost.blocks) +
                                " is not the next of 1, 2, 4, 8");
    cost.atOnce = fields.integer32("at_once", 1, CostLimits::maxBlocks);
    cost.baseUs = number(fields, "base_us", 0, CostLimits::maxUs);
    cost.gbPerS = number(fields, "gb_per_s", CostLimits::leastGbPerS,
                         CostLimits::maxGbPerS);
    cost.clusterGbPerS = number(fields, "cluster_gb_per_s",
                                CostLimits::leastGbPerS, CostLimits::maxGbPerS);
    cost.rowUs = number(fields, "row_us", 0, CostLimits::maxUs);
    costs.clusters.push_back(cost);
  });
  return costs;
}

Expected<Calibration> kvrm::parseCalibration(std::string_view text,
                                             std::string_view where) {
  Expected<nlohmann::json> root = parseObject(text, where);
  KVRM_TRY(root.status());
  Status status;
  ObjectReader reader(*root, "", where, status);
  Calibration result;
  reader.oneOf("format", std::array{"kvrm-calibration"});
  int64_t version = reader.integer("version", 0, INT32_MAX);
  if (status.isOk() && version != calibrationVersion)
    return makeError(StatusCode::Incompatible, where, ": version: ", version,
                     " is not this runtime's ", calibrationVersion,
                     "; calibrate again");
  result.device = reader.string("device");
  ObjectReader attention = reader.member("attention");
  PolicyShape &shape = result.shape;
  shape.heads = attention.integer32("heads", 1, 4096);
  shape.kvHeads = attention.integer32("kv_heads", 1, KVRM_MAX_KV_HEADS);
  shape.headDim = attention.integer32("head_dim", 1, KVRM_MAX_HEAD_DIM);
  shape.pageTokens =
      attention.integer32("page_tokens", 1, KVRM_MAX_PAGE_TOKENS);
  shape.queries = attention.integer32("queries", 1, KVRM_MAX_QUERIES);
  shape.kvTile = attention.integer32("kv_tile", 1, 1 << 16);
  shape.queryTiles = attention.integer32("query_tiles", 1, KVRM_MAX_QUERIES);
  shape.element = static_cast<kvrm_element>(
      attention.oneOf("element", std::array{"f16", "bf16", "f8e4m3", "int8"}));
  reader.each("settings", 1, [&](ObjectReader &fields) {
    ScheduleCosts costs = readCosts(fields);
    if (result.costs(costs.usesPdl))
      fields.fail("pdl", "is there already");
    result.settings.push_back(std::move(costs));
  });
  if (!status.isOk())
    return status;
  return result;
}

std::string kvrm::formatCalibration(const Calibration &calibration) {
  const PolicyShape &shape = calibration.shape;
  // Enough digits for anybody, and no more, so that files can be read.
  auto rounded = [](double value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.5g", value);
    return json::parse(text);
  };
  auto settings = nlohmann::ordered_json::array();
  for (const ScheduleCosts &costs : calibration.settings) {
    const WorkqueueCost &queue = costs.workqueue;
    auto clusters = nlohmann::ordered_json::array();
    for (const ClusterCost &cost : costs.clusters)
      clusters.push_back({{"blocks", cost.blocks},
                          {"at_once", cost.atOnce},
                          {"base_us", rounded(cost.baseUs)},
                          {"gb_per_s", rounded(cost.gbPerS)},
                          {"cluster_gb_per_s", rounded(cost.clusterGbPerS)},
                          {"row_us", rounded(cost.rowUs)}});
    settings.push_back({{"pdl", costs.usesPdl},
                        {"workqueue",
                         {{"shares", queue.shares},
                          {"item_cost", queue.itemCost},
                          {"base_us", rounded(queue.baseUs)},
                          {"gb_per_s", rounded(queue.gbPerS)},
                          {"block_gb_per_s", rounded(queue.blockGbPerS)},
                          {"item_us", rounded(queue.itemUs)},
                          {"partial_us", rounded(queue.partialUs)}}},
                        {"clusters", clusters}});
  }
  nlohmann::ordered_json root = {
      {"format", "kvrm-calibration"},
      {"version", calibrationVersion},
      {"device", calibration.device},
      {"attention",
       {{"heads", shape.heads},
        {"kv_heads", shape.kvHeads},
        {"head_dim", shape.headDim},
        {"page_tokens", shape.pageTokens},
        {"element", kvrm_element_name(shape.element)},
        {"queries", shape.queries},
        {"kv_tile", shape.kvTile},
        {"query_tiles", shape.queryTiles}}},
      {"settings", settings}};
  return root.dump(2) + "\n";
}

Expected<Calibration> kvrm::loadCalibration(const std::string &path) {
  Expected<CheckedFile> file = CheckedFile::open(path);
  KVRM_TRY(file.status());
  if (file->bytes() > maxCalibrationBytes)
    return makeError(StatusCode::Corrupt, path, ": is ", file->bytes(),
                     " bytes long, over the limit ", maxCalibrationBytes);
  std::string text(static_cast<size_t>(file->bytes()), '\0');
  KVRM_TRY(file->read(reinterpret_cast<uint8_t *>(text.data()), file->bytes()));
  return parseCalibration(text, path);
}

Status kvrm::saveCalibration(const std::string &path,
                             const Calibration &calibration) {
  return replaceFile(path, formatCalibration(calibration));
}
