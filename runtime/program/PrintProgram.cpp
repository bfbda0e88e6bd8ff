//===- PrintProgram.cpp - A step of a GPU, printed ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/program/StepProgram.h"

#include <array>
#include <cstdio>
#include <utility>

using namespace kvrm;

static std::string gridText(const kvrm_program_command &command) {
  std::string text;
  switch (command.grid_rule) {
  case KVRM_GRID_ROWS:
    text = "rows x " + std::to_string(command.grid[0]);
    break;
  case KVRM_GRID_SHARES:
    text = "shares";
    break;
  case KVRM_GRID_CLUSTERS:
    text = "rows x " + std::to_string(command.grid[0]) + " clusters";
    break;
  case KVRM_GRID_PROCESSORS:
    text = "processors x " + std::to_string(command.grid[0]);
    break;
  default:
    text = std::to_string(command.grid[0]);
  }
  if (command.grid[1] != 1 || command.grid[2] != 1)
    text += ", " + std::to_string(command.grid[1]) + ", " +
            std::to_string(command.grid[2]);
  return text;
}

/// "512 x 960 x 576": M, N and K. One command stands in unless it says more.
static std::string productText(const kvrm_program_command &product) {
  std::string text = std::to_string(product.grid[0]) + " x " +
                     std::to_string(product.grid[1]) + " x " +
                     std::to_string(product.grid[2]);
  if (product.kernel > 1)
    text += ", else " + std::to_string(product.kernel);
  return text;
}

/// "32768 f32"
static std::string collectiveText(const kvrm_program_command &collective) {
  constexpr std::array<const char *, KVRM_COLLECTIVE_TYPES> names = {
      "f32", "f16", "bf16"};
  return std::to_string(collective.grid[0]) + " " +
         names[collective.grid_rule] + (collective.kernel ? ", else 1" : "") +
         (collective.grid[1] ? " for 2" : "");
}

static std::string sizeText(const kvrm_program_command &command) {
  switch (command.kind) {
  case KVRM_COMMAND_KERNEL:
    return gridText(command);
  case KVRM_COMMAND_PRODUCT:
    return productText(command);
  case KVRM_COMMAND_ALL_REDUCE:
  case KVRM_COMMAND_ALL_GATHER:
    return collectiveText(command);
  default:
    return "";
  }
}

static std::string productName(const kvrm_program_command &product) {
  constexpr std::array<const char *, KVRM_PRODUCT_TYPES> names = {
      "f16", "bf16", "f16 to f32", "bf16 to f32"};
  return std::string(product.args == 4 ? "product+ " : "product ") +
         names[product.grid_rule];
}

static std::string scheduleText(int32_t schedules) {
  if (schedules == KVRM_RUN_ALL)
    return "all";
  std::string text;
  for (auto [bit, name] : {std::pair(KVRM_RUN_WORKQUEUE, "workqueue"),
                           std::pair(KVRM_RUN_CLUSTER, "cluster"),
                           std::pair(KVRM_RUN_STAGED, "staged")})
    if (schedules & bit)
      text += (text.empty() ? "" : "+") + std::string(name);
  return text;
}

std::string StepProgram::print(std::span<const kvrm_kernel_role> kernels,
                               std::span<const std::string> symbols) const {
  auto nameOf = [&](const kvrm_program_command &command) -> std::string {
    if (command.kind == KVRM_COMMAND_COPY)
      return "copy";
    if (command.kind == KVRM_COMMAND_PRODUCT)
      return productName(command);
    if (command.kind == KVRM_COMMAND_ALL_REDUCE)
      return "all_reduce";
    if (command.kind == KVRM_COMMAND_ALL_GATHER)
      return "all_gather";
    bool hasSymbol = kernels[command.kernel] == KVRM_ROLE_DENSE &&
                     command.kernel < symbols.size();
    return hasSymbol ? symbols[command.kernel]
                     : kvrm_kernel_role_name(kernels[command.kernel]);
  };
  std::string text;
  for (size_t i = 0; i < table.size(); ++i) {
    const kvrm_program_command &command = table[i];
    std::string layer;
    for (const kvrm_program_arg &arg : args(command))
      if (arg.base == KVRM_BASE_K_POOL && command.kernel < kernels.size() &&
          kernels[command.kernel] != KVRM_ROLE_COMMIT)
        layer = "  layer " + std::to_string(arg.index);
    if (header.batches > 1 && command.kind == KVRM_COMMAND_KERNEL &&
        kernels[command.kernel] != KVRM_ROLE_DENSE)
      layer += "  batch " + std::to_string(batchOf(command));
    char line[256];
    std::snprintf(line, sizeof(line), "%5zu  %-23.60s %-20s %-18s%s", i,
                  nameOf(command).c_str(), sizeText(command).c_str(),
                  scheduleText(command.schedules).c_str(),
                  command.flags & KVRM_COMMAND_PROGRAMMATIC ? " programmatic"
                                                            : "");
    text += line + layer + "\n";
  }
  return text;
}
