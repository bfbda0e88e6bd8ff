//===- StepProgram.cpp - A step of a GPU, read and checked ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/program/StepProgram.h"

#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/abi/version.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <utility>

using namespace kvrm;

static_assert(sizeof(kvrm_program_header) == 32);
static_assert(sizeof(kvrm_program_command) == 32);
static_assert(sizeof(kvrm_program_arg) == 24);

/// The schedules in which a kernel of a role can take part.
static int32_t schedulesOf(kvrm_kernel_role role) {
  switch (role) {
  case KVRM_ROLE_ATTEND_WORKQUEUE:
  case KVRM_ROLE_ATTEND_PROMPT:
    return KVRM_RUN_WORKQUEUE;
  case KVRM_ROLE_ATTEND_CLUSTER:
    return KVRM_RUN_CLUSTER;
  case KVRM_ROLE_STAGE:
  case KVRM_ROLE_ATTEND_STAGED:
    return KVRM_RUN_STAGED;
  default:
    return KVRM_RUN_ALL;
  }
}

static bool isAttention(kvrm_kernel_role role) {
  return role == KVRM_ROLE_ATTEND_WORKQUEUE ||
         role == KVRM_ROLE_ATTEND_CLUSTER || role == KVRM_ROLE_ATTEND_STAGED ||
         role == KVRM_ROLE_ATTEND_PROMPT;
}

StepProgram::StepProgram(std::vector<kvrm_program_command> commands,
                         std::vector<kvrm_program_arg> args, uint32_t tensors,
                         uint32_t layers, uint32_t batches, uint32_t ranks)
    : table(std::move(commands)), arguments(std::move(args)) {
  header.magic = KVRM_PROGRAM_MAGIC;
  header.abi_version = KVRM_ABI_VERSION;
  header.commands = static_cast<uint32_t>(table.size());
  header.args = static_cast<uint32_t>(arguments.size());
  header.tensors = tensors;
  header.layers = layers;
  header.batches = batches;
  header.ranks = ranks;
}

//===----------------------------------------------------------------------===//
// Bytes
//===----------------------------------------------------------------------===//

template <typename T>
static void readTable(std::vector<T> &table, size_t count,
                      std::string_view &bytes) {
  table.resize(count);
  if (count > 0)
    bytes.copy(reinterpret_cast<char *>(table.data()), count * sizeof(T));
  bytes.remove_prefix(count * sizeof(T));
}

Expected<StepProgram> StepProgram::parse(std::string_view bytes,
                                         std::string_view where) {
  auto corrupt = [&](const auto &...parts) {
    return makeError(StatusCode::Corrupt, where, ": ", parts...);
  };
  StepProgram program;
  kvrm_program_header &header = program.header;
  if (bytes.size() < sizeof(header))
    return corrupt(bytes.size(), " bytes are fewer than a header's ",
                   sizeof(header));
  std::memcpy(&header, bytes.data(), sizeof(header));
  bytes.remove_prefix(sizeof(header));
  if (header.magic != KVRM_PROGRAM_MAGIC)
    return corrupt("is not a program");
  if (header.abi_version != KVRM_ABI_VERSION)
    return makeError(StatusCode::Incompatible, where,
                     ": abi_version: ", header.abi_version,
                     " is not this runtime's ", int32_t(KVRM_ABI_VERSION),
                     "; compile the model again");
  if (header.ranks < 1 || header.ranks > KVRM_MAX_RANKS)
    return corrupt("ranks: ", header.ranks, " is outside 1..",
                   int32_t(KVRM_MAX_RANKS));
  if (header.batches < 1 || header.batches > KVRM_MAX_BATCHES)
    return corrupt("batches: ", header.batches, " is outside 1..",
                   int32_t(KVRM_MAX_BATCHES));
  if (header.commands < 1 || header.commands > KVRM_MAX_PROGRAM_COMMANDS)
    return corrupt("commands: ", header.commands, " is outside 1..",
                   int32_t(KVRM_MAX_PROGRAM_COMMANDS));
  if (header.tensors > KVRM_MAX_PROGRAM_TENSORS)
    return corrupt("tensors: ", header.tensors, " is outside 0..",
                   int32_t(KVRM_MAX_PROGRAM_TENSORS));
  if (header.layers < 1 || header.layers > KVRM_MAX_LAYERS)
    return corrupt("layers: ", header.layers, " is outside 1..",
                   int32_t(KVRM_MAX_LAYERS));
  uint64_t wanted = uint64_t(header.commands) * sizeof(kvrm_program_command) +
                    uint64_t(header.args) * sizeof(kvrm_program_arg);
  if (bytes.size() != wanted)
    return corrupt(bytes.size(), " bytes after the header are not the ", wanted,
                   " of ", header.commands, " commands and ", header.args,
                   " arguments");
  readTable(program.table, header.commands, bytes);
  readTable(program.arguments, header.args, bytes);

  // From here on args() is safe to call.
  uint32_t next = 0;
  for (size_t i = 0; i < program.table.size(); ++i) {
    const kvrm_program_command &command = program.table[i];
    if (command.args > KVRM_MAX_COMMAND_ARGS)
      return corrupt("command ", i, ": ", command.args,
                     " arguments are outside 0..",
                     int32_t(KVRM_MAX_COMMAND_ARGS));
    if (command.first_arg != next || command.args > header.args - next)
      return corrupt("command ", i,
                     ": its arguments do not follow those of "
                     "the command before");
    next += command.args;
  }
  if (next != header.args)
    return corrupt(header.args - next, " arguments are of no command");
  return program;
}

std::string StepProgram::serialize() const {
  std::string bytes(reinterpret_cast<const char *>(&header), sizeof(header));
  bytes.append(reinterpret_cast<const char *>(table.data()),
               table.size() * sizeof(kvrm_program_command));
  bytes.append(reinterpret_cast<const char *>(arguments.data()),
               arguments.size() * sizeof(kvrm_program_arg));
  return bytes;
}

//===----------------------------------------------------------------------===//
// Checks
//===----------------------------------------------------------------------===//

namespace {

/// Checks one program; keeps where it is for the error.
class Checker {
public:
  Checker(const ProgramBounds &bounds, std::string_view where)
      : bounds(bounds), where(where), afterCommit(bounds.batches()) {}

  Status checkCommand(const kvrm_program_command &command,
                      std::span<const kvrm_program_arg> args);

  size_t index = 0; ///< of the command

private:
  template <typename... Parts> Status corrupt(const Parts &...parts) const {
    return makeError(StatusCode::Corrupt, where, ": command ", index, ": ",
                     parts...);
  }
  Status checkKernel(const kvrm_program_command &command,
                     std::span<const kvrm_program_arg> args) const;
  Status checkGrid(const kvrm_program_command &command,
                   kvrm_kernel_role role) const;
  Status checkCopy(const kvrm_program_command &command,
                   std::span<const kvrm_program_arg> args) const;
  Status checkProduct(const kvrm_program_command &command,
                      std::span<const kvrm_program_arg> args);
  Status checkProductArgs(const kvrm_program_command &command,
                          std::span<const kvrm_program_arg> args) const;
  Status checkCollective(const kvrm_program_command &command,
                         std::span<const kvrm_program_arg> args);
  Status checkArg(size_t position, const kvrm_program_arg &arg) const;
  Status checkBatch(std::span<const kvrm_program_arg> args) const;
  Status checkDeviceArgs(std::span<const kvrm_program_arg> args) const;
  Status checkDenseArgs(std::span<const kvrm_program_arg> args) const;
  int64_t sampleOffset(int32_t base, size_t batch) const;
  Status checkSampleArgs(std::span<const kvrm_program_arg> args) const;

  const ProgramBounds &bounds;
  std::string_view where;
  /// The command that comes right after the commits where there is no library.
  size_t afterCommit;
};

} // namespace

/// The batch of the first argument that is of one.
static size_t batchOf(std::span<const kvrm_program_arg> args) {
  for (const kvrm_program_arg &arg : args)
    if (kvrm_base_has_batch(arg.base))
      return arg.index;
  return 0;
}

static bool isSized(int32_t base) {
  return base == KVRM_BASE_ARENA || base == KVRM_BASE_WEIGHTS;
}

Status Checker::checkArg(size_t position, const kvrm_program_arg &arg) const {
  auto wrong = [&](const auto &...parts) {
    return corrupt("argument ", position, ": ", parts...);
  };
  if (arg.base >= KVRM_PROGRAM_BASES)
    return wrong("base ", arg.base, " is outside 0..", KVRM_PROGRAM_BASES - 1);
  if (arg.reserved != 0)
    return wrong("its reserved word is not 0");
  bool isLayer = arg.base == KVRM_BASE_K_POOL || arg.base == KVRM_BASE_V_POOL;
  if (isLayer && arg.index >= bounds.layers)
    return wrong("layer ", arg.index, " is outside 0..", bounds.layers - 1);
  if (arg.base == KVRM_BASE_TENSOR && arg.index >= bounds.tensors)
    return wrong("tensor ", arg.index, " is outside 0..", bounds.tensors - 1);
  bool hasBatch = kvrm_base_has_batch(arg.base) != 0;
  if (hasBatch && arg.index >= bounds.batches())
    return wrong("batch ", arg.index, " is outside 0..", bounds.batches() - 1);
  if (arg.base == KVRM_BASE_PEERS && arg.index >= KVRM_MAILBOXES)
    return wrong("mailbox ", arg.index, " is outside 0..", KVRM_MAILBOXES - 1);
  if (!isLayer && !hasBatch && arg.base != KVRM_BASE_PEERS &&
      arg.base != KVRM_BASE_TENSOR && arg.index != 0)
    return wrong("index ", arg.index, " means nothing here");
  if (isSized(arg.base)) {
    int64_t size =
        arg.base == KVRM_BASE_ARENA ? bounds.arenaBytes : bounds.weightBytes;
    const char *name = arg.base == KVRM_BASE_ARENA ? "arena" : "weights";
    if (arg.offset < 0 || arg.bytes < 1 || arg.offset > size ||
        arg.bytes > size - arg.offset)
      return wrong(arg.bytes, " bytes from ", arg.offset, " are outside the ",
                   size, " of the ", name);
    if (arg.offset % 2 != 0)
      return wrong("offset ", arg.offset, " is not that of an element");
    return Status::ok();
  }
  if (arg.base == KVRM_BASE_ROWS) {
    constexpr int64_t last = sizeof(kvrm_row) - sizeof(int32_t);
    if (arg.bytes != 0 || arg.offset < 0 || arg.offset > last ||
        arg.offset % int64_t(sizeof(int32_t)) != 0)
      return wrong("offset ", arg.offset, " is not that of a row's field");
    return Status::ok();
  }
  bool mayHaveOffset = arg.base == KVRM_BASE_IMMEDIATE ||
                       arg.base == KVRM_BASE_LOGITS ||
                       arg.base == KVRM_BASE_NEXT;
  if (arg.bytes != 0 || (!mayHaveOffset && arg.offset != 0))
    return wrong("offset and bytes mean nothing here");
  return Status::ok();
}

/// A kernel of attention, and one that samples, is for one batch.
Status Checker::checkBatch(std::span<const kvrm_program_arg> args) const {
  for (size_t i = 0; i < args.size(); ++i)
    if (kvrm_base_has_batch(args[i].base) && args[i].index != batchOf(args))
      return corrupt("argument ", i, ": it is of batch ", args[i].index,
                     ", those before of ", batchOf(args));
  return Status::ok();
}

/// Arguments of the kernels that kvrm_device_args describes.
Status Checker::checkDeviceArgs(std::span<const kvrm_program_arg> args) const {
  if (args.size() != KVRM_DEVICE_ARGS)
    return corrupt(args.size(), " arguments are not the ", KVRM_DEVICE_ARGS,
                   " of its kernel");
  for (size_t i = 0; i < args.size(); ++i) {
    int32_t want = kvrm_device_arg_base(static_cast<int32_t>(i));
    bool isIo = want == KVRM_BASE_TENSOR;
    if (args[i].base != want && !(isIo && args[i].base == KVRM_BASE_ARENA))
      return corrupt("argument ", i, ": base ", args[i].base, " is not ", want,
                     ", which its kernel takes there");
    if (want == KVRM_BASE_ROWS && args[i].offset != 0)
      return corrupt("argument ", i, ": its kernel takes whole rows");
  }
  constexpr size_t k = offsetof(kvrm_device_args, k_pool) / sizeof(uint64_t);
  constexpr size_t v = offsetof(kvrm_device_args, v_pool) / sizeof(uint64_t);
  if (args[k].index != args[v].index)
    return corrupt("it reads K of layer ", args[k].index, " and V of layer ",
                   args[v].index);
  return checkBatch(args);
}

/// Arguments of a kernel that may have any but those of one role alone.
Status Checker::checkDenseArgs(std::span<const kvrm_program_arg> args) const {
  for (size_t i = 0; i < args.size(); ++i) {
    int32_t base = args[i].base;
    if (base == KVRM_BASE_DELTA || base == KVRM_BASE_SAMPLING ||
        base == KVRM_BASE_NEXT)
      return corrupt("argument ", i, ": base ", base,
                     " is not for a dense kernel");
    if ((base == KVRM_BASE_TOKENS || base == KVRM_BASE_LOGITS) &&
        !bounds.hasLogits)
      return corrupt("argument ", i, ": base ", base,
                     " is for decoders, and the package has no logits");
    if (base == KVRM_BASE_LOGITS && args[i].offset != 0)
      return corrupt("argument ", i, ": a dense kernel takes all logits");
  }
  return Status::ok();
}

/// Where the rows of a batch start in an argument of a kernel that samples.
int64_t Checker::sampleOffset(int32_t base, size_t batch) const {
  auto rowsOf = [&](size_t batches) {
    int64_t rows = 0;
    for (size_t i = 0; i < batches && i < bounds.batchRows.size(); ++i)
      rows += bounds.batchRows[i];
    return rows;
  };
  int64_t first = rowsOf(batch), all = std::max<int64_t>(rowsOf(SIZE_MAX), 1);
  if (base == KVRM_BASE_LOGITS)
    return bounds.logitBytes / all * first;
  return base == KVRM_BASE_NEXT ? first * int64_t(sizeof(int32_t)) : 0;
}

Status Checker::checkSampleArgs(std::span<const kvrm_program_arg> args) const {
  if (!bounds.hasLogits)
    return corrupt("it samples, and the package has no logits");
  for (size_t i = 0; i < args.size(); ++i) {
    int32_t want = kvrm_sample_arg_base(static_cast<int32_t>(i));
    if (args[i].base != want)
      return corrupt("argument ", i, ": base ", args[i].base, " is not ", want,
                     ", which its kernel takes there");
    if (args[i].offset != sampleOffset(args[i].base, batchOf(args)))
      return corrupt("argument ", i, ": offset ", args[i].offset,
                     " is not that of its batch's rows");
  }
  KVRM_TRY(checkBatch(args));
  if (kvrm_sample_arg_base(static_cast<int32_t>(args.size())) != -1)
    return corrupt(args.size(), " arguments are too few for its kernel");
  return Status::ok();
}

Status Checker::checkGrid(const kvrm_program_command &command,
                          kvrm_kernel_role role) const {
  // What CUDA takes along x, y and z.
  constexpr std::array<uint32_t, 3> most = {0x7fffffff, 65535, 65535};
  for (size_t i = 0; i < most.size(); ++i)
    if (command.grid[i] < 1 || command.grid[i] > most[i])
      return corrupt("grid: ", command.grid[i], " is outside 1..", most[i]);
  if (role == KVRM_ROLE_SAMPLE &&
      (command.grid_rule != KVRM_GRID_ROWS || command.grid[0] != 1 ||
       command.grid[1] != 1 || command.grid[2] != 1))
    return corrupt("its kernel takes a block a row");
  if (role == KVRM_ROLE_ATTEND_PROMPT) {
    if (command.grid_rule != KVRM_GRID_ROWS)
      return corrupt("its kernel takes blocks a row");
    return Status::ok();
  }
  switch (command.grid_rule) {
  case KVRM_GRID_FIXED:
  case KVRM_GRID_ROWS:
    if (isAttention(role) || role == KVRM_ROLE_STAGE)
      break;
    return Status::ok();
  case KVRM_GRID_SHARES:
    if (command.grid[0] != 1 || role == KVRM_ROLE_ATTEND_CLUSTER ||
        role == KVRM_ROLE_DENSE)
      break;
    return Status::ok();
  case KVRM_GRID_CLUSTERS:
    if (role != KVRM_ROLE_ATTEND_CLUSTER)
      break;
    return Status::ok();
  case KVRM_GRID_PROCESSORS:
    if (role != KVRM_ROLE_DENSE || command.grid[0] > 32)
      break;
    return Status::ok();
  default:
    return corrupt("grid rule ", command.grid_rule, " is outside 0..4");
  }
  return corrupt("grid rule ", command.grid_rule, " is not for ",
                 kvrm_kernel_role_name(role));
}

Status Checker::checkKernel(const kvrm_program_command &command,
                            std::span<const kvrm_program_arg> args) const {
  if (command.kernel >= bounds.kernels.size())
    return corrupt("kernel ", command.kernel, " is outside 0..",
                   static_cast<int64_t>(bounds.kernels.size()) - 1);
  kvrm_kernel_role role = bounds.kernels[command.kernel];
  // It takes a commit's delta for a list of pages to write to.
  if (role == KVRM_ROLE_COLLAPSE)
    return corrupt("collapse is for between steps");
  if ((role == KVRM_ROLE_COMMIT) != (index < bounds.batches()))
    return corrupt("a program starts with a commit for each batch");
  int32_t allowed = schedulesOf(role);
  if ((command.schedules & ~allowed) != 0)
    return corrupt("schedules ", command.schedules, " are not those of ",
                   kvrm_kernel_role_name(role), ", ", allowed);
  if (role == KVRM_ROLE_COMMIT && command.schedules != KVRM_RUN_ALL)
    return corrupt("the commit takes part in every schedule");
  // The next command may read the descriptor before it waits for anything.
  if (index <= afterCommit && (command.flags & KVRM_COMMAND_PROGRAMMATIC) != 0)
    return corrupt("it starts before the commit has ended");
  KVRM_TRY(checkGrid(command, role));
  switch (role) {
  case KVRM_ROLE_DENSE:
    return checkDenseArgs(args);
  case KVRM_ROLE_SAMPLE:
    return checkSampleArgs(args);
  default:
    KVRM_TRY(checkDeviceArgs(args));
    if (role == KVRM_ROLE_COMMIT && batchOf(args) != index)
      return corrupt("it commits batch ", batchOf(args), ", not ", index);
    return Status::ok();
  }
}

Status Checker::checkCopy(const kvrm_program_command &command,
                          std::span<const kvrm_program_arg> args) const {
  if (index < bounds.batches())
    return corrupt("a program starts with a commit for each batch");
  if (command.kernel != 0 || command.flags != 0 || command.grid_rule != 0 ||
      command.grid[0] != 0 || command.grid[1] != 0 || command.grid[2] != 0)
    return corrupt("a copy has neither kernel, flags nor grid");
  if (args.size() != 2)
    return corrupt(args.size(), " arguments are not the 2 of a copy");
  if (args[0].base != KVRM_BASE_ARENA || !isSized(args[1].base))
    return corrupt("a copy goes to the arena, from there or from weights");
  if (args[0].bytes != args[1].bytes)
    return corrupt("it copies ", args[1].bytes, " bytes to ", args[0].bytes);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

/// Of a product whose type is checked.
static kvrm_product_type typeOf(const kvrm_program_command &product) {
  return static_cast<kvrm_product_type>(product.grid_rule);
}

static bool overlap(const kvrm_program_arg &lhs, const kvrm_program_arg &rhs) {
  return lhs.base == rhs.base && lhs.offset < rhs.offset + rhs.bytes &&
         rhs.offset < lhs.offset + lhs.bytes;
}

/// Of a product of checked sizes and type: what each argument is, to the byte.
Status Checker::checkProductArgs(const kvrm_program_command &command,
                                 std::span<const kvrm_program_arg> args) const {
  kvrm_product_type type = typeOf(command);
  int64_t element = kvrm_element_bytes(kvrm_product_element(type));
  int64_t sum = kvrm_product_is_f32(type) ? int64_t(sizeof(float)) : element;
  int64_t rows = command.grid[0], columns = command.grid[1];
  int64_t depth = command.grid[2];
  struct Matrix {
    const char *name;
    int32_t base;
    int64_t rows, columns, element;
  };
  const std::array<Matrix, 4> matrices = {
      {{"out", KVRM_BASE_ARENA, rows, columns, sum},
       {"in", KVRM_BASE_ARENA, rows, depth, element},
       {"weight", KVRM_BASE_WEIGHTS, columns, depth, element},
       {"addend", KVRM_BASE_ARENA, rows, columns, sum}}};
  for (size_t i = 0; i < args.size(); ++i) {
    const Matrix &matrix = matrices[i];
    const kvrm_program_arg &arg = args[i];
    auto wrong = [&](const auto &...parts) {
      return corrupt(matrix.name, ": ", parts...);
    };
    bool isLogits = i == 0 && arg.base == KVRM_BASE_LOGITS && bounds.hasLogits;
    bool isUnpacked = i == 2 && arg.base == KVRM_BASE_ARENA;
    if (arg.base != matrix.base && !isLogits && !isUnpacked)
      return wrong("base ", arg.base, " is not ", matrix.base);
    if (isLogits && arg.offset != 0)
      return wrong("a product writes all logits");
    int64_t bytes = isLogits ? bounds.logitBytes : arg.bytes;
    if (bytes != matrix.rows * matrix.columns * matrix.element)
      return wrong(bytes, " bytes are not ", matrix.rows, " x ", matrix.columns,
                   " of ", matrix.element);
    if (arg.offset % KVRM_PRODUCT_ALIGNMENT != 0)
      return wrong("offset ", arg.offset, " is no multiple of ",
                   int32_t(KVRM_PRODUCT_ALIGNMENT));
  }
  if (overlap(args[0], args[1]))
    return corrupt("its out and its in overlap");
  if (overlap(args[0], args[2]))
    return corrupt("its out and its weight overlap");
  if (args.size() == 4 && args[3].offset != args[0].offset &&
      overlap(args[0], args[3]))
    return corrupt("its out and its addend overlap and are not one");
  return Status::ok();
}

Status Checker::checkProduct(const kvrm_program_command &command,
                             std::span<const kvrm_program_arg> args) {
  if (index < bounds.batches())
    return corrupt("a program starts with a commit for each batch");
  if (index == afterCommit)
    ++afterCommit;
  if (command.flags != 0)
    return corrupt("a product has no flags");
  if (command.grid_rule >= KVRM_PRODUCT_TYPES)
    return corrupt("product type ", command.grid_rule, " is outside 0..",
                   KVRM_PRODUCT_TYPES - 1);
  for (uint32_t size : command.grid)
    if (size < 1 || size > KVRM_MAX_PRODUCT_SIZE)
      return corrupt("size ", size, " of a product is outside 1..",
                     int32_t(KVRM_MAX_PRODUCT_SIZE));
  if (command.kernel < 1 || command.kernel > KVRM_MAX_STAND_INS)
    return corrupt(command.kernel,
                   " commands that stand in for it are outside "
                   "1..",
                   int32_t(KVRM_MAX_STAND_INS));
  if (args.size() != 3 && args.size() != 4)
    return corrupt(args.size(), " arguments are not the 3 or 4 of a product");
  if (args.size() == 4 && !kvrm_product_is_f32(typeOf(command)))
    return corrupt("product type ", command.grid_rule, " takes no addend");
  return checkProductArgs(command, args);
}

//===----------------------------------------------------------------------===//
// Collectives
//===----------------------------------------------------------------------===//

Status Checker::checkCollective(const kvrm_program_command &command,
                                std::span<const kvrm_program_arg> args) {
  if (index < bounds.batches())
    return corrupt("a program starts with a commit for each batch");
  if (bounds.ranks < 2)
    return corrupt("a collective is for several ranks, and the package is for "
                   "one");
  if (command.flags != 0 || command.grid[1] > command.kernel ||
      command.grid[2] != 0)
    return corrupt("a collective has no flags, and one size");
  bool mayHaveStandIn =
      command.kind == KVRM_COMMAND_ALL_REDUCE && bounds.ranks <= KVRM_MAX_PEERS;
  if (command.kernel > (mayHaveStandIn ? 1u : 0u))
    return corrupt(command.kernel, " commands stand in for it, and at most ",
                   mayHaveStandIn ? 1 : 0, " may");
  if (command.grid_rule >= KVRM_COLLECTIVE_TYPES)
    return corrupt("collective type ", command.grid_rule, " is outside 0..",
                   KVRM_COLLECTIVE_TYPES - 1);
  if (command.grid[0] < 1 || command.grid[0] > KVRM_MAX_COLLECTIVE_ELEMENTS)
    return corrupt(command.grid[0], " elements are outside 1..",
                   int32_t(KVRM_MAX_COLLECTIVE_ELEMENTS));
  if (args.size() != 2)
    return corrupt(args.size(), " arguments are not the 2 of a collective");
  int64_t in = command.grid[0] *
               kvrm_collective_bytes(
                   static_cast<kvrm_collective_type>(command.grid_rule));
  int64_t out =
      command.kind == KVRM_COMMAND_ALL_GATHER ? in * bounds.ranks : in;
  bool isLogits = args[0].base == KVRM_BASE_LOGITS && bounds.hasLogits;
  if (args[0].base != KVRM_BASE_ARENA && !isLogits)
    return corrupt("out: base ", args[0].base, " is not ",
                   int32_t(KVRM_BASE_ARENA));
  if (isLogits && args[0].offset != 0)
    return corrupt("out: a collective writes all logits");
  if (args[1].base != KVRM_BASE_ARENA)
    return corrupt("in: base ", args[1].base, " is not ",
                   int32_t(KVRM_BASE_ARENA));
  int64_t outBytes = isLogits ? bounds.logitBytes : args[0].bytes;
  if (outBytes != out)
    return corrupt("out: ", outBytes, " bytes are not ", out);
  if (args[1].bytes != in)
    return corrupt("in: ", args[1].bytes, " bytes are not ", in);
  for (const kvrm_program_arg &arg : args)
    if (arg.offset % KVRM_PRODUCT_ALIGNMENT != 0)
      return corrupt("offset ", arg.offset, " is no multiple of ",
                     int32_t(KVRM_PRODUCT_ALIGNMENT));
  if (overlap(args[0], args[1]))
    return corrupt("its out and its in overlap");
  return Status::ok();
}

static bool takesPeers(std::span<const kvrm_program_arg> args) {
  return std::ranges::any_of(args, [](const kvrm_program_arg &arg) {
    return arg.base == KVRM_BASE_PEERS;
  });
}

/// A word of a mailbox is emptied by who reads it, before the same rank writes
/// it again: it has got the next sum's by then, which is of another mailbox.
/// Programs follow one another in any order.
Status StepProgram::verifyMailboxes(std::string_view where) const {
  std::vector<uint16_t> numbers;
  for (size_t i = 0; i < table.size(); ++i) {
    bool isStandIn = i > 0 && table[i - 1].kind == KVRM_COMMAND_ALL_REDUCE &&
                     table[i - 1].kernel == 1;
    if (takesPeers(args(table[i])) != isStandIn)
      return makeError(StatusCode::Corrupt, where, ": command ", i,
                       isStandIn
                           ? ": stands in for a sum without mailboxes"
                           : ": takes mailboxes and stands in for no sum");
    if (!isStandIn)
      continue;
    for (const kvrm_program_arg &arg : args(table[i]))
      if (arg.base == KVRM_BASE_PEERS)
        numbers.push_back(arg.index);
  }
  auto corrupt = [&] {
    return makeError(StatusCode::Corrupt, where,
                     ": mailboxes do not begin with 0, end with another and "
                     "change from each sum to the next");
  };
  for (size_t i = 0; i < numbers.size(); ++i)
    if (numbers[i] == numbers[(i + 1) % numbers.size()])
      return corrupt();
  return numbers.empty() || numbers.front() == 0 ? Status::ok() : corrupt();
}

/// A kernel that sums and does what the next does with the sum is given what
/// the two are given, but for the sum; and where it writes nothing of the sum's
/// in that another thread may still read.
Status StepProgram::verifyFused(size_t sum, const ProgramBounds &bounds,
                                std::string_view where) const {
  auto corrupt = [&](const auto &...parts) {
    return makeError(StatusCode::Corrupt, where, ": command ", sum, ": ",
                     parts...);
  };
  if (sum + 2 >= table.size() || table[sum + 2].kind != KVRM_COMMAND_KERNEL ||
      bounds.kernels[table[sum + 2].kernel] != KVRM_ROLE_DENSE ||
      table[sum + 2].schedules != table[sum].schedules)
    return corrupt("no dense kernel of its schedules is behind what stands in "
                   "for both");
  auto isSame = [](const kvrm_program_arg &one, const kvrm_program_arg &other) {
    return one.base == other.base && one.offset == other.offset &&
           one.bytes == other.bytes;
  };
  auto isGiven = [&](size_t command, const kvrm_program_arg &arg) {
    return std::ranges::any_of(
        args(table[command]),
        [&](const kvrm_program_arg &other) { return isSame(arg, other); });
  };
  const kvrm_program_arg &out = args(table[sum])[0], &in = args(table[sum])[1];
  if (!isGiven(sum + 2, out) || !isGiven(sum + 1, in))
    return corrupt("what stands in is not given its in, or the command behind "
                   "not its out");
  for (const kvrm_program_arg &arg : args(table[sum + 1])) {
    if (arg.base == KVRM_BASE_PEERS || isSame(arg, in))
      continue;
    if (!isGiven(sum + 2, arg))
      return corrupt("what stands in for both is given what neither is");
    if (overlap(arg, in) && arg.offset != in.offset)
      return corrupt("what stands in for both is given what overlaps its in");
  }
  return Status::ok();
}

int64_t StepProgram::mailboxBytes() const {
  int64_t most = 0;
  for (const kvrm_program_command &command : table)
    if (command.kind == KVRM_COMMAND_ALL_REDUCE && command.kernel > 0)
      most = std::max(most, args(command)[1].bytes);
  return most;
}

/// The commands that stand in for a product or a sum do its work when it does
/// not: when it would, and where it would.
Status StepProgram::verifyStandIns(const ProgramBounds &bounds,
                                   std::string_view where) const {
  for (size_t i = 0; i < table.size(); ++i) {
    const kvrm_program_command &product = table[i];
    bool isSum = product.kind == KVRM_COMMAND_ALL_REDUCE && product.kernel > 0;
    if (product.kind != KVRM_COMMAND_PRODUCT && !isSum)
      continue;
    auto corrupt = [&](const auto &...parts) {
      return makeError(StatusCode::Corrupt, where, ": command ", i, ": ",
                       parts...);
    };
    if (product.kernel >= table.size() - i)
      return corrupt("fewer commands follow than the ", product.kernel,
                     " that stand in for it");
    const kvrm_program_arg &out = args(product)[0];
    if (isSum && product.grid[1] == 1)
      KVRM_TRY(verifyFused(i, bounds, where));
    bool isWritten = isSum && product.grid[1] == 1;
    for (size_t other = i + 1; other <= i + product.kernel; ++other) {
      const kvrm_program_command &command = table[other];
      if (command.kind != KVRM_COMMAND_KERNEL ||
          bounds.kernels[command.kernel] != KVRM_ROLE_DENSE)
        return corrupt("command ", other,
                       " stands in for it and is no dense kernel");
      if (command.schedules != product.schedules)
        return corrupt("command ", other, " stands in for it in schedules ",
                       command.schedules, ", not in ", product.schedules);
      isWritten |=
          std::ranges::any_of(args(command), [&](const kvrm_program_arg &arg) {
            return arg.base == out.base && arg.offset == out.offset &&
                   arg.bytes == out.bytes;
          });
    }
    if (!isWritten)
      return corrupt("no command that stands in for it is given its out");
  }
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Whole programs
//===----------------------------------------------------------------------===//

Status Checker::checkCommand(const kvrm_program_command &command,
                             std::span<const kvrm_program_arg> args) {
  if (command.schedules == 0 || (command.schedules & ~KVRM_RUN_ALL) != 0)
    return corrupt("schedules ", command.schedules, " is outside 1..",
                   int32_t(KVRM_RUN_ALL));
  if ((command.flags & ~KVRM_COMMAND_PROGRAMMATIC) != 0)
    return corrupt("flags ", command.flags, " is outside 0..",
                   int32_t(KVRM_COMMAND_PROGRAMMATIC));
  for (size_t i = 0; i < args.size(); ++i)
    KVRM_TRY(checkArg(i, args[i]));
  switch (command.kind) {
  case KVRM_COMMAND_KERNEL:
    return checkKernel(command, args);
  case KVRM_COMMAND_COPY:
    return checkCopy(command, args);
  case KVRM_COMMAND_PRODUCT:
    return checkProduct(command, args);
  case KVRM_COMMAND_ALL_REDUCE:
  case KVRM_COMMAND_ALL_GATHER:
    return checkCollective(command, args);
  default:
    return corrupt("kind ", command.kind, " is outside 0..",
                   KVRM_COMMAND_KINDS - 1);
  }
}

size_t StepProgram::batchOf(const kvrm_program_command &command) const {
  return ::batchOf(args(command));
}

bool StepProgram::hasProducts() const {
  return std::ranges::any_of(table, [](const kvrm_program_command &command) {
    return command.kind == KVRM_COMMAND_PRODUCT;
  });
}

int32_t
StepProgram::schedules(std::span<const kvrm_kernel_role> kernels) const {
  int32_t found = 0;
  for (const kvrm_program_command &command : table)
    if (command.kind == KVRM_COMMAND_KERNEL &&
        isAttention(kernels[command.kernel]))
      found |= command.schedules;
  return found != 0 ? found : int32_t(KVRM_RUN_ALL);
}

/// The schedules that programs are counted in, one by one.
static constexpr std::array<int32_t, 3> allSchedules = {
    KVRM_RUN_WORKQUEUE, KVRM_RUN_CLUSTER, KVRM_RUN_STAGED};

/// A layer is attended to as often in one schedule as in another.
Status StepProgram::verifyAttention(const ProgramBounds &bounds,
                                    std::string_view where) const {
  constexpr size_t k = offsetof(kvrm_device_args, k_pool) / sizeof(uint64_t);
  std::vector<std::array<int32_t, allSchedules.size()>> counts(
      static_cast<size_t>(bounds.layers));
  for (const kvrm_program_command &command : table)
    if (command.kind == KVRM_COMMAND_KERNEL &&
        isAttention(bounds.kernels[command.kernel]))
      for (size_t i = 0; i < allSchedules.size(); ++i)
        counts[args(command)[k].index][i] +=
            command.schedules == allSchedules[i];
  int32_t runnable = schedules(bounds.kernels);
  if ((runnable & KVRM_RUN_WORKQUEUE) == 0)
    return makeError(StatusCode::Corrupt, where,
                     ": cannot be run as a workqueue, which each must");
  for (size_t layer = 0; layer < counts.size(); ++layer)
    for (size_t i = 0; i < allSchedules.size(); ++i)
      if ((runnable & allSchedules[i]) != 0 &&
          counts[layer][i] != counts[layer][0])
        return makeError(StatusCode::Corrupt, where, ": layer ", layer,
                         " is attended to ", counts[layer][0],
                         " times as a workqueue and ", counts[layer][i],
                         " times in schedule ", allSchedules[i]);
  return Status::ok();
}

/// A decoder's program has a kernel that is given the logits, and after it one
/// for each batch that chooses from them, in each schedule.
Status StepProgram::verifyLogits(const ProgramBounds &bounds,
                                 std::string_view where) const {
  int32_t written = 0;
  std::vector<int32_t> chosen(bounds.batches());
  for (const kvrm_program_command &command : table) {
    bool takesLogits =
        std::ranges::any_of(args(command), [](const kvrm_program_arg &arg) {
          return arg.base == KVRM_BASE_LOGITS;
        });
    if (command.kind == KVRM_COMMAND_KERNEL &&
        bounds.kernels[command.kernel] == KVRM_ROLE_SAMPLE)
      chosen[::batchOf(args(command))] |= command.schedules & written;
    else if (takesLogits)
      written |= command.schedules;
  }
  for (int32_t schedule : allSchedules) {
    if ((schedules(bounds.kernels) & schedule & ~written) != 0)
      return makeError(StatusCode::Corrupt, where,
                       ": no kernel takes the logits in schedule ", schedule);
    for (size_t batch = 0; batch < chosen.size(); ++batch)
      if ((schedules(bounds.kernels) & schedule & ~chosen[batch]) != 0)
        return makeError(StatusCode::Corrupt, where,
                         ": no kernel samples the logits of batch ", batch,
                         " in schedule ", schedule);
  }
  return Status::ok();
}

Status StepProgram::verify(const ProgramBounds &bounds,
                           std::string_view where) const {
  auto corrupt = [&](const auto &...parts) {
    return makeError(StatusCode::Corrupt, where, ": ", parts...);
  };
  if (layers() != bounds.layers)
    return corrupt("layers: ", layers(), " is not the package's ",
                   bounds.layers);
  if (tensors() != bounds.tensors)
    return corrupt("tensors: ", tensors(), " is not the entry's ",
                   bounds.tensors);
  if (header.batches != bounds.batches())
    return corrupt("batches: ", header.batches, " are not the entry's ",
                   bounds.batches());
  if (ranks() != bounds.ranks)
    return corrupt("ranks: ", ranks(), " are not the package's ", bounds.ranks);
  Checker checker(bounds, where);
  for (const kvrm_program_command &command : table) {
    KVRM_TRY(checker.checkCommand(command, args(command)));
    ++checker.index;
  }
  KVRM_TRY(verifyStandIns(bounds, where));
  KVRM_TRY(verifyMailboxes(where));
  KVRM_TRY(verifyAttention(bounds, where));
  return bounds.hasLogits ? verifyLogits(bounds, where) : Status::ok();
}
