//===- ToyProgram.h - Step programs for tests -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Attention alone: commit, then append and attend a layer, over four tensors
// (queries, new keys, new values, outputs). Kernels are named by their role.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYPROGRAM_H
#define KVRM_TEST_TOYPROGRAM_H

#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/program/StepProgram.h"

#include <array>
#include <vector>

namespace toy {

/// The roles of a kernel set, in the order of its manifest.
inline std::vector<kvrm_kernel_role> kernelRoles(bool isStaged) {
  std::vector<kvrm_kernel_role> roles;
  for (int role = 0; role < (isStaged ? KVRM_ROLE_DENSE : KVRM_ROLE_STAGE);
       ++role)
    roles.push_back(static_cast<kvrm_kernel_role>(role));
  return roles;
}

struct ProgramParts {
  std::vector<kvrm_program_command> commands;
  std::vector<kvrm_program_arg> args;
  uint32_t layers = 0;
  uint32_t tensors = 4;
  uint32_t batches = 1;
  uint32_t ranks = 1;

  /// Adds a command, whose `arguments` follow.
  void begin(uint32_t kernel, uint16_t schedules, kvrm_grid_rule rule,
             std::array<uint32_t, 3> grid, size_t arguments,
             bool isProgrammatic) {
    kvrm_program_command command{};
    command.kind = KVRM_COMMAND_KERNEL;
    command.flags = isProgrammatic ? KVRM_COMMAND_PROGRAMMATIC : 0;
    command.schedules = schedules;
    command.grid_rule = static_cast<uint16_t>(rule);
    command.kernel = kernel;
    std::copy(grid.begin(), grid.end(), command.grid);
    command.first_arg = static_cast<uint32_t>(args.size());
    command.args = static_cast<uint32_t>(arguments);
    commands.push_back(command);
  }
  /// Adds the kernel of a role, which is its index too.
  void add(kvrm_kernel_role role, uint16_t schedules, kvrm_grid_rule rule,
           std::array<uint32_t, 3> grid, int layer, bool isProgrammatic) {
    begin(role, schedules, rule, grid, KVRM_DEVICE_ARGS, isProgrammatic);
    for (size_t field = 0; field < KVRM_DEVICE_ARGS; ++field) {
      kvrm_program_arg arg{};
      arg.base = static_cast<uint16_t>(
          kvrm_device_arg_base(static_cast<int32_t>(field)));
      if (arg.base == KVRM_BASE_K_POOL || arg.base == KVRM_BASE_V_POOL)
        arg.index = static_cast<uint16_t>(layer);
      // Of q, out, k and v: inputs are numbered first, then the output.
      constexpr std::array<uint16_t, 4> tensors = {0, 3, 1, 2};
      if (arg.base == KVRM_BASE_TENSOR)
        arg.index =
            tensors[field - offsetof(kvrm_device_args, q) / sizeof(uint64_t)];
      args.push_back(arg);
    }
  }
  /// Adds a kernel that is no attention's, with any arguments.
  void addDense(uint32_t kernel, kvrm_grid_rule rule,
                std::array<uint32_t, 3> grid,
                const std::vector<kvrm_program_arg> &given,
                bool isProgrammatic = false) {
    begin(kernel, KVRM_RUN_ALL, rule, grid, given.size(), isProgrammatic);
    args.insert(args.end(), given.begin(), given.end());
  }
  /// Adds a product, for which as many commands stand in as it is said.
  /// `given` is out, in, weight and perhaps the addend.
  void addProduct(kvrm_product_type type, std::array<uint32_t, 3> sizes,
                  const std::vector<kvrm_program_arg> &given,
                  uint32_t standIns = 1) {
    kvrm_program_command command{};
    command.kind = KVRM_COMMAND_PRODUCT;
    command.schedules = KVRM_RUN_ALL;
    command.grid_rule = static_cast<uint16_t>(type);
    command.kernel = standIns;
    std::copy(sizes.begin(), sizes.end(), command.grid);
    command.first_arg = static_cast<uint32_t>(args.size());
    command.args = static_cast<uint32_t>(given.size());
    commands.push_back(command);
    args.insert(args.end(), given.begin(), given.end());
  }
  /// Adds a collective of so many floats.
  void addCollective(kvrm_command_kind kind, uint32_t elements,
                     const kvrm_program_arg &out, const kvrm_program_arg &in) {
    kvrm_program_command command{};
    command.kind = static_cast<uint16_t>(kind);
    command.schedules = KVRM_RUN_ALL;
    command.grid_rule = KVRM_COLLECTIVE_F32;
    command.grid[0] = elements;
    command.first_arg = static_cast<uint32_t>(args.size());
    command.args = 2;
    commands.push_back(command);
    args.insert(args.end(), {out, in});
  }
  kvrm::StepProgram build() const {
    return kvrm::StepProgram(commands, args, tensors, layers, batches, ranks);
  }
};

struct AttentionShape {
  int layers = 2;
  int queries = 1;
  int outputs = 2; ///< of a row: KV heads times query tiles
  bool isStaged = false;
};

inline ProgramParts attentionParts(const AttentionShape &shape) {
  ProgramParts parts;
  parts.layers = static_cast<uint32_t>(shape.layers);
  auto queries = static_cast<uint32_t>(shape.queries);
  auto outputs = static_cast<uint32_t>(shape.outputs);
  parts.add(KVRM_ROLE_COMMIT, KVRM_RUN_ALL, KVRM_GRID_FIXED, {4, 1, 1}, 0,
            false);
  for (int layer = 0; layer < shape.layers; ++layer) {
    parts.add(KVRM_ROLE_APPEND, KVRM_RUN_ALL, KVRM_GRID_ROWS, {1, queries, 1},
              layer, layer > 0);
    parts.add(KVRM_ROLE_ATTEND_WORKQUEUE, KVRM_RUN_WORKQUEUE, KVRM_GRID_SHARES,
              {1, 1, 1}, layer, true);
    parts.add(KVRM_ROLE_ATTEND_CLUSTER, KVRM_RUN_CLUSTER, KVRM_GRID_CLUSTERS,
              {outputs, 1, 1}, layer, true);
    if (!shape.isStaged)
      continue;
    parts.add(KVRM_ROLE_STAGE, KVRM_RUN_STAGED, KVRM_GRID_SHARES, {1, 1, 1},
              layer, false);
    parts.add(KVRM_ROLE_ATTEND_STAGED, KVRM_RUN_STAGED, KVRM_GRID_SHARES,
              {1, 1, 1}, layer, false);
  }
  return parts;
}

} // namespace toy

#endif // KVRM_TEST_TOYPROGRAM_H
