//===- StepProgram.h - A step of a GPU, read and checked --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The table of abi/program.h in memory. Nothing of it is believed: parse()
// checks its form, verify() that every command runs a kernel that there is with
// the arguments it takes, and that every address lies in the memory it names.
// An error names the file, the command and the limit in one line:
//
//   decode.program: command 3: argument 8: layer 2 is outside 0..1
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PROGRAM_STEPPROGRAM_H
#define KVRM_RUNTIME_PROGRAM_STEPPROGRAM_H

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// What a program may reach.
struct ProgramBounds {
  std::span<const kvrm_kernel_role> kernels; ///< the manifest's, in order
  int32_t layers = 0;                        ///< of the pool
  int32_t tensors = 0; ///< inputs and outputs of the entry
  int64_t arenaBytes = 0;
  int64_t weightBytes = 0;
  /// Whether it is of a decoder, which takes tokens and writes logits.
  bool hasLogits = false;
  int64_t logitBytes = 0; ///< of all rows, if it is
  /// Rows of each batch; may be left out where there is one.
  // Set, so that initializers may leave it out.
  // NOLINTNEXTLINE(readability-redundant-member-init)
  std::span<const int32_t> batchRows = {};
  int32_t ranks = 1; ///< that run it together

  size_t batches() const { return batchRows.empty() ? 1 : batchRows.size(); }
};

class StepProgram {
public:
  StepProgram() = default;
  /// A program from its parts: `args` has those of the commands one after
  /// another, as the commands say.
  StepProgram(std::vector<kvrm_program_command> commands,
              std::vector<kvrm_program_arg> args, uint32_t tensors,
              uint32_t layers, uint32_t batches = 1, uint32_t ranks = 1);

  /// Reads the bytes of a file; `where` names it in errors. Errors: Corrupt,
  /// Incompatible for another ABI version.
  static Expected<StepProgram> parse(std::string_view bytes,
                                     std::string_view where);

  /// Errors: Corrupt.
  Status verify(const ProgramBounds &bounds, std::string_view where) const;

  std::span<const kvrm_program_command> commands() const { return table; }
  std::span<const kvrm_program_arg>
  args(const kvrm_program_command &command) const {
    return std::span(arguments).subspan(command.first_arg, command.args);
  }
  bool hasProducts() const;
  int32_t tensors() const { return static_cast<int32_t>(header.tensors); }
  int32_t layers() const { return static_cast<int32_t>(header.layers); }
  int32_t batches() const { return static_cast<int32_t>(header.batches); }
  int32_t ranks() const { return static_cast<int32_t>(header.ranks); }
  /// Bytes that a mailbox of the ranks has to hold: those of the longest sum
  /// that a kernel stands in for.
  int64_t mailboxBytes() const;
  /// The batch that a command is for, whose rows and shares its grid counts:
  /// that of the first argument that has one.
  size_t batchOf(const kvrm_program_command &command) const;
  /// kvrm_program_schedule bits of the schedules that it can be run in: those
  /// that have an attention kernel, or all if no command attends.
  int32_t schedules(std::span<const kvrm_kernel_role> kernels) const;

  /// The bytes that parse() reads.
  std::string serialize() const;
  /// A line a command. Dense kernels go by their symbols, where those are
  /// given.
  std::string print(std::span<const kvrm_kernel_role> kernels,
                    std::span<const std::string> symbols = {}) const;

private:
  Status verifyStandIns(const ProgramBounds &bounds,
                        std::string_view where) const;
  Status verifyFused(size_t sum, const ProgramBounds &bounds,
                     std::string_view where) const;
  Status verifyMailboxes(std::string_view where) const;
  Status verifyAttention(const ProgramBounds &bounds,
                         std::string_view where) const;
  Status verifyLogits(const ProgramBounds &bounds,
                      std::string_view where) const;

  kvrm_program_header header{};
  std::vector<kvrm_program_command> table;
  std::vector<kvrm_program_arg> arguments;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_PROGRAM_STEPPROGRAM_H
