//===- Commands.h - The commands of kvrm-run --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_COMMANDS_H
#define KVRM_TOOLS_RUN_COMMANDS_H

#include "kvrm/runtime/session/CreateDecoder.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
} // namespace CLI

namespace kvrm {
struct EngineConfig;
} // namespace kvrm

namespace kvrm::run {

//===----------------------------------------------------------------------===//
// Subcommands
//===----------------------------------------------------------------------===//

/// A subcommand: once its options are parsed, `run` does it.
struct Command {
  CLI::App *app;
  std::function<Status()> run;
};

Command addGenerate(CLI::App &app);
Command addInspect(CLI::App &app);
/// With `bench attention` and `bench parking` in it.
Command addBench(CLI::App &app);
Command addAttentionBench(CLI::App &bench);
Command addParkingBench(CLI::App &bench);
Command addCalibrate(CLI::App &app);
Command addScore(CLI::App &app);
Command addReplay(CLI::App &app);
/// In builds with Boost.
Command addServe(CLI::App &app);

//===----------------------------------------------------------------------===//
// Options that commands share
//===----------------------------------------------------------------------===//

struct CommonOptions {
  std::string package;
  SessionConfig session;
  bool isJson = false;
  bool isVerbose = false;
};

void addPackageOptions(CLI::App &command, CommonOptions &common);
/// Of commands that run a model.
void addSessionOptions(CLI::App &command, CommonOptions &common);
/// Of commands that run an engine.
void addEngineOptions(CLI::App &command, EngineConfig &engine,
                      SessionConfig &session);
/// Whether a package was given. Errors: InvalidArgument.
Status checkPackage(const CommonOptions &common);

/// Makes an option that may be there several times take one value each time, so
/// that a value may look like anything.
void setRepeatable(CLI::Option &option);

/// Adds an option for a seed: a number below 2^64, and nothing that only looks
/// like one after it was cut.
void addSeedOption(CLI::App &command, const std::string &name, uint64_t &seed,
                   const std::string &help);

/// Parses "1,2,3", the value of --token-ids.
Expected<std::vector<int32_t>> parseIds(const std::string &text);

//===----------------------------------------------------------------------===//
// Attention on a GPU
//===----------------------------------------------------------------------===//

/// What `bench attention` takes.
struct AttentionBenchOptions {
  std::string kernels;                  ///< folder of a kernel set
  std::vector<std::string> rows{"all"}; ///< see parseRows()
  std::string pdl = "both";
  std::string schedules = "all";
  std::string calibration; ///< file; empty = the work queue always
  std::string pages = "scattered";
  std::vector<uint64_t> seeds{2, 3, 4, 5, 6}; ///< of serving
  uint64_t seed = 2;                          ///< of the rows
  double bandwidth = 3028;                    ///< of memory, in GB/s
  int32_t replays = 30;
  int32_t steps = 100;
  int32_t itemCost = -1; ///< of the planner; -1 = the backend's
  bool isServing = false;
  bool isStaged = false;
  bool isJson = false;
  bool isVerbose = false;
};

struct CalibrateOptions {
  std::string kernels;   ///< folder of a kernel set
  std::string output;    ///< file to write
  int32_t itemCost = -1; ///< of the planner; -1 = the backend's
  bool isVerbose = false;
};

Status benchAttention(const AttentionBenchOptions &options);
Status calibrate(const CalibrateOptions &options);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_COMMANDS_H
