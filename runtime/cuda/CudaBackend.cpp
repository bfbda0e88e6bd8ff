//===- CudaBackend.cpp - The backend of NVIDIA GPUs -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaBackend.h"

#include "kvrm/runtime/paging/SchedulePolicy.h"

#include <algorithm>
#include <bit>
#include <cstring>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

static const EntryInfo &infoOf(const Manifest &manifest, StepEntry entry) {
  return entry == StepEntry::Decode    ? manifest.decode
         : entry == StepEntry::Prefill ? manifest.prefill
                                       : manifest.mixed;
}

static const StepProgram &programOf(const Package &package, StepEntry entry) {
  return entry == StepEntry::Decode    ? package.decodeProgram()
         : entry == StepEntry::Prefill ? package.prefillProgram()
                                       : package.mixedProgram();
}

/// The entries that have a batch of their own.
static constexpr std::array planned = {StepEntry::Decode, StepEntry::Prefill};

/// Blocks a multiprocessor of the persistent grids of a program.
static int32_t blocksPerSm(const StepProgram &program,
                           const Manifest &manifest) {
  for (const kvrm_program_command &command : program.commands()) {
    if (command.kind != KVRM_COMMAND_KERNEL)
      continue;
    const KernelInfo &kernel = manifest.kernels[command.kernel];
    if (kernel.role == KVRM_ROLE_ATTEND_WORKQUEUE)
      return kernel.blocksPerSm;
  }
  return 1;
}

Expected<std::unique_ptr<CudaBackend>>
CudaBackend::create(std::shared_ptr<const CudaDevice> device,
                    const Package &package, const CudaShape &shape) {
  KVRM_CHECK(device, "a backend has a device");
  KVRM_TRY(checkDevice(package, device->info()));
  const Manifest &m = package.manifest();
  KVRM_CHECK(m.vocabulary > 0 && m.hasPrefill(), "a package is a decoder's");
  std::unique_ptr<CudaBackend> backend(new CudaBackend());
  KVRM_CHECK((m.ranks > 1) == (shape.group != nullptr),
             "several ranks have a group");
  backend->gpu = std::move(device);
  backend->group = shape.group;
  backend->rank = shape.rank;
  backend->vocabulary = m.vocabulary;
  Expected<DeviceCode> code = DeviceCode::load(backend->gpu, package);
  KVRM_TRY(code.status());
  backend->code = code.take();
  Expected<CudaStream> stream = CudaStream::create(backend->gpu);
  KVRM_TRY(stream.status());
  backend->queue = stream.take();
  BackendInfo &facts = backend->facts;
  facts.device = backend->gpu->info().name;
  facts.pages = shape.pages;
  facts.parkingPages = shape.parkingPages;
  facts.choosesTokens = true;
  // Kernels for older GPUs do not wait for what they overlap with.
  facts.overlapsSteps = m.capability >= 90;
  facts.stepsAhead = CudaTokens::mostSent - 1;
  facts.mixes = m.hasMixed();
  for (StepEntry which : planned) {
    auto index = static_cast<size_t>(which);
    PlanShape plan = shape.plans[index];
    plan.shares = backend->gpu->info().multiprocessors *
                  blocksPerSm(programOf(package, which), m);
    facts.entries[index].shares = plan.shares;
    Expected<PlanCapacity> room = Planner::capacityOf(plan);
    KVRM_TRY(room.status());
    backend->perBatch[index].room = *room;
  }
  KVRM_TRY(backend->takePools(m, shape));
  KVRM_TRY(backend->takeStepMemory(m));
  KVRM_TRY(backend->copyWeights(package, shape.stagingBytes));
  KVRM_TRY(backend->createProducts(package, shape));
  for (StepEntry which : planned) {
    KVRM_TRY(backend->createDescriptor(which));
    KVRM_TRY(backend->createProgram(which, package));
  }
  if (m.hasMixed())
    KVRM_TRY(backend->createProgram(StepEntry::Mixed, package));
  if (shape.usesClusters)
    KVRM_TRY(backend->recordClusters());
  return backend;
}

/// `Buffer` is a DeviceBuffer or a PinnedBuffer.
template <typename Buffer>
static Status take(Buffer &buffer,
                   const std::shared_ptr<const CudaDevice> &device,
                   int64_t bytes, const char *purpose) {
  Expected<Buffer> taken = Buffer::create(device, bytes, purpose);
  KVRM_TRY(taken.status());
  buffer = taken.take();
  return Status::ok();
}

Status CudaBackend::takePools(const Manifest &manifest,
                              const CudaShape &shape) {
  Expected<CudaPool> created = CudaPool::create(
      gpu, {manifest.layers, manifest.rankKvHeads(), manifest.headDim,
            manifest.pageTokens, shape.pages, manifest.element});
  KVRM_TRY(created.status());
  pool = created.take();
  facts.canCollapse = manifest.window > 0;
  if (manifest.summaries > 0) {
    Expected<CudaSummaries> made = CudaSummaries::create(
        gpu, *code.find(KVRM_ROLE_COLLAPSE), pool.shape(), manifest.summaries);
    KVRM_TRY(made.status());
    summaries = made.take();
  }
  facts.pageBytes = pool.shape().allPageBytes();
  return take(parking, gpu, facts.pageBytes * shape.parkingPages,
              "parking memory");
}

/// What holds any plan of any entry. Never nothing, so that every address is
/// one.
Status CudaBackend::takeStepMemory(const Manifest &manifest) {
  int64_t arenaBytes = KVRM_ALIGNMENT;
  int64_t partialFloats = 1;
  int64_t rows = 0;
  for (StepEntry which : planned) {
    const EntryInfo &info = infoOf(manifest, which);
    int64_t queryRows = int64_t(info.qTile) * manifest.groupHeads();
    partialFloats =
        std::max(partialFloats,
                 batchOf(which).room.partials *
                     kvrm_device_partial_floats(queryRows, manifest.headDim));
    arenaBytes = std::max(arenaBytes, info.arenaBytes);
    rows += info.rows;
  }
  if (manifest.hasMixed())
    arenaBytes = std::max(arenaBytes, manifest.mixed.arenaBytes);
  int64_t logitBytes = rows * vocabulary * int64_t(sizeof(float));
  KVRM_TRY(take(arena, gpu, arenaBytes, "arena"));
  KVRM_TRY(
      take(partials, gpu, partialFloats * int64_t(sizeof(float)), "partials"));
  KVRM_TRY(take(logits, gpu, logitBytes, "logits"));
  KVRM_TRY(take(hostLogits, gpu, logitBytes, "logits"));
  Expected<CudaTokens> chosen = CudaTokens::create(gpu, rows);
  KVRM_TRY(chosen.status());
  tokens = chosen.take();
  static_assert(KVRM_EMPTY_PARTIAL == 0xffffffffu);
  return queue.fill(partials.span(), 0xff);
}

/// The package has checked every byte. Memory that is not pinned is copied no
/// faster than this, and with less to see of it.
Status CudaBackend::copyWeights(const Package &package, int64_t stagingBytes) {
  int64_t bytes = package.weightBytes();
  KVRM_TRY(take(weights, gpu, bytes, "weights"));
  PinnedBuffer staging;
  KVRM_TRY(take(staging, gpu, std::min(bytes, stagingBytes), "weights"));
  for (int64_t done = 0; done < bytes; done += staging.size()) {
    int64_t part = std::min(staging.size(), bytes - done);
    std::memcpy(staging.data(), package.weights(rank) + done,
                static_cast<size_t>(part));
    KVRM_TRY(queue.copyIn(weights.span().part(done, part), staging.data()));
    KVRM_TRY(queue.synchronize());
  }
  return Status::ok();
}

Status CudaBackend::createProducts(const Package &package,
                                   const CudaShape &shape) {
  if (!package.hasProducts())
    return Status::ok();
  facts.products = "generated";
  if (!shape.products)
    return Status::ok();
  Expected<std::unique_ptr<CudaProducts>> created =
      CudaProducts::create(shape.products, gpu);
  KVRM_TRY(created.status());
  products = created.take();
  facts.products = products->name();
  return Status::ok();
}

/// The batches of an entry's steps, in the order of their descriptors.
std::span<CudaBackend::Batch> CudaBackend::batchesOf(StepEntry entry) {
  std::span all(perBatch);
  return entry == StepEntry::Mixed ? all
                                   : all.subspan(static_cast<size_t>(entry), 1);
}

ProgramMemory CudaBackend::memoryOf(StepEntry entry) {
  ProgramMemory memory;
  memory.pool = pool.shape();
  memory.poolAddress = pool.span().address;
  for (const Batch &batch : batchesOf(entry))
    memory.batches.push_back({.descriptor = batch.descriptor.span().address,
                              .delta = batch.descriptor.deltaAddress(),
                              .limits = batch.room.limits});
  memory.partials = partials.address();
  memory.arena = arena.address();
  memory.weights = weights.address();
  memory.logits = logits.address();
  memory.next = tokens.address() +
                static_cast<uint64_t>(firstTokenOf(entry)) * sizeof(int32_t);
  if (group && group->peers())
    for (size_t i = 0; i < memory.peers.size(); ++i)
      memory.peers[i] = group->peers()->table(rank, static_cast<int32_t>(i));
  return memory;
}

/// Where the tokens of an entry's rows begin among all.
int64_t CudaBackend::firstTokenOf(StepEntry entry) const {
  return entry == StepEntry::Prefill
             ? batchOf(StepEntry::Decode).room.limits.rows
             : 0;
}

Status CudaBackend::createDescriptor(StepEntry which) {
  Batch &batch = perBatch[static_cast<size_t>(which)];
  Expected<CudaDescriptor> descriptor =
      CudaDescriptor::create(queue, batch.room.limits, /*hasGroups=*/false);
  KVRM_TRY(descriptor.status());
  batch.descriptor = descriptor.take();
  return Status::ok();
}

/// Binds an entry's program and records it as a work queue.
Status CudaBackend::createProgram(StepEntry which, const Package &package) {
  CudaProgram &program = programs[static_cast<size_t>(which)];
  program = CudaProgram(programOf(package, which), code, memoryOf(which),
                        facts.overlapsSteps);
  if (products)
    KVRM_TRY(program.useProducts(*products, queue));
  if (group)
    KVRM_TRY(program.useCollectives(*group, rank, queue));
  return program.capture(queue, CudaSchedule::workqueue());
}

/// Records decode steps as clusters of those sizes that program and device
/// have. Other entries have the work queue alone: constants to choose by are
/// measured on decode steps.
Status CudaBackend::recordClusters() {
  auto index = static_cast<size_t>(StepEntry::Decode);
  CudaProgram &program = programs[index];
  for (int32_t blocks : CostLimits::clusterSizes) {
    CudaSchedule clusters = CudaSchedule::clusters(blocks);
    Status status = program.check(clusters);
    if (status.code() == StatusCode::InvalidArgument ||
        status.code() == StatusCode::Incompatible)
      continue;
    KVRM_TRY(status);
    KVRM_TRY(program.capture(queue, clusters));
    facts.entries[index].schedules.push_back(blocks);
  }
  return Status::ok();
}

CudaBackend::~CudaBackend() {
  if (queue.handle())
    (void)queue.synchronize().isOk();
}

int64_t CudaBackend::deviceBytes() const {
  int64_t bytes = pool.span().bytes + weights.size() + arena.size() +
                  partials.size() + logits.size() + tokens.deviceBytes() +
                  summaries.deviceBytes();
  if (products)
    bytes += products->deviceBytes();
  if (group && group->peers())
    bytes += group->peers()->deviceBytes(rank);
  for (const Batch &batch : perBatch)
    bytes += batch.descriptor.deviceBytes();
  return bytes;
}

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

/// All runs are under way at once: the wait is one for a history, not one for
/// each of its runs.
Status CudaBackend::movePages(std::span<const PageRun> runs,
                              MoveDirection direction) {
  for (const PageRun &run : runs)
    KVRM_TRY(startMove(run, direction));
  return queue.synchronize();
}

Status CudaBackend::startMove(const PageRun &run, MoveDirection direction) {
  KVRM_CHECK(run.pages > 0 && run.poolPage >= 0 && run.parkingPage >= 0 &&
                 run.poolPage + run.pages <= facts.pages &&
                 run.parkingPage + run.pages <= facts.parkingPages,
             "the run lies in the pool and in parking memory");
  const PoolShape &shape = pool.shape();
  uint64_t here = pool.page({.page = run.poolPage}).address;
  uint8_t *there = parking.data() + run.parkingPage * shape.pageBytes();
  int64_t parkingStride = shape.pageBytes() * facts.parkingPages;
  int64_t width = shape.pageBytes() * run.pages;
  return direction == MoveDirection::ToParking
             ? queue.copyRunsOut(there, here,
                                 {.toPitch = parkingStride,
                                  .fromPitch = shape.headStride(),
                                  .width = width,
                                  .height = shape.pageRuns()})
             : queue.copyRunsIn(here, there,
                                {.toPitch = shape.headStride(),
                                 .fromPitch = parkingStride,
                                 .width = width,
                                 .height = shape.pageRuns()});
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

/// Rows of the logits from the first active one to the last.
static std::pair<int64_t, int64_t>
activeRows(std::span<StepDescriptor *const> descriptors) {
  int64_t first = -1, end = 0, row = 0;
  for (const StepDescriptor *descriptor : descriptors)
    for (const kvrm_row &each : descriptor->committedRows()) {
      if (each.count > 0) {
        first = first < 0 ? row : first;
        end = row + 1;
      }
      ++row;
    }
  return {std::max<int64_t>(first, 0), end};
}

static size_t rowsOf(std::span<StepDescriptor *const> descriptors) {
  size_t rows = 0;
  for (const StepDescriptor *descriptor : descriptors)
    rows += descriptor->committedRows().size();
  return rows;
}

/// Waits for the step and copies the logits of its active rows. They go through
/// pinned memory, as a copy to other memory is one through pinned memory of the
/// driver's.
Status CudaBackend::readLogits(const BackendStep &step) {
  auto [first, end] = activeRows(step.descriptors);
  int64_t rowBytes = int64_t(vocabulary) * int64_t(sizeof(float));
  DeviceSpan active =
      logits.span().part(first * rowBytes, (end - first) * rowBytes);
  uint8_t *host = hostLogits.data() + first * rowBytes;
  if (active.bytes > 0)
    KVRM_TRY(queue.copyOut(host, active));
  KVRM_TRY(queue.synchronize());
  std::memcpy(step.logits + first * vocabulary, host,
              static_cast<size_t>(active.bytes));
  return Status::ok();
}

Status CudaBackend::startStep(const BackendStep &step, BackendStats &stats) {
  std::span<Batch> batches = batchesOf(step.entry);
  KVRM_CHECK(step.descriptors.size() == batches.size(),
             "every batch of a step is planned");
  for (size_t i = 0; i < batches.size(); ++i) {
    StepDescriptor &descriptor = *step.descriptors[i];
    KVRM_CHECK(std::memcmp(&descriptor.limits(), &batches[i].room.limits,
                           sizeof(descriptor.limits())) == 0,
               "a batch is planned as its entry is");
    KVRM_TRY(batches[i].descriptor.send(queue, descriptor, tokens.address()));
    stats.committedBytes += batches[i].descriptor.stats().bytes;
    stats.commitNanoseconds += batches[i].descriptor.stats().nanoseconds;
  }
  KVRM_TRY(programs[static_cast<size_t>(step.entry)].replay(
      queue, {.cluster = step.schedule}));
  for (Batch &batch : batches)
    batch.descriptor.applied();
  return Status::ok();
}

Status CudaBackend::runStep(const BackendStep &step, BackendStats &stats) {
  BackendStats moved;
  KVRM_TRY(startStep(step, moved));
  if (step.isLater)
    KVRM_TRY(tokens.send(queue));
  else if (step.logits)
    KVRM_TRY(readLogits(step));
  else if (!step.next)
    KVRM_TRY(queue.synchronize());
  if (step.next)
    KVRM_TRY(tokens.fetch(queue, firstTokenOf(step.entry),
                          {step.next, rowsOf(step.descriptors)}));
  stats = moved;
  return Status::ok();
}
