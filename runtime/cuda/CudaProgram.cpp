//===- CudaProgram.cpp - A step program on a GPU --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaProgram.h"

#include <algorithm>
#include <string>

using namespace kvrm;

/// "workqueue", "staged" or "cluster 4".
static std::string textOf(CudaSchedule schedule) {
  if (schedule.cluster > 0)
    return "cluster " + std::to_string(schedule.cluster);
  return schedule.isStaged ? "staged" : "workqueue";
}

//===----------------------------------------------------------------------===//
// Addresses
//===----------------------------------------------------------------------===//

/// The value of an argument: a parameter of a kernel, 8 bytes.
static uint64_t resolve(const kvrm_program_arg &arg,
                        const ProgramMemory &memory) {
  size_t index = kvrm_base_has_batch(arg.base) ? arg.index : 0;
  KVRM_CHECK(index < memory.batches.size(), "a batch that there is");
  const ProgramBatch &batch = memory.batches[index];
  kvrm_descriptor_layout layout = kvrm_descriptor_layout_of(batch.limits);
  auto section = [&](int64_t start) {
    return batch.descriptor + static_cast<uint64_t>(start);
  };
  auto side = static_cast<uint64_t>(memory.pool.sideBytes());
  auto offset = static_cast<uint64_t>(arg.offset);
  switch (static_cast<kvrm_program_base>(arg.base)) {
  case KVRM_BASE_IMMEDIATE:
    return offset;
  case KVRM_BASE_ARENA:
    return memory.arena + offset;
  case KVRM_BASE_WEIGHTS:
    return memory.weights + offset;
  case KVRM_BASE_TENSOR:
    KVRM_CHECK(arg.index < memory.tensors.size(), "a tensor that there is");
    return memory.tensors[arg.index];
  case KVRM_BASE_DELTA:
    return batch.delta;
  case KVRM_BASE_DESCRIPTOR:
    return batch.descriptor;
  case KVRM_BASE_ROWS:
    return section(layout.rows) + offset;
  case KVRM_BASE_TABLES:
    return section(layout.tables);
  case KVRM_BASE_GROUPS:
    return section(layout.groups);
  case KVRM_BASE_ITEMS:
    return section(layout.items);
  case KVRM_BASE_SEGMENTS:
    return section(layout.segments);
  case KVRM_BASE_SHARES:
    return section(layout.shares);
  case KVRM_BASE_K_POOL:
  case KVRM_BASE_V_POOL:
    KVRM_CHECK(arg.index < memory.pool.layers, "a layer that there is");
    return memory.poolAddress +
           (arg.index * 2u + (arg.base == KVRM_BASE_V_POOL)) * side;
  case KVRM_BASE_PARTIALS:
    return memory.partials;
  case KVRM_BASE_HEAD_STRIDE:
    return static_cast<uint64_t>(memory.pool.headStride());
  case KVRM_BASE_PAGES_PER_SLOT:
    return static_cast<uint64_t>(batch.limits.pages_per_slot);
  case KVRM_BASE_STAGED_K:
    return memory.stagedAddress;
  case KVRM_BASE_STAGED_V:
    return memory.stagedAddress ? memory.stagedAddress + side : 0;
  case KVRM_BASE_TOKENS:
    return section(layout.tokens);
  case KVRM_BASE_LOGITS:
    return memory.logits + offset;
  case KVRM_BASE_SAMPLING:
    return section(layout.sampling);
  case KVRM_BASE_NEXT:
    return memory.next + offset;
  case KVRM_BASE_PEERS:
    return memory.peers[arg.index];
  case KVRM_PROGRAM_BASES:
    break;
  }
  KVRM_CHECK(false, "a program is verified before it is bound");
  return 0;
}

CudaProgram::CudaProgram(const StepProgram &program, const DeviceCode &code,
                         const ProgramMemory &memory, bool usesPdl)
    : code(&code), usesPdl(usesPdl), hasStaging(memory.stagedAddress != 0) {
  std::vector<kvrm_kernel_role> roles;
  for (const DeviceCode::Kernel &kernel : code.kernels())
    roles.push_back(kernel.info.role);
  runnable = program.schedules(roles);
  ranks = program.ranks();
  hasMailboxes = memory.peers.front() != 0;
  for (const kvrm_program_command &table : program.commands()) {
    Command command{.table = table,
                    .firstValue = values.size(),
                    .limits = memory.batches[program.batchOf(table)].limits};
    for (const kvrm_program_arg &arg : program.args(table))
      values.push_back(resolve(arg, memory));
    if (table.kind == KVRM_COMMAND_COPY)
      command.bytes = program.args(table)[0].bytes;
    if (table.kind == KVRM_COMMAND_PRODUCT)
      command.writesLogits = program.args(table)[0].base == KVRM_BASE_LOGITS;
    commands.push_back(command);
  }
}

Status CudaProgram::useProducts(CudaProducts &library,
                                const CudaStream &stream) {
  products = &library;
  for (Command &command : commands) {
    if (command.table.kind != KVRM_COMMAND_PRODUCT)
      continue;
    size_t known = library.size();
    Expected<size_t> product = library.prepare(ProductShape::of(command.table));
    KVRM_TRY(product.status());
    command.product = *product;
    if (library.size() == known)
      continue;
    // Logits that every rank makes whole have to be the same on all: none may
    // find another way faster.
    if (ranks > 1 && command.writesLogits)
      KVRM_TRY(library.run(stream, command.product, addressesOf(command)));
    else
      KVRM_TRY(library.tune(stream, command.product, addressesOf(command)));
  }
  return stream.synchronize();
}

static Collective collectiveOf(const kvrm_program_command &table) {
  return {.kind = static_cast<kvrm_command_kind>(table.kind),
          .type = static_cast<kvrm_collective_type>(table.grid_rule),
          .elements = table.grid[0]};
}

Status CudaProgram::useCollectives(CudaGroup &ranks, int32_t rank,
                                   const CudaStream &stream) {
  group = &ranks;
  ownRank = rank;
  std::vector<Collective> known;
  for (const Command &command : commands) {
    if (!kvrm_command_is_collective(command.table.kind))
      continue;
    Collective collective = collectiveOf(command.table);
    if (std::ranges::find(known, collective) != known.end())
      continue;
    known.push_back(collective);
    KVRM_TRY(launchCollective(stream, command));
  }
  return stream.synchronize();
}

Status CudaProgram::launchCollective(const CudaStream &stream,
                                     const Command &command) const {
  KVRM_CHECK(group, "a program of several ranks has a group");
  const uint64_t *first = values.data() + command.firstValue;
  return group->run(ownRank, stream, collectiveOf(command.table), first[0],
                    first[1]);
}

//===----------------------------------------------------------------------===//
// Schedules
//===----------------------------------------------------------------------===//

size_t CudaProgram::indexOf(CudaSchedule schedule) {
  switch (schedule.cluster) {
  case 1:
    return 1;
  case 2:
    return 2;
  case 4:
    return 3;
  case 8:
    return 4;
  default:
    return schedule.isStaged ? 5 : 0;
  }
}

kvrm_kernel_role CudaProgram::role(size_t index) const {
  const kvrm_program_command &table = commands[index].table;
  return table.kind == KVRM_COMMAND_KERNEL
             ? code->kernels()[table.kernel].info.role
             : KVRM_KERNEL_ROLES;
}

Status CudaProgram::check(CudaSchedule schedule) const {
  constexpr std::array sizes = {0, 1, 2, 4, 8};
  if (std::ranges::find(sizes, schedule.cluster) == sizes.end())
    return invalidArgument("schedule: cluster ", schedule.cluster,
                           " is not one of 0, 1, 2, 4, 8");
  if (schedule.isStaged && schedule.cluster != 0)
    return invalidArgument("schedule: clusters read pages natively");
  if (schedule.isStaged && !hasStaging)
    return invalidArgument(
        "schedule: staged: the backend was created without staging");
  if ((runnable & schedule.bit()) == 0)
    return invalidArgument("schedule: the program has no ", textOf(schedule));
  return checkClusters(schedule);
}

/// Whether kernels and device have clusters of that size.
Status CudaProgram::checkClusters(CudaSchedule schedule) const {
  for (const Command &command : commands) {
    if (command.table.kind != KVRM_COMMAND_KERNEL ||
        command.table.grid_rule != KVRM_GRID_CLUSTERS || schedule.cluster == 0)
      continue;
    const DeviceCode::Kernel &kernel = code->kernels()[command.table.kernel];
    if (schedule.cluster > kernel.info.maxCluster)
      return invalidArgument("schedule: cluster ", schedule.cluster,
                             " is more than the kernels' max_cluster, ",
                             kernel.info.maxCluster);
    if (schedule.cluster == 1)
      return Status::ok();
    Expected<int32_t> clusters =
        kernel.code.maxActiveClusters(launchOf(command, schedule));
    KVRM_TRY(clusters.status());
    if (*clusters < 1)
      return makeError(StatusCode::Incompatible, "schedule: clusters of ",
                       schedule.cluster, " blocks do not fit device ",
                       code->device().info().index, ", ",
                       code->device().info().name);
    return Status::ok(); // all of a program are alike
  }
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

CudaLaunch CudaProgram::launchOf(const Command &command,
                                 CudaSchedule schedule) const {
  const kvrm_program_command &table = command.table;
  const KernelInfo &info = code->kernels()[table.kernel].info;
  CudaLaunch launch;
  launch.grid = {table.grid[0], table.grid[1], table.grid[2]};
  launch.threads = static_cast<uint32_t>(info.threads);
  launch.sharedBytes = static_cast<uint32_t>(info.sharedBytes);
  auto rows = static_cast<uint32_t>(command.limits.rows);
  switch (static_cast<kvrm_grid_rule>(table.grid_rule)) {
  case KVRM_GRID_FIXED:
    break;
  case KVRM_GRID_ROWS:
    launch.grid[0] *= rows;
    break;
  case KVRM_GRID_SHARES:
    launch.grid[0] = static_cast<uint32_t>(command.limits.max_shares);
    break;
  case KVRM_GRID_PROCESSORS:
    launch.grid[0] *=
        static_cast<uint32_t>(code->device().info().multiprocessors);
    break;
  case KVRM_GRID_CLUSTERS:
    launch.grid[0] *= rows * static_cast<uint32_t>(schedule.cluster);
    // Kernels for GPUs without clusters are launched without saying so.
    if (info.maxCluster > 1)
      launch.cluster = static_cast<uint32_t>(schedule.cluster);
    break;
  }
  return launch;
}

ProductAddresses CudaProgram::addressesOf(const Command &command) const {
  const uint64_t *first = values.data() + command.firstValue;
  return {.out = first[0],
          .in = first[1],
          .weight = first[2],
          .addend = command.table.args == 4 ? first[3] : 0};
}

Status CudaProgram::launchCommand(const CudaStream &stream, size_t index,
                                  CudaSchedule schedule,
                                  bool isProgrammatic) const {
  const Command &command = commands[index];
  const uint64_t *first = values.data() + command.firstValue;
  if (command.table.kind == KVRM_COMMAND_COPY)
    return stream.copy(first[0], {first[1], command.bytes});
  if (command.table.kind == KVRM_COMMAND_PRODUCT)
    return products
               ? products->run(stream, command.product, addressesOf(command))
               : Status::ok();
  if (kvrm_command_is_collective(command.table.kind))
    return launchCollective(stream, command);
  const DeviceCode::Kernel &kernel = code->kernels()[command.table.kernel];
  std::array<void *, KVRM_MAX_COMMAND_ARGS> parameters{};
  for (size_t i = 0; i < command.table.args; ++i)
    parameters[i] = const_cast<uint64_t *>(first + i);
  CudaLaunch launch = launchOf(command, schedule);
  launch.isProgrammatic = isProgrammatic;
  Status status = kernel.code.launch(
      stream, launch, std::span(parameters).first(command.table.args));
  if (status.isOk())
    return status;
  return makeError(status.code(), "kernel ", kernel.info.name(), ": ",
                   status.message());
}

Status CudaProgram::launch(const CudaStream &stream,
                           CudaSchedule schedule) const {
  KVRM_TRY(check(schedule));
  return launchAll(stream, schedule);
}

/// Of a schedule that is checked.
Status CudaProgram::launchAll(const CudaStream &stream,
                              CudaSchedule schedule) const {
  bool followsCollective = false;
  size_t done = commands.size(); ///< by what stood in for it and a sum
  for (size_t i = 0; i < commands.size(); ++i) {
    const kvrm_program_command &table = commands[i].table;
    if ((table.schedules & schedule.bit()) == 0 || i == done)
      continue;
    // A library may put more than one kernel into the stream, of which a
    // programmatic launch would know the last.
    bool isProgrammatic = usesPdl && !followsCollective &&
                          (table.flags & KVRM_COMMAND_PROGRAMMATIC) != 0;
    if (table.kind == KVRM_COMMAND_ALL_REDUCE && table.kernel > 0 &&
        hasMailboxes) {
      if (table.grid[1] != 0)
        done = i + table.kernel + 1;
      continue; // what stands in for it is next
    }
    followsCollective = kvrm_command_is_collective(table.kind) != 0;
    KVRM_TRY(launchCommand(stream, i, schedule, isProgrammatic));
    if ((table.kind == KVRM_COMMAND_PRODUCT && products) || followsCollective)
      i += table.kernel; // what stands in for it
  }
  return Status::ok();
}

Status CudaProgram::capture(const CudaStream &stream, CudaSchedule schedule) {
  KVRM_TRY(check(schedule));
  CudaGraph &graph = graphs[indexOf(schedule)];
  if (graph)
    return Status::ok();
  Expected<CudaCapture> capture = CudaCapture::begin(stream);
  KVRM_TRY(capture.status());
  KVRM_TRY(launchAll(stream, schedule));
  Expected<CudaGraph> captured = capture->end();
  KVRM_TRY(captured.status());
  graph = captured.take();
  ++captureCount;
  return Status::ok();
}

Status CudaProgram::replay(const CudaStream &stream,
                           CudaSchedule schedule) const {
  const CudaGraph &graph = graphs[indexOf(schedule)];
  if (!graph)
    return invalidArgument("schedule: ", textOf(schedule), " was not captured");
  return graph.launch(stream);
}
