//===- Commands.cpp - Options that commands share ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include "kvrm/runtime/serving/Engine.h"

#include <CLI/CLI.hpp>
#include <charconv>

using namespace kvrm;

void run::addPackageOptions(CLI::App &command, CommonOptions &common) {
  // Required, but for `bench attention` and the like, which have their own.
  command.add_option("package", common.package, "Package folder");
  command.add_flag("--json", common.isJson, "Print one JSON object");
}

void run::addSessionOptions(CLI::App &command, CommonOptions &common) {
  command.add_flag("-v,--verbose", common.isVerbose,
                   "Tell rates on standard error");
  command.add_option("--threads", common.session.threads,
                     "Worker threads, 0 = one a CPU");
  command.add_option("--shares", common.session.shares,
                     "Shares of the work queue, 0 = one a thread");
  command.add_option("--pool-pages", common.session.poolPages,
                     "Pages of the KV pool, 0 = enough for all slots");
  command.add_option("--device", common.session.device,
                     "GPU that a package for GPUs runs on (0); the first of "
                     "several, if it is for several");
  command.add_flag_function(
      "--no-mailboxes",
      [&common](int64_t) { common.session.usesMailboxes = false; },
      "GPUs that run a package together add up by NCCL alone");
  command.add_option_function<uint32_t>(
      "--rank-timeout",
      [&common](uint32_t seconds) {
        common.session.rankTimeout = std::chrono::seconds(seconds);
      },
      "Seconds after which GPUs that run a package together are given up "
      "(30)");
  command.add_option("--calibration", common.session.calibration,
                     "Constants of that GPU to choose schedules by, from "
                     "kvrm-run calibrate");
}

void run::addEngineOptions(CLI::App &command, EngineConfig &engine,
                           SessionConfig &session) {
  command.add_option("--queue-limit", engine.queueLimit,
                     "Requests that may wait; more are refused (256)");
  command.add_flag("--share-prefixes", engine.sharesPrefixes,
                   "Equal prompt prefixes share pages of a paged package");
  command.add_option("--kept-histories", session.keptHistories,
                     "Finished histories kept to be shared from");
  command.add_option("--parking-places", session.parkingPlaces,
                     "Preempted histories that may be in host memory");
  command.add_option("--parking-pages", session.parkingPages,
                     "Pages that they have there, 0 = enough");
}

Status run::checkPackage(const CommonOptions &common) {
  return common.package.empty()
             ? invalidArgument("package is required (see kvrm-run --help)")
             : Status::ok();
}

void run::setRepeatable(CLI::Option &option) {
  option.expected(1)->allow_extra_args(false)->take_all();
}

void run::addSeedOption(CLI::App &command, const std::string &name,
                        uint64_t &seed, const std::string &help) {
  command.add_option_function<std::string>(
      name,
      [&seed, name](const std::string &text) {
        const char *end = text.data() + text.size();
        auto [stop, error] = std::from_chars(text.data(), end, seed);
        if (error != std::errc() || stop != end)
          throw CLI::ValidationError(name, "'" + text +
                                               "' is not a number in 0.." +
                                               std::to_string(UINT64_MAX));
      },
      help);
}

Expected<std::vector<int32_t>> run::parseIds(const std::string &text) {
  std::vector<int32_t> ids;
  const char *at = text.data();
  const char *end = at + text.size();
  while (true) {
    while (at < end && *at == ' ')
      ++at;
    int32_t id = 0;
    auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc())
      return invalidArgument("--token-ids: '", text,
                             "' is not a list of ids such as 1,2,3");
    ids.push_back(id);
    at = next;
    while (at < end && *at == ' ')
      ++at;
    if (at == end)
      return ids;
    if (*at++ != ',')
      return invalidArgument("--token-ids: '", text,
                             "' is not a list of ids such as 1,2,3");
  }
}
