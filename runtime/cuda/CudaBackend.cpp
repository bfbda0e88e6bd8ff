//===- CudaBackend.cpp - The CUDA backend ---------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaBackend.h"

#include <algorithm>
#include <chrono>
#include <cstring>

using namespace kvrm;

static constexpr int64_t elementBytes = 2;
static constexpr int64_t chunkElements = 8; ///< 16 bytes

static Status checkLimit(const char *name, int64_t value, int64_t low,
                         int64_t high) {
  if (value < low || value > high)
    return invalidArgument("CUDA backend: ", name, ": ", value, " is outside ",
                           low, "..", high);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

/// Calls `move(row, page)` with the element offsets of each chunk on both
/// sides.
template <typename Move>
static void eachChunk(size_t elements, int32_t headDim, Move move) {
  KVRM_CHECK(headDim > 0 && headDim % 64 == 0 &&
                 elements % static_cast<size_t>(headDim) == 0,
             "a page is whole tokens of whole swizzles");
  auto tokens = static_cast<int64_t>(elements) / headDim;
  int64_t chunks = headDim / chunkElements;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < chunks; ++c)
      move(t * headDim + c * chunkElements,
           t * headDim + (c ^ (t & 7)) * chunkElements);
}

void kvrm::packPage(std::span<const uint16_t> rows, int32_t headDim,
                    std::span<uint16_t> page) {
  KVRM_CHECK(rows.size() == page.size(), "a page holds its rows");
  eachChunk(rows.size(), headDim, [&](int64_t row, int64_t at) {
    std::memcpy(page.data() + at, rows.data() + row,
                chunkElements * elementBytes);
  });
}

void kvrm::unpackPage(std::span<const uint16_t> page, int32_t headDim,
                      std::span<uint16_t> rows) {
  KVRM_CHECK(rows.size() == page.size(), "a page holds its rows");
  eachChunk(rows.size(), headDim, [&](int64_t row, int64_t at) {
    std::memcpy(rows.data() + row, page.data() + at,
                chunkElements * elementBytes);
  });
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

/// What a work item costs a block beside its tiles: so many bytes of KV could
/// it read meanwhile. Loads of the item, its row, its block table and its query
/// that wait for one another, and three barriers.
static constexpr int64_t itemBytes = 128 << 10;

static int32_t itemCostOf(const KernelManifest &info) {
  int64_t tileBytes = 2 * int64_t(info.kvTile) * info.headDim * elementBytes;
  return static_cast<int32_t>(itemBytes * PlanShape::tileCost / tileBytes);
}

Expected<std::unique_ptr<CudaBackend>>
CudaBackend::create(std::shared_ptr<const CudaDevice> device,
                    const KernelSet &kernels, const CudaShape &shape) {
  KVRM_CHECK(device, "a backend has a device");
  const KernelManifest &info = kernels.manifest();
  KVRM_TRY(checkLimit("layers", shape.layers, 1, KVRM_MAX_LAYERS));
  KVRM_TRY(checkLimit("slots", shape.slots, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkLimit("capacity_tokens", shape.capacityTokens, 1,
                      int64_t(KVRM_MAX_PAGES_PER_SLOT) * info.pageTokens));
  KVRM_TRY(checkLimit("pool_pages", shape.poolPages, 0, KVRM_MAX_POOL_PAGES));
  KVRM_TRY(checkLimit("blocks_per_sm", shape.blocksPerSm, 0, 32));
  KVRM_TRY(kernels.checkDevice(device->info()));
  if (shape.usesStaging && !info.kernel("stage"))
    return invalidArgument("CUDA backend: ", kernels.path(),
                           " has no kernel stage");

  std::unique_ptr<CudaBackend> backend(new CudaBackend());
  backend->gpu = std::move(device);
  backend->info = info;
  CudaShape &bounds = backend->bounds;
  bounds = shape;
  // Kernels for older GPUs do not wait for what they overlap with.
  bounds.usesPdl &= info.capability >= 90;

  PlanShape plan;
  plan.rows = shape.slots;
  plan.queries = info.queries;
  plan.kvHeads = info.kvHeads;
  plan.qTile = info.qTile;
  plan.kvTile = info.kvTile;
  plan.pageTokens = info.pageTokens;
  plan.pagesPerSlot =
      (shape.capacityTokens + info.pageTokens - 1) / info.pageTokens;
  plan.schedule = KVRM_SCHEDULE_WORKQUEUE;
  if (bounds.blocksPerSm == 0)
    bounds.blocksPerSm = info.kernel("attend_workqueue")->blocksPerSm;
  plan.shares = backend->gpu->info().multiprocessors * bounds.blocksPerSm;
  plan.itemCost = shape.itemCost < 0 ? itemCostOf(info) : shape.itemCost;

  int64_t allPages = int64_t(shape.slots) * plan.pagesPerSlot;
  if (bounds.poolPages == 0) {
    KVRM_TRY(checkLimit("pool_pages", allPages, 1, KVRM_MAX_POOL_PAGES));
    bounds.poolPages = static_cast<int32_t>(allPages);
  }
  if (bounds.usesStaging && bounds.poolPages < allPages)
    return invalidArgument("CUDA backend: pool_pages: ", bounds.poolPages,
                           " is under the ", allPages,
                           " of all slots, which staging needs");
  backend->pageBytes = info.pageBytes();
  backend->strideBytes = backend->pageBytes * bounds.poolPages;

  Expected<Planner> planner = Planner::create(plan);
  KVRM_TRY(planner.status());
  backend->work.emplace(planner.take());
  Expected<StepDescriptor> descriptor =
      StepDescriptor::create(backend->work->capacity().limits);
  KVRM_TRY(descriptor.status());
  backend->step.emplace(descriptor.take());
  Expected<BlockPager> pager = BlockPager::create(
      {bounds.poolPages, shape.slots, plan.pagesPerSlot, info.pageTokens});
  KVRM_TRY(pager.status());
  backend->pages.emplace(pager.take());

  KVRM_TRY(backend->loadKernels(kernels));
  KVRM_TRY(backend->takeMemory());
  return backend;
}

Status CudaBackend::loadKernels(const KernelSet &set) {
  Expected<CudaModule> loaded = set.loadModule(gpu);
  KVRM_TRY(loaded.status());
  module = loaded.take();
  constexpr std::array<const char *, KernelCount> names = {
      "commit",         "append", "attend_workqueue",
      "attend_cluster", "stage",  "attend_workqueue_staged"};
  for (size_t i = 0; i < KernelCount; ++i) {
    const KernelInfo *found = info.kernel(names[i]);
    if (!found || (i >= Stage && !bounds.usesStaging))
      continue;
    Expected<CudaKernel> code =
        module.kernel(found->symbol, found->sharedBytes);
    KVRM_TRY(code.status());
    if (code->info().maxThreads < found->threads)
      return makeError(StatusCode::Incompatible, set.path(), ": kernel ",
                       found->name, ": ", found->threads,
                       " threads are more than the ", code->info().maxThreads,
                       " that it can have");
    kernels[i] = {code.take(), *found};
  }
  for (size_t i : {AttendWorkqueue, AttendStaged}) {
    const Kernel &attend = kernels[i];
    if (!attend.code)
      continue;
    Expected<int32_t> blocks = attend.code.maxActiveBlocks(
        attend.info.threads, attend.info.sharedBytes);
    KVRM_TRY(blocks.status());
    if (*blocks < 1)
      return makeError(StatusCode::Incompatible, set.path(), ": kernel ",
                       attend.info.name, ": a block does not fit device ",
                       gpu->info().index, ", ", gpu->info().name);
  }
  return Status::ok();
}

Status CudaBackend::takeMemory() {
  Expected<CudaStream> stream = CudaStream::create(gpu);
  KVRM_TRY(stream.status());
  queue = stream.take();

  auto take = [&](DeviceBuffer &buffer, int64_t bytes, const char *purpose) {
    Expected<DeviceBuffer> taken = DeviceBuffer::create(gpu, bytes, purpose);
    KVRM_TRY(taken.status());
    buffer = taken.take();
    takenBytes += bytes;
    return Status::ok();
  };
  const PlanCapacity &room = work->capacity();
  int64_t layerBytes = 2 * info.kvHeads * strideBytes;
  KVRM_TRY(take(kv, bounds.layers * layerBytes, "KV pool"));
  if (bounds.usesStaging)
    KVRM_TRY(take(staged, layerBytes, "staged KV"));
  KVRM_TRY(take(descriptorCopy, step->layout().bytes, "step descriptor"));
  int64_t deltaBytes = int64_t(sizeof(kvrm_delta_header)) +
                       step->deltaCapacity(bounds.usesStaging) *
                           int64_t(sizeof(kvrm_delta_word));
  KVRM_TRY(take(delta, deltaBytes, "descriptor delta"));
  int64_t queryRows = int64_t(info.qTile) * info.groupHeads();
  // Never nothing, so that every address is one.
  KVRM_TRY(take(partialStates,
                std::max<int64_t>(room.partials, 1) *
                    kvrm_partial_floats(queryRows, info.headDim) *
                    int64_t(sizeof(float)),
                "partials"));
  constexpr std::array<const char *, 4> names = {"queries", "outputs",
                                                 "new keys", "new values"};
  for (size_t i = 0; i < tensors.size(); ++i) {
    bool isQuery = i <= static_cast<size_t>(CudaTensor::Out);
    tensorBytes[i] = int64_t(bounds.slots) * info.queries *
                     (isQuery ? info.heads : info.kvHeads) * info.headDim *
                     elementBytes;
    int64_t copies = bounds.hasLayerTensors ? bounds.layers : 1;
    KVRM_TRY(take(tensors[i], copies * tensorBytes[i], names[i]));
  }

  for (DeltaLap &lap : ring) {
    for (PinnedBuffer &slot : lap.memory) {
      Expected<PinnedBuffer> memory =
          PinnedBuffer::create(gpu, deltaBytes, "descriptor delta");
      KVRM_TRY(memory.status());
      slot = memory.take();
    }
    Expected<CudaEvent> event = CudaEvent::create(gpu, /*isTimed=*/false);
    KVRM_TRY(event.status());
    lap.copied = event.take();
  }
  Expected<PinnedBuffer> scratch =
      PinnedBuffer::create(gpu, pageBytes, "page import");
  KVRM_TRY(scratch.status());
  pageScratch = scratch.take();

  // The device starts with the committed descriptor and with nothing to apply.
  KVRM_TRY(queue.fill(delta.span().part(0, sizeof(kvrm_delta_header)), 0));
  static_assert(KVRM_EMPTY_PARTIAL == 0xffffffffu);
  KVRM_TRY(queue.fill(partialStates.span(), 0xff));
  for (const DeviceBuffer &tensor : tensors)
    KVRM_TRY(queue.fill(tensor.span(), 0));
  KVRM_TRY(queue.copyIn(descriptorCopy.span(), step->committed()));
  return queue.synchronize();
}

CudaBackend::~CudaBackend() {
  if (queue.handle())
    (void)queue.synchronize().isOk();
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

Status CudaBackend::copyPage(const PageCopy &copy) {
  KVRM_CHECK(copy.source >= 0 && copy.source < bounds.poolPages &&
                 copy.target >= 0 && copy.target < bounds.poolPages &&
                 copy.source != copy.target,
             "pages lie in the pool");
  return queue.copyStrided(
      kv.address() + static_cast<uint64_t>(copy.target * pageBytes),
      kv.address() + static_cast<uint64_t>(copy.source * pageBytes),
      strideBytes, pageBytes, int64_t(bounds.layers) * 2 * info.kvHeads);
}

const PlanStats &CudaBackend::plan(std::span<const PlanRow> rows) {
  return work->plan(rows, *pages, *step);
}

Status CudaBackend::commit() {
  auto start = std::chrono::steady_clock::now();
  DeltaLap &lap = ring[nextSlot / DeltaLap::slots];
  size_t slot = nextSlot % DeltaLap::slots;
  if (slot == 0) {
    KVRM_TRY(lap.isUnknown ? queue.synchronize() : lap.copied.synchronize());
    lap.isUnknown = false;
  }
  nextSlot = (nextSlot + 1) % (ring.size() * DeltaLap::slots);

  auto *header = reinterpret_cast<kvrm_delta_header *>(lap.memory[slot].data());
  std::span<kvrm_delta_word> words(
      reinterpret_cast<kvrm_delta_word *>(header + 1),
      static_cast<size_t>(step->deltaCapacity(bounds.usesStaging)));
  int32_t count = step->collectDelta(
      words, {.isWhole = isPending, .hasGroups = bounds.usesStaging});
  *header = {static_cast<uint32_t>(count), {0, 0, 0}};
  lastCommit = CudaCommitStats();
  lastCommit.words = count;
  lastCommit.bytes = int64_t(sizeof(kvrm_delta_header)) +
                     count * int64_t(sizeof(kvrm_delta_word));
  lastCommit.isWhole = isPending;
  isPending = true;

  // Until the event says otherwise copies may be reading the lap's slots.
  lap.isUnknown = true;
  KVRM_TRY(queue.copyIn(delta.span().part(0, lastCommit.bytes), header));
  if (slot + 1 == DeltaLap::slots) {
    KVRM_TRY(lap.copied.record(queue));
    lap.isUnknown = false;
  }
  lastCommit.nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(
                               std::chrono::steady_clock::now() - start)
                               .count();
  return Status::ok();
}

/// "workqueue", "staged" or "cluster 4".
static std::string nameOf(CudaSchedule schedule) {
  if (schedule.cluster > 0)
    return "cluster " + std::to_string(schedule.cluster);
  return schedule.isStaged ? "staged" : "workqueue";
}

size_t CudaBackend::indexOf(CudaSchedule schedule) {
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

Status CudaBackend::checkSchedule(CudaSchedule schedule) const {
  constexpr std::array sizes = {0, 1, 2, 4, 8};
  if (std::ranges::find(sizes, schedule.cluster) == sizes.end())
    return invalidArgument("schedule: cluster ", schedule.cluster,
                           " is not one of 0, 1, 2, 4, 8");
  if (schedule.cluster > kernels[AttendCluster].info.maxCluster)
    return invalidArgument("schedule: cluster ", schedule.cluster,
                           " is more than the kernel set's max_cluster, ",
                           kernels[AttendCluster].info.maxCluster);
  if (schedule.isStaged && schedule.cluster != 0)
    return invalidArgument("schedule: clusters read pages natively");
  if (schedule.isStaged && !bounds.usesStaging)
    return invalidArgument(
        "schedule: staged: the backend was created without staging");
  return Status::ok();
}

/// Whether the device holds a cluster of that size.
Status CudaBackend::checkClusters(CudaSchedule schedule) const {
  if (schedule.cluster <= 1)
    return Status::ok();
  Expected<int32_t> clusters =
      kernels[AttendCluster].code.maxActiveClusters(attendLaunch(schedule));
  KVRM_TRY(clusters.status());
  if (*clusters < 1)
    return makeError(StatusCode::Incompatible, "schedule: clusters of ",
                     schedule.cluster, " blocks do not fit device ",
                     gpu->info().index, ", ", gpu->info().name);
  return Status::ok();
}

Status CudaBackend::capture(CudaSchedule schedule) {
  KVRM_TRY(checkSchedule(schedule));
  CudaGraph &graph = graphs[indexOf(schedule)];
  if (graph)
    return Status::ok();
  KVRM_TRY(checkClusters(schedule));
  Expected<CudaCapture> capture = CudaCapture::begin(queue);
  KVRM_TRY(capture.status());
  KVRM_TRY(enqueueCommit());
  KVRM_TRY(enqueueLayers(schedule));
  Expected<CudaGraph> captured = capture->end();
  KVRM_TRY(captured.status());
  graph = captured.take();
  ++captureCount;
  return Status::ok();
}

Expected<CudaGraph> CudaBackend::captureAttention(CudaSchedule schedule,
                                                  int32_t launches,
                                                  bool usesPdl) {
  KVRM_TRY(checkLimit("launches", launches, 1, 1 << 16));
  KVRM_TRY(checkSchedule(schedule));
  KVRM_TRY(checkClusters(schedule));
  usesPdl &= info.capability >= 90 && !schedule.isStaged;
  Expected<CudaCapture> capture = CudaCapture::begin(queue);
  KVRM_TRY(capture.status());
  for (int32_t i = 0; i < launches; ++i) {
    int32_t layer = i % bounds.layers;
    if (schedule.isStaged)
      KVRM_TRY(enqueueStage(layer));
    KVRM_TRY(enqueueAttend(layer, schedule, usesPdl && i > 0));
  }
  return capture->end();
}

Status CudaBackend::replay(CudaSchedule schedule) {
  KVRM_TRY(checkSchedule(schedule));
  const CudaGraph &graph = graphs[indexOf(schedule)];
  if (!graph)
    return invalidArgument("schedule: ", nameOf(schedule), " was not captured");
  KVRM_TRY(graph.launch(queue));
  isPending = false;
  return Status::ok();
}

Status CudaBackend::launch(CudaSchedule schedule) {
  KVRM_TRY(checkSchedule(schedule));
  KVRM_TRY(launchCommit());
  return enqueueLayers(schedule);
}

Status CudaBackend::launchCommit() {
  KVRM_TRY(enqueueCommit());
  isPending = false;
  return Status::ok();
}

Status CudaBackend::launchAppend(int32_t layer) {
  return enqueueAppend(layer, /*isProgrammatic=*/false);
}

Status CudaBackend::launchStage(int32_t layer) {
  KVRM_TRY(checkSchedule(CudaSchedule::staged()));
  return enqueueStage(layer);
}

Status CudaBackend::launchAttend(int32_t layer, CudaSchedule schedule) {
  KVRM_TRY(checkSchedule(schedule));
  return enqueueAttend(layer, schedule, /*isProgrammatic=*/false);
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

kvrm_device_args CudaBackend::argsOf(int32_t layer) const {
  KVRM_CHECK(layer >= 0 && layer < bounds.layers, "layer in range");
  const kvrm_descriptor_layout &layout = step->layout();
  auto section = [&](int64_t offset) {
    return descriptorCopy.address() + static_cast<uint64_t>(offset);
  };
  auto heads = static_cast<uint64_t>(info.kvHeads * strideBytes);
  kvrm_device_args args{};
  args.delta = delta.address();
  args.descriptor = descriptorCopy.address();
  args.rows = section(layout.rows);
  args.tables = section(layout.tables);
  args.groups = section(layout.groups);
  args.items = section(layout.items);
  args.segments = section(layout.segments);
  args.shares = section(layout.shares);
  args.k_pool = kv.address() + static_cast<uint64_t>(layer) * 2 * heads;
  args.v_pool = args.k_pool + heads;
  args.q = tensor(CudaTensor::Q, layer).address;
  args.out = tensor(CudaTensor::Out, layer).address;
  args.k = tensor(CudaTensor::K, layer).address;
  args.v = tensor(CudaTensor::V, layer).address;
  args.partials = partialStates.address();
  args.head_stride = strideBytes;
  args.pages_per_slot = step->limits().pages_per_slot;
  if (bounds.usesStaging) {
    args.staged_k = staged.address();
    args.staged_v = staged.address() + heads;
  }
  return args;
}

Status CudaBackend::enqueue(KernelIndex index, int32_t layer,
                            CudaLaunch launch) {
  const Kernel &kernel = kernels[index];
  KVRM_CHECK(kernel.code, "the kernel is loaded");
  launch.threads = static_cast<uint32_t>(kernel.info.threads);
  launch.sharedBytes = static_cast<uint32_t>(kernel.info.sharedBytes);
  // A parameter a field: all are 8 bytes.
  constexpr size_t count = sizeof(kvrm_device_args) / sizeof(uint64_t);
  kvrm_device_args args = argsOf(layer);
  std::array<void *, count> parameters;
  for (size_t i = 0; i < count; ++i)
    parameters[i] = reinterpret_cast<uint8_t *>(&args) + i * sizeof(uint64_t);
  Status status = kernel.code.launch(queue, launch, parameters);
  if (!status.isOk())
    return makeError(status.code(), "kernel ", kernel.info.name, ": ",
                     status.message());
  return status;
}

Status CudaBackend::enqueueCommit() {
  return enqueue(Commit, 0, {.grid = {4, 1, 1}});
}

Status CudaBackend::enqueueAppend(int32_t layer, bool isProgrammatic) {
  return enqueue(Append, layer,
                 {.grid = {static_cast<uint32_t>(bounds.slots),
                           static_cast<uint32_t>(info.queries), 1},
                  .isProgrammatic = isProgrammatic});
}

Status CudaBackend::enqueueStage(int32_t layer) {
  return enqueue(Stage, layer,
                 {.grid = {static_cast<uint32_t>(shares()), 1, 1}});
}

CudaLaunch CudaBackend::attendLaunch(CudaSchedule schedule) const {
  CudaLaunch launch;
  if (schedule.cluster == 0) {
    launch.grid[0] = static_cast<uint32_t>(shares());
    return launch;
  }
  launch.grid[0] =
      static_cast<uint32_t>(int64_t(schedule.cluster) * info.kvHeads *
                            info.queryTiles() * bounds.slots);
  // Kernels for GPUs without clusters are launched without saying so.
  if (info.capability >= 90)
    launch.cluster = static_cast<uint32_t>(schedule.cluster);
  launch.threads = static_cast<uint32_t>(kernels[AttendCluster].info.threads);
  launch.sharedBytes =
      static_cast<uint32_t>(kernels[AttendCluster].info.sharedBytes);
  return launch;
}

Status CudaBackend::enqueueAttend(int32_t layer, CudaSchedule schedule,
                                  bool isProgrammatic) {
  KernelIndex kernel = schedule.cluster > 0 ? AttendCluster
                       : schedule.isStaged  ? AttendStaged
                                            : AttendWorkqueue;
  CudaLaunch launch = attendLaunch(schedule);
  launch.isProgrammatic = isProgrammatic;
  return enqueue(kernel, layer, launch);
}

Status CudaBackend::enqueueLayers(CudaSchedule schedule) {
  // What comes right after the commit kernel starts when that has ended: from
  // there on the descriptor may be read before a kernel waits for anything.
  // Staged kernels wait for nothing by themselves.
  bool isProgrammatic = false;
  for (int32_t layer = 0; layer < bounds.layers; ++layer) {
    if (bounds.appends) {
      KVRM_TRY(enqueueAppend(layer, isProgrammatic));
      isProgrammatic = bounds.usesPdl && !schedule.isStaged;
    }
    if (schedule.isStaged)
      KVRM_TRY(enqueueStage(layer));
    KVRM_TRY(enqueueAttend(layer, schedule, isProgrammatic));
    isProgrammatic = bounds.usesPdl && !schedule.isStaged;
  }
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

DeviceSpan CudaBackend::tensor(CudaTensor which, int32_t layer) const {
  KVRM_CHECK(layer >= 0 && layer < bounds.layers, "layer in range");
  auto index = static_cast<size_t>(which);
  KVRM_CHECK(index < tensors.size(), "a tensor that there is");
  int64_t offset = bounds.hasLayerTensors ? layer * tensorBytes[index] : 0;
  return tensors[index].span().part(offset, tensorBytes[index]);
}

DeviceSpan CudaBackend::page(const CudaPage &where) const {
  KVRM_CHECK(where.layer >= 0 && where.layer < bounds.layers &&
                 where.head >= 0 && where.head < info.kvHeads &&
                 where.page >= 0 && where.page < bounds.poolPages,
             "a page of the pool");
  int64_t row =
      (int64_t(where.layer) * 2 + where.isValue) * info.kvHeads + where.head;
  return kv.span().part(row * strideBytes + where.page * pageBytes, pageBytes);
}

/// Waits for a copy that failed to be waited for.
Status CudaBackend::takeScratch() {
  if (isScratchBusy)
    KVRM_TRY(queue.synchronize());
  isScratchBusy = true;
  return Status::ok();
}

Status CudaBackend::importPage(const CudaPage &where,
                               std::span<const uint16_t> rows) {
  DeviceSpan target = page(where);
  KVRM_TRY(takeScratch());
  packPage(rows, info.headDim,
           {reinterpret_cast<uint16_t *>(pageScratch.data()),
            static_cast<size_t>(pageBytes / elementBytes)});
  KVRM_TRY(queue.copyIn(target, pageScratch.data()));
  KVRM_TRY(queue.synchronize());
  isScratchBusy = false;
  return Status::ok();
}

Status CudaBackend::exportPage(const CudaPage &where,
                               std::span<uint16_t> rows) {
  KVRM_TRY(takeScratch());
  KVRM_TRY(queue.copyOut(pageScratch.data(), page(where)));
  KVRM_TRY(queue.synchronize());
  isScratchBusy = false;
  unpackPage({reinterpret_cast<const uint16_t *>(pageScratch.data()),
              static_cast<size_t>(pageBytes / elementBytes)},
             info.headDim, rows);
  return Status::ok();
}

Status CudaBackend::write(DeviceSpan to, std::span<const uint8_t> from) {
  KVRM_CHECK(static_cast<int64_t>(from.size()) == to.bytes, "sizes are equal");
  KVRM_TRY(queue.copyIn(to, from.data()));
  return queue.synchronize();
}

Status CudaBackend::read(std::span<uint8_t> to, DeviceSpan from) {
  KVRM_CHECK(static_cast<int64_t>(to.size()) == from.bytes, "sizes are equal");
  KVRM_TRY(queue.copyOut(to.data(), from));
  return queue.synchronize();
}

const CudaKernel *CudaBackend::kernel(std::string_view name) const {
  for (const Kernel &kernel : kernels)
    if (kernel.code && kernel.info.name == name)
      return &kernel.code;
  return nullptr;
}
