//===- SchedulePolicy.cpp - Which schedule a step should run --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/SchedulePolicy.h"
#include "kvrm/runtime/support/ReplaceFile.h"

#include "../package/CheckedFile.h"
#include "../package/JsonReader.h"

#include <cmath>
#include <cstdio>

using namespace kvrm;
using nlohmann::json;

static constexpr int32_t calibrationVersion = 1;
static constexpr int64_t maxCalibrationBytes = 1 << 20;
static constexpr double maxUs = 1e6;
static constexpr double leastGbPerS = 1e-3;
static constexpr double maxGbPerS = 1e6;
static constexpr int32_t maxBlocks = 1 << 16;
static constexpr std::array<int32_t, 4> clusterSizes = {1, 2, 4, 8};
/// What lengths may move by, as a part of what they were, before they are
/// looked at again.
static constexpr int64_t hysteresis = 64;

/// Bytes a microsecond.
static double rateOf(double gbPerS) { return gbPerS * 1e3; }

//===----------------------------------------------------------------------===//
// Prediction
//===----------------------------------------------------------------------===//

static Status checkNumber(const char *name, double value, double low,
                          double high) {
  if (value >= low && value <= high)
    return Status::ok();
  return invalidArgument("policy: ", name, ": ", std::to_string(value),
                         " is outside ", std::to_string(low), "..",
                         std::to_string(high));
}

static Status checkCosts(const ScheduleCosts &costs) {
  KVRM_TRY(checkNumber("shares", costs.shares, 1, maxBlocks));
  const WorkqueueCost &queue = costs.workqueue;
  KVRM_TRY(checkNumber("workqueue.base_us", queue.baseUs, 0, maxUs));
  KVRM_TRY(
      checkNumber("workqueue.gb_per_s", queue.gbPerS, leastGbPerS, maxGbPerS));
  KVRM_TRY(checkNumber("workqueue.partial_us", queue.partialUs, 0, maxUs));
  KVRM_TRY(checkNumber("workqueue.item_us", queue.itemUs, 0, maxUs));
  int32_t before = 0;
  for (const ClusterCost &cost : costs.clusters) {
    if (std::ranges::find(clusterSizes, cost.blocks) == clusterSizes.end() ||
        cost.blocks <= before)
      return invalidArgument("policy: cluster.blocks: ", cost.blocks,
                             " is not the next of 1, 2, 4, 8");
    before = cost.blocks;
    KVRM_TRY(checkNumber("cluster.at_once", cost.atOnce, 1, maxBlocks));
    KVRM_TRY(checkNumber("cluster.base_us", cost.baseUs, 0, maxUs));
    KVRM_TRY(
        checkNumber("cluster.gb_per_s", cost.gbPerS, leastGbPerS, maxGbPerS));
    KVRM_TRY(checkNumber("cluster.cluster_gb_per_s", cost.clusterGbPerS,
                         leastGbPerS, maxGbPerS));
  }
  return Status::ok();
}

Expected<SchedulePolicy> SchedulePolicy::create(const PolicyShape &shape,
                                                const ScheduleCosts &costs,
                                                int32_t rows) {
  KVRM_TRY(checkNumber("rows", rows, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkNumber("kv_heads", shape.kvHeads, 1, KVRM_MAX_KV_HEADS));
  KVRM_TRY(checkNumber("head_dim", shape.headDim, 1, KVRM_MAX_HEAD_DIM));
  KVRM_TRY(checkNumber("kv_tile", shape.kvTile, 1, 1 << 16));
  KVRM_TRY(checkNumber("query_tiles", shape.queryTiles, 1, KVRM_MAX_QUERIES));
  KVRM_TRY(checkCosts(costs));
  SchedulePolicy policy;
  policy.shape = shape;
  policy.costs = costs;
  policy.ends.resize(static_cast<size_t>(rows));
  return policy;
}

SchedulePolicy::Summary
SchedulePolicy::summaryOf(std::span<const int32_t> lengths, int32_t kvTile) {
  Summary summary;
  for (int32_t length : lengths) {
    summary.tokens += length;
    summary.longest = std::max(summary.longest, length);
    summary.active += length > 0;
  }
  // Each row ends with half a tile more or less; what is exact is not needed.
  summary.tiles = (summary.tokens + kvTile - 1) / kvTile;
  return summary;
}

/// P and I of the model.
static std::pair<double, double> partialsAndItems(const PolicyShape &shape,
                                                  int32_t shares, double tokens,
                                                  double longest,
                                                  double active) {
  double outputs = double(shape.kvHeads) * shape.queryTiles;
  double tiles = std::max(tokens / shape.kvTile, active) * outputs;
  double longestTiles = std::ceil(longest / shape.kvTile);
  double partials = std::clamp(longestTiles * shares / std::max(tiles, 1.0),
                               1.0, std::max(longestTiles, 1.0));
  return {partials, 1 + active * outputs / shares};
}

double SchedulePolicy::workqueueUs(const Summary &summary) const {
  const WorkqueueCost &cost = costs.workqueue;
  auto [partials, items] =
      partialsAndItems(shape, costs.shares, double(summary.tokens),
                       summary.longest, summary.active);
  return cost.baseUs +
         double(summary.tokens) * shape.rowBytes() / rateOf(cost.gbPerS) +
         cost.partialUs * partials + cost.itemUs * items;
}

double SchedulePolicy::leastClusterUs(const ClusterCost &cost,
                                      const Summary &summary) const {
  double all = double(summary.tokens) * shape.rowBytes() / rateOf(cost.gbPerS);
  double longest =
      summary.longest * shape.tokenBytes() / rateOf(cost.clusterGbPerS);
  return cost.baseUs + std::max(all, longest);
}

/// Rows run on `groups` servers, each a cluster for every output of a row. In
/// units of tokens that each running row has read, rows end when they have read
/// their own, whatever the rate; the rate then follows from how many run.
double SchedulePolicy::clusterUs(const ClusterCost &cost,
                                 const Summary &summary,
                                 std::span<const int32_t> lengths) {
  double outputs = double(shape.kvHeads) * shape.queryTiles;
  // A row of more clusters than run at once goes in waves.
  double waves = std::max(1.0, outputs / cost.atOnce);
  auto groups = static_cast<size_t>(
      std::clamp<double>(cost.atOnce / outputs, 1, double(ends.size())));
  double widest = std::min<double>(outputs, cost.atOnce);
  auto tokenUs = [&](size_t running) {
    double share = rateOf(cost.gbPerS) / (widest * double(running));
    return shape.tokenBytes() / std::min(share, rateOf(cost.clusterGbPerS));
  };
  auto first = ends.begin();
  auto isLater = [](double a, double b) { return a > b; };
  size_t running = 0;
  double lastStart = 0;
  for (int32_t length : lengths) {
    if (length <= 0)
      continue;
    double work = length * waves;
    if (running < groups) {
      first[static_cast<ptrdiff_t>(running++)] = work;
      if (running == groups)
        std::make_heap(first, first + static_cast<ptrdiff_t>(running), isLater);
      continue;
    }
    // The row takes the place of the one that ends first: sift it down.
    lastStart = first[0];
    double end = lastStart + work;
    size_t at = 0;
    for (size_t child = 1; child < running; child = 2 * at + 1) {
      if (child + 1 < running && ends[child + 1] < ends[child])
        ++child;
      if (ends[child] >= end)
        break;
      ends[at] = ends[child];
      at = child;
    }
    ends[at] = end;
  }
  if (running == 0)
    return cost.baseUs;
  std::sort(first, first + static_cast<ptrdiff_t>(running));
  double us = lastStart * tokenUs(groups);
  double reached = lastStart;
  for (size_t i = 0; i < running; ++i) {
    us += (ends[i] - reached) * tokenUs(running - i);
    reached = ends[i];
  }
  return std::max(cost.baseUs + us, leastClusterUs(cost, summary));
}

int32_t SchedulePolicy::choose(std::span<const int32_t> lengths) {
  if (costs.clusters.empty())
    return workqueue;
  KVRM_CHECK(lengths.size() <= ends.size(), "as many rows as it was made for");
  Summary summary = summaryOf(lengths, shape.kvTile);
  auto isNear = [](int64_t now, int64_t before) {
    return std::abs(now - before) * hysteresis <= before;
  };
  if (evaluationCount > 0 && summary.active == last.active &&
      isNear(summary.tokens, last.tokens) &&
      isNear(summary.longest, last.longest))
    return lastChoice;
  ++evaluationCount;
  last = summary;
  lastChoice = workqueue;
  double best = workqueueUs(summary);
  for (const ClusterCost &cost : costs.clusters) {
    if (leastClusterUs(cost, summary) >= best)
      continue;
    double us = clusterUs(cost, summary, lengths);
    if (us < best) {
      best = us;
      lastChoice = cost.blocks;
    }
  }
  return lastChoice;
}

double SchedulePolicy::predict(int32_t schedule,
                               std::span<const int32_t> lengths) {
  KVRM_CHECK(lengths.size() <= ends.size(), "as many rows as it was made for");
  Summary summary = summaryOf(lengths, shape.kvTile);
  if (schedule == workqueue)
    return workqueueUs(summary);
  for (const ClusterCost &cost : costs.clusters)
    if (cost.blocks == schedule)
      return clusterUs(cost, summary, lengths);
  KVRM_CHECK(false, "a schedule that there are constants for");
  return 0;
}

//===----------------------------------------------------------------------===//
// Fitting
//===----------------------------------------------------------------------===//

static Status checkSamples(const char *what, size_t count, size_t least) {
  if (count < least)
    return invalidArgument("calibration: ", what, ": ", count,
                           " samples are fewer than its ", least, " constants");
  return Status::ok();
}

/// Solves the equations of the features in `mask` by elimination; those left
/// out are 0. Returns whether there is one solution.
static bool solve(const double (&matrix)[4][5], unsigned mask,
                  double (&result)[4]) {
  double rows[4][5];
  std::memcpy(rows, matrix, sizeof(rows));
  for (int i = 0; i < 4; ++i)
    if (!(mask >> i & 1)) {
      for (int j = 0; j < 5; ++j)
        rows[i][j] = j == i;
      rows[i][4] = 0;
    } else {
      for (int j = 0; j < 4; ++j)
        if (!(mask >> j & 1))
          rows[i][j] = 0;
    }
  for (int i = 0; i < 4; ++i) {
    int pivot = i;
    for (int j = i + 1; j < 4; ++j)
      if (std::abs(rows[j][i]) > std::abs(rows[pivot][i]))
        pivot = j;
    if (std::abs(rows[pivot][i]) < 1e-12)
      return false;
    std::swap(rows[i], rows[pivot]);
    for (int j = 0; j < 4; ++j) {
      double factor = rows[j][i] / rows[i][i];
      for (int k = i; j != i && k < 5; ++k)
        rows[j][k] -= factor * rows[i][k];
    }
  }
  for (int i = 0; i < 4; ++i)
    result[i] = rows[i][4] / rows[i][i];
  return true;
}

Expected<WorkqueueCost>
kvrm::fitWorkqueue(const PolicyShape &shape, int32_t shares,
                   std::span<const CostSample> samples) {
  KVRM_TRY(checkSamples("workqueue", samples.size(), 4));
  // Rows of features over time, each about 1 so that elimination is stable.
  std::vector<std::array<double, 4>> features;
  double mostBytes = 1;
  for (const CostSample &sample : samples) {
    double tokens = 0, longest = 0, active = 0;
    for (int32_t length : sample.lengths) {
      tokens += length;
      longest = std::max<double>(longest, length);
      active += length > 0;
    }
    auto [partials, items] =
        partialsAndItems(shape, shares, tokens, longest, active);
    double bytes = tokens * shape.rowBytes();
    mostBytes = std::max(mostBytes, bytes);
    features.push_back({1, bytes, partials, items});
  }
  double matrix[4][5] = {};
  for (size_t i = 0; i < features.size(); ++i) {
    features[i][1] /= mostBytes;
    double weight = 1 / std::max(samples[i].us, 1e-3);
    for (int a = 0; a < 4; ++a) {
      for (int b = 0; b < 4; ++b)
        matrix[a][b] +=
            weight * weight * features[i][size_t(a)] * features[i][size_t(b)];
      matrix[a][4] += weight * weight * features[i][size_t(a)] * samples[i].us;
    }
  }
  // The best of all sets of features whose constants come out as none below 0.
  WorkqueueCost best;
  double bestError = HUGE_VAL;
  for (unsigned mask = 0; mask < 16; ++mask) {
    double constants[4];
    if (!(mask & 2) || !solve(matrix, mask, constants) ||
        *std::min_element(constants, constants + 4) < 0)
      continue;
    double error = 0;
    for (size_t i = 0; i < features.size(); ++i) {
      double us = 0;
      for (size_t a = 0; a < 4; ++a)
        us += constants[a] * features[i][a];
      double relative = us / std::max(samples[i].us, 1e-3) - 1;
      error += relative * relative;
    }
    double gbPerS = mostBytes / std::max(constants[1], 1e-12) / 1e3;
    if (error >= bestError || !(gbPerS >= leastGbPerS && gbPerS <= maxGbPerS))
      continue;
    bestError = error;
    best = {constants[0], gbPerS, constants[2], constants[3]};
  }
  if (bestError == HUGE_VAL)
    return invalidArgument("calibration: workqueue: no constants fit");
  return best;
}

Expected<ClusterCost> kvrm::fitCluster(const PolicyShape &shape, int32_t blocks,
                                       int32_t atOnce,
                                       std::span<const CostSample> samples) {
  KVRM_TRY(checkSamples("cluster", samples.size(), 3));
  size_t rows = 1;
  for (const CostSample &sample : samples)
    rows = std::max(rows, sample.lengths.size());
  ScheduleCosts costs;
  costs.shares = 1;
  costs.workqueue.gbPerS = 1;
  costs.clusters = {{blocks, atOnce, 0, 1, 1}};
  KVRM_TRY(checkCosts(costs));
  // Predictions without a base; the base that fits them best is a mean.
  std::vector<double> times(samples.size());
  auto errorOf = [&](ClusterCost &cost) -> Expected<double> {
    costs.clusters[0] = cost;
    costs.clusters[0].baseUs = 0;
    Expected<SchedulePolicy> policy =
        SchedulePolicy::create(shape, costs, static_cast<int32_t>(rows));
    KVRM_TRY(policy.status());
    double sum = 0, weights = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      times[i] = policy->predict(blocks, samples[i].lengths);
      double weight = 1 / std::max(samples[i].us, 1e-3);
      sum += weight * weight * (samples[i].us - times[i]);
      weights += weight * weight;
    }
    cost.baseUs = std::clamp(sum / weights, 0.0, maxUs);
    double error = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      double relative =
          (cost.baseUs + times[i]) / std::max(samples[i].us, 1e-3) - 1;
      error += relative * relative;
    }
    return error;
  };
  // A grid over the logarithms of both rates, ever finer around the best.
  constexpr int points = 16;
  double low[2] = {std::log(1.0), std::log(0.1)};
  double high[2] = {std::log(1e5), std::log(1e4)};
  ClusterCost best;
  double bestError = HUGE_VAL;
  for (int round = 0; round < 6; ++round) {
    double step[2];
    for (int i = 0; i < 2; ++i)
      step[i] = (high[i] - low[i]) / (points - 1);
    for (int a = 0; a < points; ++a)
      for (int b = 0; b < points; ++b) {
        ClusterCost cost{blocks, atOnce, 0, std::exp(low[0] + a * step[0]),
                         std::exp(low[1] + b * step[1])};
        Expected<double> error = errorOf(cost);
        KVRM_TRY(error.status());
        if (*error < bestError) {
          bestError = *error;
          best = cost;
        }
      }
    double at[2] = {std::log(best.gbPerS), std::log(best.clusterGbPerS)};
    for (int i = 0; i < 2; ++i) {
      low[i] = at[i] - 2 * step[i];
      high[i] = at[i] + 2 * step[i];
    }
  }
  return best;
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

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
  costs.shares = reader.integer32("shares", 1, maxBlocks);
  ObjectReader queue = reader.member("workqueue");
  costs.workqueue.baseUs = number(queue, "base_us", 0, maxUs);
  costs.workqueue.gbPerS = number(queue, "gb_per_s", leastGbPerS, maxGbPerS);
  costs.workqueue.partialUs = number(queue, "partial_us", 0, maxUs);
  costs.workqueue.itemUs = number(queue, "item_us", 0, maxUs);
  reader.each("clusters", 0, [&](ObjectReader &fields) {
    ClusterCost cost;
    cost.blocks = fields.integer32("blocks", 1, clusterSizes.back());
    int32_t before = costs.clusters.empty() ? 0 : costs.clusters.back().blocks;
    if (fields.isOk() &&
        (cost.blocks <= before ||
         std::ranges::find(clusterSizes, cost.blocks) == clusterSizes.end()))
      fields.fail("blocks", std::to_string(cost.blocks) +
                                " is not the next of 1, 2, 4, 8");
    cost.atOnce = fields.integer32("at_once", 1, maxBlocks);
    cost.baseUs = number(fields, "base_us", 0, maxUs);
    cost.gbPerS = number(fields, "gb_per_s", leastGbPerS, maxGbPerS);
    cost.clusterGbPerS =
        number(fields, "cluster_gb_per_s", leastGbPerS, maxGbPerS);
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
      attention.oneOf("element", std::array{"f16", "bf16"}));
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
    auto clusters = nlohmann::ordered_json::array();
    for (const ClusterCost &cost : costs.clusters)
      clusters.push_back({{"blocks", cost.blocks},
                          {"at_once", cost.atOnce},
                          {"base_us", rounded(cost.baseUs)},
                          {"gb_per_s", rounded(cost.gbPerS)},
                          {"cluster_gb_per_s", rounded(cost.clusterGbPerS)}});
    settings.push_back({{"pdl", costs.usesPdl},
                        {"shares", costs.shares},
                        {"workqueue",
                         {{"base_us", rounded(costs.workqueue.baseUs)},
                          {"gb_per_s", rounded(costs.workqueue.gbPerS)},
                          {"partial_us", rounded(costs.workqueue.partialUs)},
                          {"item_us", rounded(costs.workqueue.itemUs)}}},
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
        {"element", shape.element == KVRM_BF16 ? "bf16" : "f16"},
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
