//===- CudaDevice.cpp - A GPU and what lives on it ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaDevice.h"

#include "DriverApi.h"

#include <algorithm>
#include <bit>
#include <cstring>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// CudaDevice
//===----------------------------------------------------------------------===//

Expected<std::shared_ptr<const CudaDevice>>
CudaDevice::create(std::shared_ptr<const CudaDriver> driver, int32_t index) {
  KVRM_CHECK(driver, "a device has a driver");
  if (index < 0 || index >= driver->devices())
    return invalidArgument("CUDA device ", index, " is outside 0..",
                           driver->devices() - 1);
  std::shared_ptr<CudaDevice> device(new CudaDevice());
  const CudaDriver &library = *driver;
  device->library = std::move(driver);
  CudaDeviceInfo &info = device->properties;
  info.index = index;
  KVRM_TRY(KVRM_CUDA(library, cuDeviceGet, (&device->id, index)));
  cuda::DeviceId id = device->id;
  char name[256] = {};
  KVRM_TRY(
      KVRM_CUDA(library, cuDeviceGetName, (name, int32_t(sizeof(name)), id)));
  info.name.assign(name, strnlen(name, sizeof(name)));
  auto attribute = [&](cuda::DeviceAttribute which, auto &value) {
    int32_t number = 0;
    KVRM_TRY(KVRM_CUDA(library, cuDeviceGetAttribute, (&number, which, id)));
    value = number;
    return Status::ok();
  };
  KVRM_TRY(attribute(cuda::attributeMajor, info.major));
  KVRM_TRY(attribute(cuda::attributeMinor, info.minor));
  KVRM_TRY(attribute(cuda::attributeMultiprocessors, info.multiprocessors));
  KVRM_TRY(attribute(cuda::attributeL2Bytes, info.l2Bytes));
  KVRM_TRY(attribute(cuda::attributeSharedOptin, info.sharedBytes));
  size_t bytes = 0;
  KVRM_TRY(KVRM_CUDA(library, cuDeviceTotalMem, (&bytes, id)));
  info.memoryBytes = static_cast<int64_t>(bytes);
  KVRM_TRY(
      KVRM_CUDA(library, cuDevicePrimaryCtxRetain, (&device->context, id)));
  KVRM_TRY(device->use());
  return std::shared_ptr<const CudaDevice>(std::move(device));
}

CudaDevice::~CudaDevice() {
  if (context)
    library->api().cuDevicePrimaryCtxRelease(id);
}

Expected<bool> CudaDevice::reach(const CudaDevice &other) const {
  int32_t can = 0;
  KVRM_TRY(KVRM_CUDA(*library, cuDeviceCanAccessPeer, (&can, id, other.id)));
  if (!can)
    return false;
  KVRM_TRY(use());
  cuda::Result result = library->api().cuCtxEnablePeerAccess(other.context, 0);
  if (result != cuda::errorPeerAccessAlreadyEnabled)
    KVRM_TRY(library->statusOf(result, "cuCtxEnablePeerAccess"));
  return true;
}

Status CudaDevice::use() const {
  return KVRM_CUDA(*library, cuCtxSetCurrent, (context));
}

Expected<int64_t> CudaDevice::freeBytes() const {
  KVRM_TRY(use());
  size_t free = 0;
  size_t total = 0;
  KVRM_TRY(KVRM_CUDA(*library, cuMemGetInfo, (&free, &total)));
  return static_cast<int64_t>(free);
}

/// Gives back by `call`, for destructors: there is nobody to tell of an error,
/// and after one that is the device's every call fails.
template <typename Call, typename Object>
static void giveBack(const std::shared_ptr<const CudaDevice> &device,
                     Call cuda::Api::*call, Object object) {
  if (!device || !object)
    return;
  (void)device->use().isOk();
  (device->driver().api().*call)(object);
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

/// Says what `bytes` of memory were for.
static Status allocationFailed(const CudaDevice &device, const char *purpose,
                               int64_t bytes, const Status &status) {
  if (status.code() != StatusCode::ResourceExhausted)
    return makeError(status.code(), purpose, ": ", status.message());
  Expected<int64_t> free = device.freeBytes();
  if (!free)
    return makeError(status.code(), purpose, ": cannot take ", bytes,
                     " bytes on device ", device.info().index, ": ",
                     status.message());
  return makeError(status.code(), purpose, ": cannot take ", bytes,
                   " bytes on device ", device.info().index, ", which has ",
                   *free, " of ", device.info().memoryBytes, " free");
}

Expected<DeviceBuffer>
DeviceBuffer::create(std::shared_ptr<const CudaDevice> device, int64_t bytes,
                     const char *purpose) {
  KVRM_CHECK(device && bytes >= 0, "a buffer has a device and a size");
  DeviceBuffer buffer;
  if (bytes == 0)
    return buffer;
  KVRM_TRY(device->use());
  uint64_t address = 0;
  Status status = KVRM_CUDA(device->driver(), cuMemAlloc,
                            (&address, static_cast<size_t>(bytes)));
  if (!status.isOk())
    return allocationFailed(*device, purpose, bytes, status);
  buffer.range = {address, bytes};
  buffer.device = std::move(device);
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  giveBack(device, &cuda::Api::cuMemFree, range.address);
}

Expected<PinnedBuffer>
PinnedBuffer::create(std::shared_ptr<const CudaDevice> device, int64_t bytes,
                     const char *purpose) {
  KVRM_CHECK(device && bytes >= 0, "a buffer has a device and a size");
  PinnedBuffer buffer;
  if (bytes == 0)
    return buffer;
  KVRM_TRY(device->use());
  void *memory = nullptr;
  Status status = KVRM_CUDA(device->driver(), cuMemHostAlloc,
                            (&memory, static_cast<size_t>(bytes), /*flags=*/0));
  if (!status.isOk())
    return makeError(status.code(), purpose, ": cannot take ", bytes,
                     " bytes of pinned host memory: ", status.message());
  buffer.start = static_cast<uint8_t *>(memory);
  buffer.bytes = bytes;
  buffer.device = std::move(device);
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  giveBack(device, &cuda::Api::cuMemFreeHost, start);
}

//===----------------------------------------------------------------------===//
// CudaStream
//===----------------------------------------------------------------------===//

Expected<CudaStream>
CudaStream::create(std::shared_ptr<const CudaDevice> device) {
  KVRM_CHECK(device, "a stream has a device");
  KVRM_TRY(device->use());
  CudaStream stream;
  KVRM_TRY(KVRM_CUDA(device->driver(), cuStreamCreate,
                     (&stream.stream, cuda::streamNonBlocking)));
  stream.owner = std::move(device);
  return stream;
}

CudaStream::~CudaStream() {
  giveBack(owner, &cuda::Api::cuStreamDestroy, stream);
}

Status CudaStream::synchronize() const {
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuStreamSynchronize, (stream));
}

Status CudaStream::copyIn(DeviceSpan to, const void *from) const {
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuMemcpyHtoDAsync,
                   (to.address, from, static_cast<size_t>(to.bytes), stream));
}

Status CudaStream::copyOut(void *to, DeviceSpan from) const {
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuMemcpyDtoHAsync,
                   (to, from.address, static_cast<size_t>(from.bytes), stream));
}

Status CudaStream::copy(uint64_t to, DeviceSpan from) const {
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuMemcpyDtoDAsync,
                   (to, from.address, static_cast<size_t>(from.bytes), stream));
}

/// Starts a copy of runs whose ends `ends` names. Where they lie further apart
/// than the driver takes, `copyOne` copies each, by its offset on either side.
template <typename CopyOne>
static Status startRuns(const CudaStream &stream, cuda::Copy2D ends,
                        const CudaRuns &runs, CopyOne copyOne) {
  KVRM_CHECK(runs.width >= 0 && runs.toPitch >= runs.width &&
                 runs.fromPitch >= runs.width && runs.height >= 0,
             "runs do not overlap");
  constexpr int64_t longest = INT32_MAX;
  if (std::max(runs.toPitch, runs.fromPitch) > longest) {
    for (int64_t i = 0; i < runs.height; ++i)
      KVRM_TRY(copyOne(static_cast<uint64_t>(i * runs.toPitch),
                       static_cast<uint64_t>(i * runs.fromPitch)));
    return Status::ok();
  }
  ends.toPitch = static_cast<size_t>(runs.toPitch);
  ends.fromPitch = static_cast<size_t>(runs.fromPitch);
  ends.width = static_cast<size_t>(runs.width);
  ends.height = static_cast<size_t>(runs.height);
  KVRM_TRY(stream.device()->use());
  return KVRM_CUDA(stream.device()->driver(), cuMemcpy2DAsync,
                   (&ends, stream.handle()));
}

Status CudaStream::copyRunsIn(uint64_t to, const void *from,
                              const CudaRuns &runs) const {
  cuda::Copy2D ends{};
  ends.fromType = cuda::memoryHost;
  ends.fromHost = from;
  ends.toType = cuda::memoryDevice;
  ends.toDevice = to;
  return startRuns(*this, ends, runs, [&](uint64_t there, uint64_t here) {
    return copyIn({to + there, runs.width},
                  static_cast<const uint8_t *>(from) + here);
  });
}

Status CudaStream::copyRunsOut(void *to, uint64_t from,
                               const CudaRuns &runs) const {
  cuda::Copy2D ends{};
  ends.fromType = cuda::memoryDevice;
  ends.fromDevice = from;
  ends.toType = cuda::memoryHost;
  ends.toHost = to;
  return startRuns(*this, ends, runs, [&](uint64_t there, uint64_t here) {
    return copyOut(static_cast<uint8_t *>(to) + there,
                   {from + here, runs.width});
  });
}

Status CudaStream::copyRuns(uint64_t to, uint64_t from,
                            const CudaRuns &runs) const {
  cuda::Copy2D ends{};
  ends.fromType = ends.toType = cuda::memoryDevice;
  ends.fromDevice = from;
  ends.toDevice = to;
  return startRuns(*this, ends, runs, [&](uint64_t there, uint64_t here) {
    return copy(to + there, {from + here, runs.width});
  });
}

Status CudaStream::fill(DeviceSpan to, uint8_t value) const {
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuMemsetD8Async,
                   (to.address, value, static_cast<size_t>(to.bytes), stream));
}

//===----------------------------------------------------------------------===//
// CudaEvent
//===----------------------------------------------------------------------===//

Expected<CudaEvent> CudaEvent::create(std::shared_ptr<const CudaDevice> device,
                                      bool isTimed) {
  KVRM_CHECK(device, "an event has a device");
  KVRM_TRY(device->use());
  CudaEvent event;
  KVRM_TRY(KVRM_CUDA(device->driver(), cuEventCreate,
                     (&event.event, isTimed ? 0 : cuda::eventDisableTiming)));
  event.owner = std::move(device);
  return event;
}

CudaEvent::~CudaEvent() { giveBack(owner, &cuda::Api::cuEventDestroy, event); }

Status CudaEvent::record(const CudaStream &stream) const {
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuEventRecord, (event, stream.handle()));
}

Status CudaEvent::synchronize() const {
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuEventSynchronize, (event));
}

Expected<double> CudaEvent::microsecondsSince(const CudaEvent &start) const {
  KVRM_TRY(owner->use());
  float milliseconds = 0;
  KVRM_TRY(KVRM_CUDA(owner->driver(), cuEventElapsedTime,
                     (&milliseconds, start.event, event)));
  return double(milliseconds) * 1e3;
}

//===----------------------------------------------------------------------===//
// CudaModule and CudaKernel
//===----------------------------------------------------------------------===//

Expected<CudaModule> CudaModule::load(std::shared_ptr<const CudaDevice> device,
                                      const std::string &image,
                                      std::string_view where) {
  KVRM_CHECK(device, "a module has a device");
  KVRM_TRY(device->use());
  CudaModule module;
  module.name = where;
  char log[4096] = {};
  cuda::JitOption names[] = {cuda::jitErrorLog, cuda::jitErrorLogBytes};
  void *values[] = {log, std::bit_cast<void *>(sizeof(log) - 1)};
  Status status = KVRM_CUDA(device->driver(), cuModuleLoadDataEx,
                            (&module.module, image.c_str(), 2, names, values));
  if (!status.isOk()) {
    // The first line that says something.
    std::string_view text(log, strnlen(log, sizeof(log)));
    text.remove_prefix(
        std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    text = text.substr(0, text.find_first_of("\r\n"));
    if (status.code() == StatusCode::ResourceExhausted)
      return makeError(status.code(), where, ": ", status.message());
    return makeError(StatusCode::Incompatible, where,
                     ": cannot load on device ", device->info().index, ": ",
                     status.message(), text.empty() ? "" : ": ", text);
  }
  module.owner = std::move(device);
  return module;
}

CudaModule::~CudaModule() {
  giveBack(owner, &cuda::Api::cuModuleUnload, module);
}

Expected<CudaKernel> CudaModule::kernel(const std::string &symbol,
                                        int32_t sharedBytes) const {
  KVRM_CHECK(module && sharedBytes >= 0, "a kernel comes from a loaded module");
  KVRM_TRY(owner->use());
  const CudaDriver &driver = owner->driver();
  CudaKernel kernel;
  kernel.owner = owner;
  cuda::Result found = driver.api().cuModuleGetFunction(&kernel.function,
                                                        module, symbol.c_str());
  if (found == cuda::errorNotFound)
    return makeError(StatusCode::Corrupt, name, ": has no kernel '", symbol,
                     "'");
  KVRM_TRY(driver.statusOf(found, "cuModuleGetFunction"));
  auto attribute = [&](cuda::FunctionAttribute which, int32_t &value) {
    return KVRM_CUDA(driver, cuFuncGetAttribute,
                     (&value, which, kernel.function));
  };
  CudaKernelInfo &info = kernel.properties;
  KVRM_TRY(attribute(cuda::functionRegisters, info.registers));
  KVRM_TRY(attribute(cuda::functionLocalBytes, info.localBytes));
  KVRM_TRY(attribute(cuda::functionSharedBytes, info.sharedBytes));
  KVRM_TRY(attribute(cuda::functionMaxThreads, info.maxThreads));
  if (int64_t(sharedBytes) + info.sharedBytes > owner->info().sharedBytes)
    return makeError(StatusCode::Incompatible, name, ": '", symbol, "' needs ",
                     int64_t(sharedBytes) + info.sharedBytes,
                     " bytes of shared memory a block; device ",
                     owner->info().index, ", ", owner->info().name, ", has ",
                     owner->info().sharedBytes);
  if (sharedBytes > 0)
    KVRM_TRY(KVRM_CUDA(
        driver, cuFuncSetAttribute,
        (kernel.function, cuda::functionMaxDynamicShared, sharedBytes)));
  return kernel;
}

namespace {
/// A launch as the driver takes it. Points into itself.
class DriverLaunch {
public:
  DriverLaunch(const CudaLaunch &launch, cuda::StreamObject *stream) {
    std::ranges::copy(launch.grid, config.grid);
    config.block[0] = launch.threads;
    config.block[1] = config.block[2] = 1;
    config.sharedBytes = launch.sharedBytes;
    config.stream = stream;
    config.attributes = attributes;
    if (launch.cluster > 0) {
      cuda::LaunchAttribute &cluster = attributes[config.attributeCount++];
      cluster.id = cuda::launchCluster;
      cluster.value.cluster[0] = launch.cluster;
      cluster.value.cluster[1] = cluster.value.cluster[2] = 1;
    }
    if (launch.isProgrammatic) {
      cuda::LaunchAttribute &overlap = attributes[config.attributeCount++];
      overlap.id = cuda::launchProgrammatic;
      overlap.value.isProgrammatic = 1;
    }
  }
  DriverLaunch(const DriverLaunch &) = delete;
  DriverLaunch &operator=(const DriverLaunch &) = delete;

  cuda::LaunchConfig config{};

private:
  cuda::LaunchAttribute attributes[2]{};
};
} // namespace

Status CudaKernel::launch(const CudaStream &stream, const CudaLaunch &launch,
                          std::span<void *const> parameters) const {
  KVRM_CHECK(function, "a launch has a kernel");
  KVRM_TRY(owner->use());
  DriverLaunch driverLaunch(launch, stream.handle());
  // The driver reads the list of parameters, and does not write it.
  return KVRM_CUDA(owner->driver(), cuLaunchKernelEx,
                   (&driverLaunch.config, function,
                    const_cast<void **>(parameters.data()), nullptr));
}

Expected<int32_t> CudaKernel::maxActiveBlocks(int32_t threads,
                                              int32_t sharedBytes) const {
  KVRM_CHECK(function, "there is a kernel");
  KVRM_TRY(owner->use());
  int32_t blocks = 0;
  KVRM_TRY(KVRM_CUDA(
      owner->driver(), cuOccupancyMaxActiveBlocksPerMultiprocessor,
      (&blocks, function, threads, static_cast<size_t>(sharedBytes))));
  return blocks;
}

Expected<int32_t>
CudaKernel::maxActiveClusters(const CudaLaunch &launch) const {
  KVRM_CHECK(function && launch.cluster > 0, "there are clusters");
  KVRM_TRY(owner->use());
  DriverLaunch driverLaunch(launch, nullptr);
  int32_t clusters = 0;
  KVRM_TRY(KVRM_CUDA(owner->driver(), cuOccupancyMaxActiveClusters,
                     (&clusters, function, &driverLaunch.config)));
  return clusters;
}

//===----------------------------------------------------------------------===//
// CudaGraph and CudaCapture
//===----------------------------------------------------------------------===//

CudaGraph::~CudaGraph() {
  giveBack(owner, &cuda::Api::cuGraphExecDestroy, graph);
}

Status CudaGraph::launch(const CudaStream &stream) const {
  KVRM_CHECK(graph, "there is a graph");
  KVRM_TRY(owner->use());
  return KVRM_CUDA(owner->driver(), cuGraphLaunch, (graph, stream.handle()));
}

Expected<CudaCapture> CudaCapture::begin(const CudaStream &stream) {
  const CudaDevice &device = *stream.device();
  KVRM_TRY(device.use());
  KVRM_TRY(KVRM_CUDA(device.driver(), cuStreamBeginCapture,
                     (stream.handle(), cuda::captureThreadLocal)));
  return CudaCapture(stream);
}

CudaCapture::~CudaCapture() {
  if (!stream)
    return;
  const CudaDevice &device = *stream->device();
  cuda::GraphObject *recorded = nullptr;
  (void)device.use().isOk();
  device.driver().api().cuStreamEndCapture(stream->handle(), &recorded);
  if (recorded)
    device.driver().api().cuGraphDestroy(recorded);
}

Expected<CudaGraph> CudaCapture::end() {
  KVRM_CHECK(stream, "a capture ends once");
  const CudaStream &recordedOn = *stream;
  const std::shared_ptr<const CudaDevice> &device = recordedOn.device();
  const CudaDriver &driver = device->driver();
  KVRM_TRY(device->use());
  stream = nullptr;
  cuda::GraphObject *recorded = nullptr;
  Status status =
      KVRM_CUDA(driver, cuStreamEndCapture, (recordedOn.handle(), &recorded));
  CudaGraph graph;
  if (status.isOk())
    status = KVRM_CUDA(driver, cuGraphInstantiateWithFlags,
                       (&graph.graph, recorded, /*flags=*/0));
  if (status.isOk()) {
    graph.owner = device;
    status =
        KVRM_CUDA(driver, cuGraphUpload, (graph.graph, recordedOn.handle()));
  }
  if (recorded)
    driver.api().cuGraphDestroy(recorded);
  KVRM_TRY(status);
  return graph;
}
