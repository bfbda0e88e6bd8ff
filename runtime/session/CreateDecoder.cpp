//===- CreateDecoder.cpp - Packages to decoders ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/CreateDecoder.h"
#include "kvrm/runtime/cuda/CudaBackend.h"
#include "kvrm/runtime/host/HostBackend.h"
#include "kvrm/runtime/paging/Calibration.h"
#include "kvrm/runtime/session/PaddedSession.h"
#include "kvrm/runtime/session/ShardedBackend.h"
#include "kvrm/runtime/session/StaticSession.h"

#include <algorithm>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Checks
//===----------------------------------------------------------------------===//

static Status checkConfig(const Manifest &m, const SessionConfig &config) {
  int64_t most = KVRM_MAX_POOL_PAGES;
  if (config.poolPages != 0)
    KVRM_TRY(checkRange("pool_pages", config.poolPages, 1, most));
  KVRM_TRY(checkRange("shares", config.shares, 0, 4096));
  KVRM_TRY(checkRange("threads", config.threads, 0, KVRM_MAX_THREADS));
  KVRM_TRY(checkRange("device", config.device, 0, INT32_MAX));
  if (!m.isPaged)
    return Status::ok();
  if (m.summaries > 0 &&
      (config.keptHistories != 0 || config.parkingPlaces != 0))
    return invalidArgument("a package with summaries has neither kept "
                           "histories nor parking places");
  KVRM_TRY(checkRange("kept histories", config.keptHistories, 0,
                      KVRM_MAX_ROWS - m.slots));
  KVRM_TRY(
      checkRange("parking places", config.parkingPlaces, 0, KVRM_MAX_ROWS));
  return checkRange("parking pages", config.parkingPages,
                    config.parkingPlaces > 0 ? 1 : 0, most);
}

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

static PlanShape planShapeOf(const Manifest &m, const EntryInfo &entry) {
  PlanShape shape;
  shape.rows = entry.rows;
  shape.queries = entry.queries;
  shape.kvHeads = m.rankKvHeads();
  shape.qTile = entry.qTile;
  shape.kvTile = entry.kvTile;
  shape.pageTokens = m.pageTokens;
  shape.pagesPerSlot = m.pagesPerSlot;
  shape.schedule = entry.schedule;
  shape.splits = entry.splits;
  shape.summaries = m.summaries;
  shape.isPadded = !m.isPaged;
  if (m.target == TargetKind::NVPTX)
    shape.itemCost = deviceItemCost(entry.kvTile, m.headDim, m.element);
  return shape;
}

static SessionShape sessionShapeOf(const Manifest &m,
                                   const SessionConfig &config) {
  SessionShape shape;
  shape.slots = m.slots;
  shape.capacity = m.capacity;
  shape.vocabulary = m.vocabulary;
  shape.window = m.window;
  shape.sinks = m.sinks;
  shape.keptHistories = config.keptHistories;
  shape.parkingPlaces = config.parkingPlaces;
  shape.entries = {planShapeOf(m, m.decode), planShapeOf(m, m.prefill)};
  return shape;
}

static HostEntry hostEntryOf(const Manifest &m, const EntryInfo &entry,
                             kvrm_step_fn fn) {
  return {.fn = fn,
          .plan = planShapeOf(m, entry),
          .transport = entry.transport,
          .arenaBytes = entry.arenaBytes,
          .scratchBytes = entry.scratchBytes};
}

static HostShape hostShapeOf(std::shared_ptr<const Package> package,
                             const SessionConfig &config, int32_t pages) {
  const Manifest &m = package->manifest();
  HostShape shape;
  shape.layers = m.layers;
  shape.heads = m.rankHeads();
  shape.kvHeads = m.rankKvHeads();
  shape.headDim = m.headDim;
  shape.pageTokens = m.pageTokens;
  shape.element = m.element;
  shape.pages = pages;
  if (config.parkingPlaces > 0)
    shape.parkingPages = static_cast<int32_t>(config.parkingPages);
  shape.threads = config.threads;
  shape.shares = config.shares;
  shape.entries = {hostEntryOf(m, m.decode, package->decodeStep()),
                   hostEntryOf(m, m.prefill, package->prefillStep())};
  shape.mixed = package->mixedStep();
  shape.mixedArenaBytes = m.mixed.arenaBytes;
  shape.weights = package->weights();
  shape.owner = std::move(package);
  return shape;
}

//===----------------------------------------------------------------------===//
// Policies
//===----------------------------------------------------------------------===//

static PolicyShape policyShapeOf(const Manifest &m, const EntryInfo &entry) {
  PolicyShape shape;
  shape.heads = m.rankHeads();
  shape.kvHeads = m.rankKvHeads();
  shape.headDim = m.headDim;
  shape.pageTokens = m.pageTokens;
  shape.queries = entry.queries;
  shape.kvTile = entry.kvTile;
  shape.queryTiles = entry.queryTiles();
  shape.element = m.element;
  return shape;
}

/// Constants are measured on decode steps; prefill takes the work queue.
static Expected<Session::Policies> policiesOf(const std::string &path,
                                              const BackendInfo &info,
                                              const Manifest &m) {
  Session::Policies policies;
  auto decode = static_cast<size_t>(StepEntry::Decode);
  const std::vector<int32_t> &schedules = info.entries[decode].schedules;
  if (path.empty() || schedules.size() == 1)
    return policies;
  Expected<Calibration> calibration = loadCalibration(path);
  KVRM_TRY(calibration.status());
  PolicyShape shape = policyShapeOf(m, m.decode);
  KVRM_TRY(calibration->check(path, info.device, shape));
  const ScheduleCosts *measured = calibration->costs(info.overlapsSteps);
  if (!measured)
    return makeError(
        StatusCode::Incompatible, path, ": settings: none has pdl ",
        info.overlapsSteps ? "true" : "false", "; calibrate again");
  ScheduleCosts costs = *measured;
  std::erase_if(costs.clusters, [&](const ClusterCost &cost) {
    return std::ranges::find(schedules, cost.blocks) == schedules.end();
  });
  Expected<SchedulePolicy> policy =
      SchedulePolicy::create(shape, costs, m.decode.rows);
  KVRM_TRY(policy.status());
  policies[decode] = policy.take();
  return policies;
}

//===----------------------------------------------------------------------===//
// Decoders
//===----------------------------------------------------------------------===//

/// Of `Own`, for which Own::create() is called.
template <typename Own, typename... Arguments>
static Expected<std::unique_ptr<Backend>> make(Arguments &&...arguments) {
  Expected<std::unique_ptr<Own>> backend =
      Own::create(std::forward<Arguments>(arguments)...);
  KVRM_TRY(backend.status());
  return std::unique_ptr<Backend>(backend.take());
}

static RankShape rankShapeOf(const Manifest &m, const SessionConfig &config) {
  RankShape shape;
  shape.ranks = m.ranks;
  shape.plans = {planShapeOf(m, m.decode), planShapeOf(m, m.prefill)};
  shape.vocabulary = m.vocabulary;
  shape.timeout = config.rankTimeout;
  return shape;
}

static Expected<std::unique_ptr<Backend>>
createHostBackend(const std::shared_ptr<const Package> &package,
                  const SessionConfig &config, int32_t pages) {
  const Manifest &m = package->manifest();
  HostShape shape = hostShapeOf(package, config, pages);
  if (m.ranks == 1)
    return make<HostBackend>(shape);
  // The ranks share the threads.
  shape.threads = std::max(config.workers() / m.ranks, 1);
  shape.group = std::make_shared<HostGroup>(m.ranks);
  return make<ShardedBackend>(rankShapeOf(m, config), shape.group,
                              [shape, package](int32_t rank) mutable {
                                HostShape own = shape;
                                own.rank = rank;
                                own.weights = package->weights(rank);
                                return make<HostBackend>(own);
                              });
}

using Devices = std::vector<std::shared_ptr<const CudaDevice>>;

/// The devices of the ranks: adjacent ones.
static Expected<Devices> openDevices(const SessionConfig &config,
                                     int32_t ranks) {
  if (config.gpu && ranks == 1)
    return Devices{config.gpu};
  std::shared_ptr<const CudaDriver> driver =
      config.gpu ? config.gpu->sharedDriver() : nullptr;
  if (!driver) {
    Expected<std::shared_ptr<const CudaDriver>> loaded = CudaDriver::load();
    KVRM_TRY(loaded.status());
    driver = loaded.take();
  }
  int32_t first = config.gpu ? config.gpu->info().index : config.device;
  if (ranks > 1 && ranks > driver->devices() - first)
    return makeError(StatusCode::Incompatible, "the package is for ", ranks,
                     " GPUs, and there are ", driver->devices(),
                     ", of which the first for it is ", first);
  Devices devices;
  for (int32_t rank = 0; rank < ranks; ++rank) {
    Expected<std::shared_ptr<const CudaDevice>> device =
        CudaDevice::create(driver, first + rank);
    KVRM_TRY(device.status());
    devices.push_back(device.take());
  }
  return devices;
}

static Expected<std::unique_ptr<Backend>>
createCudaRanks(const Package &package, const SessionConfig &config,
                CudaShape shape, Devices devices) {
  Expected<std::shared_ptr<const CollectiveLibrary>> library =
      CollectiveLibrary::find(config.collectives);
  KVRM_TRY(library.status());
  Expected<std::shared_ptr<CudaGroup>> group =
      CudaGroup::create(library.take(), std::move(devices));
  KVRM_TRY(group.status());
  if (config.usesMailboxes)
    KVRM_TRY((*group)->takeMailboxes(
        std::max({package.decodeProgram().mailboxBytes(),
                  package.prefillProgram().mailboxBytes(),
                  package.mixedProgram().mailboxBytes()})));
  shape.group = group.take();
  return make<ShardedBackend>(rankShapeOf(package.manifest(), config),
                              shape.group, [&package, shape](int32_t rank) {
                                CudaShape own = shape;
                                own.rank = rank;
                                return make<CudaBackend>(
                                    own.group->device(rank), package, own);
                              });
}

static Expected<std::unique_ptr<Backend>>
createCudaBackend(const Package &package, const SessionConfig &config,
                  int32_t pages) {
  const Manifest &m = package.manifest();
  Expected<Devices> devices = openDevices(config, m.ranks);
  KVRM_TRY(devices.status());
  std::shared_ptr<const CudaDevice> gpu = devices->front();
  CudaShape shape;
  shape.pages = pages;
  if (config.parkingPlaces > 0)
    shape.parkingPages = static_cast<int32_t>(config.parkingPages);
  shape.plans = {planShapeOf(m, m.decode), planShapeOf(m, m.prefill)};
  // Without constants no policy chooses them.
  shape.usesClusters = !config.calibration.empty();
  if (package.hasProducts()) {
    Expected<std::shared_ptr<const ProductLibrary>> library =
        ProductLibrary::find(config.products, gpu->driver().version());
    KVRM_TRY(library.status());
    shape.products = library.take();
  }
  if (m.ranks > 1)
    return createCudaRanks(package, config, shape, devices.take());
  return make<CudaBackend>(std::move(gpu), package, shape);
}

static Status checkLogits(const Package &package) {
  if (package.manifest().vocabulary == 0)
    return makeError(StatusCode::Incompatible, package.path(),
                     ": has no logits: it is kernels for a GPU, not a decoder");
  return Status::ok();
}

Expected<std::unique_ptr<Session>>
kvrm::createSession(const std::shared_ptr<const Package> &package,
                    const SessionConfig &config) {
  KVRM_CHECK(package, "a session has a package");
  const Manifest &m = package->manifest();
  KVRM_TRY(checkConfig(m, config));
  if (!m.isPaged)
    return invalidArgument(package->path(), ": is static, not paged");
  KVRM_TRY(checkLogits(*package));
  int64_t pages = config.poolPages != 0 ? config.poolPages
                                        : int64_t(m.slots) * m.pagesPerSlot;
  KVRM_TRY(checkRange("pool_pages", pages, 1, KVRM_MAX_POOL_PAGES));
  auto poolPages = static_cast<int32_t>(pages);
  Expected<std::unique_ptr<Backend>> backend =
      m.target == TargetKind::Host
          ? createHostBackend(package, config, poolPages)
          : createCudaBackend(*package, config, poolPages);
  KVRM_TRY(backend.status());
  Expected<Session::Policies> policies =
      policiesOf(config.calibration, (*backend)->info(), m);
  KVRM_TRY(policies.status());
  return Session::create(sessionShapeOf(m, config), backend.take(),
                         policies.take());
}

/// Of a static package for GPUs.
static Expected<std::unique_ptr<Decoder>>
createPaddedSession(const Package &package, SessionConfig config) {
  const Manifest &m = package.manifest();
  KVRM_TRY(checkLogits(package));
  // What is of paged packages alone.
  config.keptHistories = config.parkingPlaces = 0;
  config.calibration.clear();
  int64_t pages = int64_t(m.slots) * m.pagesPerSlot;
  KVRM_TRY(checkRange("slots x pages a slot", pages, 1, KVRM_MAX_POOL_PAGES));
  Expected<std::unique_ptr<Backend>> backend =
      createCudaBackend(package, config, static_cast<int32_t>(pages));
  KVRM_TRY(backend.status());
  Expected<std::unique_ptr<PaddedSession>> session =
      PaddedSession::create(sessionShapeOf(m, config), backend.take());
  KVRM_TRY(session.status());
  return std::unique_ptr<Decoder>(session.take());
}

Expected<std::unique_ptr<Decoder>>
kvrm::createDecoder(std::shared_ptr<const Package> package,
                    const SessionConfig &config) {
  KVRM_CHECK(package, "a decoder has a package");
  const Manifest &m = package->manifest();
  if (m.isPaged) {
    Expected<std::unique_ptr<Session>> session = createSession(package, config);
    KVRM_TRY(session.status());
    return std::unique_ptr<Decoder>(session.take());
  }
  KVRM_TRY(checkConfig(m, config));
  if (m.target == TargetKind::NVPTX)
    return createPaddedSession(*package, config);
  Expected<std::unique_ptr<StaticSession>> session =
      StaticSession::create(std::move(package), config.threads);
  KVRM_TRY(session.status());
  return std::unique_ptr<Decoder>(session.take());
}
