//===- FakeCuda.cpp - A CUDA driver over host memory ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeCuda.h"

#include "../cuda/DriverApi.h"
#include "FakeCollectives.h"
#include "FakeProducts.h"
#include "ToyDeviceKernels.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>

using namespace kvrm::cuda;
using fake::Control;
using fake::Launch;

static Control control;

extern "C" Control *fakeCudaControl() { return &control; }

//===----------------------------------------------------------------------===//
// Objects
//===----------------------------------------------------------------------===//

namespace kvrm::cuda {
struct ContextObject {
  int32_t retained = 0;
};

struct FunctionObject {
  std::string symbol;
  int32_t maxDynamicShared = 48 << 10;
};

struct ModuleObject {
  std::string image;
  std::vector<std::unique_ptr<FunctionObject>> functions;
};

struct GraphObject {
  std::vector<Launch> nodes;
};

struct GraphExecObject {
  std::shared_ptr<const std::vector<Launch>> nodes;
};

struct EventObject {
  StreamObject *stream = nullptr;
  bool isTimed = false;
  int32_t pending = 0;
};

struct Work {
  enum Kind { CopyIn, CopyOut, CopyWithin, Fill, Kernel, Graph, Mark };

  explicit Work(Kind kind, Address to = 0, Address from = 0, size_t bytes = 0)
      : kind(kind), to(to), from(from), bytes(bytes) {}

  Kind kind;
  Address to;
  Address from;
  size_t bytes;
  uint8_t value = 0;
  Launch launch;
  std::vector<uint8_t> staged; ///< of pageable memory
  std::shared_ptr<const std::vector<Launch>> graph;
  EventObject *event = nullptr;
};

struct StreamObject {
  ContextObject *context = nullptr;
  std::deque<Work> work;
  bool isCapturing = false;
  bool isInvalid = false;
  std::unique_ptr<GraphObject> graph;
};
} // namespace kvrm::cuda

namespace {
constexpr int32_t mostDevices = 8;
constexpr DeviceId firstDevice = 7; ///< no index is the driver's number
std::array<ContextObject, mostDevices> primaries;
std::mutex everything; ///< one call at a time, but for who waits in one
thread_local ContextObject *current = nullptr;
std::map<Address, size_t> deviceMemory;
std::map<Address, size_t> pinnedMemory;
std::set<StreamObject *> streams;

constexpr Result errorCaptureInvalidated = 901;

void violate(const std::string &what) { control.violations.push_back(what); }

bool liesIn(const std::map<Address, size_t> &memory, Address address,
            size_t bytes) {
  auto after = memory.upper_bound(address);
  if (after == memory.begin())
    return false;
  auto [start, size] = *std::prev(after);
  return address - start <= size && bytes <= size - (address - start);
}

uint8_t *pointer(Address address) { return std::bit_cast<uint8_t *>(address); }

/// Whether the call `name` is to fail now.
bool isFailing(const char *name) {
  ++control.calls;
  bool isHit = control.calls == control.failAt ||
               std::strcmp(control.failCall, name) == 0;
  if (isHit)
    control.lastFailed = name;
  return isHit;
}
} // namespace

/// Fails a call that was told to, before it does anything.
#define ENTER(name)                                                            \
  do {                                                                         \
    if (isFailing(#name))                                                      \
      return control.failResult;                                               \
  } while (false)

/// The same for a call that needs a context.
#define ENTER_CONTEXT(name)                                                    \
  do {                                                                         \
    ENTER(name);                                                               \
    if (!current || current->retained == 0) {                                  \
      violate(#name " without a context");                                     \
      return errorInvalidContext;                                              \
    }                                                                          \
  } while (false)

/// Calls that give back do, also when they then report a failure.
#define LEAVE(name) return isFailing(#name) ? control.failResult : success

//===----------------------------------------------------------------------===//
// Work
//===----------------------------------------------------------------------===//

static void runCommit(const Launch &launch) {
  kvrm_delta_header header;
  std::memcpy(&header, pointer(launch.args.delta), sizeof(header));
  for (uint32_t i = 0; i < header.words + header.fed; ++i) {
    kvrm_delta_word word;
    std::memcpy(&word,
                pointer(launch.args.delta + sizeof(header) + i * sizeof(word)),
                sizeof(word));
    Address target = launch.args.descriptor + uint64_t(word.index) * 4;
    if (!liesIn(deviceMemory, target, 4)) {
      violate("commit writes outside the descriptor");
      return;
    }
    if (i >= header.words) {
      Address source = header.next + uint64_t(word.value) * 4;
      if (!liesIn(deviceMemory, source, 4)) {
        violate("commit reads a token outside those chosen");
        return;
      }
      int32_t token = 0;
      std::memcpy(&token, pointer(source), 4);
      word.value = static_cast<uint32_t>(std::max(token, 0));
    }
    std::memcpy(pointer(target), &word.value, 4);
  }
}

/// Appends for 2 KV heads, pages of 16: the kernels of the tests.
static void runAppend(const Launch &launch) {
  const int32_t headDim = control.headDim;
  constexpr int32_t kvHeads = 2;
  constexpr int32_t pageTokens = 16;
  const kvrm_device_args &args = launch.args;
  const auto *rows = std::bit_cast<const kvrm_row *>(args.rows);
  const auto *tables = std::bit_cast<const int32_t *>(args.tables);
  auto queries = static_cast<int32_t>(launch.grid[1]);
  for (int32_t r = 0; r < static_cast<int32_t>(launch.grid[0]); ++r)
    for (int32_t t = 0; t < rows[r].count; ++t)
      for (int32_t head = 0; head < kvHeads; ++head) {
        int32_t position = rows[r].position + t;
        int32_t page = tables[r * args.pages_per_slot + position / pageTokens];
        int32_t token = position % pageTokens;
        Address target = head * args.head_stride +
                         (int64_t(page) * pageTokens + token) * headDim * 2;
        Address source =
            ((int64_t(r) * queries + t) * kvHeads + head) * headDim * 2;
        for (int32_t c = 0; c < headDim / 8; ++c)
          for (auto [from, to] : {std::pair(args.k, args.k_pool),
                                  std::pair(args.v, args.v_pool)}) {
            Address at =
                to + target + kvrm_swizzled_chunk(headDim * 2, token, c) * 16;
            if (page < 0 || !liesIn(deviceMemory, at, 16) ||
                !liesIn(deviceMemory, from + source + c * 16, 16)) {
              violate("append writes outside the pool");
              return;
            }
            std::memcpy(pointer(at), pointer(from + source + c * 16), 16);
          }
      }
}

static void runKernel(const Launch &launch) {
  if (launch.symbol == fake::reduceSymbol ||
      launch.symbol == fake::gatherSymbol) {
    fake::runCollective(launch);
  } else if (launch.symbol == fake::productSymbol) {
    ++control.products;
    fake::runProduct(launch);
  } else if (launch.symbol.find("commit") != std::string::npos) {
    runCommit(launch);
  } else if (launch.symbol.find("append") != std::string::npos) {
    runAppend(launch);
  } else if (const char *failure = fake::runToyKernel(launch)) {
    violate(launch.symbol + ": " + failure);
  }
}

static void run(const Work &work) {
  switch (work.kind) {
  case Work::CopyIn:
  case Work::CopyOut:
  case Work::CopyWithin:
    std::memcpy(pointer(work.to),
                work.staged.empty() ? pointer(work.from) : work.staged.data(),
                work.bytes);
    break;
  case Work::Fill:
    std::memset(pointer(work.to), work.value, work.bytes);
    break;
  case Work::Kernel:
    runKernel(work.launch);
    break;
  case Work::Graph:
    for (const Launch &node : *work.graph)
      runKernel(node);
    break;
  case Work::Mark:
    --work.event->pending;
    break;
  }
}

static Result enqueue(StreamObject *stream, Work work) {
  if (stream->isCapturing) {
    violate("work that cannot be captured");
    stream->isInvalid = true;
    return errorCaptureInvalidated;
  }
  if (control.isEager)
    run(work);
  else
    stream->work.push_back(std::move(work));
  return success;
}

/// Starts a launch, or records it.
static Result start(StreamObject *stream, Launch launch) {
  launch.isCaptured = stream->isCapturing;
  if (!control.isEager)
    control.launches.push_back(launch);
  if (stream->isCapturing) {
    stream->graph->nodes.push_back(std::move(launch));
    return success;
  }
  Work work(Work::Kernel);
  work.launch = std::move(launch);
  return enqueue(stream, std::move(work));
}

static void drain(StreamObject *stream) {
  while (!stream->work.empty()) {
    run(stream->work.front());
    stream->work.pop_front();
  }
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

static Result cuInit(uint32_t) {
  ENTER(cuInit);
  return control.initResult;
}

static Result cuDeviceGetCount(int32_t *count) {
  ENTER(cuDeviceGetCount);
  *count = control.devices;
  return success;
}

static Result cuDeviceGet(DeviceId *device, int32_t index) {
  ENTER(cuDeviceGet);
  *device = index + firstDevice;
  return success;
}

static Result cuDeviceGetName(char *name, int32_t bytes, DeviceId) {
  ENTER(cuDeviceGetName);
  std::snprintf(name, static_cast<size_t>(bytes), "Fake GPU");
  return success;
}

static Result cuDeviceGetAttribute(int32_t *value, DeviceAttribute attribute,
                                   DeviceId) {
  ENTER(cuDeviceGetAttribute);
  switch (attribute) {
  case attributeMultiprocessors:
    *value = control.multiprocessors;
    return success;
  case attributeL2Bytes:
    *value = 50 << 20;
    return success;
  case attributeMajor:
    *value = control.major;
    return success;
  case attributeMinor:
    *value = control.minor;
    return success;
  case attributeSharedOptin:
    *value = control.sharedBytes;
    return success;
  }
  return errorInvalidValue;
}

static Result cuDeviceTotalMem(size_t *bytes, DeviceId) {
  ENTER(cuDeviceTotalMem);
  *bytes = static_cast<size_t>(control.memoryBytes);
  return success;
}

static Result cuDevicePrimaryCtxRetain(ContextObject **context, DeviceId id) {
  ENTER(cuDevicePrimaryCtxRetain);
  if (id < firstDevice || id >= firstDevice + mostDevices) {
    violate("retains another device");
    return errorInvalidValue;
  }
  ContextObject &primary = primaries[static_cast<size_t>(id - firstDevice)];
  *context = &primary;
  ++primary.retained;
  ++control.live;
  return success;
}

static Result cuDevicePrimaryCtxRelease(DeviceId id) {
  ContextObject &primary = primaries[static_cast<size_t>(id - firstDevice)];
  if (primary.retained == 0)
    violate("releases a context twice");
  --primary.retained;
  --control.live;
  LEAVE(cuDevicePrimaryCtxRelease);
}

static Result cuCtxSetCurrent(ContextObject *context) {
  ENTER(cuCtxSetCurrent);
  current = context;
  return success;
}

/// No device reaches another: kernels of mailboxes are compiled ones.
static Result cuDeviceCanAccessPeer(int32_t *can, DeviceId, DeviceId) {
  ENTER(cuDeviceCanAccessPeer);
  *can = 0;
  return success;
}

static Result cuCtxEnablePeerAccess(ContextObject *, uint32_t) {
  ENTER_CONTEXT(cuCtxEnablePeerAccess);
  violate("reaches a device that cannot be reached");
  return errorInvalidValue;
}

static Result cuMemGetInfo(size_t *free, size_t *total) {
  ENTER_CONTEXT(cuMemGetInfo);
  *free = static_cast<size_t>(control.memoryBytes - control.liveBytes);
  *total = static_cast<size_t>(control.memoryBytes);
  return success;
}

/// Memory full of 0xA5, which is what nobody should rely on; of a workspace the
/// first MiB is, as tests take many.
static Address takeMemory(std::map<Address, size_t> &memory, size_t bytes) {
  size_t rounded = (bytes + 255) / 256 * 256;
  void *start = std::aligned_alloc(256, rounded);
  if (!start)
    std::abort();
  std::memset(start, 0xA5, std::min(rounded, size_t(1) << 20));
  auto address = reinterpret_cast<Address>(start);
  memory[address] = bytes;
  ++control.live;
  return address;
}

static bool giveBackMemory(std::map<Address, size_t> &memory, Address address,
                           int64_t &counter) {
  auto found = memory.find(address);
  if (found == memory.end()) {
    violate("frees what it does not own");
    return false;
  }
  // Freeing waits for all work of the device.
  for (StreamObject *stream : streams)
    if (stream->context == current)
      drain(stream);
  counter -= static_cast<int64_t>(found->second);
  --control.live;
  std::free(pointer(address));
  memory.erase(found);
  return true;
}

static Result cuMemAlloc(Address *address, size_t bytes) {
  ENTER_CONTEXT(cuMemAlloc);
  if (static_cast<int64_t>(bytes) > control.memoryBytes - control.liveBytes)
    return errorOutOfMemory;
  *address = takeMemory(deviceMemory, bytes);
  control.liveBytes += static_cast<int64_t>(bytes);
  return success;
}

static Result cuMemFree(Address address) {
  giveBackMemory(deviceMemory, address, control.liveBytes);
  LEAVE(cuMemFree);
}

static Result cuMemHostAlloc(void **memory, size_t bytes, uint32_t) {
  ENTER_CONTEXT(cuMemHostAlloc);
  if (static_cast<int64_t>(bytes) > control.pinnedBytes - control.livePinned)
    return errorOutOfMemory;
  *memory = pointer(takeMemory(pinnedMemory, bytes));
  control.livePinned += static_cast<int64_t>(bytes);
  return success;
}

static Result cuMemFreeHost(void *memory) {
  giveBackMemory(pinnedMemory, reinterpret_cast<Address>(memory),
                 control.livePinned);
  LEAVE(cuMemFreeHost);
}

static Result checkRange(Address address, size_t bytes) {
  if (liesIn(deviceMemory, address, bytes))
    return success;
  violate("copies outside an allocation");
  return errorInvalidValue;
}

static Result cuMemcpyHtoDAsync(Address to, const void *from, size_t bytes,
                                StreamObject *stream) {
  ENTER_CONTEXT(cuMemcpyHtoDAsync);
  if (Result result = checkRange(to, bytes))
    return result;
  ++control.copies;
  Work work(Work::CopyIn, to, reinterpret_cast<Address>(from), bytes);
  // Pageable memory is read before the call returns.
  if (!control.isEager && !liesIn(pinnedMemory, work.from, bytes))
    work.staged.assign(pointer(work.from), pointer(work.from) + bytes);
  return enqueue(stream, std::move(work));
}

static Result cuMemcpyDtoHAsync(void *to, Address from, size_t bytes,
                                StreamObject *stream) {
  ENTER_CONTEXT(cuMemcpyDtoHAsync);
  if (Result result = checkRange(from, bytes))
    return result;
  // Pageable memory is written before the call returns.
  if (!stream->isCapturing &&
      !liesIn(pinnedMemory, reinterpret_cast<Address>(to), bytes)) {
    drain(stream);
    std::memcpy(to, pointer(from), bytes);
    return success;
  }
  return enqueue(
      stream, Work(Work::CopyOut, reinterpret_cast<Address>(to), from, bytes));
}

static Result cuMemcpyDtoDAsync(Address to, Address from, size_t bytes,
                                StreamObject *stream) {
  ENTER_CONTEXT(cuMemcpyDtoDAsync);
  if (checkRange(from, bytes) || checkRange(to, bytes))
    return errorInvalidValue;
  return enqueue(stream, Work(Work::CopyWithin, to, from, bytes));
}

/// Where a 2D copy begins and how it goes on, on one side.
struct Side {
  int32_t type;
  const void *host;
  Address device;
  size_t pitch;
};

/// A run of a 2D copy's memory, 0 if it does not lie where it should.
static Address runOf(const Side &side, size_t index, size_t bytes) {
  bool isHost = side.type == memoryHost;
  Address start =
      (isHost ? reinterpret_cast<Address>(side.host) : side.device) +
      index * side.pitch;
  if (liesIn(isHost ? pinnedMemory : deviceMemory, start, bytes))
    return start;
  violate("a 2D copy outside an allocation");
  return 0;
}

static Result cuMemcpy2DAsync(const Copy2D *copy, StreamObject *stream) {
  ENTER_CONTEXT(cuMemcpy2DAsync);
  Side to{copy->toType, copy->toHost, copy->toDevice, copy->toPitch};
  Side from{copy->fromType, copy->fromHost, copy->fromDevice, copy->fromPitch};
  bool isKnown =
      copy->fromX == 0 && copy->fromY == 0 && copy->toX == 0 && copy->toY == 0;
  for (const Side &side : {to, from})
    isKnown &= (side.type == memoryHost || side.type == memoryDevice) &&
               copy->width <= side.pitch;
  if (!isKnown || (to.type == memoryHost && from.type == memoryHost)) {
    violate("a 2D copy that the fake does not know");
    return errorInvalidValue;
  }
  Work::Kind kind = from.type == memoryHost ? Work::CopyIn
                    : to.type == memoryHost ? Work::CopyOut
                                            : Work::CopyWithin;
  for (size_t i = 0; i < copy->height; ++i) {
    Address target = runOf(to, i, copy->width);
    Address source = runOf(from, i, copy->width);
    if (!target || !source)
      return errorInvalidValue;
    if (Result result =
            enqueue(stream, Work(kind, target, source, copy->width)))
      return result;
  }
  return success;
}

static Result cuMemsetD8Async(Address to, uint8_t value, size_t bytes,
                              StreamObject *stream) {
  ENTER_CONTEXT(cuMemsetD8Async);
  if (Result result = checkRange(to, bytes))
    return result;
  Work work(Work::Fill, to, 0, bytes);
  work.value = value;
  return enqueue(stream, std::move(work));
}

static Result cuStreamCreate(StreamObject **stream, uint32_t flags) {
  ENTER_CONTEXT(cuStreamCreate);
  if (flags != streamNonBlocking)
    violate("a stream that waits for the default stream");
  *stream = new StreamObject();
  (*stream)->context = current;
  streams.insert(*stream);
  ++control.live;
  return success;
}

static Result cuStreamDestroy(StreamObject *stream) {
  if (stream->isCapturing)
    violate("destroys a stream that captures");
  drain(stream);
  streams.erase(stream);
  delete stream;
  --control.live;
  LEAVE(cuStreamDestroy);
}

static Result cuStreamSynchronize(StreamObject *stream) {
  ENTER_CONTEXT(cuStreamSynchronize);
  if (stream->isCapturing) {
    violate("waits for a stream that captures");
    return errorInvalidValue;
  }
  drain(stream);
  return success;
}

static Result cuStreamBeginCapture(StreamObject *stream, int32_t mode) {
  ENTER_CONTEXT(cuStreamBeginCapture);
  if (stream->isCapturing || mode != captureThreadLocal) {
    violate("begins a capture twice");
    return errorInvalidValue;
  }
  stream->isCapturing = true;
  stream->isInvalid = false;
  stream->graph = std::make_unique<GraphObject>();
  ++control.live;
  return success;
}

static Result cuStreamEndCapture(StreamObject *stream, GraphObject **graph) {
  // Also ends when it fails, as the driver's does.
  if (!stream->isCapturing) {
    violate("ends no capture");
    return errorInvalidValue;
  }
  stream->isCapturing = false;
  bool isFailed = isFailing("cuStreamEndCapture");
  if (isFailed || stream->isInvalid) {
    stream->graph.reset();
    --control.live;
    *graph = nullptr;
    return isFailed ? control.failResult : errorCaptureInvalidated;
  }
  *graph = stream->graph.release();
  return success;
}

static Result cuEventCreate(EventObject **event, uint32_t flags) {
  ENTER_CONTEXT(cuEventCreate);
  *event = new EventObject{.isTimed = (flags & eventDisableTiming) == 0};
  ++control.live;
  return success;
}

static Result cuEventDestroy(EventObject *event) {
  if (event->pending > 0)
    drain(event->stream);
  delete event;
  --control.live;
  LEAVE(cuEventDestroy);
}

static Result cuEventRecord(EventObject *event, StreamObject *stream) {
  ENTER_CONTEXT(cuEventRecord);
  event->stream = stream;
  ++event->pending;
  Work work(Work::Mark);
  work.event = event;
  return enqueue(stream, std::move(work));
}

static Result cuEventSynchronize(EventObject *event) {
  ENTER_CONTEXT(cuEventSynchronize);
  while (event->pending > 0) {
    std::deque<Work> &work = event->stream->work;
    run(work.front());
    work.pop_front();
  }
  return success;
}

static Result cuEventElapsedTime(float *milliseconds, EventObject *start,
                                 EventObject *end) {
  ENTER_CONTEXT(cuEventElapsedTime);
  if (!start->isTimed || !end->isTimed || start->pending || end->pending)
    return errorInvalidValue;
  *milliseconds = fake::machine().elapsedMilliseconds;
  return success;
}

static Result cuModuleLoadDataEx(ModuleObject **module, const void *image,
                                 uint32_t options, JitOption *names,
                                 void **values) {
  ENTER_CONTEXT(cuModuleLoadDataEx);
  std::string text = static_cast<const char *>(image);
  if (!text.starts_with(".version") && !text.starts_with("cubin")) {
    char *log = nullptr;
    size_t bytes = 0;
    for (uint32_t i = 0; i < options; ++i) {
      if (names[i] == jitErrorLog)
        log = static_cast<char *>(values[i]);
      if (names[i] == jitErrorLogBytes)
        bytes = reinterpret_cast<size_t>(values[i]);
    }
    std::snprintf(log, bytes,
                  "\nptxas fatal   : Missing .version directive\nmore\n");
    return errorInvalidPtx;
  }
  *module = new ModuleObject{.image = text, .functions = {}};
  ++control.live;
  return success;
}

static Result cuModuleUnload(ModuleObject *module) {
  delete module;
  --control.live;
  LEAVE(cuModuleUnload);
}

static Result cuModuleGetFunction(FunctionObject **function,
                                  ModuleObject *module, const char *name) {
  ENTER_CONTEXT(cuModuleGetFunction);
  std::string entry = std::string(".entry ") + name + "(";
  if (module->image.find(entry) == std::string::npos)
    return errorNotFound;
  module->functions.push_back(std::make_unique<FunctionObject>());
  *function = module->functions.back().get();
  (*function)->symbol = name;
  return success;
}

static Result cuFuncGetAttribute(int32_t *value, FunctionAttribute attribute,
                                 FunctionObject *function) {
  ENTER_CONTEXT(cuFuncGetAttribute);
  switch (attribute) {
  case functionMaxThreads:
    *value = control.maxThreads;
    return success;
  case functionSharedBytes:
    *value = 16;
    return success;
  case functionLocalBytes:
    *value = 8;
    return success;
  case functionRegisters:
    *value = 96;
    return success;
  case functionMaxDynamicShared:
    *value = function->maxDynamicShared;
    return success;
  }
  return errorInvalidValue;
}

static Result cuFuncSetAttribute(FunctionObject *function,
                                 FunctionAttribute attribute, int32_t value) {
  ENTER_CONTEXT(cuFuncSetAttribute);
  if (attribute != functionMaxDynamicShared || value > control.sharedBytes)
    return errorInvalidValue;
  function->maxDynamicShared = value;
  return success;
}

static Result cuLaunchKernelEx(const LaunchConfig *config,
                               FunctionObject *function, void **parameters,
                               void **extra) {
  bool isFailed = isFailing("cuLaunchKernelEx");
  StreamObject *stream = config->stream;
  if (isFailed) {
    stream->isInvalid = true;
    return control.failResult;
  }
  if (!current) {
    violate("launches without a context");
    return errorInvalidContext;
  }
  Launch launch;
  launch.symbol = function->symbol;
  std::copy_n(config->grid, 3, launch.grid.begin());
  std::copy_n(config->block, 3, launch.block.begin());
  launch.sharedBytes = config->sharedBytes;
  for (uint32_t i = 0; i < config->attributeCount; ++i) {
    const LaunchAttribute &attribute = config->attributes[i];
    if (attribute.id == launchCluster) {
      launch.cluster = attribute.value.cluster[0];
      if (attribute.value.cluster[1] != 1 || attribute.value.cluster[2] != 1)
        violate("clusters along y or z");
    } else if (attribute.id == launchProgrammatic) {
      launch.isProgrammatic = attribute.value.isProgrammatic == 1;
    } else {
      violate("an unknown launch attribute");
    }
  }
  bool isFit =
      launch.sharedBytes <= static_cast<uint32_t>(function->maxDynamicShared);
  for (uint32_t extent : launch.grid)
    isFit &= extent > 0;
  isFit &= launch.cluster == 0 || launch.grid[0] % launch.cluster == 0;
  if (!isFit || extra) {
    violate("a launch that does not fit");
    return errorInvalidValue;
  }
  auto count = static_cast<size_t>(fake::parameterCount(launch.symbol));
  for (size_t i = 0; i < count; ++i)
    std::memcpy(reinterpret_cast<uint8_t *>(&launch.args) + i * 8,
                parameters[i], 8);
  return start(stream, std::move(launch));
}

static Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int32_t *blocks,
                                                          FunctionObject *,
                                                          int32_t, size_t) {
  ENTER_CONTEXT(cuOccupancyMaxActiveBlocksPerMultiprocessor);
  *blocks = control.activeBlocks;
  return success;
}

static Result cuOccupancyMaxActiveClusters(int32_t *clusters, FunctionObject *,
                                           const LaunchConfig *config) {
  ENTER_CONTEXT(cuOccupancyMaxActiveClusters);
  if (config->attributeCount != 1 || config->attributes[0].id != launchCluster)
    violate("clusters of unknown size");
  *clusters = control.activeClusters;
  return success;
}

static Result cuGraphInstantiateWithFlags(GraphExecObject **exec,
                                          GraphObject *graph, uint64_t flags) {
  ENTER_CONTEXT(cuGraphInstantiateWithFlags);
  if (flags != 0)
    violate("instantiates with flags");
  *exec = new GraphExecObject{
      std::make_shared<const std::vector<Launch>>(graph->nodes)};
  ++control.live;
  return success;
}

static Result cuGraphUpload(GraphExecObject *, StreamObject *) {
  ENTER_CONTEXT(cuGraphUpload);
  return success;
}

static Result cuGraphLaunch(GraphExecObject *exec, StreamObject *stream) {
  ENTER_CONTEXT(cuGraphLaunch);
  ++control.graphLaunches;
  Work work(Work::Graph);
  work.graph = exec->nodes;
  return enqueue(stream, std::move(work));
}

static Result cuGraphExecDestroy(GraphExecObject *exec) {
  delete exec;
  --control.live;
  LEAVE(cuGraphExecDestroy);
}

static Result cuGraphDestroy(GraphObject *graph) {
  delete graph;
  --control.live;
  LEAVE(cuGraphDestroy);
}

//===----------------------------------------------------------------------===//
// FakeProducts.h
//===----------------------------------------------------------------------===//

Control &fake::machine() { return control; }

bool fake::isFailing(const char *call) { return ::isFailing(call); }

void fake::violate(const std::string &what) { ::violate(what); }

bool fake::hasContext() { return current && current->retained > 0; }

std::mutex &fake::mutex() { return everything; }

bool fake::isOnDevice(uint64_t address, size_t bytes) {
  return liesIn(deviceMemory, address, bytes);
}

Result fake::launch(StreamObject *stream, Launch launch) {
  return start(stream, std::move(launch));
}

void fake::invalidate(StreamObject *stream) { stream->isInvalid = true; }

//===----------------------------------------------------------------------===//
// Exported
//===----------------------------------------------------------------------===//

/// A call of the driver, alone.
template <auto function> struct Alone;
template <typename... Parameters, Result (*function)(Parameters...)>
struct Alone<function> {
  static Result call(Parameters... parameters) {
    std::lock_guard lock(everything);
    return function(parameters...);
  }
};

// NOLINTBEGIN(readability-identifier-naming,bugprone-macro-parentheses): names
// of the driver's, and of functions.
extern "C" {
Result cuDriverGetVersion(int32_t *version);
Result cuGetErrorName(Result error, const char **text);
Result cuGetErrorString(Result error, const char **text);
Result cuGetProcAddress_v2(const char *name, void **function, int32_t version,
                           uint64_t flags, int32_t *found);
}

Result cuDriverGetVersion(int32_t *version) {
  ENTER(cuDriverGetVersion);
  *version = control.version;
  return success;
}

Result cuGetErrorName(Result error, const char **text) {
  switch (error) {
  case errorOutOfMemory:
    *text = "CUDA_ERROR_OUT_OF_MEMORY";
    return success;
  case errorNoDevice:
    *text = "CUDA_ERROR_NO_DEVICE";
    return success;
  case errorInvalidPtx:
    *text = "CUDA_ERROR_INVALID_PTX";
    return success;
  case 999:
    *text = "CUDA_ERROR_UNKNOWN";
    return success;
  default:
    *text = nullptr;
    return errorInvalidValue;
  }
}

Result cuGetErrorString(Result error, const char **text) {
  switch (error) {
  case errorOutOfMemory:
    *text = "out of memory";
    return success;
  case errorNoDevice:
    *text = "no CUDA-capable device is detected";
    return success;
  case errorInvalidPtx:
    *text = "a PTX JIT compilation failed";
    return success;
  case 999:
    *text = "unknown error";
    return success;
  default:
    *text = nullptr;
    return errorInvalidValue;
  }
}

Result cuGetProcAddress_v2(const char *name, void **function, int32_t version,
                           uint64_t flags, int32_t *found) {
  ENTER(cuGetProcAddress);
  if (version != 12030 || flags != 0)
    violate("asks for calls of another CUDA");
  static const std::map<std::string, void *> calls = {
#define KVRM_CUDA_ENTRY(name, parameters)                                      \
  {#name, reinterpret_cast<void *>(&Alone<name>::call)},
      KVRM_CUDA_CALLS(KVRM_CUDA_ENTRY)
#undef KVRM_CUDA_ENTRY
  };
  auto entry = calls.find(name);
  bool isThere =
      entry != calls.end() && std::strcmp(name, control.missingCall) != 0;
  *function = isThere ? entry->second : nullptr;
  *found = isThere ? 0 : 1;
  return isThere ? success : errorNotFound;
}
// NOLINTEND(readability-identifier-naming,bugprone-macro-parentheses)
