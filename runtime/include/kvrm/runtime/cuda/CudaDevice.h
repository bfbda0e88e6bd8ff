//===- CudaDevice.h - A GPU and what lives on it ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Owners of what the CUDA driver hands out: memory, streams, events, modules,
// graphs. Each gives back what it owns when it goes, and keeps its device alive
// until then. All of them work on any thread, one thread at a time: every call
// first makes the device's primary context current, which is shared with the
// other users of CUDA in the process.
//
// Unless stated otherwise an error is IoError with the driver's call, its name
// for the error and its words. Only create(), load() and capture allocate.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDADEVICE_H
#define KVRM_RUNTIME_CUDA_CUDADEVICE_H

#include "kvrm/runtime/cuda/CudaDriver.h"
#include "kvrm/runtime/support/Status.h"

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace kvrm {

/// What a device is.
struct CudaDeviceInfo {
  int32_t index = 0;
  std::string name;
  int32_t major = 0; ///< compute capability
  int32_t minor = 0;
  int32_t multiprocessors = 0;
  int64_t l2Bytes = 0;
  int32_t sharedBytes = 0; ///< most dynamic shared memory of a block
  int64_t memoryBytes = 0;

  /// 90 for sm_90.
  int32_t capability() const { return major * 10 + minor; }
};

class CudaDevice {
public:
  /// Errors: InvalidArgument for an index that is not there.
  static Expected<std::shared_ptr<const CudaDevice>>
  create(std::shared_ptr<const CudaDriver> driver, int32_t index = 0);

  ~CudaDevice();
  CudaDevice(const CudaDevice &) = delete;
  CudaDevice &operator=(const CudaDevice &) = delete;

  const CudaDeviceInfo &info() const { return properties; }
  const CudaDriver &driver() const { return *library; }
  const std::shared_ptr<const CudaDriver> &sharedDriver() const {
    return library;
  }
  /// Bytes that nobody has taken.
  Expected<int64_t> freeBytes() const;
  /// Lets kernels of this device use memory of another; false if it cannot.
  Expected<bool> reach(const CudaDevice &other) const;
  /// Makes the primary context current on the calling thread.
  Status use() const;

private:
  CudaDevice() = default;

  std::shared_ptr<const CudaDriver> library;
  CudaDeviceInfo properties;
  int32_t id = 0; ///< the driver's
  cuda::ContextObject *context = nullptr;
};

/// Bytes on a device, owned by somebody else.
struct DeviceSpan {
  uint64_t address = 0;
  int64_t bytes = 0;

  DeviceSpan part(int64_t offset, int64_t length) const {
    KVRM_CHECK(offset >= 0 && length >= 0 && offset <= bytes - length,
               "a part lies in its whole");
    return {address + static_cast<uint64_t>(offset), length};
  }
};

/// Owns device memory, aligned to 256 bytes, with undefined content.
class DeviceBuffer {
public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer &&other) noexcept { swap(other); }
  DeviceBuffer &operator=(DeviceBuffer &&other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer();

  /// `bytes` >= 0; 0 takes nothing. Errors: ResourceExhausted, with `purpose`,
  /// the bytes asked for and the bytes free.
  static Expected<DeviceBuffer> create(std::shared_ptr<const CudaDevice> device,
                                       int64_t bytes, const char *purpose);

  uint64_t address() const { return range.address; }
  int64_t size() const { return range.bytes; }
  DeviceSpan span() const { return range; }

private:
  void swap(DeviceBuffer &other) noexcept {
    std::swap(device, other.device);
    std::swap(range, other.range);
  }

  std::shared_ptr<const CudaDevice> device;
  DeviceSpan range;
};

/// Owns host memory that the device copies from and to on its own.
class PinnedBuffer {
public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer &&other) noexcept { swap(other); }
  PinnedBuffer &operator=(PinnedBuffer &&other) noexcept {
    swap(other);
    return *this;
  }
  ~PinnedBuffer();

  /// `bytes` >= 0. Errors: ResourceExhausted, naming `purpose`.
  static Expected<PinnedBuffer> create(std::shared_ptr<const CudaDevice> device,
                                       int64_t bytes, const char *purpose);

  /// Null when size() is 0.
  uint8_t *data() const { return start; }
  int64_t size() const { return bytes; }

private:
  void swap(PinnedBuffer &other) noexcept {
    std::swap(device, other.device);
    std::swap(start, other.start);
    std::swap(bytes, other.bytes);
  }

  std::shared_ptr<const CudaDevice> device;
  uint8_t *start = nullptr;
  int64_t bytes = 0;
};

/// `height` runs of `width` bytes, which begin so far apart on either side.
struct CudaRuns {
  int64_t toPitch = 0;
  int64_t fromPitch = 0;
  int64_t width = 0;
  int64_t height = 0;
};

/// Owns a stream: work in order, beside the work of other streams.
class CudaStream {
public:
  CudaStream() = default;
  CudaStream(CudaStream &&other) noexcept { swap(other); }
  CudaStream &operator=(CudaStream &&other) noexcept {
    swap(other);
    return *this;
  }
  ~CudaStream();

  static Expected<CudaStream> create(std::shared_ptr<const CudaDevice> device);

  /// Waits for all work. Errors include those of the work itself.
  Status synchronize() const;
  /// Starts copies. The device uses pinned host memory until the copy is done;
  /// other memory is done with when the call returns.
  Status copyIn(DeviceSpan to, const void *from) const;
  Status copyOut(void *to, DeviceSpan from) const;
  Status copy(uint64_t to, DeviceSpan from) const;
  /// The same of runs: one copy, however many they are. Host memory is pinned.
  Status copyRunsIn(uint64_t to, const void *from, const CudaRuns &runs) const;
  Status copyRunsOut(void *to, uint64_t from, const CudaRuns &runs) const;
  Status copyRuns(uint64_t to, uint64_t from, const CudaRuns &runs) const;
  Status fill(DeviceSpan to, uint8_t value) const;

  cuda::StreamObject *handle() const { return stream; }
  const std::shared_ptr<const CudaDevice> &device() const { return owner; }

private:
  void swap(CudaStream &other) noexcept {
    std::swap(owner, other.owner);
    std::swap(stream, other.stream);
  }

  std::shared_ptr<const CudaDevice> owner;
  cuda::StreamObject *stream = nullptr;
};

/// Owns an event: a mark in a stream.
class CudaEvent {
public:
  CudaEvent() = default;
  CudaEvent(CudaEvent &&other) noexcept { swap(other); }
  CudaEvent &operator=(CudaEvent &&other) noexcept {
    swap(other);
    return *this;
  }
  ~CudaEvent();

  /// An event that is not timed costs the device less.
  static Expected<CudaEvent> create(std::shared_ptr<const CudaDevice> device,
                                    bool isTimed);

  Status record(const CudaStream &stream) const;
  /// Waits for the work before the last record(); at once if there is none.
  Status synchronize() const;
  /// Microseconds from `start` to this event, both timed and reached.
  Expected<double> microsecondsSince(const CudaEvent &start) const;

private:
  void swap(CudaEvent &other) noexcept {
    std::swap(owner, other.owner);
    std::swap(event, other.event);
  }

  std::shared_ptr<const CudaDevice> owner;
  cuda::EventObject *event = nullptr;
};

/// How a kernel is launched.
struct CudaLaunch {
  std::array<uint32_t, 3> grid{1, 1, 1};
  uint32_t threads = 1;
  uint32_t sharedBytes = 0; ///< dynamic
  uint32_t cluster = 0;     ///< blocks along x that form a cluster; 0 = unsaid
  /// Whether blocks may start before the kernel launched last has ended
  /// (programmatic dependent launch). The kernel waits for it by itself.
  bool isProgrammatic = false;
};

/// What the compiler made of a kernel.
struct CudaKernelInfo {
  int32_t registers = 0;   ///< a thread
  int32_t localBytes = 0;  ///< a thread: spills and stack
  int32_t sharedBytes = 0; ///< static
  int32_t maxThreads = 0;  ///< of a block
};

/// A kernel of a module, which must outlive it.
class CudaKernel {
public:
  CudaKernel() = default;

  explicit operator bool() const { return function != nullptr; }
  const CudaKernelInfo &info() const { return properties; }

  /// Starts the kernel with `parameters` (addresses of the values, copied by
  /// the call).
  Status launch(const CudaStream &stream, const CudaLaunch &launch,
                std::span<void *const> parameters) const;

  /// Blocks that one multiprocessor holds at once.
  Expected<int32_t> maxActiveBlocks(int32_t threads, int32_t sharedBytes) const;
  /// Clusters that the device holds at once. `launch` has a cluster.
  Expected<int32_t> maxActiveClusters(const CudaLaunch &launch) const;

private:
  friend class CudaModule;

  std::shared_ptr<const CudaDevice> owner;
  cuda::FunctionObject *function = nullptr;
  CudaKernelInfo properties;
};

/// Owns loaded device code.
class CudaModule {
public:
  CudaModule() = default;
  CudaModule(CudaModule &&other) noexcept { swap(other); }
  CudaModule &operator=(CudaModule &&other) noexcept {
    swap(other);
    return *this;
  }
  ~CudaModule();

  /// Loads PTX or a cubin. `image` ends with a zero byte that is not counted;
  /// `where` names it in errors. Errors: Incompatible, with the first line of
  /// what the driver's compiler says.
  static Expected<CudaModule> load(std::shared_ptr<const CudaDevice> device,
                                   const std::string &image,
                                   std::string_view where);

  /// The kernel `symbol`, allowed `sharedBytes` of dynamic shared memory.
  /// Errors: Corrupt if there is none, Incompatible if the device has less
  /// shared memory.
  Expected<CudaKernel> kernel(const std::string &symbol,
                              int32_t sharedBytes) const;

private:
  void swap(CudaModule &other) noexcept {
    std::swap(owner, other.owner);
    std::swap(module, other.module);
    std::swap(name, other.name);
  }

  std::shared_ptr<const CudaDevice> owner;
  cuda::ModuleObject *module = nullptr;
  std::string name;
};

/// Owns an instantiated graph: launches recorded once, repeated as they are.
class CudaGraph {
public:
  CudaGraph() = default;
  CudaGraph(CudaGraph &&other) noexcept { swap(other); }
  CudaGraph &operator=(CudaGraph &&other) noexcept {
    swap(other);
    return *this;
  }
  ~CudaGraph();

  explicit operator bool() const { return graph != nullptr; }

  /// Starts all of it; one driver call.
  Status launch(const CudaStream &stream) const;

private:
  friend class CudaCapture;

  void swap(CudaGraph &other) noexcept {
    std::swap(owner, other.owner);
    std::swap(graph, other.graph);
  }

  std::shared_ptr<const CudaDevice> owner;
  cuda::GraphExecObject *graph = nullptr;
};

/// Records what is launched on a stream from begin() to end() instead of
/// running it. A capture that goes without end() leaves the stream as it was,
/// which must outlive it.
class CudaCapture {
public:
  static Expected<CudaCapture> begin(const CudaStream &stream);

  CudaCapture(CudaCapture &&other) noexcept
      : stream(std::exchange(other.stream, nullptr)) {}
  CudaCapture &operator=(CudaCapture &&) = delete;
  ~CudaCapture();

  /// Instantiates what was recorded and uploads it to the device. The capture
  /// is over, whatever comes back.
  Expected<CudaGraph> end();

private:
  explicit CudaCapture(const CudaStream &stream) : stream(&stream) {}

  const CudaStream *stream;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDADEVICE_H
