//===- CudaSessionTest.cpp - Sessions on a GPU, on a driver that lies -----===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeMachine.h"
#include "PolicyConstants.h"
#include "SessionPair.h"
#include "ToyDevice.h"
#include "ToyDevicePackage.h"
#include "ToyKernels.h"
#include "kvrm/runtime/cuda/CudaBackend.h"
#include "kvrm/runtime/paging/Calibration.h"
#include "kvrm/runtime/session/PaddedSession.h"
#include "kvrm/runtime/session/TokenChoice.h"

#include <filesystem>
#include <functional>
#include <set>
#include <utility>

using namespace kvrm;
using namespace kvrm::test;

//===----------------------------------------------------------------------===//
// SessionPair.h
//===----------------------------------------------------------------------===//

// Queries and what attention makes of them are in f16 too.
const double test::tolerance = 3e-2;

std::vector<Case> test::allCases() {
  return {{.schedule = "workqueue"},
          {.schedule = "cluster"},
          {.schedule = "cluster", .mixes = true},
          {.mode = "static"}};
}

namespace {

/// Files of the tests, removed at exit.
struct Files {
  ~Files() {
    std::filesystem::remove_all(paged);
    std::filesystem::remove_all(padded);
    std::filesystem::remove_all(mixed);
  }

  std::string paged = toy::makeDevicePackage("paged");
  std::string padded = toy::makeDevicePackage("static");
  std::string mixed = toy::makeDevicePackage("paged", /*mixes=*/true);
};

} // namespace

static const std::string &packagePath(const Case &on = {}) {
  static Files files;
  return on.mixes ? files.mixed : on.isPaged() ? files.paged : files.padded;
}

std::shared_ptr<const Package> test::packageOf(const Case &on) {
  Expected<std::shared_ptr<const Package>> package =
      Package::load(packagePath(on));
  EXPECT_TRUE(package) << package.status().message();
  return package.take();
}

/// Constants with which steps of few rows take clusters, and those of many the
/// work queue.
static std::string calibrationFile() {
  Calibration calibration;
  calibration.device = "Fake GPU";
  calibration.shape = {.heads = toy::heads,
                       .kvHeads = toy::kvHeads,
                       .headDim = toy::headDim,
                       .pageTokens = toy::pageTokens,
                       .queries = 1,
                       .kvTile = toy::kvTile,
                       .queryTiles = 1,
                       .element = KVRM_F16};
  calibration.settings = {testCosts()};
  calibration.settings[0].workqueue.baseUs = 6;
  for (ClusterCost &cost : calibration.settings[0].clusters) {
    cost.atOnce = toy::kvHeads; // of a row
    cost.rowUs = 3;
    cost.baseUs = 1;
    cost.clusterGbPerS = 5 * cost.blocks;
  }
  std::string path = packagePath() + "/gpu.json";
  EXPECT_TRUE(saveCalibration(path, calibration).isOk());
  return path;
}

SessionConfig test::configOf(const Case &on, SessionConfig config) {
  if (!config.gpu) {
    Expected<std::shared_ptr<const CudaDevice>> device = openDevice();
    EXPECT_TRUE(device) << device.status().message();
    config.gpu = device.take();
  }
  if (on.schedule == "cluster")
    config.calibration = calibrationFile();
  // Sessions with clusters have a library, too.
  if (config.products.empty())
    config.products = on.schedule == "cluster" ? KVRM_FAKE_CUDA : "none";
  return config;
}

void test::poisonPool(Decoder &decoder) {
  auto *paged = dynamic_cast<Session *>(&decoder);
  auto &own = dynamic_cast<CudaBackend &>(
      paged ? paged->backend()
            : dynamic_cast<PaddedSession &>(decoder).backend());
  EXPECT_TRUE(own.stream().fill(own.kvPool().span(), 0xff).isOk());
}

void Machine::SetUp() { control().reset(); }

void Machine::TearDown() {
  EXPECT_EQ(control().live, 0) << "something was not given back";
  for (const std::string &violation : control().violations)
    ADD_FAILURE() << violation;
}

void Machine::stopAllocating() { control().isEager = true; }

//===----------------------------------------------------------------------===//
// Sessions
//===----------------------------------------------------------------------===//

namespace {

class CudaSession : public Machine {
protected:
  static std::string createError(const SessionConfig &config,
                                 const Case &on = {}) {
    return createDecoder(packageOf(on), configOf(on, config))
        .status()
        .message();
  }
};

} // namespace

/// What makes it a baseline: every step reads all that is reserved.
TEST_F(CudaSession, AStaticDecoderReadsPadding) {
  Case on = {.mode = "static"};
  Pair pair(on, {.poolPages = 1, .calibration = "is not read"});
  Decoder &session = *pair.session;
  EXPECT_FALSE(session.isPaged());
  EXPECT_EQ(session.pagesNeeded(0, toy::capacity), 0);
  int64_t reserved = int64_t(toy::slots) * toy::pagesPerSlot;
  EXPECT_EQ(session.reservedKvBytes(),
            reserved * toy::pageTokens * session.tokenKvBytes());
  constexpr int64_t tiles =
      (toy::pagesPerSlot * toy::pageTokens + toy::kvTile - 1) / toy::kvTile;
  pair.prefill(2, {1, 2, 3});
  int64_t queryTiles =
      (3 + toy::prefillQTile - 1) / toy::prefillQTile; // of its tokens
  EXPECT_EQ(session.lastStep().tiles, queryTiles * toy::kvHeads * tiles);
  EXPECT_EQ(session.lastStep().groups, 1) << "a slot lies in one piece";
  for (int step = 0; step < 3; ++step) {
    pair.decode({-1, -1, 4, -1});
    EXPECT_EQ(session.lastStep().tiles, toy::slots * toy::kvHeads * tiles)
        << "idle rows, too";
    EXPECT_EQ(session.lastStep().activeRows, 1);
  }
  EXPECT_EQ(session.liveKvBytes(), 6 * session.tokenKvBytes());
  EXPECT_EQ(session.park(2, 0).message(),
            "a static decoder has no parking places");
}

TEST_F(CudaSession, TellsWhatItIs) {
  Pair pair({.schedule = "cluster"},
            {.poolPages = 9, .parkingPlaces = 1, .parkingPages = 5});
  auto &backend = dynamic_cast<CudaBackend &>(pair.paged->backend());
  const BackendInfo &info = backend.info();
  EXPECT_EQ(info.device, "Fake GPU");
  EXPECT_EQ(info.pages, 9);
  EXPECT_EQ(info.parkingPages, 5);
  constexpr int64_t pageBytes = int64_t(toy::pageTokens) * toy::headDim * 2 *
                                2 * toy::kvHeads * toy::layers;
  EXPECT_EQ(info.pageBytes, pageBytes);
  EXPECT_FALSE(info.canCollapse);
  EXPECT_TRUE(info.overlapsSteps);
  // Three multiprocessors of two blocks.
  EXPECT_EQ(info.entries[0].shares, 6);
  EXPECT_EQ(info.entries[1].shares, 6);
  EXPECT_EQ(info.entries[0].schedules, (std::vector<int32_t>{0, 1, 2, 4, 8}));
  EXPECT_EQ(info.entries[1].schedules, (std::vector<int32_t>{0}));
  EXPECT_EQ(info.products, "cuBLASLt 12.4.5");
  EXPECT_EQ(pair.session->products(), info.products);
  EXPECT_EQ(pair.session->poolPages(), 9);
  EXPECT_EQ(pair.session->reservedKvBytes(), 9 * pageBytes);
  EXPECT_GT(backend.deviceBytes(), 9 * pageBytes + toy::deviceWeightBytes);
}

/// A step is one copy in, one graph, one copy out.
TEST_F(CudaSession, StatsFollowTheStep) {
  Pair pair;
  pair.prefill(0, std::vector<int32_t>(21, 1));
  EXPECT_EQ(pair.session->lastStep().steps, 3);
  EXPECT_EQ(control().graphLaunches, 3);
  int64_t copies = control().copies;
  int64_t calls = control().calls;
  pair.decode({1, -1, -1, -1});
  EXPECT_EQ(control().copies, copies + 1);
  EXPECT_EQ(control().graphLaunches, 4);
  // The context is made current before each: copy, launch, copy, wait.
  EXPECT_LE(control().calls - calls, 2 * 4 + 2 * 2) << "events, now and then";
  const StepStats &stats = pair.session->lastStep();
  EXPECT_EQ(stats.activeRows, 1);
  EXPECT_EQ(stats.pages, 2);
  EXPECT_EQ(stats.groups, 1) << "one prompt, one run of pages";
  EXPECT_EQ(stats.tiles, toy::kvHeads);
  EXPECT_EQ(stats.schedule, 0);
  EXPECT_EQ(stats.steps, 1);
  EXPECT_GT(stats.committedBytes, 0);
  EXPECT_GT(stats.commitNanoseconds, 0);
  EXPECT_EQ(stats.stageCopies, 0);
}

TEST_F(CudaSession, ThePolicyChoosesAmongSchedules) {
  Pair pair({.schedule = "cluster"});
  std::set<int32_t> chosen;
  auto decode = [&](const std::vector<int32_t> &tokens) {
    pair.decode(tokens);
    chosen.insert(pair.session->lastStep().schedule);
  };
  pair.prefill(0, {1, 2, 3});
  EXPECT_EQ(pair.session->lastStep().schedule, 0)
      << "there are no constants for prefill";
  decode({4, -1, -1, -1});
  for (int slot = 0; slot < toy::slots; ++slot) {
    pair.release(slot);
    pair.prefill(slot, std::vector<int32_t>(size_t(40 + slot), slot));
    decode({slot == 0 ? 1 : -1, slot == 1 ? 1 : -1, slot == 2 ? 1 : -1, 1});
  }
  decode({5, 6, 7, 8});
  EXPECT_TRUE(chosen.contains(0));
  EXPECT_GT(chosen.size(), 1u);
}

/// One package runs by a library and without one, and comes to the same.
TEST_F(CudaSession, ProductsAreALibrarysOrGenerated) {
  auto run = [](const std::string &products) {
    Pair pair({}, {.products = products});
    auto before = control().launches.size();
    pair.prefill(0, {1, 2, 3, 4, 5});
    pair.decode({6, -1, -1, -1});
    EXPECT_EQ(control().launches.size(), before) << "all is in graphs";
    return pair.session->products();
  };
  auto launchesOf = [](std::string_view symbol) {
    return std::ranges::count_if(control().launches, [&](const auto &launch) {
      return launch.isCaptured && launch.symbol == symbol;
    });
  };
  const char *standIn = toy::deviceKernels[toy::Mix].symbol;
  EXPECT_EQ(run("none"), "generated");
  EXPECT_EQ(control().products, 0);
  EXPECT_EQ(launchesOf(standIn), 2 * toy::layers) << "of two entries";
  control().launches.clear();
  EXPECT_EQ(run(KVRM_FAKE_CUDA), "cuBLASLt 12.4.5");
  EXPECT_EQ(launchesOf(standIn), 0);
  EXPECT_EQ(launchesOf(fake::productSymbol), 2 * toy::layers);
  // Each of two shapes once before it is recorded, and one step of each entry.
  EXPECT_EQ(control().products, 2 * 8 + 2 * toy::layers);
}

TEST_F(CudaSession, ProductsThatTheLibraryLacks) {
  control().hasNoProducts = true;
  EXPECT_EQ(createError({.products = KVRM_FAKE_CUDA}),
            "products: cuBLASLt 12.4.5 has no way for 24 x 64 x 64; "
            "KVRM_CUBLASLT=none does without it");
  EXPECT_EQ(createError({.products = "none"}), "");
}

TEST_F(CudaSession, WeightsGoInChunks) {
  std::shared_ptr<const Package> package = packageOf({});
  Pair pair;
  for (int64_t chunk : {int64_t(64), int64_t(1000), int64_t(1) << 30}) {
    CudaShape shape;
    shape.pages = 4;
    shape.stagingBytes = chunk;
    const Manifest &m = package->manifest();
    for (size_t i = 0; i < plannedEntries; ++i) {
      const EntryInfo &entry = i == 0 ? m.decode : m.prefill;
      shape.plans[i] = {.rows = entry.rows,
                        .queries = entry.queries,
                        .kvHeads = m.kvHeads,
                        .qTile = entry.qTile,
                        .kvTile = entry.kvTile,
                        .pageTokens = m.pageTokens,
                        .pagesPerSlot = m.pagesPerSlot,
                        .schedule = entry.schedule};
    }
    std::unique_ptr<CudaBackend> backend =
        CudaBackend::create(openDevice().take(), *package, shape).take();
    DeviceSpan weights = backend->deviceWeights();
    ASSERT_EQ(weights.bytes, package->weightBytes());
    std::vector<uint8_t> bytes(static_cast<size_t>(weights.bytes));
    ASSERT_TRUE(backend->stream().copyOut(bytes.data(), weights).isOk());
    ASSERT_TRUE(backend->stream().synchronize().isOk());
    EXPECT_EQ(std::memcmp(bytes.data(), package->weights(), bytes.size()), 0);
    EXPECT_FALSE(backend->info().canCollapse);
  }
}

//===----------------------------------------------------------------------===//
// Refusals
//===----------------------------------------------------------------------===//

TEST_F(CudaSession, KernelsAreNoDecoder) {
  std::string path = toy::makeKernels({});
  Expected<std::shared_ptr<const Package>> kernels = Package::load(path);
  ASSERT_TRUE(kernels) << kernels.status().message();
  Status status = createDecoder(*kernels, configOf({}, {})).status();
  EXPECT_EQ(status.code(), StatusCode::Incompatible);
  EXPECT_EQ(status.message(),
            path + ": has no logits: it is kernels for a GPU, not a decoder");
  std::filesystem::remove_all(path);
}

TEST_F(CudaSession, NeedsADriver) {
  Status driver = CudaDriver::load().status();
  if (driver.isOk())
    GTEST_SKIP() << "there is one";
  Status status = createDecoder(packageOf({}), {}).status();
  EXPECT_EQ(status.code(), driver.code());
  EXPECT_EQ(status.message(), driver.message());
}

TEST_F(CudaSession, DevicesAreChecked) {
  control().major = 8;
  EXPECT_EQ(createError({}), packagePath() + ": kernels are for sm_90; device "
                                             "0, Fake GPU, is sm_80");
  control().major = 9;
  control().activeBlocks = 0;
  EXPECT_EQ(createError({}), packagePath() +
                                 ": kernel attend_workqueue: a block does not "
                                 "fit device 0, Fake GPU");
  control().activeBlocks = 2;
  control().maxThreads = 64;
  EXPECT_EQ(createError({}), packagePath() +
                                 ": kernel commit: 128 threads are more than "
                                 "the 64 that it can have");
  control().maxThreads = 1024;
  EXPECT_EQ(createError({.device = -1}), "device: -1 is outside 0..2147483647");
  EXPECT_EQ(createError({}), "");
}

TEST_F(CudaSession, ClustersThatDoNotFitAreLeftOut) {
  control().activeClusters = 0;
  Pair pair({.schedule = "cluster"});
  const BackendInfo &info = pair.paged->backend().info();
  // One block is no cluster to the device.
  EXPECT_EQ(info.entries[0].schedules, (std::vector<int32_t>{0, 1}));
  pair.prefill(0, {1, 2, 3});
  for (int i = 0; i < 5; ++i)
    pair.decode({i, -1, -1, -1});
}

TEST_F(CudaSession, AnotherDevicesCalibrationIsRefused) {
  std::string path = calibrationFile();
  Calibration other = loadCalibration(path).take();
  other.device = "NVIDIA H100";
  ASSERT_TRUE(saveCalibration(path, other).isOk());
  SessionConfig config = configOf({}, {});
  config.calibration = path;
  Status status = createDecoder(packageOf({}), config).status();
  EXPECT_EQ(status.code(), StatusCode::Incompatible);
  EXPECT_NE(status.message().find("NVIDIA H100"), std::string::npos)
      << status.message();
}

TEST_F(CudaSession, MemoryThatIsNotThere) {
  auto without = [&](int64_t deviceBytes, int64_t pinnedBytes) {
    control().reset();
    control().memoryBytes = deviceBytes;
    control().pinnedBytes = pinnedBytes;
    return createError({.parkingPlaces = 1, .parkingPages = 4});
  };
  EXPECT_EQ(without(100000, 1 << 30),
            "KV pool: cannot take 262144 bytes on device 0, which has 100000 "
            "of 100000 free");
  EXPECT_EQ(without(1 << 20, 10000),
            "parking memory: cannot take 65536 bytes of pinned host memory: "
            "cuMemHostAlloc: CUDA_ERROR_OUT_OF_MEMORY (out of memory)");
  std::string message = without(400000, 1 << 30);
  EXPECT_NE(message.find("weights: cannot take 101888 bytes on device 0"),
            std::string::npos)
      << message;
}

//===----------------------------------------------------------------------===//
// Faults
//===----------------------------------------------------------------------===//

namespace {

/// What a call that fails may not change.
struct State {
  std::vector<int32_t> lengths;
  std::vector<std::vector<int32_t>> pages;
  int32_t freePages = 0;
  int32_t steps = 0;

  bool operator==(const State &) const = default;
};

/// A session whose calls may fail, and are then made again. The first of all
/// is compared with float64, and those that follow with the first, bit by bit.
class Failing {
public:
  explicit Failing(std::vector<std::vector<float>> &recorded)
      : recorded(recorded), isFirst(recorded.empty()) {}

  /// Makes a call until it succeeds; the driver fails once.
  void run(const std::function<Status()> &call) {
    State before = state();
    Status status = call();
    if (status.isOk())
      return;
    ++failures;
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
    EXPECT_TRUE(state() == before) << status.message();
    EXPECT_TRUE(session().blockPager().checkInvariants().isOk());
    status = call();
    EXPECT_TRUE(status.isOk()) << status.message();
  }

  bool create() {
    for (int attempt = 0; attempt < 2; ++attempt) {
      int64_t live = control().live;
      Status status = tryToCreate();
      if (status.isOk())
        return true;
      ++failures;
      EXPECT_EQ(control().live, live) << "a failed creation keeps nothing";
    }
    return false;
  }

  void prefill(int32_t slot, const std::vector<int32_t> &tokens) {
    std::vector<float> logits(toy::vocabulary, NAN);
    run([&] { return decoder->prefill(slot, tokens, outputsTo(logits)); });
    for (int32_t token : tokens)
      append(slot, token);
    expectLogits(slot, logits);
    expectNext(0, logits);
  }
  void decode(const std::vector<int32_t> &tokens) {
    std::vector<float> logits(size_t(toy::slots) * toy::vocabulary, NAN);
    run([&] { return decoder->decode(tokens, outputsTo(logits)); });
    for (int32_t slot = 0; slot < toy::slots; ++slot)
      if (tokens[size_t(slot)] >= 0) {
        append(slot, tokens[size_t(slot)]);
        auto first = logits.begin() + slot * toy::vocabulary;
        expectLogits(slot, {first, first + toy::vocabulary});
        expectNext(slot, {first, first + toy::vocabulary});
      }
  }
  void mixedStep(const std::vector<int32_t> &tokens, int32_t slot,
                 const std::vector<int32_t> &prompt) {
    std::vector<float> logits(size_t(toy::slots + 1) * toy::vocabulary, NAN);
    run([&] {
      return decoder->mixedStep(tokens, slot, prompt, outputsTo(logits));
    });
    auto expectRow = [&](int32_t of, int32_t row) {
      auto first = logits.begin() + row * toy::vocabulary;
      expectLogits(of, {first, first + toy::vocabulary});
      expectNext(row, {first, first + toy::vocabulary});
    };
    for (int32_t each = 0; each < toy::slots; ++each)
      if (tokens[size_t(each)] >= 0) {
        append(each, tokens[size_t(each)]);
        expectRow(each, each);
      }
    for (int32_t token : prompt)
      append(slot, token);
    expectRow(slot, toy::slots);
  }
  void alias(int32_t target, int32_t source, int32_t tokens) {
    EXPECT_TRUE(decoder->alias(target, source, tokens).isOk());
    histories[size_t(target)] = histories[size_t(source)];
    if (isFirst)
      histories[size_t(target)].trim(tokens);
  }
  void park(int32_t slot, int32_t place) {
    run([&] { return decoder->park(slot, place); });
    parked[size_t(place)] = std::exchange(histories[size_t(slot)], {});
  }
  void unpark(int32_t place, int32_t slot) {
    run([&] { return decoder->unpark(place, slot); });
    histories[size_t(slot)] = std::exchange(parked[size_t(place)], {});
  }
  void release(int32_t history) {
    EXPECT_TRUE(decoder->release(history).isOk());
    histories[size_t(history)] = {};
  }

  Session &session() const { return dynamic_cast<Session &>(*decoder); }

  std::unique_ptr<Decoder> decoder;
  int32_t failures = 0;

private:
  Status tryToCreate() {
    Expected<std::shared_ptr<const CudaDevice>> device = openDevice();
    KVRM_TRY(device.status());
    Expected<std::unique_ptr<Decoder>> created =
        createDecoder(packageOf({.mixes = true}),
                      configOf({.schedule = "cluster"}, {.keptHistories = 1,
                                                         .parkingPlaces = 2,
                                                         .parkingPages = 6,
                                                         .gpu = *device}));
    KVRM_TRY(created.status());
    decoder = created.take();
    return Status::ok();
  }
  State state() const {
    State now;
    for (int32_t i = 0; i < decoder->shape().histories; ++i) {
      now.lengths.push_back(decoder->length(i));
      std::span<const int32_t> pages = session().blockPager().pages(i);
      now.pages.emplace_back(pages.begin(), pages.end());
    }
    now.freePages = decoder->freePages();
    now.steps = decoder->lastStep().steps;
    return now;
  }
  StepOutputs outputsTo(std::vector<float> &logits) {
    next.fill(-7);
    StepOutputs outputs(sampling.data(), next.data());
    outputs.logits = logits.data();
    return outputs;
  }
  void expectNext(int32_t row, const std::vector<float> &logits) const {
    EXPECT_EQ(next[size_t(row)], chooseToken(logits, sampling[size_t(row)]));
  }
  void append(int32_t slot, int32_t token) {
    if (isFirst)
      want[size_t(slot)] = histories[size_t(slot)].append(token);
  }
  void expectLogits(int32_t slot, const std::vector<float> &logits) {
    if (!isFirst) {
      ASSERT_LT(step, recorded.size());
      EXPECT_EQ(logits, recorded[step]) << "step " << step;
      ++step;
      return;
    }
    recorded.push_back(logits);
    for (size_t i = 0; i < logits.size(); ++i)
      ASSERT_NEAR(logits[i], want[size_t(slot)][i], tolerance) << "logit " << i;
  }

  std::vector<std::vector<float>> &recorded;
  bool isFirst;
  size_t step = 0;
  const std::array<kvrm_sampling, toy::slots + 1> sampling = {
      {{},
       {1, 0, 0, 1u << 31},
       {2, 1u << 30, 0, 77},
       {1, 0, 3, 1u << 30},
       {1, 0, 5, 1u << 29}}};
  std::array<int32_t, toy::slots + 1> next{};
  std::array<std::vector<double>, toy::slots> want;
  std::array<toy::Reference, toy::slots + 1> histories;
  std::array<toy::Reference, 2> parked;
};

} // namespace

/// Shared pages that part, prompts of several chunks, parking in pieces.
static void useHistories(Failing &f) {
  f.prefill(0, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17});
  f.alias(1, 0, 17);
  f.alias(2, 0, 9);
  f.alias(4, 0, 16);
  f.decode({18, -1, -1, -1});
  f.decode({19, 20, 21, -1});
  f.alias(3, 1, 18);
  f.prefill(3, {22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34});
  f.mixedStep({-1, 7, 8, -1}, 3, {35, 36, 37});
  f.park(0, 1);
  f.mixedStep({-1, -1, 9, 10}, 0, {35, 36});
  f.release(4);
  f.decode({37, 38, 39, 40});
  f.park(3, 0);
  f.release(0);
  f.unpark(1, 0);
  f.unpark(0, 3);
  for (int i = 0; i < 4; ++i)
    f.decode({41 + i, 42, 43, 44});
}

TEST_F(CudaSession, AnyDriverCallMayFailOnce) {
  int64_t last = 0;
  int32_t failures = 0;
  std::vector<std::vector<float>> recorded;
  for (int64_t n = 0;; ++n) {
    control().reset();
    control().failAt = n;
    {
      Failing f(recorded);
      ASSERT_TRUE(f.create()) << "call " << n << ", " << control().lastFailed;
      useHistories(f);
      EXPECT_LE(f.failures, 1);
      failures += f.failures;
    }
    EXPECT_EQ(control().live, 0);
    for (const std::string &violation : control().violations)
      ADD_FAILURE() << violation;
    last = n;
    if (HasFailure())
      FAIL() << "call " << n << ", " << control().lastFailed;
    if (n > 0 && control().calls < n)
      break;
  }
  EXPECT_GT(last, 300);
  EXPECT_GT(failures, 250);
}

TEST_F(CudaSession, ADeviceThatIsGoneFailsEveryCall) {
  Pair pair({}, {.parkingPlaces = 1, .parkingPages = 4});
  pair.prefill(0, {1, 2, 3, 4, 5});
  pair.alias(1, 0, 5);
  pair.decode({6, 7, -1, -1});
  control().failCall = "cuCtxSetCurrent";
  const std::string want =
      "cuCtxSetCurrent: CUDA_ERROR_UNKNOWN (unknown error)";
  std::vector<int32_t> tokens = {1, 2, 3, 4};
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(pair.session->decode(tokens, pair.out.data()).message(), want);
    EXPECT_EQ(pair.session->prefill(2, tokens, nullptr).message(), want);
    EXPECT_EQ(pair.session->park(0, 0).message(), want);
    pair.checkLengths();
  }
  control().failCall = "";
  pair.decode({8, 9, 10, -1});
  pair.checkLengths();
}
