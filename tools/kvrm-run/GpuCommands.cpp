//===- GpuCommands.cpp - Command lines of attention on a GPU ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include <CLI/CLI.hpp>
#include <memory>

using namespace kvrm;
using namespace kvrm::run;

Command run::addAttentionBench(CLI::App &bench) {
  CLI::App *command =
      bench.add_subcommand("attention", "Time attention kernels on a GPU");
  auto options = std::make_shared<AttentionBenchOptions>();
  command->add_option("kernels", options->kernels, "Kernel set, a folder")
      ->required();
  setRepeatable(*command->add_option(
      "--rows", options->rows,
      "all, none, names as B1x2048,zipf-B8, or rows of your own as "
      "'mine=70001,17*8;ragged=1..4000*128@3'; repeat for more"));
  command->add_option("--pdl", options->pdl,
                      "Programmatic dependent launch: on, off, both");
  command->add_option("--schedules", options->schedules,
                      "all, or e.g. workqueue,cluster8");
  command->add_option("--calibration", options->calibration,
                      "What `calibrate` wrote, for the policy");
  command->add_option("--pages", options->pages,
                      "State of the pool: fresh, holes, scattered");
  addSeedOption(*command, "--seed", options->seed, "Seed of the rows");
  command->add_option("--seeds", options->seeds, "Seeds of --serving, e.g. 2,3")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--bandwidth", options->bandwidth,
                      "Of the device's memory, in GB/s");
  command->add_option("--replays", options->replays,
                      "Replays that a time is the median of");
  command->add_option("--item-cost", options->itemCost,
                      "Of a work item, in 16ths of a tile");
  command->add_flag("--serving", options->isServing, "Time whole steps too");
  command->add_option("--steps", options->steps, "Steps of each serving");
  command->add_flag("--staged", options->isStaged,
                    "Time the staged schedule too");
  command->add_flag("--json", options->isJson, "Print one JSON object");
  command->add_flag("-v,--verbose", options->isVerbose,
                    "Tell what is measured on standard error");
  return {command, [options] { return benchAttention(*options); }};
}

Command run::addCalibrate(CLI::App &app) {
  CLI::App *command = app.add_subcommand(
      "calibrate", "Measure what the choice of a schedule needs on a GPU");
  auto options = std::make_shared<CalibrateOptions>();
  command->add_option("kernels", options->kernels, "Kernel set, a folder")
      ->required();
  command->add_option("--item-cost", options->itemCost,
                      "Of a work item, in 16ths of a tile");
  command->add_option("-o,--output", options->output, "File to write");
  command->add_flag("-v,--verbose", options->isVerbose,
                    "Tell what is measured on standard error");
  return {command, [options] { return calibrate(*options); }};
}
