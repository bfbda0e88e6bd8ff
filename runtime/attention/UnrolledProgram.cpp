//===- UnrolledProgram.cpp - One layer of attention, repeated -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "UnrolledProgram.h"

#include "kvrm/runtime/abi/device.h"

#include <algorithm>

using namespace kvrm;

/// The layer whose pool a kernel takes.
static int32_t layerOf(const StepProgram &program,
                       const kvrm_program_command &command) {
  constexpr size_t k = offsetof(kvrm_device_args, k_pool) / sizeof(uint64_t);
  return program.args(command)[k].index;
}

namespace {

class Unroller {
public:
  Unroller(const StepProgram &program, const Manifest &manifest,
           const Unrolling &unrolling)
      : program(program), manifest(manifest), unrolling(unrolling) {}

  StepProgram run() {
    std::span<const kvrm_program_command> all = program.commands();
    overlaps = std::ranges::any_of(all, [](const auto &command) {
      return (command.flags & KVRM_COMMAND_PROGRAMMATIC) != 0;
    });
    add(all[0], 0);
    for (int32_t layer = 0; layer < unrolling.layers; ++layer)
      for (const kvrm_program_command &command : all.subspan(1))
        if (isWanted(command))
          add(command, layer);
    uint32_t sets = unrolling.hasLayerTensors ? unrolling.layers : 1;
    return {std::move(commands), std::move(args),
            static_cast<uint32_t>(program.tensors()) * sets,
            static_cast<uint32_t>(unrolling.layers)};
  }

private:
  kvrm_kernel_role roleOf(const kvrm_program_command &command) const {
    return manifest.kernels[command.kernel].role;
  }
  bool isWanted(const kvrm_program_command &command) const {
    return layerOf(program, command) == 0 &&
           (unrolling.appends || roleOf(command) != KVRM_ROLE_APPEND);
  }
  void add(kvrm_program_command command, int32_t layer) {
    for (kvrm_program_arg arg : program.args(command)) {
      if (arg.base == KVRM_BASE_K_POOL || arg.base == KVRM_BASE_V_POOL)
        arg.index = static_cast<uint16_t>(layer);
      if (arg.base == KVRM_BASE_TENSOR && unrolling.hasLayerTensors)
        arg.index += static_cast<uint16_t>(layer * program.tensors());
      args.push_back(arg);
    }
    command.first_arg = static_cast<uint32_t>(args.size()) - command.args;
    // What follows the commit waits for it; what follows attention need not.
    if (commands.size() <= 1)
      command.flags = 0;
    else if (roleOf(command) == KVRM_ROLE_APPEND && overlaps)
      command.flags = KVRM_COMMAND_PROGRAMMATIC;
    commands.push_back(command);
  }

  const StepProgram &program;
  const Manifest &manifest;
  const Unrolling &unrolling;
  bool overlaps = false;
  std::vector<kvrm_program_command> commands;
  std::vector<kvrm_program_arg> args;
};

} // namespace

Expected<StepProgram> kvrm::unrollProgram(const Package &package,
                                          const Unrolling &unrolling) {
  const StepProgram &program = package.decodeProgram();
  if (package.manifest().vocabulary > 0 || program.tensors() != 4)
    return invalidArgument("attention: ", package.path(),
                           " is not of `kvrmc attention`");
  for (const kvrm_program_command &command : program.commands())
    if (command.kind != KVRM_COMMAND_KERNEL ||
        package.manifest().kernels[command.kernel].role == KVRM_ROLE_DENSE)
      return invalidArgument("attention: ", package.path(),
                             " does more than attend");
  return Unroller(program, package.manifest(), unrolling).run();
}

std::vector<std::array<int64_t, KVRM_KERNEL_ROLES>>
kvrm::commandsByLayer(const StepProgram &program, const Manifest &manifest) {
  std::array<int64_t, KVRM_KERNEL_ROLES> none{};
  none.fill(-1);
  std::vector<std::array<int64_t, KVRM_KERNEL_ROLES>> found(
      static_cast<size_t>(program.layers()), none);
  for (size_t i = 0; i < program.commands().size(); ++i) {
    const kvrm_program_command &command = program.commands()[i];
    auto layer = static_cast<size_t>(layerOf(program, command));
    found[layer][manifest.kernels[command.kernel].role] =
        static_cast<int64_t>(i);
  }
  return found;
}
