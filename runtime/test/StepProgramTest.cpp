//===- StepProgramTest.cpp - Step programs with one thing wrong each ------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/program/StepProgram.h"
#include "ToyProgram.h"

#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <random>

using namespace kvrm;
using toy::ProgramParts;

namespace {

class StepPrograms : public testing::Test {
protected:
  void SetUp() override {
    parts = toy::attentionParts({.isStaged = true});
    roles = toy::kernelRoles(/*isStaged=*/true);
  }
  ProgramBounds bounds() const {
    return {.kernels = roles,
            .layers = 2,
            .tensors = 4,
            .arenaBytes = 4096,
            .weightBytes = 1024};
  }
  std::string verifyError(const ProgramParts &changed) const {
    return changed.build().verify(bounds(), "P").message();
  }
  static std::string parseError(const std::string &bytes) {
    return StepProgram::parse(bytes, "P").status().message();
  }
  /// A copy of `bytes` bytes within the arena.
  static void addCopy(ProgramParts &parts, int64_t to, int64_t from,
                      int64_t bytes) {
    kvrm_program_command command{};
    command.kind = KVRM_COMMAND_COPY;
    command.schedules = KVRM_RUN_ALL;
    command.first_arg = static_cast<uint32_t>(parts.args.size());
    command.args = 2;
    parts.commands.push_back(command);
    parts.args.push_back({KVRM_BASE_ARENA, 0, 0, to, bytes});
    parts.args.push_back({KVRM_BASE_WEIGHTS, 0, 0, from, bytes});
  }

  ProgramParts parts;
  std::vector<kvrm_kernel_role> roles;
};

} // namespace

TEST_F(StepPrograms, ComeBackAsTheyWere) {
  addCopy(parts, 64, 0, 1024);
  StepProgram program = parts.build();
  std::string bytes = program.serialize();
  EXPECT_EQ(bytes.size(), 32 + 12 * 32 + (11 * KVRM_DEVICE_ARGS + 2) * 24);
  Expected<StepProgram> parsed = StepProgram::parse(bytes, "P");
  ASSERT_TRUE(parsed) << parsed.status().message();
  EXPECT_EQ(parsed->serialize(), bytes);
  EXPECT_EQ(parsed->verify(bounds(), "P").message(), "");
  EXPECT_EQ(parsed->schedules(roles), KVRM_RUN_ALL);
  EXPECT_EQ(parsed->tensors(), 4);
  EXPECT_EQ(parsed->layers(), 2);
}

TEST_F(StepPrograms, SayWhatTheyDo) {
  ProgramParts small = toy::attentionParts({.layers = 1});
  addCopy(small, 0, 0, 16);
  EXPECT_EQ(
      small.build().print(toy::kernelRoles(false)),
      "    0  commit                  4                    all               \n"
      "    1  append                  rows x 1             all                 "
      "layer 0\n"
      "    2  attend_workqueue        shares               workqueue          "
      "programmatic  layer 0\n"
      "    3  attend_cluster          rows x 2 clusters    cluster            "
      "programmatic  layer 0\n"
      "    4  copy                                         all               "
      "\n");
}

TEST_F(StepPrograms, SchedulesAreThoseWithAttention) {
  ProgramParts native = toy::attentionParts({});
  EXPECT_EQ(native.build().schedules(roles),
            KVRM_RUN_WORKQUEUE | KVRM_RUN_CLUSTER);
  native.commands.resize(2);
  native.args.resize(2 * KVRM_DEVICE_ARGS);
  EXPECT_EQ(native.build().schedules(roles), KVRM_RUN_ALL);
}

TEST_F(StepPrograms, BytesAreChecked) {
  std::string good = parts.build().serialize();
  auto changed = [&](size_t at, uint32_t word) {
    std::string bytes = good;
    std::memcpy(bytes.data() + at, &word, sizeof(word));
    return parseError(bytes);
  };
  EXPECT_EQ(parseError(good.substr(0, 31)),
            "P: 31 bytes are fewer than a header's 32");
  EXPECT_EQ(changed(0, 1), "P: is not a program");
  EXPECT_EQ(changed(4, 1), "P: abi_version: 1 is not this runtime's " +
                               std::to_string(KVRM_ABI_VERSION) +
                               "; compile the model again");
  EXPECT_EQ(changed(8, 0), "P: commands: 0 is outside 1..65536");
  EXPECT_EQ(changed(8, 65537), "P: commands: 65537 is outside 1..65536");
  EXPECT_EQ(changed(16, 4097), "P: tensors: 4097 is outside 0..4096");
  EXPECT_EQ(changed(20, 0), "P: layers: 0 is outside 1..1024");
  EXPECT_EQ(changed(24, 0), "P: batches: 0 is outside 1..2");
  EXPECT_EQ(changed(24, 3), "P: batches: 3 is outside 1..2");
  EXPECT_EQ(changed(28, 0), "P: ranks: 0 is outside 1..64");
  EXPECT_EQ(changed(28, 65), "P: ranks: 65 is outside 1..64");
  std::string body = std::to_string(good.size() - 32);
  EXPECT_EQ(parseError(good + "x"), "P: " + std::to_string(good.size() - 31) +
                                        " bytes after the header are not the " +
                                        body +
                                        " of 11 commands and 209 arguments");
  EXPECT_EQ(changed(12, 0xffffffff),
            "P: " + body + " bytes after the header are not the " +
                std::to_string(11 * 32 + 0xffffffffull * 24) +
                " of 11 commands and 4294967295 arguments");
  // Of the first command: first_arg, args.
  EXPECT_EQ(changed(32 + 24, 1), "P: command 0: its arguments do not follow "
                                 "those of the command before");
  EXPECT_EQ(changed(32 + 28, 65),
            "P: command 0: 65 arguments are outside 0..64");
  EXPECT_EQ(changed(32 + 28, 18), "P: command 1: its arguments do not follow "
                                  "those of the command before");
  std::string last = good;
  uint32_t fewer = KVRM_DEVICE_ARGS - 1;
  std::memcpy(last.data() + 32 + 10 * 32 + 28, &fewer, 4);
  EXPECT_EQ(parseError(last), "P: 1 arguments are of no command");
}

TEST_F(StepPrograms, CommandsAreChecked) {
  struct Broken {
    std::function<void(ProgramParts &)> change;
    const char *message;
  };
  using P = ProgramParts;
  const Broken cases[] = {
      {[](P &p) { p.commands[1].kind = 5; },
       "P: command 1: kind 5 is outside 0..4"},
      {[](P &p) { p.commands[1].flags = 2; },
       "P: command 1: flags 2 is outside 0..1"},
      {[](P &p) { p.commands[1].schedules = 0; },
       "P: command 1: schedules 0 is outside 1..7"},
      {[](P &p) { p.commands[1].schedules = 8; },
       "P: command 1: schedules 8 is outside 1..7"},
      {[](P &p) { p.commands[1].kernel = 6; },
       "P: command 1: kernel 6 is outside 0..5"},
      {[](P &p) { p.commands[0].kernel = 1; },
       "P: command 0: a program starts with a commit for each batch"},
      {[](P &p) { p.commands[1].kernel = 0; },
       "P: command 1: a program starts with a commit for each batch"},
      {[](P &p) { p.commands[0].schedules = 3; },
       "P: command 0: the commit takes part in every schedule"},
      {[](P &p) { p.commands[0].flags = 1; },
       "P: command 0: it starts before the commit has ended"},
      {[](P &p) { p.commands[1].flags = 1; },
       "P: command 1: it starts before the commit has ended"},
      {[](P &p) { p.commands[2].schedules = 2; },
       "P: command 2: schedules 2 are not those of attend_workqueue, 1"},
      {[](P &p) { p.commands[4].schedules = 7; },
       "P: command 4: schedules 7 are not those of stage, 4"},
      {[](P &p) { p.commands[0].grid[0] = 0; },
       "P: command 0: grid: 0 is outside 1..2147483647"},
      {[](P &p) { p.commands[1].grid[1] = 65536; },
       "P: command 1: grid: 65536 is outside 1..65535"},
      {[](P &p) { p.commands[1].grid_rule = KVRM_GRID_PROCESSORS; },
       "P: command 1: grid rule 4 is not for append"},
      {[](P &p) { p.commands[1].grid_rule = 5; },
       "P: command 1: grid rule 5 is outside 0..4"},
      {[](P &p) { p.commands[1].grid_rule = KVRM_GRID_CLUSTERS; },
       "P: command 1: grid rule 3 is not for append"},
      {[](P &p) { p.commands[2].grid_rule = KVRM_GRID_FIXED; },
       "P: command 2: grid rule 0 is not for attend_workqueue"},
      {[](P &p) { p.commands[2].grid[0] = 2; },
       "P: command 2: grid rule 2 is not for attend_workqueue"},
      {[](P &p) { p.commands[3].grid_rule = KVRM_GRID_SHARES; },
       "P: command 3: grid rule 2 is not for attend_cluster"},
      // Arguments.
      {[](P &p) { p.args[0].base = 24; },
       "P: command 0: argument 0: base 24 is outside 0..23"},
      {[](P &p) { p.args[10].base = KVRM_BASE_TOKENS; },
       "P: command 0: argument 10: base 19 is not 3, which its kernel takes "
       "there"},
      {[](P &p) { p.args[10].base = KVRM_BASE_LOGITS; },
       "P: command 0: argument 10: base 20 is not 3, which its kernel takes "
       "there"},
      {[](P &p) { p.args[0].reserved = 1; },
       "P: command 0: argument 0: its reserved word is not 0"},
      {[](P &p) { p.args[8].index = 2; },
       "P: command 0: argument 8: layer 2 is outside 0..1"},
      {[](P &p) { p.args[10].index = 4; },
       "P: command 0: argument 10: tensor 4 is outside 0..3"},
      {[](P &p) { p.args[0].index = 1; },
       "P: command 0: argument 0: batch 1 is outside 0..0"},
      {[](P &p) { p.args[0].offset = 8; },
       "P: command 0: argument 0: offset and bytes mean nothing here"},
      {[](P &p) { p.args[8].bytes = 8; },
       "P: command 0: argument 8: offset and bytes mean nothing here"},
      {[](P &p) { p.args[1].base = KVRM_BASE_DELTA; },
       "P: command 0: argument 1: base 4 is not 5, which its kernel takes "
       "there"},
      {[](P &p) { p.args[15].base = KVRM_BASE_IMMEDIATE; },
       "P: command 0: argument 15: base 0 is not 15, which its kernel takes "
       "there"},
      {[](P &p) { p.args[8].index = 1; },
       "P: command 0: it reads K of layer 1 and V of layer 0"},
      {[](P &p) { p.args[10] = {KVRM_BASE_ARENA, 0, 0, 4096, 1}; },
       "P: command 0: argument 10: 1 bytes from 4096 are outside the 4096 of "
       "the arena"},
      {[](P &p) { p.args[10] = {KVRM_BASE_ARENA, 0, 0, INT64_MAX, 16}; },
       "P: command 0: argument 10: 16 bytes from 9223372036854775807 are "
       "outside the 4096 of the arena"},
      {[](P &p) { p.args[10] = {KVRM_BASE_ARENA, 0, 0, -16, 32}; },
       "P: command 0: argument 10: 32 bytes from -16 are outside the 4096 of "
       "the arena"},
      {[](P &p) { p.args[10] = {KVRM_BASE_ARENA, 0, 0, 7, 32}; },
       "P: command 0: argument 10: offset 7 is not that of an element"},
      {[](P &p) { p.args[10] = {KVRM_BASE_WEIGHTS, 0, 0, 0, 1025}; },
       "P: command 0: argument 10: 1025 bytes from 0 are outside the 1024 of "
       "the weights"},
      {[](P &p) { p.args[10] = {KVRM_BASE_WEIGHTS, 0, 0, 0, 1024}; },
       "P: command 0: argument 10: base 2 is not 3, which its kernel takes "
       "there"},
      // Whole programs.
      {[](P &p) { p.layers = 3; }, "P: layers: 3 is not the package's 2"},
      {[](P &p) {
         p.commands.resize(7); // the second layer appends, and is not read
         p.args.resize(7 * KVRM_DEVICE_ARGS);
       },
       ""},
      {[](P &p) {
         p.commands.resize(8);
         p.args.resize(8 * KVRM_DEVICE_ARGS);
       },
       "P: layer 1 is attended to 1 times as a workqueue and 0 times in "
       "schedule 2"},
  };
  for (const Broken &broken : cases) {
    ProgramParts copy = parts;
    broken.change(copy);
    EXPECT_EQ(verifyError(copy), broken.message);
  }
}

/// Kernel 7 samples.
static void addSampling(ProgramParts &parts) {
  parts.addDense(KVRM_ROLE_SAMPLE, KVRM_GRID_ROWS, {1, 1, 1},
                 {{KVRM_BASE_LOGITS, 0, 0, 0, 0},
                  {KVRM_BASE_ROWS, 0, 0, 0, 0},
                  {KVRM_BASE_SAMPLING, 0, 0, 0, 0},
                  {KVRM_BASE_NEXT, 0, 0, 0, 0}},
                 true);
}

/// Blocks of a prompt's attention are of outputs, not of shares.
TEST_F(StepPrograms, PromptAttentionIsChecked) {
  size_t attend = 0;
  while (roles[parts.commands[attend].kernel] != KVRM_ROLE_ATTEND_WORKQUEUE)
    ++attend;
  roles[parts.commands[attend].kernel] = KVRM_ROLE_ATTEND_PROMPT;
  auto error = [&](kvrm_grid_rule rule, int32_t schedules) {
    ProgramParts copy = parts;
    for (kvrm_program_command &command : copy.commands)
      if (roles[command.kernel] == KVRM_ROLE_ATTEND_PROMPT) {
        command.grid_rule = static_cast<uint16_t>(rule);
        command.schedules = static_cast<uint16_t>(schedules);
      }
    return verifyError(copy);
  };
  std::string where = "P: command " + std::to_string(attend) + ": ";
  EXPECT_EQ(error(KVRM_GRID_ROWS, KVRM_RUN_WORKQUEUE), "");
  EXPECT_EQ(error(KVRM_GRID_SHARES, KVRM_RUN_WORKQUEUE),
            where + "its kernel takes blocks a row");
  EXPECT_EQ(error(KVRM_GRID_CLUSTERS, KVRM_RUN_WORKQUEUE),
            where + "its kernel takes blocks a row");
  EXPECT_EQ(error(KVRM_GRID_ROWS, KVRM_RUN_CLUSTER),
            where + "schedules 2 are not those of attend_prompt, 1");
}

/// What collapses a page has the parameters of an append, and reads another
/// thing in them.
TEST_F(StepPrograms, NothingCollapsesInAStep) {
  size_t append = 0;
  while (roles[parts.commands[append].kernel] != KVRM_ROLE_APPEND)
    ++append;
  EXPECT_EQ(verifyError(parts), "");
  roles.push_back(KVRM_ROLE_COLLAPSE);
  parts.commands[append].kernel = static_cast<uint32_t>(roles.size() - 1);
  EXPECT_EQ(verifyError(parts), "P: command " + std::to_string(append) +
                                    ": collapse is for between steps");
}

/// Two sums of 16 floats, for which kernels stand in, and a gather.
TEST_F(StepPrograms, CollectivesAreChecked) {
  roles.push_back(KVRM_ROLE_DENSE);
  const kvrm_program_arg in{KVRM_BASE_ARENA, 0, 0, 0, 64};
  const kvrm_program_arg out{KVRM_BASE_ARENA, 0, 0, 64, 64};
  const kvrm_program_arg all{KVRM_BASE_ARENA, 0, 0, 128, 128};
  const auto first = static_cast<uint32_t>(parts.commands.size());
  for (uint16_t mailbox : {0, 1}) {
    parts.addCollective(KVRM_COMMAND_ALL_REDUCE, 16, out, in);
    parts.commands.back().kernel = 1;
    parts.addDense(KVRM_ROLE_DENSE, KVRM_GRID_FIXED, {1, 1, 1},
                   {out, in, {KVRM_BASE_PEERS, mailbox, 0, 0, 0}});
  }
  parts.addCollective(KVRM_COMMAND_ALL_GATHER, 16, all, in);
  parts.ranks = 2;
  using P = ProgramParts;
  auto error = [&](const std::function<void(P &, ProgramBounds &)> &change) {
    ProgramParts copy = parts;
    ProgramBounds own = bounds();
    own.ranks = 2;
    change(copy, own);
    return copy.build().verify(own, "P").message();
  };
  using B = ProgramBounds;
  EXPECT_EQ(error([](P &, B &) {}), "");
  EXPECT_EQ(parts.build().mailboxBytes(), 64);
  std::string sum = "P: command " + std::to_string(first) + ": ";
  std::string standIn = "P: command " + std::to_string(first + 1) + ": ";
  std::string gather = "P: command " + std::to_string(first + 4) + ": ";
  auto last = [](P &p) -> kvrm_program_command & { return p.commands.back(); };
  auto lastArg = [](P &p, size_t i) -> kvrm_program_arg & {
    return p.args[p.args.size() - 2 + i];
  };
  EXPECT_EQ(error([](P &p, B &) { p.ranks = 4; }),
            "P: ranks: 4 are not the package's 2");
  EXPECT_EQ(error([](P &p, B &b) { p.ranks = 1, b.ranks = 1; }),
            sum + "a collective is for several ranks, and the package is for "
                  "one");
  EXPECT_EQ(error([&](P &p, B &) { last(p).flags = 1; }),
            gather + "a collective has no flags, and one size");
  EXPECT_EQ(error([&](P &p, B &) { last(p).grid[1] = 1; }),
            gather + "a collective has no flags, and one size");
  EXPECT_EQ(error([&](P &p, B &) { last(p).kernel = 1; }),
            gather + "1 commands stand in for it, and at most 0 may");
  EXPECT_EQ(error([&](P &p, B &) { p.commands[first].kernel = 2; }),
            sum + "2 commands stand in for it, and at most 1 may");
  EXPECT_EQ(error([&](P &p, B &b) { p.ranks = b.ranks = 9; }),
            sum + "1 commands stand in for it, and at most 0 may");
  EXPECT_EQ(error([&](P &p, B &) { last(p).grid_rule = 3; }),
            gather + "collective type 3 is outside 0..2");
  EXPECT_EQ(error([&](P &p, B &) { last(p).grid[0] = 0; }),
            gather + "0 elements are outside 1..1073741824");
  EXPECT_EQ(error([&](P &p, B &) { lastArg(p, 0).base = KVRM_BASE_WEIGHTS; }),
            gather + "out: base 2 is not 1");
  EXPECT_EQ(error([&](P &p, B &) {
              lastArg(p, 1) = {KVRM_BASE_WEIGHTS, 0, 0, 0, 64};
            }),
            gather + "in: base 2 is not 1");
  EXPECT_EQ(error([&](P &p, B &) { lastArg(p, 0).bytes = 64; }),
            gather + "out: 64 bytes are not 128");
  EXPECT_EQ(error([&](P &p, B &) { lastArg(p, 1).bytes = 32; }),
            gather + "in: 32 bytes are not 64");
  EXPECT_EQ(error([&](P &p, B &) { lastArg(p, 0).offset = 136; }),
            gather + "offset 136 is no multiple of 16");
  EXPECT_EQ(error([&](P &p, B &) { lastArg(p, 0).offset = 48; }),
            gather + "its out and its in overlap");
  // What stands in.
  auto peersOf = [&](P &p, uint32_t command) -> kvrm_program_arg & {
    return p.args[p.commands[command].first_arg + 2];
  };
  EXPECT_EQ(error([&](P &p, B &) { p.commands[first].kernel = 0; }),
            standIn + "takes mailboxes and stands in for no sum");
  EXPECT_EQ(error([&](P &p, B &) {
              peersOf(p, first + 1) = {KVRM_BASE_IMMEDIATE, 0, 0, 0, 0};
            }),
            standIn + "stands in for a sum without mailboxes");
  EXPECT_EQ(error([&](P &p, B &) { peersOf(p, first + 1).index = 3; }),
            standIn + "argument 2: mailbox 3 is outside 0..2");
  for (auto [one, other] : {std::pair(0, 0), {1, 0}, {1, 2}, {2, 1}})
    EXPECT_EQ(error([&, one = one, other = other](P &p, B &) {
                peersOf(p, first + 1).index = static_cast<uint16_t>(one);
                peersOf(p, first + 3).index = static_cast<uint16_t>(other);
              }),
              "P: mailboxes do not begin with 0, end with another and change "
              "from each sum to the next");
  EXPECT_EQ(error([&](P &p, B &) { peersOf(p, first + 3).index = 2; }), "");
  EXPECT_EQ(error([&](P &p, B &) {
              p.args[p.commands[first + 1].first_arg].offset = 192;
            }),
            sum + "no command that stands in for it is given its out");
}

/// One kernel may sum and add the sum to something, which is the next command's
/// work else.
TEST_F(StepPrograms, FusedSumsAreChecked) {
  roles.push_back(KVRM_ROLE_DENSE);
  const kvrm_program_arg in{KVRM_BASE_ARENA, 0, 0, 0, 64};
  const kvrm_program_arg sum{KVRM_BASE_ARENA, 0, 0, 64, 64};
  const kvrm_program_arg addend{KVRM_BASE_ARENA, 0, 0, 128, 64};
  const kvrm_program_arg out{KVRM_BASE_ARENA, 0, 0, 192, 64};
  const auto first = static_cast<uint32_t>(parts.commands.size());
  for (uint16_t mailbox : {0, 1}) {
    parts.addCollective(KVRM_COMMAND_ALL_REDUCE, 16, sum, in);
    parts.commands.back().kernel = 1;
    parts.commands.back().grid[1] = 1;
    parts.addDense(KVRM_ROLE_DENSE, KVRM_GRID_FIXED, {1, 1, 1},
                   {out, in, {KVRM_BASE_PEERS, mailbox, 0, 0, 0}, addend});
    parts.addDense(KVRM_ROLE_DENSE, KVRM_GRID_FIXED, {1, 1, 1},
                   {addend, sum, out});
  }
  parts.ranks = 2;
  auto error = [&](const std::function<void(ProgramParts &)> &change) {
    ProgramParts copy = parts;
    ProgramBounds own = bounds();
    own.ranks = 2;
    change(copy);
    return copy.build().verify(own, "P").message();
  };
  using P = ProgramParts;
  auto argOf = [&](P &p, uint32_t command,
                   uint32_t index) -> kvrm_program_arg & {
    return p.args[p.commands[first + command].first_arg + index];
  };
  std::string where = "P: command " + std::to_string(first) + ": ";
  EXPECT_EQ(error([](P &) {}), "");
  EXPECT_EQ(error([&](P &p) { p.commands[first].kernel = 0; }),
            where + "a collective has no flags, and one size");
  EXPECT_EQ(error([&](P &p) { p.commands[first].grid[1] = 2; }),
            where + "a collective has no flags, and one size");
  EXPECT_EQ(
      error([&](P &p) { p.commands[first + 2].schedules = KVRM_RUN_CLUSTER; }),
      where + "no dense kernel of its schedules is behind what stands in "
              "for both");
  for (auto [command, index] : {std::pair(1u, 1u), {2u, 1u}})
    EXPECT_EQ(error([&, command = command, index = index](P &p) {
                argOf(p, command, index).offset = 256;
              }),
              where + "what stands in is not given its in, or the command "
                      "behind not its out");
  EXPECT_EQ(error([&](P &p) { argOf(p, 1, 3).offset = 256; }),
            where + "what stands in for both is given what neither is");
  EXPECT_EQ(
      error([&](P &p) { argOf(p, 1, 0).offset = argOf(p, 2, 2).offset = 32; }),
      where + "what stands in for both is given what overlaps its in");
  EXPECT_EQ(
      error([&](P &p) { argOf(p, 1, 0).offset = argOf(p, 2, 2).offset = 0; }),
      "");
}

/// A decoder's step: its dense kernels take what their commands give them.
TEST_F(StepPrograms, DenseKernelsAreChecked) {
  roles.push_back(KVRM_ROLE_DENSE);
  roles.push_back(KVRM_ROLE_SAMPLE);
  constexpr uint32_t dense = 6;
  const std::vector<kvrm_program_arg> embed = {
      {KVRM_BASE_TOKENS, 0, 0, 0, 0},
      {KVRM_BASE_ROWS, 0, 0, 0, 0},
      {KVRM_BASE_WEIGHTS, 0, 0, 64, 512},
      {KVRM_BASE_ARENA, 0, 0, 4080, 16},
      {KVRM_BASE_IMMEDIATE, 0, 0, -7, 0}};
  const std::vector<kvrm_program_arg> head = {{KVRM_BASE_ARENA, 0, 0, 0, 64},
                                              {KVRM_BASE_LOGITS, 0, 0, 0, 0}};
  parts.addDense(dense, KVRM_GRID_ROWS, {2, 3, 1}, embed, true);
  parts.addDense(dense, KVRM_GRID_FIXED, {4, 1, 1}, head);
  using P = ProgramParts;
  auto error = [&](const std::function<void(P &, ProgramBounds &)> &change) {
    ProgramParts copy = parts;
    ProgramBounds own = bounds();
    own.hasLogits = true;
    change(copy, own);
    if (own.hasLogits)
      addSampling(copy);
    return copy.build().verify(own, "P").message();
  };
  using B = ProgramBounds;
  EXPECT_EQ(error([](P &, B &) {}), "");
  EXPECT_EQ(error([](P &, B &b) { b.hasLogits = false; }),
            "P: command 11: argument 0: base 19 is for decoders, and the "
            "package has no logits");
  EXPECT_EQ(error([](P &p, B &b) {
              b.hasLogits = false;
              p.args[11 * KVRM_DEVICE_ARGS].base = KVRM_BASE_ROWS;
            }),
            "P: command 12: argument 1: base 20 is for decoders, and the "
            "package has no logits");
  EXPECT_EQ(error([](P &p, B &) { p.args.back().base = KVRM_BASE_TOKENS; }),
            "P: no kernel takes the logits in schedule 1");
  EXPECT_EQ(error([](P &p, B &) { p.commands.back().schedules = 3; }),
            "P: no kernel takes the logits in schedule 4");
  EXPECT_EQ(error([](P &p, B &) { p.args.back().base = KVRM_BASE_DELTA; }),
            "P: command 12: argument 1: base 4 is not for a dense kernel");
  EXPECT_EQ(error([](P &p, B &) { p.args.back().index = 1; }),
            "P: command 12: argument 1: index 1 means nothing here");
  EXPECT_EQ(error([](P &p, B &) { p.args.back().bytes = 8; }),
            "P: command 12: argument 1: offset and bytes mean nothing here");
  EXPECT_EQ(error([](P &p, B &) { p.args.end()[-4].offset = 4096; }),
            "P: command 11: argument 3: 16 bytes from 4096 are outside the "
            "4096 of the arena");
  EXPECT_EQ(error([](P &p, B &) { p.args.end()[-5].offset = 7; }),
            "P: command 11: argument 2: offset 7 is not that of an element");
  EXPECT_EQ(error([](P &p, B &) {
              p.args.end()[-6] = {KVRM_BASE_K_POOL, 2, 0, 0, 0};
            }),
            "P: command 11: argument 1: layer 2 is outside 0..1");
  EXPECT_EQ(error([](P &p, B &) {
              p.args.end()[-6] = {KVRM_BASE_TENSOR, 4, 0, 0, 0};
            }),
            "P: command 11: argument 1: tensor 4 is outside 0..3");
  EXPECT_EQ(error([](P &p, B &) {
              p.commands[11].grid_rule = KVRM_GRID_SHARES;
              p.commands[11].grid[0] = 1;
            }),
            "P: command 11: grid rule 2 is not for dense");
  EXPECT_EQ(
      error([](P &p, B &) { p.commands[11].grid_rule = KVRM_GRID_CLUSTERS; }),
      "P: command 11: grid rule 3 is not for dense");
  EXPECT_EQ(error([](P &p, B &) { p.commands[12].grid[0] = 65536; }), "");
  EXPECT_EQ(error([](P &p, B &) { p.commands[12].grid[1] = 65536; }),
            "P: command 12: grid: 65536 is outside 1..65535");
  EXPECT_EQ(
      error([](P &p, B &) { p.commands[12].grid_rule = KVRM_GRID_PROCESSORS; }),
      "");
  EXPECT_EQ(error([](P &p, B &) {
              p.commands[12].grid_rule = KVRM_GRID_PROCESSORS;
              p.commands[12].grid[0] = 33;
            }),
            "P: command 12: grid rule 4 is not for dense");
  // A field of the rows is for dense kernels.
  auto field = [&](int64_t offset) {
    return error([offset](P &p, B &) {
      p.args.end()[-6] = {KVRM_BASE_ROWS, 0, 0, offset, 0};
    });
  };
  EXPECT_EQ(field(offsetof(kvrm_row, count)), "");
  EXPECT_EQ(
      field(32),
      "P: command 11: argument 1: offset 32 is not that of a row's field");
  EXPECT_EQ(field(6),
            "P: command 11: argument 1: offset 6 is not that of a row's field");
  EXPECT_EQ(
      field(-4),
      "P: command 11: argument 1: offset -4 is not that of a row's field");
  EXPECT_EQ(error([](P &p, B &) { p.args[2].offset = 4; }),
            "P: command 0: argument 2: its kernel takes whole rows");
}

/// A program of two batches, of three rows and of one.
TEST_F(StepPrograms, BatchesAreChecked) {
  roles.push_back(KVRM_ROLE_DENSE);
  roles.push_back(KVRM_ROLE_SAMPLE);
  ProgramParts both;
  both.layers = parts.layers;
  both.tensors = parts.tensors;
  both.batches = 2;
  auto add = [&](const kvrm_program_command &command, uint16_t batch) {
    both.commands.push_back(command);
    both.commands.back().first_arg = static_cast<uint32_t>(both.args.size());
    for (uint32_t i = 0; i < command.args; ++i) {
      both.args.push_back(parts.args[command.first_arg + i]);
      if (kvrm_base_has_batch(both.args.back().base))
        both.args.back().index = batch;
    }
  };
  for (const kvrm_program_command &command : parts.commands)
    for (uint16_t batch : {0, 1})
      add(command, batch);
  both.commands[2].flags = 0; // right behind the commits
  both.addDense(KVRM_ROLE_DENSE, KVRM_GRID_FIXED, {4, 1, 1},
                {{KVRM_BASE_LOGITS, 0, 0, 0, 0}});
  for (uint16_t batch : {0, 1})
    both.addDense(KVRM_ROLE_SAMPLE, KVRM_GRID_ROWS, {1, 1, 1},
                  {{KVRM_BASE_LOGITS, 0, 0, batch * 3 * 40, 0},
                   {KVRM_BASE_ROWS, batch, 0, 0, 0},
                   {KVRM_BASE_SAMPLING, batch, 0, 0, 0},
                   {KVRM_BASE_NEXT, 0, 0, batch * 3 * 4, 0}});
  const std::array<int32_t, 2> rows = {3, 1};
  auto error = [&](const std::function<void(ProgramParts &)> &change) {
    ProgramParts copy = both;
    ProgramBounds own = bounds();
    own.hasLogits = true;
    own.logitBytes = 4 * 40;
    own.batchRows = rows;
    change(copy);
    return copy.build().verify(own, "P").message();
  };
  using P = ProgramParts;
  auto argsOf = [](P &p, size_t command) {
    return &p.args[p.commands[command].first_arg];
  };
  EXPECT_EQ(error([](P &) {}), "");
  EXPECT_EQ(error([](P &p) { p.batches = 1; }),
            "P: batches: 1 are not the entry's 2");
  EXPECT_EQ(error([](P &p) { std::swap(p.commands[1], p.commands[2]); }),
            "P: command 1: a program starts with a commit for each batch");
  EXPECT_EQ(error([](P &p) { p.commands[2].flags = 1; }),
            "P: command 2: it starts before the commit has ended");
  EXPECT_EQ(error([&](P &p) { argsOf(p, 3)[2].index = 2; }),
            "P: command 3: argument 2: batch 2 is outside 0..1");
  EXPECT_EQ(error([&](P &p) { argsOf(p, 3)[3].index = 0; }),
            "P: command 3: argument 3: it is of batch 0, those before of 1");
  EXPECT_EQ(error([](P &p) {
              std::swap(p.commands[0].first_arg, p.commands[1].first_arg);
            }),
            "P: command 0: it commits batch 1, not 0");
  size_t last = both.commands.size() - 1;
  std::string where = "P: command " + std::to_string(last) + ": argument ";
  EXPECT_EQ(error([&](P &p) { argsOf(p, last)[0].offset = 80; }),
            where + "0: offset 80 is not that of its batch's rows");
  EXPECT_EQ(error([&](P &p) { argsOf(p, last)[3].offset = 0; }),
            where + "3: offset 0 is not that of its batch's rows");
  EXPECT_EQ(error([&](P &p) { argsOf(p, last)[2].index = 0; }),
            where + "2: it is of batch 0, those before of 1");
  EXPECT_EQ(error([](P &p) {
              p.commands.pop_back();
              p.args.resize(p.args.size() - 4);
            }),
            "P: no kernel samples the logits of batch 1 in schedule 1");
  EXPECT_EQ(error([&](P &p) { argsOf(p, last - 2)[0].offset = 120; }),
            "P: command " + std::to_string(last - 2) +
                ": argument 0: a dense kernel takes all logits");
}

TEST_F(StepPrograms, SamplingIsChecked) {
  roles.push_back(KVRM_ROLE_DENSE);
  roles.push_back(KVRM_ROLE_SAMPLE);
  parts.addDense(KVRM_ROLE_DENSE, KVRM_GRID_FIXED, {4, 1, 1},
                 {{KVRM_BASE_LOGITS, 0, 0, 0, 0}});
  const ProgramParts unsampled = parts;
  addSampling(parts);
  auto error = [&](const std::function<void(ProgramParts &)> &change) {
    ProgramParts copy = parts;
    ProgramBounds own = bounds();
    own.hasLogits = true;
    change(copy);
    return copy.build().verify(own, "P").message();
  };
  using P = ProgramParts;
  EXPECT_EQ(error([](P &) {}), "");
  EXPECT_EQ(error([&](P &p) { p = unsampled; }),
            "P: no kernel samples the logits of batch 0 in schedule 1");
  EXPECT_EQ(error([](P &p) { p.commands.back().schedules = 5; }),
            "P: no kernel samples the logits of batch 0 in schedule 2");
  EXPECT_EQ(error([](P &p) {
              std::swap(p.commands.end()[-1].kernel,
                        p.commands.end()[-2].kernel);
              std::swap(p.commands.end()[-1].grid_rule,
                        p.commands.end()[-2].grid_rule);
              std::swap(p.commands.end()[-1].grid, p.commands.end()[-2].grid);
            }),
            "P: command 11: 1 arguments are too few for its kernel");
  EXPECT_EQ(error([](P &p) { p.commands.back().grid[0] = 2; }),
            "P: command 12: its kernel takes a block a row");
  EXPECT_EQ(error([](P &p) { p.commands.back().grid_rule = KVRM_GRID_FIXED; }),
            "P: command 12: its kernel takes a block a row");
  EXPECT_EQ(
      error([](P &p) { p.args.end()[-3].offset = 8; }),
      "P: command 12: argument 1: offset 8 is not that of its batch's rows");
  EXPECT_EQ(error([](P &p) { p.args.back().base = KVRM_BASE_LOGITS; }),
            "P: command 12: argument 3: base 20 is not 22, which its kernel "
            "takes there");
  EXPECT_EQ(error([](P &p) {
              p.args.push_back(p.args.back());
              ++p.commands.back().args;
            }),
            "P: command 12: argument 4: base 22 is not -1, which its kernel "
            "takes there");
  EXPECT_EQ(error([](P &p) { p.args.end()[-5].base = KVRM_BASE_NEXT; }),
            "P: command 11: argument 0: base 22 is not for a dense kernel");
  ProgramBounds none = bounds();
  EXPECT_EQ(parts.build().verify(none, "P").message(),
            "P: command 11: argument 0: base 20 is for decoders, and the "
            "package has no logits");
}

TEST_F(StepPrograms, CopiesAreChecked) {
  auto error = [&](const std::function<void(ProgramParts &)> &change) {
    ProgramParts copy = parts;
    addCopy(copy, 0, 16, 512);
    change(copy);
    return verifyError(copy);
  };
  using P = ProgramParts;
  EXPECT_EQ(error([](P &) {}), "");
  EXPECT_EQ(error([](P &p) { p.commands.back().grid[2] = 1; }),
            "P: command 11: a copy has neither kernel, flags nor grid");
  EXPECT_EQ(error([](P &p) { p.args.back().bytes = 513; }),
            "P: command 11: it copies 513 bytes to 512");
  EXPECT_EQ(error([](P &p) { p.args.back() = p.args[0]; }),
            "P: command 11: a copy goes to the arena, from there or from "
            "weights");
  EXPECT_EQ(error([](P &p) { p.args.back() = {KVRM_BASE_TOKENS, 0, 0, 0, 0}; }),
            "P: command 11: a copy goes to the arena, from there or from "
            "weights");
  EXPECT_EQ(error([](P &p) {
              p.args.pop_back();
              p.commands.back().args = 1;
            }),
            "P: command 11: 1 arguments are not the 2 of a copy");
  EXPECT_EQ(error([](P &p) { p.args.back().offset = 1024; }),
            "P: command 11: argument 1: 512 bytes from 1024 are outside the "
            "1024 of the weights");
}

/// A product of 4 x 6 x 8 in f16 with an f32 addend, and the kernel that stands
/// in for it.
static const std::vector<kvrm_program_arg> productArgs = {
    {KVRM_BASE_ARENA, 0, 0, 0, 96},
    {KVRM_BASE_ARENA, 0, 0, 96, 64},
    {KVRM_BASE_WEIGHTS, 0, 0, 16, 96},
    {KVRM_BASE_ARENA, 0, 0, 160, 96}};

static void addProduct(ProgramParts &parts, uint32_t dense) {
  parts.addProduct(KVRM_PRODUCT_F16_F32, {4, 6, 8}, productArgs);
  parts.addDense(dense, KVRM_GRID_FIXED, {4, 1, 1}, productArgs, true);
}

TEST_F(StepPrograms, ProductsSayWhatTheyDo) {
  ProgramParts small = toy::attentionParts({.layers = 1});
  std::vector<kvrm_kernel_role> own = toy::kernelRoles(false);
  own.push_back(KVRM_ROLE_DENSE);
  addProduct(small, 4);
  small.addProduct(KVRM_PRODUCT_BF16, {4, 6, 8},
                   {productArgs.begin(), productArgs.begin() + 3}, 2);
  std::string text = small.build().print(own);
  std::string_view lines(text);
  lines.remove_prefix(lines.find("    4  product"));
  EXPECT_EQ(
      lines,
      "    4  product+ f16 to f32     4 x 6 x 8            all               \n"
      "    5  dense                   4                    all                "
      "programmatic\n"
      "    6  product bf16            4 x 6 x 8, else 2    all               "
      "\n");
}

TEST_F(StepPrograms, ProductsAreChecked) {
  roles.push_back(KVRM_ROLE_DENSE);
  constexpr uint32_t dense = 6;
  using P = ProgramParts;
  auto error = [&](const std::function<void(P &)> &change) {
    P copy = parts;
    addProduct(copy, dense);
    change(copy);
    return verifyError(copy);
  };
  // Of the product: out is arg(p, 0).
  auto arg = [](P &p, size_t index) -> kvrm_program_arg & {
    return p.args[11 * KVRM_DEVICE_ARGS + index];
  };
  EXPECT_EQ(error([](P &) {}), "");
  EXPECT_EQ(error([&](P &p) { arg(p, 3) = arg(p, 0); }), "")
      << "what is added to may be what is written";
  EXPECT_EQ(error([&](P &p) {
              p.commands[11].grid_rule = KVRM_PRODUCT_F16;
              for (size_t i : {0, 3, 4}) // the stand-in's out too
                arg(p, i).bytes = 48;
            }),
            "P: command 11: product type 0 takes no addend");
  EXPECT_EQ(error([](P &p) { p.commands[11].flags = 1; }),
            "P: command 11: a product has no flags");
  EXPECT_EQ(error([](P &p) { p.commands[11].grid_rule = 4; }),
            "P: command 11: product type 4 is outside 0..3");
  EXPECT_EQ(error([](P &p) { p.commands[11].grid[1] = 0; }),
            "P: command 11: size 0 of a product is outside 1..16777216");
  EXPECT_EQ(error([](P &p) { p.commands[11].grid[2] = (1 << 24) + 1; }),
            "P: command 11: size 16777217 of a product is outside 1..16777216");
  EXPECT_EQ(error([](P &p) { p.commands[11].kernel = 0; }),
            "P: command 11: 0 commands that stand in for it are outside 1..16");
  EXPECT_EQ(
      error([](P &p) { p.commands[11].kernel = 17; }),
      "P: command 11: 17 commands that stand in for it are outside 1..16");
  EXPECT_EQ(error([](P &p) { p.commands[11].kernel = 2; }),
            "P: command 11: fewer commands follow than the 2 that stand in for "
            "it");
  EXPECT_EQ(error([](P &p) { p.commands[11].schedules = 3; }),
            "P: command 11: command 12 stands in for it in schedules 7, not in "
            "3");
  EXPECT_EQ(error([&](P &p) {
              P copy = parts;
              copy.addProduct(KVRM_PRODUCT_F16_F32, {4, 6, 8}, productArgs);
              copy.addProduct(KVRM_PRODUCT_F16_F32, {4, 6, 8}, productArgs);
              copy.addDense(dense, KVRM_GRID_FIXED, {4, 1, 1}, productArgs);
              p = copy;
            }),
            "P: command 11: command 12 stands in for it and is no dense "
            "kernel");
  EXPECT_EQ(error([&](P &p) { arg(p, 4).offset = 16; }),
            "P: command 11: no command that stands in for it is given its out");
  EXPECT_EQ(error([](P &p) {
              p.args.resize(p.args.size() - 6);
              p.commands[11].args = 2;
              p.commands[12].first_arg -= 2;
              p.commands[12].args = 0;
            }),
            "P: command 11: 2 arguments are not the 3 or 4 of a product");
  EXPECT_EQ(error([&](P &p) { arg(p, 0).bytes = 100; }),
            "P: command 11: out: 100 bytes are not 4 x 6 of 4");
  EXPECT_EQ(error([&](P &p) { arg(p, 1).bytes = 128; }),
            "P: command 11: in: 128 bytes are not 4 x 8 of 2");
  EXPECT_EQ(error([&](P &p) { arg(p, 2).bytes = 64; }),
            "P: command 11: weight: 64 bytes are not 6 x 8 of 2");
  EXPECT_EQ(error([&](P &p) { arg(p, 2).offset = 8; }),
            "P: command 11: weight: offset 8 is no multiple of 16");
  EXPECT_EQ(error([&](P &p) { arg(p, 2) = {KVRM_BASE_LOGITS, 0, 0, 0, 0}; }),
            "P: command 11: weight: base 20 is not 2");
  EXPECT_EQ(error([&](P &p) { arg(p, 2).base = KVRM_BASE_ARENA; }),
            "P: command 11: its out and its weight overlap");
  // Unpacked, beside the others.
  EXPECT_EQ(error([&](P &p) {
              arg(p, 2).base = KVRM_BASE_ARENA;
              arg(p, 2).offset = 256;
            }),
            "");
  EXPECT_EQ(error([&](P &p) { arg(p, 0) = {KVRM_BASE_LOGITS, 0, 0, 0, 0}; }),
            "P: command 11: out: base 20 is not 1");
  EXPECT_EQ(error([&](P &p) { arg(p, 1).offset = 80; }),
            "P: command 11: its out and its in overlap");
  EXPECT_EQ(error([&](P &p) { arg(p, 3).offset = 16; }),
            "P: command 11: its out and its addend overlap and are not one");
  EXPECT_EQ(error([&](P &p) { arg(p, 3).offset = 4016; }),
            "P: command 11: argument 3: 96 bytes from 4016 are outside the "
            "4096 of the arena");
}

/// A product may write the logits, of which there are as many as it makes.
TEST_F(StepPrograms, ProductsMayWriteLogits) {
  roles.push_back(KVRM_ROLE_DENSE);
  roles.push_back(KVRM_ROLE_SAMPLE);
  std::vector<kvrm_program_arg> args(productArgs.begin(),
                                     productArgs.begin() + 3);
  auto error = [&](kvrm_program_arg out, int64_t logitBytes) {
    ProgramParts copy = parts;
    args[0] = out;
    copy.addProduct(KVRM_PRODUCT_F16_F32, {4, 6, 8}, args);
    copy.addDense(6, KVRM_GRID_FIXED, {4, 1, 1}, args);
    addSampling(copy);
    ProgramBounds own = bounds();
    own.hasLogits = true;
    own.logitBytes = logitBytes;
    return copy.build().verify(own, "P").message();
  };
  kvrm_program_arg logits{KVRM_BASE_LOGITS, 0, 0, 0, 0};
  EXPECT_EQ(error(logits, 96), "");
  EXPECT_EQ(error(logits, 100),
            "P: command 11: out: 100 bytes are not 4 x 6 of 4");
  EXPECT_EQ(error(productArgs[0], 96),
            "P: no kernel takes the logits in schedule 1");
  logits.bytes = 96;
  EXPECT_EQ(error(logits, 96),
            "P: command 11: argument 0: offset and bytes mean nothing here");
}

/// Where there is no library, what stands in for a product may be what comes
/// right after the commit.
TEST_F(StepPrograms, StandInsWaitForTheCommit) {
  auto error = [](size_t at, bool isProgrammatic) {
    const std::vector<kvrm_kernel_role> roles = {KVRM_ROLE_COMMIT,
                                                 KVRM_ROLE_DENSE};
    ProgramParts own;
    own.tensors = 0;
    own.layers = 1;
    own.add(KVRM_ROLE_COMMIT, KVRM_RUN_ALL, KVRM_GRID_FIXED, {4, 1, 1}, 0,
            false);
    for (kvrm_program_arg &arg : own.args)
      if (arg.base == KVRM_BASE_TENSOR)
        arg = {KVRM_BASE_ARENA, 0, 0, 0, 1};
    for (size_t i = 1; i < at; ++i)
      own.addDense(1, KVRM_GRID_FIXED, {4, 1, 1}, {});
    own.addProduct(KVRM_PRODUCT_F16_F32, {4, 6, 8}, productArgs);
    own.addDense(1, KVRM_GRID_FIXED, {4, 1, 1}, productArgs, isProgrammatic);
    ProgramBounds bounds{.kernels = roles,
                         .layers = 1,
                         .tensors = 0,
                         .arenaBytes = 4096,
                         .weightBytes = 1024};
    return own.build().verify(bounds, "P").message();
  };
  EXPECT_EQ(error(1, false), "");
  EXPECT_EQ(error(1, true),
            "P: command 2: it starts before the commit has ended");
  EXPECT_EQ(error(2, true), "");
  ProgramParts none;
  none.layers = 2;
  none.addProduct(KVRM_PRODUCT_F16_F32, {4, 6, 8}, productArgs);
  EXPECT_EQ(verifyError(none),
            "P: command 0: a program starts with a commit for each batch");
}

/// Whatever bytes change, parsing and checking end, and what passes reaches
/// nothing outside.
TEST_F(StepPrograms, DamageIsFoundOrHarmless) {
  roles.push_back(KVRM_ROLE_DENSE);
  addProduct(parts, 6);
  addCopy(parts, 64, 0, 1024);
  std::string good = parts.build().serialize();
  std::mt19937 random(1);
  int passed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good;
    int changes = 1 + static_cast<int>(random() % 3);
    for (int c = 0; c < changes; ++c)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    Expected<StepProgram> program = StepProgram::parse(bytes, "P");
    if (!program || !program->verify(bounds(), "P").isOk())
      continue;
    ++passed;
    for (const kvrm_program_command &command : program->commands()) {
      if (command.kind == KVRM_COMMAND_PRODUCT) {
        ASSERT_EQ(program->args(command)[1].bytes,
                  int64_t(2) * command.grid[0] * command.grid[2]);
      }
      for (const kvrm_program_arg &arg : program->args(command)) {
        if (arg.base == KVRM_BASE_ARENA) {
          ASSERT_LE(arg.offset + arg.bytes, 4096);
        }
        if (arg.base == KVRM_BASE_WEIGHTS) {
          ASSERT_LE(arg.offset + arg.bytes, 1024);
        }
        if (arg.base == KVRM_BASE_K_POOL) {
          ASSERT_LT(arg.index, 2);
        }
      }
    }
    EXPECT_FALSE(program->print(roles).empty());
  }
  EXPECT_GT(passed, 0);
}
