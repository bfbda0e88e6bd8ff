//===- AttentionStep.cpp - Attention alone on a GPU -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/attention/AttentionStep.h"

#include "UnrolledProgram.h"

#include "kvrm/runtime/abi/device.h"

using namespace kvrm;

AttentionInfo AttentionInfo::of(const Manifest &manifest) {
  AttentionInfo info;
  info.heads = manifest.heads;
  info.kvHeads = manifest.kvHeads;
  info.headDim = manifest.headDim;
  info.pageTokens = manifest.pageTokens;
  info.element = manifest.element;
  info.io = manifest.io;
  info.queries = manifest.decode.queries;
  info.qTile = manifest.decode.qTile;
  info.kvTile = manifest.decode.kvTile;
  info.capability = manifest.capability;
  if (const KernelInfo *cluster = manifest.kernel(KVRM_ROLE_ATTEND_CLUSTER))
    info.maxCluster = cluster->maxCluster;
  return info;
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

static Status checkShape(const AttentionShape &shape, const Package &package) {
  const Manifest &m = package.manifest();
  KVRM_TRY(checkRange("attention: layers", shape.layers, 1, KVRM_MAX_LAYERS));
  KVRM_TRY(checkRange("attention: slots", shape.slots, 1, KVRM_MAX_ROWS));
  KVRM_TRY(checkRange("attention: capacity_tokens", shape.capacityTokens, 1,
                      int64_t(KVRM_MAX_PAGES_PER_SLOT) * m.pageTokens));
  KVRM_TRY(checkRange("attention: pool_pages", shape.poolPages, 0,
                      KVRM_MAX_POOL_PAGES));
  KVRM_TRY(checkRange("attention: blocks_per_sm", shape.blocksPerSm, 0, 32));
  if (shape.usesStaging && !m.kernel(KVRM_ROLE_STAGE))
    return invalidArgument("attention: ", package.path(),
                           " has no kernel stage");
  return Status::ok();
}

Expected<std::unique_ptr<AttentionStep>>
AttentionStep::create(std::shared_ptr<const CudaDevice> device,
                      const Package &package, const AttentionShape &shape) {
  KVRM_CHECK(device, "attention has a device");
  KVRM_TRY(checkDevice(package, device->info()));
  KVRM_TRY(checkShape(shape, package));
  std::unique_ptr<AttentionStep> step(new AttentionStep());
  step->gpu = std::move(device);
  step->attention = AttentionInfo::of(package.manifest());
  step->bounds = shape;
  // Kernels for older GPUs do not wait for what they overlap with.
  step->bounds.usesPdl &= step->attention.capability >= 90;
  KVRM_TRY(step->createPlan(package));
  Expected<DeviceCode> code = DeviceCode::load(step->gpu, package);
  KVRM_TRY(code.status());
  step->code = code.take();
  KVRM_TRY(step->takeMemory());

  Expected<StepProgram> program = unrollProgram(
      package, {shape.layers, shape.appends, shape.hasLayerTensors});
  KVRM_TRY(program.status());
  step->program =
      CudaProgram(*program, step->code, step->memory(), step->bounds.usesPdl);
  step->commands = commandsByLayer(*program, package.manifest());
  return step;
}

Status AttentionStep::createPlan(const Package &package) {
  PlanShape plan;
  plan.rows = bounds.slots;
  plan.queries = attention.queries;
  plan.kvHeads = attention.kvHeads;
  plan.qTile = attention.qTile;
  plan.kvTile = attention.kvTile;
  plan.pageTokens = attention.pageTokens;
  plan.pagesPerSlot =
      (bounds.capacityTokens + attention.pageTokens - 1) / attention.pageTokens;
  plan.schedule = KVRM_SCHEDULE_WORKQUEUE;
  if (bounds.blocksPerSm == 0)
    bounds.blocksPerSm =
        package.manifest().kernel(KVRM_ROLE_ATTEND_WORKQUEUE)->blocksPerSm;
  plan.shares = gpu->info().multiprocessors * bounds.blocksPerSm;
  plan.itemCost = bounds.itemCost < 0
                      ? deviceItemCost(attention.kvTile, attention.headDim,
                                       attention.element)
                      : bounds.itemCost;
  int64_t allPages = int64_t(bounds.slots) * plan.pagesPerSlot;
  if (bounds.poolPages == 0) {
    KVRM_TRY(
        checkRange("attention: pool_pages", allPages, 1, KVRM_MAX_POOL_PAGES));
    bounds.poolPages = static_cast<int32_t>(allPages);
  }
  if (bounds.usesStaging && bounds.poolPages < allPages)
    return invalidArgument("attention: pool_pages: ", bounds.poolPages,
                           " is under the ", allPages,
                           " of all slots, which staging needs");
  Expected<Planner> planner = Planner::create(plan);
  KVRM_TRY(planner.status());
  work.emplace(planner.take());
  Expected<StepDescriptor> descriptor =
      StepDescriptor::create(work->capacity().limits);
  KVRM_TRY(descriptor.status());
  step.emplace(descriptor.take());
  Expected<BlockPager> pager =
      BlockPager::create({bounds.poolPages, bounds.slots, plan.pagesPerSlot,
                          attention.pageTokens});
  KVRM_TRY(pager.status());
  pages.emplace(pager.take());
  return Status::ok();
}

Status AttentionStep::take(DeviceBuffer &buffer, int64_t bytes,
                           const char *purpose) {
  Expected<DeviceBuffer> taken = DeviceBuffer::create(gpu, bytes, purpose);
  KVRM_TRY(taken.status());
  buffer = taken.take();
  return Status::ok();
}

Status AttentionStep::takeMemory() {
  Expected<CudaStream> stream = CudaStream::create(gpu);
  KVRM_TRY(stream.status());
  queue = stream.take();
  Expected<CudaPool> pool = CudaPool::create(
      gpu, {bounds.layers, attention.kvHeads, attention.headDim,
            attention.pageTokens, bounds.poolPages, attention.element});
  KVRM_TRY(pool.status());
  kv = pool.take();
  if (bounds.usesStaging)
    KVRM_TRY(take(staged, 2 * kv.shape().sideBytes(), "staged KV"));
  Expected<CudaDescriptor> descriptor =
      CudaDescriptor::create(queue, step->limits(), bounds.usesStaging);
  KVRM_TRY(descriptor.status());
  onDevice = descriptor.take();
  int64_t queryRows = int64_t(attention.qTile) * attention.groupHeads();
  // Never nothing, so that every address is one.
  KVRM_TRY(take(partialStates,
                std::max<int64_t>(work->capacity().partials, 1) *
                    kvrm_device_partial_floats(queryRows, attention.headDim) *
                    int64_t(sizeof(float)),
                "partials"));
  constexpr std::array<const char *, attentionTensors> names = {
      "queries", "new keys", "new values", "outputs"};
  for (size_t i = 0; i < tensors.size(); ++i) {
    auto which = static_cast<AttentionTensor>(i);
    bool isQuery = which == AttentionTensor::Q || which == AttentionTensor::Out;
    tensorBytes[i] = int64_t(bounds.slots) * attention.queries *
                     (isQuery ? attention.heads : attention.kvHeads) *
                     attention.headDim * kvrm_element_bytes(attention.io);
    int64_t copies = bounds.hasLayerTensors ? bounds.layers : 1;
    KVRM_TRY(take(tensors[i], copies * tensorBytes[i], names[i]));
  }
  static_assert(KVRM_EMPTY_PARTIAL == 0xffffffffu);
  KVRM_TRY(queue.fill(partialStates.span(), 0xff));
  for (const DeviceBuffer &tensor : tensors)
    KVRM_TRY(queue.fill(tensor.span(), 0));
  return queue.synchronize();
}

ProgramMemory AttentionStep::memory() const {
  ProgramMemory memory;
  memory.pool = kv.shape();
  memory.poolAddress = kv.span().address;
  memory.stagedAddress = staged.address();
  memory.batches = {{.descriptor = onDevice.span().address,
                     .delta = onDevice.deltaAddress(),
                     .limits = step->limits()}};
  memory.partials = partialStates.address();
  int32_t sets = bounds.hasLayerTensors ? bounds.layers : 1;
  for (int32_t layer = 0; layer < sets; ++layer)
    for (size_t i = 0; i < tensors.size(); ++i)
      memory.tensors.push_back(
          tensor(static_cast<AttentionTensor>(i), layer).address);
  return memory;
}

AttentionStep::~AttentionStep() {
  if (queue.handle())
    (void)queue.synchronize().isOk();
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

Status AttentionStep::replay(CudaSchedule schedule) {
  KVRM_TRY(program.replay(queue, schedule));
  onDevice.applied();
  return Status::ok();
}

Status AttentionStep::launch(CudaSchedule schedule) {
  KVRM_TRY(program.launch(queue, schedule));
  onDevice.applied();
  return Status::ok();
}

int64_t AttentionStep::find(kvrm_kernel_role role, int32_t layer) const {
  KVRM_CHECK(layer >= 0 && layer < bounds.layers, "layer in range");
  return commands[static_cast<size_t>(layer)][role];
}

Status AttentionStep::launchOne(kvrm_kernel_role role, int32_t layer,
                                CudaSchedule schedule, bool isProgrammatic) {
  int64_t index = find(role, layer);
  KVRM_CHECK(index >= 0, "a command that there is");
  return program.launchCommand(queue, static_cast<size_t>(index), schedule,
                               isProgrammatic);
}

static kvrm_kernel_role attentionRole(CudaSchedule schedule) {
  return schedule.cluster > 0 ? KVRM_ROLE_ATTEND_CLUSTER
         : schedule.isStaged  ? KVRM_ROLE_ATTEND_STAGED
                              : KVRM_ROLE_ATTEND_WORKQUEUE;
}

Expected<CudaGraph> AttentionStep::captureAttention(CudaSchedule schedule,
                                                    int32_t launches,
                                                    bool usesPdl) {
  KVRM_TRY(checkRange("attention: launches", launches, 1, 1 << 16));
  KVRM_TRY(program.check(schedule));
  usesPdl &= attention.capability >= 90 && !schedule.isStaged;
  Expected<CudaCapture> capture = CudaCapture::begin(queue);
  KVRM_TRY(capture.status());
  for (int32_t i = 0; i < launches; ++i) {
    int32_t layer = i % bounds.layers;
    if (schedule.isStaged)
      KVRM_TRY(launchOne(KVRM_ROLE_STAGE, layer, schedule, false));
    KVRM_TRY(
        launchOne(attentionRole(schedule), layer, schedule, usesPdl && i > 0));
  }
  return capture->end();
}

Status AttentionStep::launchCommit() {
  KVRM_TRY(program.launchCommand(queue, 0, CudaSchedule::workqueue(), false));
  onDevice.applied();
  return Status::ok();
}

Status AttentionStep::launchAppend(int32_t layer) {
  return launchOne(KVRM_ROLE_APPEND, layer, CudaSchedule::workqueue(), false);
}

Status AttentionStep::launchStage(int32_t layer) {
  KVRM_TRY(program.check(CudaSchedule::staged()));
  return launchOne(KVRM_ROLE_STAGE, layer, CudaSchedule::staged(), false);
}

Status AttentionStep::launchAttend(int32_t layer, CudaSchedule schedule) {
  KVRM_TRY(program.check(schedule));
  return launchOne(attentionRole(schedule), layer, schedule, false);
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

DeviceSpan AttentionStep::tensor(AttentionTensor which, int32_t layer) const {
  KVRM_CHECK(layer >= 0 && layer < bounds.layers, "layer in range");
  auto index = static_cast<size_t>(which);
  KVRM_CHECK(index < tensors.size(), "a tensor that there is");
  int64_t offset = bounds.hasLayerTensors ? layer * tensorBytes[index] : 0;
  return tensors[index].span().part(offset, tensorBytes[index]);
}

int64_t AttentionStep::deviceBytes() const {
  int64_t bytes = kv.span().bytes + staged.size() + partialStates.size() +
                  onDevice.deviceBytes();
  for (const DeviceBuffer &tensor : tensors)
    bytes += tensor.size();
  return bytes;
}

Status AttentionStep::write(DeviceSpan to, std::span<const uint8_t> from) {
  KVRM_CHECK(static_cast<int64_t>(from.size()) == to.bytes, "sizes are equal");
  KVRM_TRY(queue.copyIn(to, from.data()));
  return queue.synchronize();
}

Status AttentionStep::read(std::span<uint8_t> to, DeviceSpan from) {
  KVRM_CHECK(static_cast<int64_t>(to.size()) == from.bytes, "sizes are equal");
  KVRM_TRY(queue.copyOut(to.data(), from));
  return queue.synchronize();
}
