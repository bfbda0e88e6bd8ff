//===- CudaTest.cpp - The CUDA backend on a driver that lies --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeMachine.h"
#include "ToyKernels.h"
#include "kvrm/runtime/attention/AttentionStep.h"

#include <atomic>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <set>

using namespace kvrm;
using kvrm::test::control;
using kvrm::test::openDevice;

extern std::atomic<int64_t> allocations;

namespace {

bool isOneLine(const std::string &text) {
  return !text.empty() && text.find('\n') == std::string::npos &&
         text.back() != '.';
}

/// A machine as the test wants it. At the end nothing is left on it.
class Cuda : public testing::Test {
protected:
  void SetUp() override { control().reset(); }
  void TearDown() override {
    EXPECT_EQ(control().live, 0) << "something was not given back";
    for (const std::string &violation : control().violations)
      ADD_FAILURE() << violation;
    for (const auto &[key, path] : folders)
      std::filesystem::remove_all(path);
  }

  static std::shared_ptr<const CudaDevice> device() {
    Expected<std::shared_ptr<const CudaDevice>> opened = openDevice();
    EXPECT_TRUE(opened) << opened.status().message();
    return opened.take();
  }
  static std::string loadError() {
    Expected<std::shared_ptr<const CudaDriver>> driver =
        CudaDriver::load(KVRM_FAKE_CUDA);
    return driver ? "" : driver.status().message();
  }

  std::shared_ptr<const Package>
  kernels(const toy::KernelOptions &options = {}) {
    auto key = std::make_tuple(options.queries, options.qTile, options.isStaged,
                               options.hasCubin, options.headDim);
    std::string &path = folders[key];
    if (path.empty())
      path = toy::makeKernels(options);
    Expected<std::shared_ptr<const Package>> set = Package::load(path);
    EXPECT_TRUE(set) << set.status().message();
    return set.take();
  }
  static AttentionShape shape() {
    AttentionShape shape;
    shape.layers = 2;
    shape.slots = 4;
    shape.capacityTokens = 200;
    return shape;
  }
  std::unique_ptr<AttentionStep>
  backend(const AttentionShape &shape, const toy::KernelOptions &options = {}) {
    Expected<std::unique_ptr<AttentionStep>> created =
        AttentionStep::create(device(), *kernels(options), shape);
    EXPECT_TRUE(created) << created.status().message();
    return created.take();
  }
  std::string createError(const AttentionShape &shape,
                          const toy::KernelOptions &options = {}) {
    Expected<std::unique_ptr<AttentionStep>> created =
        AttentionStep::create(device(), *kernels(options), shape);
    return created ? "" : created.status().message();
  }

  std::map<std::tuple<int, int, bool, bool, int>, std::string> folders;
};

void expectOk(const Status &status) {
  EXPECT_TRUE(status.isOk()) << status.message();
}

/// Says whether the device holds the committed descriptor, but for groups.
Status compareDescriptor(AttentionStep &backend, bool &isEqual) {
  std::vector<uint8_t> bytes(
      static_cast<size_t>(backend.deviceDescriptor().bytes));
  KVRM_TRY(backend.read(bytes, backend.deviceDescriptor()));
  const kvrm_descriptor_layout &layout = backend.descriptor().layout();
  auto same = [&](int64_t begin, int64_t end) {
    return std::memcmp(bytes.data() + begin,
                       backend.descriptor().committed() + begin,
                       static_cast<size_t>(end - begin)) == 0;
  };
  bool areGroupsEqual =
      !backend.shape().usesStaging || same(layout.groups, layout.items);
  isEqual = areGroupsEqual && same(0, layout.groups) &&
            same(layout.items, layout.bytes);
  return Status::ok();
}

bool isDescriptorEqual(AttentionStep &backend) {
  bool isEqual = false;
  return compareDescriptor(backend, isEqual).isOk() && isEqual;
}

/// Random steps on a backend, and what its histories should hold.
class Traffic {
public:
  explicit Traffic(AttentionStep &backend, uint32_t seed)
      : backend(backend), random(seed),
        histories(static_cast<size_t>(backend.shape().slots)) {}

  int32_t below(int32_t bound) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(bound));
  }

  /// Extends, cuts, shares and releases histories; `rows` says what to plan.
  /// Returns copies of pages that the step needs.
  std::vector<PageCopy> change() {
    const AttentionShape &shape = backend.shape();
    BlockPager &pager = backend.pager();
    std::vector<PageCopy> copies;
    rows.assign(static_cast<size_t>(shape.slots), {});
    for (int32_t slot = 0; slot < shape.slots; ++slot) {
      auto index = static_cast<size_t>(slot);
      int32_t source = below(shape.slots);
      if (below(25) == 0) {
        expectOk(pager.release(slot));
        histories[index].clear();
      } else if (below(25) == 0) {
        int32_t length = below(pager.length(slot) + 1);
        expectOk(pager.trim(slot, length));
        histories[index].resize(static_cast<size_t>(length));
      } else if (below(10) == 0 && source != slot &&
                 pager.pages(slot).empty()) {
        // What the source gets in this step is not there yet.
        const auto &shared = histories[static_cast<size_t>(source)];
        auto tokens = below(static_cast<int32_t>(shared.size()) + 1);
        expectOk(pager.alias(slot, source, tokens));
        histories[index] = shared;
        histories[index].resize(static_cast<size_t>(tokens));
      }
      int32_t count = 1 + below(backend.info().queries);
      if (below(5) == 0 || pager.length(slot) + count > shape.capacityTokens)
        continue;
      PageCopy copy;
      rows[index] = {slot, pager.length(slot), count};
      expectOk(pager.append(slot, count, copy));
      if (copy.isNeeded())
        copies.push_back(copy);
    }
    return copies;
  }

  /// New keys and values for the rows, different for each token, head and
  /// layer; with hasLayerTensors.
  Status writeTokens() {
    const AttentionInfo &m = backend.info();
    for (size_t r = 0; r < rows.size(); ++r)
      for (int32_t t = 0; t < rows[r].count; ++t)
        histories[r].push_back(++tokens);
    for (int32_t layer = 0; layer < backend.shape().layers; ++layer)
      for (AttentionTensor which : {AttentionTensor::K, AttentionTensor::V}) {
        DeviceSpan span = backend.tensor(which, layer);
        std::vector<uint16_t> values(static_cast<size_t>(span.bytes / 2));
        for (size_t r = 0; r < rows.size(); ++r)
          for (int32_t t = 0; t < rows[r].count; ++t)
            for (int32_t head = 0; head < m.kvHeads; ++head)
              for (int32_t d = 0; d < m.headDim; ++d) {
                auto token = static_cast<int64_t>(r) * m.queries + t;
                auto at = (token * m.kvHeads + head) * m.headDim + d;
                size_t back =
                    histories[r].size() - static_cast<size_t>(rows[r].count);
                values[static_cast<size_t>(at)] =
                    valueOf(histories[r][back + static_cast<size_t>(t)], layer,
                            which == AttentionTensor::V, head, d);
              }
        KVRM_TRY(backend.write(
            span, {reinterpret_cast<const uint8_t *>(values.data()),
                   values.size() * 2}));
      }
    return Status::ok();
  }

  static uint16_t valueOf(uint32_t token, int32_t layer, bool isValue,
                          int32_t head, int32_t dim) {
    return static_cast<uint16_t>(token * 977 + uint32_t(layer) * 331 +
                                 (isValue ? 71 : 0) + uint32_t(head) * 131 +
                                 uint32_t(dim));
  }

  /// Every token of every history, in every layer.
  void checkPool() {
    const AttentionInfo &m = backend.info();
    std::vector<uint16_t> page(static_cast<size_t>(m.pageTokens * m.headDim));
    for (size_t slot = 0; slot < histories.size(); ++slot) {
      std::span<const int32_t> pages =
          backend.pager().pages(static_cast<int32_t>(slot));
      ASSERT_EQ(static_cast<size_t>(
                    backend.pager().length(static_cast<int32_t>(slot))),
                histories[slot].size());
      for (int32_t layer = 0; layer < backend.shape().layers; ++layer)
        for (bool isValue : {false, true})
          for (int32_t head = 0; head < m.kvHeads; ++head)
            for (size_t i = 0; i < histories[slot].size(); ++i) {
              auto inPage = static_cast<int32_t>(i) % m.pageTokens;
              if (inPage == 0)
                expectOk(backend.exportPage(
                    {layer, isValue, head,
                     pages[i / static_cast<size_t>(m.pageTokens)]},
                    page));
              for (int32_t d = 0; d < m.headDim; d += 21)
                ASSERT_EQ(page[static_cast<size_t>(inPage * m.headDim + d)],
                          valueOf(histories[slot][i], layer, isValue, head, d))
                    << "slot " << slot << " token " << i;
            }
    }
  }

  AttentionStep &backend;
  std::mt19937 random;
  std::vector<std::vector<uint32_t>> histories;
  std::vector<PlanRow> rows;
  uint32_t tokens = 0;
};

} // namespace

//===----------------------------------------------------------------------===//
// Driver and device
//===----------------------------------------------------------------------===//

TEST_F(Cuda, NoDriver) {
  Status status = CudaDriver::load("libno-such-driver.so.1").status();
  EXPECT_EQ(status.code(), StatusCode::NotFound);
  EXPECT_TRUE(status.message().starts_with(
      "CUDA: there is no driver: libno-such-driver.so.1: "))
      << status.message();
  EXPECT_TRUE(isOneLine(status.message()));
  status = CudaDriver::load("libm.so.6").status();
  EXPECT_EQ(status.message(), "CUDA: libm.so.6 has no call cuGetErrorName");
}

TEST_F(Cuda, NoDevice) {
  control().initResult = 100;
  EXPECT_EQ(loadError(),
            "CUDA: there is no device: cuInit: CUDA_ERROR_NO_DEVICE (no "
            "CUDA-capable device is detected)");
  control().initResult = 0;
  control().devices = 0;
  EXPECT_EQ(loadError(), "CUDA: there is no device");
}

TEST_F(Cuda, OldDriver) {
  control().version = 12020;
  EXPECT_EQ(loadError(), "CUDA: the driver is for CUDA 12.2; 12.3 is needed");
  control().version = 12040;
  control().missingCall = "cuGraphLaunch";
  EXPECT_EQ(loadError(), std::string("CUDA: ") + KVRM_FAKE_CUDA +
                             " has no call cuGraphLaunch");
}

TEST_F(Cuda, ErrorsWithoutWords) {
  control().failCall = "cuInit";
  control().failResult = 4242;
  EXPECT_EQ(loadError(), "cuInit: error 4242 (the driver has no words for it)");
}

TEST_F(Cuda, DeviceIsDescribed) {
  std::shared_ptr<const CudaDriver> driver =
      CudaDriver::load(KVRM_FAKE_CUDA).take();
  EXPECT_EQ(driver->version(), 12040);
  EXPECT_EQ(CudaDevice::create(driver, 1).status().message(),
            "CUDA device 1 is outside 0..0");
  EXPECT_EQ(CudaDevice::create(driver, -1).status().message(),
            "CUDA device -1 is outside 0..0");
  std::shared_ptr<const CudaDevice> gpu = CudaDevice::create(driver).take();
  EXPECT_EQ(gpu->info().name, "Fake GPU");
  EXPECT_EQ(gpu->info().capability(), 90);
  EXPECT_EQ(gpu->info().multiprocessors, 3);
  EXPECT_EQ(gpu->info().sharedBytes, 232448);
  EXPECT_EQ(gpu->info().memoryBytes, int64_t(1) << 30);
  EXPECT_EQ(*gpu->freeBytes(), int64_t(1) << 30);
}

TEST_F(Cuda, OutOfMemory) {
  control().memoryBytes = 1 << 20;
  std::shared_ptr<const CudaDevice> gpu = device();
  DeviceBuffer held = DeviceBuffer::create(gpu, 1000, "something").take();
  Status status = DeviceBuffer::create(gpu, 1 << 20, "KV pool").status();
  EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(status.message(), "KV pool: cannot take 1048576 bytes on device "
                              "0, which has 1047576 of 1048576 free");
  control().pinnedBytes = 100;
  EXPECT_EQ(PinnedBuffer::create(gpu, 101, "delta").status().message(),
            "delta: cannot take 101 bytes of pinned host memory: "
            "cuMemHostAlloc: CUDA_ERROR_OUT_OF_MEMORY (out of memory)");
}

TEST_F(Cuda, EmptyBuffersTakeNothing) {
  std::shared_ptr<const CudaDevice> gpu = device();
  EXPECT_EQ(DeviceBuffer::create(gpu, 0, "nothing").take().address(), 0u);
  EXPECT_EQ(PinnedBuffer::create(gpu, 0, "nothing").take().data(), nullptr);
}

TEST_F(Cuda, ModulesThatDoNotLoad) {
  std::shared_ptr<const CudaDevice> gpu = device();
  Status status = CudaModule::load(gpu, "no ptx", "a/kernels.ptx").status();
  EXPECT_EQ(status.code(), StatusCode::Incompatible);
  EXPECT_EQ(status.message(),
            "a/kernels.ptx: cannot load on device 0: cuModuleLoadDataEx: "
            "CUDA_ERROR_INVALID_PTX (a PTX JIT compilation failed): ptxas "
            "fatal   : Missing .version directive");
  CudaModule module =
      CudaModule::load(gpu, ".version 8.4\n.entry f()", "a/kernels.ptx").take();
  EXPECT_EQ(module.kernel("g", 0).status().message(),
            "a/kernels.ptx: has no kernel 'g'");
  EXPECT_EQ(module.kernel("f", 232448).status().message(),
            "a/kernels.ptx: 'f' needs 232464 bytes of shared memory a block; "
            "device 0, Fake GPU, has 232448");
  CudaKernel kernel = module.kernel("f", 232432).take();
  EXPECT_EQ(kernel.info().registers, 96);
  EXPECT_EQ(kernel.info().localBytes, 8);
}

TEST_F(Cuda, EventsTime) {
  std::shared_ptr<const CudaDevice> gpu = device();
  CudaStream stream = CudaStream::create(gpu).take();
  CudaEvent begin = CudaEvent::create(gpu, true).take();
  CudaEvent end = CudaEvent::create(gpu, true).take();
  expectOk(begin.record(stream));
  expectOk(end.record(stream));
  expectOk(end.synchronize());
  EXPECT_EQ(*end.microsecondsSince(begin), 250.0);
}

TEST_F(Cuda, CapturesThatAreLeftEndTheCapture) {
  std::shared_ptr<const CudaDevice> gpu = device();
  CudaStream stream = CudaStream::create(gpu).take();
  {
    CudaCapture capture = CudaCapture::begin(stream).take();
  }
  expectOk(stream.synchronize());
}

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

static std::span<uint8_t> bytesOf(std::vector<uint16_t> &elements) {
  return {reinterpret_cast<uint8_t *>(elements.data()), elements.size() * 2};
}

TEST(CudaPages, PackAndUnpack) {
  for (int32_t headDim : {64, 96, 128, 256}) {
    constexpr int32_t tokens = 32;
    std::vector<uint16_t> rows(static_cast<size_t>(tokens * headDim));
    for (size_t i = 0; i < rows.size(); ++i)
      rows[i] = static_cast<uint16_t>(i);
    std::vector<uint16_t> page(rows.size());
    PoolShape shape{.headDim = headDim, .pageTokens = tokens};
    packPage(shape, bytesOf(rows), bytesOf(page));
    for (int32_t t = 0; t < tokens; ++t)
      for (int32_t d = 0; d < headDim; ++d) {
        int32_t chunk = (d / 8) ^ (headDim == 96 ? (t / 2) & 3 : t & 7);
        EXPECT_EQ(page[static_cast<size_t>(t * headDim + chunk * 8 + d % 8)],
                  rows[static_cast<size_t>(t * headDim + d)]);
      }
    std::vector<uint16_t> back(rows.size());
    unpackPage(shape, bytesOf(page), bytesOf(back));
    EXPECT_EQ(back, rows);
  }
}

static void checkBytes(int32_t headDim, kvrm_element element) {
  constexpr int32_t tokens = 32;
  PoolShape shape{.headDim = headDim, .pageTokens = tokens, .element = element};
  std::vector<uint8_t> rows(static_cast<size_t>(shape.pageBytes()));
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] = static_cast<uint8_t>(i / 16 * 7 + i);
  std::vector<uint8_t> page(rows.size());
  packPage(shape, rows, page);
  for (int32_t t = 0; t < tokens; ++t)
    for (int32_t d = 0; d < headDim; ++d) {
      int32_t mask = headDim == 96   ? (t / 4) & 1
                     : headDim == 64 ? (t / 2) & 3
                                     : t & 7;
      int32_t chunk = (d / 16) ^ mask;
      EXPECT_EQ(page[static_cast<size_t>(t * headDim + chunk * 16 + d % 16)],
                rows[static_cast<size_t>(t * headDim + d)]);
    }
  auto scales = static_cast<std::ptrdiff_t>(shape.pageLayout().scales);
  EXPECT_EQ(page.size() - static_cast<size_t>(scales),
            element == KVRM_INT8 ? size_t(2) * tokens : 0);
  EXPECT_TRUE(
      std::equal(page.begin() + scales, page.end(), rows.begin() + scales));
  std::vector<uint8_t> back(rows.size());
  unpackPage(shape, page, back);
  EXPECT_EQ(back, rows);
}

TEST(CudaPages, PackAndUnpackBytes) {
  for (int32_t headDim : {64, 96, 128, 256})
    for (kvrm_element element : {KVRM_F8E4M3, KVRM_INT8})
      checkBytes(headDim, element);
}

static void checkBanks(int64_t rowBytes) {
  int64_t chunks = rowBytes / KVRM_CHUNK_BYTES;
  for (int64_t first : {0, 8})
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      std::set<int64_t> places;
      for (int64_t token = first; token < first + 8; ++token) {
        int64_t at = kvrm_swizzled_chunk(rowBytes, token, chunk);
        ASSERT_TRUE(at >= 0 && at < chunks) << "outside the row";
        places.insert((token * chunks + at) % 8);
      }
      EXPECT_EQ(places.size(), 8u)
          << "rows of " << rowBytes << " bytes, chunk " << chunk;
    }
}

TEST(CudaPages, MatrixLoadsAreFreeOfBankConflicts) {
  // A load reads the same chunk of eight tokens; a line of banks is as many.
  for (const kvrm_head_shape &shape : kvrm_head_shapes)
    for (int64_t elementBytes : {1, 2})
      checkBanks(shape.head_dim * elementBytes);
}

TEST(CudaPages, PiecesOfAPartialAreOfOneWarp) {
  // Lanes merge four floats each, whatever the rows.
  for (const kvrm_head_shape &shape : kvrm_head_shapes) {
    int64_t piece = kvrm_piece_floats(shape.head_dim);
    EXPECT_EQ(shape.head_dim % piece, 0);
    EXPECT_EQ(32 * 4 % piece, 0);
    EXPECT_GE(kvrm_device_partial_floats(3, shape.head_dim),
              3 * (shape.head_dim + 2 * (shape.head_dim / piece)));
  }
}

TEST_F(Cuda, PagesGoInAndOut) {
  std::unique_ptr<AttentionStep> gpu = backend(shape());
  std::vector<uint16_t> rows(16 * 64);
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] = static_cast<uint16_t>(i * 3);
  expectOk(gpu->importPage({1, true, 1, 5}, rows));
  std::vector<uint16_t> back(rows.size());
  expectOk(gpu->exportPage({1, true, 1, 5}, back));
  EXPECT_EQ(back, rows);
  // [layer][K or V][kv_head][page]: the last head's page 5.
  EXPECT_EQ(gpu->page({1, true, 1, 5}).address - gpu->pool().address,
            uint64_t(7 * gpu->headStride() + 5 * 2048));
  expectOk(gpu->copyPage({5, 9}));
  expectOk(gpu->exportPage({1, true, 1, 9}, back));
  EXPECT_EQ(back, rows);
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

TEST_F(Cuda, ShapesAreChecked) {
  auto with = [&](auto change) {
    AttentionShape changed = shape();
    change(changed);
    return createError(changed);
  };
  EXPECT_EQ(with([](AttentionShape &s) { s.layers = 0; }),
            "attention: layers: 0 is outside 1..1024");
  EXPECT_EQ(with([](AttentionShape &s) { s.slots = 1025; }),
            "attention: slots: 1025 is outside 1..1024");
  EXPECT_EQ(with([](AttentionShape &s) { s.capacityTokens = 0; }),
            "attention: capacity_tokens: 0 is outside 1..1048576");
  EXPECT_EQ(with([](AttentionShape &s) { s.poolPages = -1; }),
            "attention: pool_pages: -1 is outside 0..16777216");
  EXPECT_EQ(with([](AttentionShape &s) { s.blocksPerSm = 33; }),
            "attention: blocks_per_sm: 33 is outside 0..32");
  EXPECT_EQ(with([](AttentionShape &s) {
              s.slots = 1024;
              s.capacityTokens = 1 << 20;
            }),
            "attention: pool_pages: 67108864 is outside 1..16777216");
  EXPECT_EQ(with([](AttentionShape &s) { s.usesStaging = true; }),
            "attention: " + kernels()->path() + " has no kernel stage");
  AttentionShape small = shape();
  small.usesStaging = true;
  small.poolPages = 10;
  EXPECT_EQ(createError(small, {.isStaged = true}),
            "attention: pool_pages: 10 is under the 52 of all slots, which "
            "staging needs");
}

TEST_F(Cuda, DevicesAreChecked) {
  control().major = 8;
  EXPECT_EQ(createError(shape()),
            kernels()->path() +
                ": kernels are for sm_90; device 0, Fake GPU, is sm_80");
  control().major = 9;
  control().activeBlocks = 0;
  EXPECT_EQ(createError(shape()),
            kernels()->path() + ": kernel attend_workqueue: a block does not "
                                "fit device 0, Fake GPU");
  control().activeBlocks = 1;
  control().maxThreads = 128;
  EXPECT_EQ(createError(shape()),
            kernels()->path() + ": kernel attend_workqueue: 256 threads are "
                                "more than the 128 that it can have");
  control().maxThreads = 1024;
  control().memoryBytes = 200000;
  std::string error = createError(shape());
  EXPECT_EQ(error, "KV pool: cannot take 851968 bytes on device 0, which has "
                   "200000 of 200000 free");
}

TEST_F(Cuda, CubinsAreForOneDevice) {
  // The fake finds kernels in the cubin alone, and then in the PTX alone.
  toy::KernelOptions options{.hasCubin = true};
  std::string path = kernels(options)->path();
  toy::write(path + "/kernels.ptx", "broken");
  toy::writeManifest(path, toy::kernelManifestOf(options, path));
  (void)backend(shape(), options);
  control().major = 10;
  EXPECT_NE(createError(shape(), options).find("kernels.ptx: cannot load"),
            std::string::npos);
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

TEST_F(Cuda, GeometryAndAttributes) {
  AttentionShape wanted = shape();
  wanted.hasLayerTensors = true;
  wanted.usesStaging = true;
  toy::KernelOptions options{.queries = 5, .qTile = 2, .isStaged = true};
  std::unique_ptr<AttentionStep> gpu = backend(wanted, options);
  EXPECT_EQ(gpu->shares(), 6) << "3 multiprocessors of 2 blocks";
  using Grid = std::array<uint32_t, 3>;
  struct Want {
    const char *symbol;
    Grid grid;
    uint32_t threads;
    uint32_t sharedBytes;
    uint32_t cluster;
    bool isProgrammatic;
    int32_t layer;
  };
  auto check = [&](const std::vector<Want> &want, bool isCaptured) {
    ASSERT_EQ(control().launches.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      const fake::Launch &got = control().launches[i];
      EXPECT_EQ(got.symbol, want[i].symbol);
      EXPECT_EQ(got.grid, want[i].grid) << got.symbol;
      EXPECT_EQ(got.block, (Grid{want[i].threads, 1, 1}));
      EXPECT_EQ(got.sharedBytes, want[i].sharedBytes);
      EXPECT_EQ(got.cluster, want[i].cluster);
      EXPECT_EQ(got.isProgrammatic, want[i].isProgrammatic)
          << got.symbol << " " << i;
      EXPECT_EQ(got.isCaptured, isCaptured);
      // Addresses.
      const kvrm_device_args &args = got.args;
      const kvrm_descriptor_layout &layout = gpu->descriptor().layout();
      int32_t layer = want[i].layer;
      EXPECT_EQ(args.descriptor, gpu->deviceDescriptor().address);
      EXPECT_EQ(args.rows, args.descriptor + uint64_t(layout.rows));
      EXPECT_EQ(args.tables, args.descriptor + uint64_t(layout.tables));
      EXPECT_EQ(args.groups, args.descriptor + uint64_t(layout.groups));
      EXPECT_EQ(args.items, args.descriptor + uint64_t(layout.items));
      EXPECT_EQ(args.segments, args.descriptor + uint64_t(layout.segments));
      EXPECT_EQ(args.shares, args.descriptor + uint64_t(layout.shares));
      EXPECT_EQ(args.k_pool, gpu->page({layer, false, 0, 0}).address);
      EXPECT_EQ(args.v_pool, gpu->page({layer, true, 0, 0}).address);
      EXPECT_EQ(args.q, gpu->tensor(AttentionTensor::Q, layer).address);
      EXPECT_EQ(args.out, gpu->tensor(AttentionTensor::Out, layer).address);
      EXPECT_EQ(args.k, gpu->tensor(AttentionTensor::K, layer).address);
      EXPECT_EQ(args.v, gpu->tensor(AttentionTensor::V, layer).address);
      EXPECT_EQ(args.partials, gpu->partials().address);
      EXPECT_EQ(args.head_stride, 52 * 2048);
      EXPECT_EQ(args.pages_per_slot, 13);
      EXPECT_NE(args.partials, 0u);
      EXPECT_NE(args.staged_k, 0u);
      EXPECT_EQ(args.staged_v - args.staged_k, uint64_t(2 * 52 * 2048));
    }
    control().launches.clear();
  };
  const Want commit = {"kvrm_commit", {4, 1, 1}, 128, 0, 0, false, 0};
  auto append = [](int32_t layer, bool isProgrammatic) {
    return Want{"kvrm_append", {4, 5, 1}, 64, 0, 0, isProgrammatic, layer};
  };
  auto attend = [](int32_t layer) {
    return Want{
        "kvrm_attend_workqueue", {6, 1, 1}, 256, 100000, 0, true, layer};
  };
  auto cluster = [](int32_t layer, uint32_t blocks) {
    return Want{"kvrm_attend_cluster",
                {blocks * 2 * 3 * 4, 1, 1},
                256,
                90000,
                blocks,
                true,
                layer};
  };

  expectOk(gpu->capture(CudaSchedule::workqueue()));
  check({commit, append(0, false), attend(0), append(1, true), attend(1)},
        true);
  expectOk(gpu->capture(CudaSchedule::workqueue()));
  check({}, true);
  for (int32_t blocks : {1, 2, 4, 8}) {
    auto n = static_cast<uint32_t>(blocks);
    expectOk(gpu->capture(CudaSchedule::clusters(blocks)));
    check({commit, append(0, false), cluster(0, n), append(1, true),
           cluster(1, n)},
          true);
    expectOk(gpu->launch(CudaSchedule::clusters(blocks)));
    check({commit, append(0, false), cluster(0, n), append(1, true),
           cluster(1, n)},
          false);
  }
  expectOk(gpu->capture(CudaSchedule::staged()));
  auto stage = [](int32_t layer) {
    return Want{"kvrm_stage", {6, 1, 1}, 256, 0, 0, false, layer};
  };
  auto staged = [](int32_t layer) {
    return Want{"kvrm_attend_workqueue_staged",
                {6, 1, 1},
                256,
                100000,
                0,
                false,
                layer};
  };
  check({commit, append(0, false), stage(0), staged(0), append(1, true),
         stage(1), staged(1)},
        true);
  expectOk(gpu->launchCommit());
  expectOk(gpu->launchAppend(1));
  expectOk(gpu->launchStage(1));
  expectOk(gpu->launchAttend(0, CudaSchedule::staged()));
  check({commit, append(1, false), stage(1), staged(0)}, false);
}

TEST_F(Cuda, WithoutPdlOrAppends) {
  AttentionShape plain = shape();
  plain.usesPdl = false;
  std::unique_ptr<AttentionStep> gpu = backend(plain);
  expectOk(gpu->capture(CudaSchedule::workqueue()));
  for (const fake::Launch &launch : control().launches)
    EXPECT_FALSE(launch.isProgrammatic);
  control().launches.clear();
  AttentionShape reading = shape();
  reading.appends = false;
  gpu = backend(reading);
  expectOk(gpu->capture(CudaSchedule::workqueue()));
  ASSERT_EQ(control().launches.size(), 3u);
  EXPECT_FALSE(control().launches[1].isProgrammatic)
      << "what follows the commit kernel reads what it wrote";
  EXPECT_TRUE(control().launches[2].isProgrammatic);
}

TEST_F(Cuda, OlderKernelsDoNotOverlap) {
  std::string path = kernels()->path();
  nlohmann::json manifest = toy::kernelManifestOf({}, path);
  manifest["target"]["arch"] = "sm_80";
  manifest["kernels"][3]["max_cluster"] = 1;
  toy::writeManifest(path, manifest);
  std::unique_ptr<AttentionStep> gpu = backend(shape());
  expectOk(gpu->capture(CudaSchedule::workqueue()));
  expectOk(gpu->capture(CudaSchedule::clusters(1)));
  for (const fake::Launch &launch : control().launches) {
    EXPECT_FALSE(launch.isProgrammatic);
    EXPECT_EQ(launch.cluster, 0u);
  }
  EXPECT_EQ(gpu->capture(CudaSchedule::clusters(2)).message(),
            "schedule: cluster 2 is more than the kernels' max_cluster, "
            "1");
}

TEST_F(Cuda, SchedulesAreChecked) {
  std::unique_ptr<AttentionStep> gpu = backend(shape());
  EXPECT_EQ(gpu->capture({3, false}).message(),
            "schedule: cluster 3 is not one of 0, 1, 2, 4, 8");
  EXPECT_EQ(gpu->capture({2, true}).message(),
            "schedule: clusters read pages natively");
  EXPECT_EQ(gpu->capture(CudaSchedule::staged()).message(),
            "schedule: staged: the backend was created without staging");
  EXPECT_EQ(gpu->replay(CudaSchedule::clusters(4)).message(),
            "schedule: cluster 4 was not captured");
  control().activeClusters = 0;
  EXPECT_EQ(gpu->capture(CudaSchedule::clusters(8)).message(),
            "schedule: clusters of 8 blocks do not fit device 0, Fake GPU");
  EXPECT_NE(gpu->kernels().find(KVRM_ROLE_ATTEND_CLUSTER), nullptr);
  EXPECT_EQ(gpu->kernels().find(KVRM_ROLE_STAGE), nullptr);
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

TEST_F(Cuda, RandomStepsReachTheDevice) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    AttentionShape wanted = shape();
    wanted.hasLayerTensors = true;
    wanted.usesStaging = seed % 2 == 1;
    wanted.poolPages = seed < 4 ? 0 : 60;
    toy::KernelOptions options{.queries = seed % 3 == 0 ? 1 : 4,
                               .qTile = seed % 3 == 0 ? 1 : 2,
                               .headDim = kvrm_head_shapes[seed % 4].head_dim,
                               .isStaged = wanted.usesStaging};
    control().headDim = options.headDim;
    std::unique_ptr<AttentionStep> gpu = backend(wanted, options);
    EXPECT_TRUE(isDescriptorEqual(*gpu)) << "before any step";
    CudaSchedule schedule = CudaSchedule::workqueue();
    expectOk(gpu->capture(schedule));
    // Before any commit a replay does nothing.
    expectOk(gpu->replay(schedule));
    EXPECT_TRUE(isDescriptorEqual(*gpu));
    Traffic traffic(*gpu, seed);
    int64_t wholes = 0;
    for (int step = 0; step < 200; ++step) {
      for (const PageCopy &copy : traffic.change())
        expectOk(gpu->copyPage(copy));
      gpu->plan(traffic.rows);
      int64_t copies = control().copies;
      expectOk(gpu->commit());
      EXPECT_EQ(control().copies, copies + 1) << "one copy a commit";
      wholes += gpu->commitStats().isWhole;
      expectOk(traffic.writeTokens());
      expectOk(gpu->replay(schedule));
      if (step % 8 == 0) {
        EXPECT_TRUE(isDescriptorEqual(*gpu)) << "step " << step;
      }
      if (step % 50 == 49)
        traffic.checkPool();
      if (HasFailure())
        FAIL() << "seed " << seed << " step " << step;
    }
    EXPECT_EQ(wholes, 0);
  }
}

TEST_F(Cuda, CommitsInFlightAreNotOverwritten) {
  // The fake does nothing before it must, so that all of these are in flight
  // but for those that the ring makes room for.
  std::unique_ptr<AttentionStep> gpu = backend(shape());
  CudaSchedule schedule = CudaSchedule::workqueue();
  expectOk(gpu->capture(schedule));
  Traffic traffic(*gpu, 11);
  for (int step = 0; step < 100; ++step) {
    for (const PageCopy &copy : traffic.change())
      expectOk(gpu->copyPage(copy));
    gpu->plan(traffic.rows);
    expectOk(gpu->commit());
    expectOk(gpu->replay(schedule));
  }
  EXPECT_TRUE(isDescriptorEqual(*gpu));
}

TEST_F(Cuda, CommitsThatNobodyApplied) {
  std::unique_ptr<AttentionStep> gpu = backend(shape());
  Traffic traffic(*gpu, 5);
  for (int step = 0; step < 20; ++step) {
    traffic.change();
    gpu->plan(traffic.rows);
    expectOk(gpu->commit());
    EXPECT_EQ(gpu->commitStats().isWhole, step > 0);
  }
  expectOk(gpu->launchCommit());
  EXPECT_TRUE(isDescriptorEqual(*gpu));
  traffic.change();
  gpu->plan(traffic.rows);
  expectOk(gpu->commit());
  EXPECT_FALSE(gpu->commitStats().isWhole);
}

TEST_F(Cuda, CommitBytesFollowTheChange) {
  AttentionShape large = shape();
  large.slots = 64;
  large.capacityTokens = 1024;
  std::unique_ptr<AttentionStep> gpu = backend(large);
  expectOk(gpu->capture(CudaSchedule::workqueue()));
  std::vector<PlanRow> rows(64);
  auto step = [&] {
    PageCopy copy;
    rows[3] = {3, gpu->pager().length(3), 1};
    expectOk(gpu->pager().append(3, 1, copy));
    gpu->plan(rows);
    expectOk(gpu->commit());
    expectOk(gpu->replay(CudaSchedule::workqueue()));
  };
  for (int i = 0; i < 20; ++i)
    step();
  // Epoch; position, length and offset of the row.
  EXPECT_EQ(gpu->commitStats().words, 4);
  EXPECT_EQ(gpu->commitStats().bytes, 16 + 4 * 8);
}

TEST_F(Cuda, NoStepAllocates) {
  std::unique_ptr<AttentionStep> gpu = backend(shape());
  CudaSchedule schedule = CudaSchedule::clusters(2);
  expectOk(gpu->capture(schedule));
  expectOk(gpu->synchronize());
  control().isEager = true;
  std::vector<PlanRow> rows(4);
  int64_t before = allocations.load();
  for (int step = 0; step < 150; ++step) {
    for (int32_t slot = 0; slot < 4; ++slot) {
      PageCopy copy;
      rows[static_cast<size_t>(slot)] = {slot, gpu->pager().length(slot), 1};
      (void)gpu->pager().append(slot, 1, copy).isOk();
    }
    gpu->plan(rows);
    (void)gpu->commit().isOk();
    (void)gpu->replay(schedule).isOk();
  }
  (void)gpu->synchronize().isOk();
  int64_t after = allocations.load();
  EXPECT_EQ(after - before, 0);
  EXPECT_TRUE(isDescriptorEqual(*gpu));
}

//===----------------------------------------------------------------------===//
// Faults
//===----------------------------------------------------------------------===//

namespace {
/// Runs `work` until it succeeds, which it does at the second attempt.
class Retry {
public:
  void operator()(const std::function<Status()> &work) {
    Status status = work();
    if (status.isOk())
      return;
    ++failures;
    EXPECT_TRUE(isOneLine(status.message())) << status.message();
    bool isNamed =
        status.message().find("CUDA_ERROR_UNKNOWN (unknown "
                              "error)") != std::string::npos ||
        status.message().find(" has no call cu") != std::string::npos;
    EXPECT_TRUE(isNamed) << status.message();
    expectOk(work());
  }
  int failures = 0;
};
} // namespace

TEST_F(Cuda, AnyCallMayFailOnce) {
  std::shared_ptr<const Package> set = kernels({.isStaged = true});
  AttentionShape wanted = shape();
  wanted.usesStaging = true;
  wanted.hasLayerTensors = true;
  wanted.layers = 1;
  int64_t last = 0;
  int reported = 0;
  for (int64_t n = 1;; ++n) {
    control().reset();
    control().failAt = n;
    Retry retry;
    {
      std::shared_ptr<const CudaDevice> device;
      retry([&] {
        Expected<std::shared_ptr<const CudaDevice>> opened = openDevice();
        KVRM_TRY(opened.status());
        device = opened.take();
        return Status::ok();
      });
      std::unique_ptr<AttentionStep> gpu;
      retry([&] {
        int64_t before = control().live;
        Expected<std::unique_ptr<AttentionStep>> created =
            AttentionStep::create(device, *set, wanted);
        if (!created) {
          EXPECT_EQ(control().live, before)
              << "a failed creation keeps nothing";
        }
        KVRM_TRY(created.status());
        gpu = created.take();
        return Status::ok();
      });
      for (CudaSchedule schedule :
           {CudaSchedule::workqueue(), CudaSchedule::clusters(4),
            CudaSchedule::staged()})
        retry([&] { return gpu->capture(schedule); });
      Traffic traffic(*gpu, static_cast<uint32_t>(n));
      for (int step = 0; step < 8; ++step) {
        for (const PageCopy &copy : traffic.change())
          retry([&] { return gpu->copyPage(copy); });
        gpu->plan(traffic.rows);
        size_t length = traffic.histories[0].size();
        retry([&] { return gpu->commit(); });
        EXPECT_EQ(traffic.histories[0].size(), length);
        std::vector<std::vector<uint32_t>> histories = traffic.histories;
        retry([&] {
          traffic.histories = histories;
          return traffic.writeTokens();
        });
        if (step % 3 == 0)
          retry([&] { return gpu->replay(CudaSchedule::workqueue()); });
        else if (step % 3 == 1)
          retry([&] { return gpu->launch(CudaSchedule::clusters(4)); });
        else
          retry([&] { return gpu->replay(CudaSchedule::staged()); });
      }
      // Each alone, so that a copy out may be left in flight.
      std::vector<uint16_t> page(16 * 64, uint16_t(n));
      std::vector<uint16_t> other(16 * 64);
      retry([&] { return gpu->exportPage({0, true, 1, 0}, other); });
      retry([&] { return gpu->importPage({0, false, 1, 2}, page); });
      retry([&] { return gpu->exportPage({0, false, 1, 2}, other); });
      EXPECT_EQ(page, other);
      retry([&] { return gpu->synchronize(); });
      bool isEqual = false;
      retry([&] { return compareDescriptor(*gpu, isEqual); });
      EXPECT_TRUE(isEqual) << "call " << n << ", " << control().lastFailed;
    }
    EXPECT_EQ(control().live, 0)
        << "call " << n << ", " << control().lastFailed;
    reported += retry.failures;
    EXPECT_LE(retry.failures, 1);
    last = n;
    if (HasFailure())
      FAIL() << "call " << n << ", " << control().lastFailed;
    if (control().calls < n)
      break;
  }
  EXPECT_GT(last, 300);
  EXPECT_GT(reported, 250);
}

TEST_F(Cuda, ADeviceThatIsGoneFailsEveryCall) {
  std::unique_ptr<AttentionStep> gpu = backend(shape());
  expectOk(gpu->capture(CudaSchedule::workqueue()));
  Traffic traffic(*gpu, 1);
  for (int step = 0; step < 3; ++step) {
    traffic.change();
    gpu->plan(traffic.rows);
    expectOk(gpu->commit());
    expectOk(gpu->replay(CudaSchedule::workqueue()));
  }
  control().failCall = "cuCtxSetCurrent";
  std::string want = "cuCtxSetCurrent: CUDA_ERROR_UNKNOWN (unknown error)";
  for (int step = 0; step < 12; ++step) {
    EXPECT_EQ(gpu->commit().message(), want);
    EXPECT_EQ(gpu->replay(CudaSchedule::workqueue()).message(), want);
    EXPECT_EQ(gpu->copyPage({0, 1}).message(), want);
    EXPECT_EQ(gpu->launch(CudaSchedule::workqueue()).message(),
              "kernel commit: " + want);
    EXPECT_EQ(gpu->capture(CudaSchedule::clusters(2)).message(), want);
    EXPECT_EQ(gpu->synchronize().message(), want);
  }
  int32_t length = gpu->pager().length(0);
  control().failCall = "";
  EXPECT_EQ(gpu->pager().length(0), length);
  expectOk(gpu->pager().checkInvariants());
  gpu->plan(traffic.rows);
  expectOk(gpu->commit());
  expectOk(gpu->replay(CudaSchedule::workqueue()));
  EXPECT_TRUE(isDescriptorEqual(*gpu));
}
