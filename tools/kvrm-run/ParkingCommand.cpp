//===- ParkingCommand.cpp - kvrm-run bench parking ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "kvrm/runtime/session/Session.h"
#include "measure/ParkingBench.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

using namespace kvrm;
using namespace kvrm::run;
using measure::ParkingMeasurement;
using nlohmann::json;

namespace {

struct Arguments {
  CommonOptions common;
  std::vector<int32_t> groups{1, 2, 4, 8, 16, 32, 64};
  int32_t pages = 256;
  int32_t rounds = 20;
};

} // namespace

static void printRow(const ParkingMeasurement &row) {
  std::printf("%8d %10.1f %10.2f %10.2f\n", row.groupPages,
              static_cast<double>(row.bytes) / (1 << 20), row.parkRate(),
              row.unparkRate());
  std::fflush(stdout);
}

static void printHead(const Arguments &arguments, const BackendInfo &info) {
  std::printf("%s: pages of %.1f KiB, median of %d rounds\n%8s %10s %10s "
              "%10s\n",
              arguments.common.package.c_str(),
              static_cast<double>(info.pageBytes) / (1 << 10), arguments.rounds,
              "group", "MiB", "out GB/s", "in GB/s");
}

static json rowJson(const ParkingMeasurement &row) {
  return {{"group_pages", row.groupPages},
          {"bytes", row.bytes},
          {"park_gb_per_s", row.parkRate()},
          {"unpark_gb_per_s", row.unparkRate()}};
}

static Status benchParking(Arguments arguments) {
  CommonOptions &common = arguments.common;
  KVRM_TRY(checkPackage(common));
  KVRM_TRY(checkRange("--rounds", arguments.rounds, 1, 1000000));
  KVRM_TRY(checkRange("--pages", arguments.pages, 1, KVRM_MAX_POOL_PAGES / 2));
  // All pages as one group too: what there is to reach.
  arguments.groups.push_back(arguments.pages);
  for (int32_t group : arguments.groups)
    KVRM_TRY(checkRange("--groups", group, 1, arguments.pages));
  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  common.session.parkingPlaces = 1;
  common.session.parkingPages = arguments.pages;
  // Groups of one page take two each.
  common.session.poolPages = 2 * int64_t(arguments.pages);
  Expected<std::unique_ptr<Session>> session =
      createSession(*package, common.session);
  KVRM_TRY(session.status());
  Backend &backend = (*session)->backend();
  if (!common.isJson)
    printHead(arguments, backend.info());
  json rows = json::array();
  for (int32_t group : arguments.groups) {
    Expected<ParkingMeasurement> row =
        measure::measureParking(backend, group, arguments.rounds);
    KVRM_TRY(row.status());
    if (common.isJson)
      rows.push_back(rowJson(*row));
    else
      printRow(*row);
  }
  if (common.isJson)
    std::cout << json{{"package", common.package},
                      {"page_bytes", backend.info().pageBytes},
                      {"rounds", arguments.rounds},
                      {"results", rows}}
                     .dump(2)
              << "\n"
              << std::flush;
  return Status::ok();
}

Command run::addParkingBench(CLI::App &bench) {
  CLI::App *command = bench.add_subcommand(
      "parking", "Time pages to host memory and back, by transfer group");
  auto arguments = std::make_shared<Arguments>();
  addPackageOptions(*command, arguments->common);
  addSessionOptions(*command, arguments->common);
  command
      ->add_option("--groups", arguments->groups,
                   "Adjacent pages that move in one piece, e.g. 1,8,64")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--pages", arguments->pages, "Pages that move at a time");
  command->add_option("--rounds", arguments->rounds, "Timed rounds");
  return {command, [arguments] { return benchParking(*arguments); }};
}
