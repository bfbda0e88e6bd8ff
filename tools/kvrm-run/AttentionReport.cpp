//===- AttentionReport.cpp - What bench attention prints ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionReport.h"

#include <algorithm>
#include <cstdio>
#include <iostream>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

namespace {

/// The lines of a table, each column as wide as it must be.
class Table {
public:
  explicit Table(std::vector<std::string> head) : lines{std::move(head)} {}
  void add(std::vector<std::string> line) { lines.push_back(std::move(line)); }
  void print() const;

private:
  std::vector<std::vector<std::string>> lines;
};

/// Digits of a Figure for those whose size is all that matters.
constexpr int scientific = -1;

/// A column: a number of what was measured.
struct Figure {
  const char *head;
  const char *key;
  int digits; ///< after the point; integers have none
  bool isOfPolicy = false;
};

constexpr Figure rowFigures[] = {
    {"us", "us", 2, true},
    {"plan", "plan_us", 2},
    {"choice", "choice_us", 2, true},
    {"commit", "commit_us", 2},
    {"commit B", "commit_bytes", 0},
    {"item cost", "item_cost", 0},
    {"items", "items", 0},
    {"partials", "partials", 0},
    {"groups", "groups", 0},
    {"pages/group", "pages_per_group", 1},
    {"B/group", "bytes_per_group", 0},
    {"copies", "copies", 0},
    {"max error", "error_max", scientific},
    {"mean error", "error_mean", scientific},
};

constexpr Figure servingFigures[] = {
    {"steps", "steps", 0},      {"floor", "floor_us", 1},
    {"median", "step_us", 1},   {"mean", "mean_us", 1},
    {"max", "max_us", 1},       {"one wait", "unsynced_us", 1},
    {"plan", "plan_us", 2},     {"choice", "choice_us", 2},
    {"commit", "commit_us", 2}, {"launch", "launch_us", 2},
};

} // namespace

void Table::print() const {
  if (lines.size() < 2)
    return;
  std::vector<size_t> widths;
  for (const auto &line : lines)
    for (size_t i = 0; i < line.size(); ++i) {
      widths.resize(std::max(widths.size(), i + 1));
      widths[i] = std::max(widths[i], line[i].size());
    }
  for (const auto &line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      std::string pad(widths[i] - line[i].size(), ' ');
      text += i == 0 ? line[i] + pad : "  " + pad + line[i];
    }
    std::printf("%s\n", text.c_str());
  }
}

static std::string format(const char *pattern, int digits, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), pattern, digits, value);
  return text;
}

static std::string fixed(double value, int digits) {
  return format("%.*f", digits, value);
}

/// "-" if there is none.
static std::string figure(const json &row, const char *key, int digits) {
  auto found = row.find(key);
  if (found == row.end() || !found->is_number())
    return "-";
  if (found->is_number_integer())
    return std::to_string(found->get<int64_t>());
  if (digits == scientific)
    return format("%.*e", 1, found->get<double>());
  return fixed(found->get<double>(), digits);
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

static Table rowTable() {
  std::vector<std::string> head = {"us a launch", "pdl", "floor"};
  for (CudaSchedule schedule : allSchedules())
    head.push_back(nameOf(schedule));
  for (const char *name : {"best", "us", "+floor", "GB/s", "policy"})
    head.emplace_back(name);
  for (const Figure &column : rowFigures)
    head.emplace_back(column.head);
  return Table(std::move(head));
}

/// What was measured of a schedule; null without.
static const json *findSchedule(const json &row, const std::string &name,
                                bool usesPdl) {
  for (const json &entry : row["schedules"])
    if (entry["schedule"] == name && entry["pdl"] == usesPdl)
      return &entry;
  return nullptr;
}

/// The fastest schedule: its name, time, distance from the floor and GB/s.
static std::vector<std::string> bestOf(const json &row, const json *best) {
  if (!best)
    return {"-", "-", "-", "-"};
  double us = (*best)["us"];
  double floorUs = row["floor_us"];
  double bytes = row["kv_bytes"];
  return {(*best)["schedule"], fixed(us, 2), fixed(us - floorUs, 2),
          fixed(bytes / us / 1e3, 0)};
}

/// With programmatic dependent launch or without, as `policy` was asked.
static std::vector<std::string> rowLine(const json &row, const json &policy) {
  bool usesPdl = policy["pdl"];
  std::vector<std::string> line = {row["name"], usesPdl ? "on" : "off",
                                   figure(row, "floor_us", 1)};
  const json *best = nullptr;
  for (CudaSchedule schedule : allSchedules()) {
    const json *entry = findSchedule(row, nameOf(schedule), usesPdl);
    line.push_back(entry ? figure(*entry, "us", 2) : "-");
    if (entry && !schedule.isStaged &&
        (!best || (*entry)["us"] < (*best)["us"]))
      best = entry;
  }
  for (std::string &text : bestOf(row, best))
    line.push_back(std::move(text));
  line.push_back(policy["schedule"]);
  for (const Figure &column : rowFigures)
    line.push_back(
        figure(column.isOfPolicy ? policy : row, column.key, column.digits));
  return line;
}

//===----------------------------------------------------------------------===//
// Serving
//===----------------------------------------------------------------------===//

/// Those that a step can be served with always.
static std::vector<std::string> servedSchedules() {
  std::vector<std::string> names;
  for (CudaSchedule schedule : allSchedules())
    if (!schedule.isStaged)
      names.push_back(nameOf(schedule));
  return names;
}

static Table servingTable() {
  std::vector<std::string> head = {"us a step"};
  for (const Figure &column : servingFigures)
    head.emplace_back(column.head);
  head.emplace_back("policy");
  for (std::string &name : servedSchedules())
    head.push_back(std::move(name));
  head.emplace_back("max error");
  return Table(std::move(head));
}

static std::vector<std::string> servingLine(const json &entry) {
  std::vector<std::string> line = {entry["name"]};
  for (const Figure &column : servingFigures)
    line.push_back(figure(entry, column.key, column.digits));
  line.push_back(entry["policy"]);
  for (const std::string &name : servedSchedules())
    line.push_back(figure(entry["always_us"], name.c_str(), 1));
  line.push_back(figure(entry, "error_max", scientific));
  return line;
}

//===----------------------------------------------------------------------===//
// AttentionReport
//===----------------------------------------------------------------------===//

void AttentionReport::printTables(const AttentionBench &bench) const {
  const AttentionInfo &m = bench.lab.info();
  std::printf("%s on %s: %d query heads, %d KV heads, head_dim %d, pages of "
              "%d, %s pool, floor at %g GB/s\n",
              bench.lab.package().path().c_str(),
              bench.lab.device()->info().name.c_str(), m.heads, m.kvHeads,
              m.headDim, m.pageTokens, nameOf(bench.plan.pages),
              bench.options.bandwidth);
  Table launches = rowTable();
  for (const json &row : rows)
    for (const json &policy : row["policies"])
      launches.add(rowLine(row, policy));
  launches.print();
  if (!rows.empty() && !serving.empty())
    std::printf("\n");
  Table steps = servingTable();
  for (const json &entry : serving)
    steps.add(servingLine(entry));
  steps.print();
}

static json kernelList(const Manifest &manifest) {
  json kernels = json::array();
  for (const KernelInfo &kernel : manifest.kernels)
    kernels.push_back({{"role", kvrm_kernel_role_name(kernel.role)},
                       {"threads", kernel.threads},
                       {"shared_bytes", kernel.sharedBytes},
                       {"blocks_per_sm", kernel.blocksPerSm}});
  return kernels;
}

void AttentionReport::printJson(const AttentionBench &bench) const {
  const CudaDevice &device = *bench.lab.device();
  const Package &package = bench.lab.package();
  json out = {{"device", device.info().name},
              {"multiprocessors", device.info().multiprocessors},
              {"driver", device.driver().version()},
              {"kernels", package.path()},
              {"kernel_list", kernelList(package.manifest())},
              {"arch", package.manifest().arch},
              {"element", kvrm_element_name(bench.lab.info().element)},
              {"bandwidth_gb_per_s", bench.options.bandwidth},
              {"calibrated", bench.calibration != nullptr},
              {"seed", bench.options.seed},
              {"pages", nameOf(bench.plan.pages)},
              {"rows", rows},
              {"serving", serving}};
  std::cout << out.dump(1) << "\n";
  std::cout.flush();
}
