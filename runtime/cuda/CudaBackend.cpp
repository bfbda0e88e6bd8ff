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
  return entry == StepEntry::Decode ? manifest.decode : manifest.prefill;
}

static const StepProgram &programOf(const Package &package, StepEntry entry) {
  return entry == StepEntry::Decode ? package.decodeProgram()
                                    : package.prefillProgram();
}

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
  backend->gpu = std::move(device);
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
  constexpr std::array both = {StepEntry::Decode, StepEntry::Prefill};
  for (StepEntry which : both) {
    auto index = static_cast<size_t>(which);
    PlanShape plan = shape.plans[index];
    plan.shares = backend->gpu->info().multiprocessors *
                  blocksPerSm(programOf(package, which), m);
    facts.entries[index].shares = plan.shares;
    Expected<PlanCapacity> room = Planner::capacityOf(plan);
    KVRM_TRY(room.status());
    backend->entries[index].room = *room;
  }
  KVRM_TRY(backend->takePools(m, shape));
  KVRM_TRY(backend->takeStepMemory(m));
  KVRM_TRY(backend->copyWeights(package, shape.stagingBytes));
  KVRM_TRY(backend->createProducts(package, shape));
  for (StepEntry which : both) {
    KVRM_TRY(backend->createEntry(which, package));
    KVRM_TRY(backend->recordSchedules(which, shape.usesClusters));
  }
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
      gpu, {manifest.layers, manifest.kvHeads, manifest.headDim,
            manifest.pageTokens, shape.pages, manifest.element});
  KVRM_TRY(created.status());
  pool = created.take();
  facts.pageBytes = pool.shape().allPageBytes();
  return take(parking, gpu, facts.pageBytes * shape.parkingPages,
              "parking memory");
}

/// What holds any plan of any entry. Never nothing, so that every address is
/// one.
Status CudaBackend::takeStepMemory(const Manifest &manifest) {
  int64_t arenaBytes = KVRM_ALIGNMENT;
  int64_t partialFloats = 1;
  int64_t rows = 1;
  for (StepEntry which : {StepEntry::Decode, StepEntry::Prefill}) {
    const EntryInfo &info = infoOf(manifest, which);
    int64_t queryRows = int64_t(info.qTile) * manifest.groupHeads();
    partialFloats =
        std::max(partialFloats,
                 entryOf(which).room.partials *
                     kvrm_device_partial_floats(queryRows, manifest.headDim));
    arenaBytes = std::max(arenaBytes, info.arenaBytes);
    rows = std::max<int64_t>(rows, info.rows);
  }
  int64_t logitBytes = rows * vocabulary * int64_t(sizeof(float));
  KVRM_TRY(take(arena, gpu, arenaBytes, "arena"));
  KVRM_TRY(
      take(partials, gpu, partialFloats * int64_t(sizeof(float)), "partials"));
  KVRM_TRY(take(logits, gpu, logitBytes, "logits"));
  KVRM_TRY(take(hostLogits, gpu, logitBytes, "logits"));
  KVRM_TRY(take(next, gpu, rows * int64_t(sizeof(int32_t)), "next tokens"));
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
    std::memcpy(staging.data(), package.weights() + done,
                static_cast<size_t>(part));
    KVRM_TRY(queue.copyIn(weights.span().part(done, part), staging.data()));
    KVRM_TRY(queue.synchronize());
  }
  return Status::ok();
}

Status CudaBackend::createProducts(const Package &package,
                                   const CudaShape &shape) {
  if (!package.decodeProgram().hasProducts() &&
      !package.prefillProgram().hasProducts())
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

ProgramMemory CudaBackend::memoryOf(const Entry &entry) const {
  ProgramMemory memory;
  memory.pool = pool.shape();
  memory.poolAddress = pool.span().address;
  memory.descriptor = entry.descriptor.span().address;
  memory.limits = entry.room.limits;
  memory.delta = entry.descriptor.deltaAddress();
  memory.partials = partials.address();
  memory.arena = arena.address();
  memory.weights = weights.address();
  memory.logits = logits.address();
  memory.next = std::bit_cast<uint64_t>(next.data());
  return memory;
}

Status CudaBackend::createEntry(StepEntry which, const Package &package) {
  auto index = static_cast<size_t>(which);
  Entry &entry = entries[index];
  Expected<CudaDescriptor> descriptor =
      CudaDescriptor::create(queue, entry.room.limits, /*hasGroups=*/false);
  KVRM_TRY(descriptor.status());
  entry.descriptor = descriptor.take();
  entry.program = CudaProgram(programOf(package, which), code, memoryOf(entry),
                              {.rows = infoOf(package.manifest(), which).rows,
                               .shares = facts.entries[index].shares,
                               .usesPdl = facts.overlapsSteps});
  return products ? entry.program.useProducts(*products, queue) : Status::ok();
}

/// Records the work queue and, if wanted, clusters of those sizes that program
/// and device have. Prefill has the work queue alone: constants to choose by
/// are measured on decode steps.
Status CudaBackend::recordSchedules(StepEntry which, bool usesClusters) {
  auto index = static_cast<size_t>(which);
  CudaProgram &program = entries[index].program;
  KVRM_TRY(program.capture(queue, CudaSchedule::workqueue()));
  std::vector<int32_t> &schedules = facts.entries[index].schedules;
  schedules = {SchedulePolicy::workqueue};
  if (!usesClusters || which != StepEntry::Decode)
    return Status::ok();
  for (int32_t blocks : CostLimits::clusterSizes) {
    CudaSchedule clusters = CudaSchedule::clusters(blocks);
    Status status = program.check(clusters);
    if (status.code() == StatusCode::InvalidArgument ||
        status.code() == StatusCode::Incompatible)
      continue;
    KVRM_TRY(status);
    KVRM_TRY(program.capture(queue, clusters));
    schedules.push_back(blocks);
  }
  return Status::ok();
}

CudaBackend::~CudaBackend() {
  if (queue.handle())
    (void)queue.synchronize().isOk();
}

int64_t CudaBackend::deviceBytes() const {
  int64_t bytes = pool.span().bytes + weights.size() + arena.size() +
                  partials.size() + logits.size();
  if (products)
    bytes += products->deviceBytes();
  for (const Entry &entry : entries)
    bytes += entry.descriptor.deviceBytes();
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

Status CudaBackend::collapsePage(const PageCollapse &) {
  return makeError(StatusCode::Incompatible,
                   "far history: a GPU cannot collapse pages");
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

/// Waits for the step and copies the logits of its active rows, from the first
/// to the last of them. They go through pinned memory, as a copy to other
/// memory is one through pinned memory of the driver's.
Status CudaBackend::readLogits(const BackendStep &step) {
  std::span<const kvrm_row> rows = step.descriptor->committedRows();
  auto isActive = [](const kvrm_row &row) { return row.count > 0; };
  int64_t first = std::ranges::find_if(rows, isActive) - rows.begin();
  auto end = static_cast<int64_t>(rows.size());
  while (end > first && !isActive(rows[static_cast<size_t>(end - 1)]))
    --end;
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

Status CudaBackend::runStep(const BackendStep &step, BackendStats &stats) {
  Entry &entry = entries[static_cast<size_t>(step.entry)];
  KVRM_CHECK(step.descriptor &&
                 std::memcmp(&step.descriptor->limits(), &entry.room.limits,
                             sizeof(entry.room.limits)) == 0,
             "a step is planned as its entry is");
  KVRM_TRY(entry.descriptor.send(queue, *step.descriptor));
  KVRM_TRY(entry.program.replay(queue, {.cluster = step.schedule}));
  entry.descriptor.applied();
  KVRM_TRY(step.logits ? readLogits(step) : queue.synchronize());
  if (step.next)
    std::memcpy(step.next, next.data(),
                step.descriptor->committedRows().size() * sizeof(int32_t));
  stats = BackendStats();
  stats.committedBytes = entry.descriptor.stats().bytes;
  stats.commitNanoseconds = entry.descriptor.stats().nanoseconds;
  return Status::ok();
}
