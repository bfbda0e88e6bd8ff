//===- ProgramFuzzer.cpp - Step programs ----------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A program is refused in one line, or comes back byte for byte, can be printed
// and reaches no address outside the memory that it names.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/abi/version.h"
#include "kvrm/runtime/program/StepProgram.h"

#include <array>
#include <cstddef>

using namespace kvrm;

static void checkReach(const kvrm_program_arg &arg,
                       const ProgramBounds &bounds) {
  auto lies = [&](int64_t size) {
    return arg.offset >= 0 && arg.bytes >= 0 && arg.offset <= size &&
           arg.bytes <= size - arg.offset;
  };
  switch (arg.base) {
  case KVRM_BASE_ARENA:
    return fuzz::check(lies(bounds.arenaBytes), "arena");
  case KVRM_BASE_WEIGHTS:
    return fuzz::check(lies(bounds.weightBytes), "weights");
  case KVRM_BASE_TENSOR:
    return fuzz::check(arg.index < bounds.tensors, "tensor");
  case KVRM_BASE_K_POOL:
  case KVRM_BASE_V_POOL:
    return fuzz::check(arg.index < bounds.layers, "layer");
  case KVRM_BASE_TOKENS:
  case KVRM_BASE_LOGITS:
  case KVRM_BASE_SAMPLING:
  case KVRM_BASE_NEXT:
    return fuzz::check(bounds.hasLogits, "tokens and logits");
  default:
    return;
  }
}

/// Of the decoder that programs are taken for.
static constexpr int64_t logitBytes = 96;

/// What a library takes is as large as the product says.
static void checkProduct(const kvrm_program_command &command,
                         std::span<const kvrm_program_arg> args) {
  int64_t rows = command.grid[0], columns = command.grid[1];
  int64_t depth = command.grid[2];
  fuzz::check(args[1].bytes == 2 * rows * depth, "in");
  fuzz::check(args[2].bytes == 2 * columns * depth, "weight");
  int64_t outBytes =
      args[0].base == KVRM_BASE_LOGITS ? logitBytes : args[0].bytes;
  fuzz::check(outBytes >= 2 * rows * columns, "out");
  if (args.size() == 4)
    fuzz::check(outBytes == args[3].bytes, "addend");
}

/// What ranks hand each other is what a rank has room for.
static void checkCollective(const kvrm_program_command &command,
                            std::span<const kvrm_program_arg> args,
                            int64_t ranks) {
  int64_t bytes = command.grid[0] *
                  kvrm_collective_bytes(
                      static_cast<kvrm_collective_type>(command.grid_rule));
  fuzz::check(args[1].bytes == bytes, "in");
  if (command.kind == KVRM_COMMAND_ALL_GATHER)
    bytes *= ranks;
  int64_t outBytes =
      args[0].base == KVRM_BASE_LOGITS ? logitBytes : args[0].bytes;
  fuzz::check(outBytes == bytes, "out");
}

static bool namesLogits(const StepProgram &program) {
  for (const kvrm_program_command &command : program.commands())
    for (const kvrm_program_arg &arg : program.args(command))
      if (arg.base == KVRM_BASE_LOGITS)
        return true;
  return false;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string bytes(fuzz::textOf(data, size));
  // So that a seed outlives the number of this ABI.
  const uint32_t version = KVRM_ABI_VERSION;
  if (bytes.size() >= sizeof(kvrm_program_header))
    std::memcpy(bytes.data() + offsetof(kvrm_program_header, abi_version),
                &version, sizeof(version));
  Expected<StepProgram> program = StepProgram::parse(bytes, "P");
  if (!program) {
    fuzz::checkFailure(program.status());
    return 0;
  }
  fuzz::check(program->serialize() == bytes, "bytes come back");
  std::array<kvrm_kernel_role, KVRM_KERNEL_ROLES> roles{};
  for (int role = 0; role < KVRM_KERNEL_ROLES; ++role)
    roles[static_cast<size_t>(role)] = static_cast<kvrm_kernel_role>(role);
  // The tensors and layers that it says, so that most get past that. Those that
  // name logits are taken for a decoder's.
  ProgramBounds bounds{.kernels = roles,
                       .layers = program->layers(),
                       .tensors = program->tensors(),
                       .arenaBytes = 4096,
                       .weightBytes = 1024,
                       .hasLogits = namesLogits(*program),
                       .logitBytes = logitBytes,
                       .ranks = program->ranks()};
  Status status = program->verify(bounds, "P");
  if (!status.isOk()) {
    fuzz::checkFailure(status);
    return 0;
  }
  for (const kvrm_program_command &command : program->commands()) {
    if (command.kind == KVRM_COMMAND_PRODUCT)
      checkProduct(command, program->args(command));
    if (kvrm_command_is_collective(command.kind))
      checkCollective(command, program->args(command), program->ranks());
    for (const kvrm_program_arg &arg : program->args(command))
      checkReach(arg, bounds);
  }
  fuzz::check(!program->print(roles).empty(), "it can be printed");
  return 0;
}
