//===- GpuSamplingTest.cpp - Tokens chosen on a GPU -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The sample kernels of compiled decoders against the host's choice from the
// same logits. Environment: KVRM_DECODERS (folders of packages, a colon
// between), KVRM_GPU_SEED.
//
//===----------------------------------------------------------------------===//

#include "GpuSupport.h"

#include "kvrm/runtime/cuda/CudaDriver.h"
#include "kvrm/runtime/cuda/DeviceCode.h"
#include "kvrm/runtime/session/CreateDecoder.h"
#include "kvrm/runtime/session/TokenChoice.h"

#include <bit>
#include <cstring>
#include <random>

using namespace kvrm;

namespace {

class Decoders : public testing::Test {
protected:
  void SetUp() override {
    if (gpu::foldersOf("KVRM_DECODERS").empty())
      GTEST_SKIP() << "KVRM_DECODERS names no packages";
    Expected<std::shared_ptr<const CudaDriver>> driver = CudaDriver::load();
    if (!driver)
      GTEST_SKIP() << driver.status().message();
    Expected<std::shared_ptr<const CudaDevice>> created =
        CudaDevice::create(driver.take());
    ASSERT_TRUE(created) << created.status().message();
    device = created.take();
  }

  std::shared_ptr<const CudaDevice> device;
  std::mt19937_64 random{gpu::seed()};
};

/// One sample kernel, and memory for rows of its vocabulary.
class SampleKernel {
public:
  static constexpr int rows = 16;

  SampleKernel(const std::shared_ptr<const CudaDevice> &device,
               const Package &package)
      : vocabulary(static_cast<size_t>(package.manifest().vocabulary)),
        code(DeviceCode::load(device, package).take()),
        stream(CudaStream::create(device).take()) {
    auto take = [&](size_t bytes) {
      return DeviceBuffer::create(device, static_cast<int64_t>(bytes), "a test")
          .take();
    };
    logits = take(rows * vocabulary * sizeof(float));
    table = take(rows * sizeof(kvrm_row));
    sampling = take(rows * sizeof(kvrm_sampling));
    next =
        PinnedBuffer::create(device, rows * sizeof(int32_t), "a test").take();
  }

  /// What the kernel writes, over poison.
  std::vector<int32_t> run(const std::vector<float> &values,
                           const std::vector<kvrm_row> &active,
                           const std::vector<kvrm_sampling> &how) {
    gpu::expectOk(stream.copyIn(logits.span(), values.data()));
    gpu::expectOk(stream.copyIn(table.span(), active.data()));
    gpu::expectOk(stream.copyIn(sampling.span(), how.data()));
    std::memset(next.data(), 0x55, rows * sizeof(int32_t));
    const DeviceCode::Kernel *kernel = code.find(KVRM_ROLE_SAMPLE);
    CudaLaunch launch;
    launch.grid = {rows, 1, 1};
    launch.threads = static_cast<uint32_t>(kernel->info.threads);
    launch.sharedBytes = static_cast<uint32_t>(kernel->info.sharedBytes);
    std::array<uint64_t, 4> values64 = {logits.address(), table.address(),
                                        sampling.address(),
                                        std::bit_cast<uint64_t>(next.data())};
    std::array<void *, 4> parameters{};
    for (size_t i = 0; i < parameters.size(); ++i)
      parameters[i] = &values64[i];
    gpu::expectOk(kernel->code.launch(stream, launch, parameters));
    gpu::expectOk(stream.synchronize());
    std::vector<int32_t> chosen(rows);
    std::memcpy(chosen.data(), next.data(), rows * sizeof(int32_t));
    return chosen;
  }

  size_t vocabulary;

private:
  DeviceCode code;
  CudaStream stream;
  DeviceBuffer logits, table, sampling;
  PinnedBuffer next;
};

/// Logits of many kinds: spread, flat, equal ones, and some that are no
/// numbers.
void fillRow(std::mt19937_64 &random, std::span<float> row) {
  std::normal_distribution<float> normal(
      0, static_cast<float>(1 << (random() % 5)));
  uint64_t kind = random() % 6;
  for (float &logit : row) {
    logit = kind == 0 ? 1.5f : normal(random);
    if (kind == 1)
      logit = std::round(logit);
    if (kind == 2 && random() % 3 == 0)
      logit = random() % 2 ? NAN : random() % 2 ? INFINITY : -INFINITY;
    if (kind == 3)
      logit *= 1e37f;
  }
  if (kind == 4)
    std::ranges::fill(row, NAN);
  if (kind == 4 && random() % 2)
    row[random() % row.size()] = -3e38f;
}

kvrm_sampling anySampling(std::mt19937_64 &random, size_t vocabulary) {
  kvrm_sampling how{};
  if (random() % 5 == 0)
    return how;
  how.scale = static_cast<float>(1 + random() % 1000) / 250;
  how.random = static_cast<uint32_t>(random());
  if (random() % 2)
    how.top_p = static_cast<uint32_t>(random());
  if (random() % 2)
    how.top_k = static_cast<int32_t>(1 + random() % (vocabulary + 10));
  if (random() % 4 == 0)
    how.top_k = static_cast<int32_t>(random() % 8);
  return how;
}

} // namespace

TEST_F(Decoders, SampleAsTheHostDoes) {
  for (const std::string &path : gpu::foldersOf("KVRM_DECODERS")) {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    ASSERT_TRUE(package) << package.status().message();
    SampleKernel kernel(device, **package);
    constexpr size_t rows = SampleKernel::rows;
    std::vector<float> logits(rows * kernel.vocabulary);
    std::vector<kvrm_row> active(rows);
    std::vector<kvrm_sampling> how(rows);
    for (int round = 0; round < 60; ++round) {
      for (size_t r = 0; r < rows; ++r) {
        fillRow(random, std::span(logits).subspan(r * kernel.vocabulary,
                                                  kernel.vocabulary));
        active[r].count = random() % 8 != 0;
        how[r] = anySampling(random, kernel.vocabulary);
      }
      std::vector<int32_t> chosen = kernel.run(logits, active, how);
      for (size_t r = 0; r < rows; ++r)
        EXPECT_EQ(chosen[r], active[r].count
                                 ? chooseToken(std::span(logits).subspan(
                                                   r * kernel.vocabulary,
                                                   kernel.vocabulary),
                                               how[r])
                                 : 0x55555555)
            << path << ", round " << round << ", row " << r << ", scale "
            << how[r].scale << ", top_p " << how[r].top_p << ", top_k "
            << how[r].top_k << ", random " << how[r].random;
    }
  }
}

/// Steps of whole decoders, in which logits and tokens are both wanted.
TEST_F(Decoders, ChooseFromTheirLogits) {
  for (const std::string &path : gpu::foldersOf("KVRM_DECODERS")) {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    ASSERT_TRUE(package) << package.status().message();
    Expected<std::unique_ptr<Session>> session = createSession(*package, {});
    ASSERT_TRUE(session) << session.status().message();
    auto vocabulary = static_cast<size_t>((*session)->vocabulary());
    auto slots = static_cast<size_t>((*session)->slots());
    std::vector<float> logits(slots * vocabulary);
    std::vector<kvrm_sampling> how(slots);
    std::vector<int32_t> next(slots), tokens(slots);
    auto logitsOf = [&](size_t row) {
      return std::span(logits).subspan(row * vocabulary, vocabulary);
    };
    auto anyToken = [&] { return static_cast<int32_t>(random() % vocabulary); };
    for (int step = 0; step < 200; ++step) {
      for (kvrm_sampling &one : how)
        one = anySampling(random, vocabulary);
      StepOutputs outputs(how.data(), next.data());
      outputs.logits = logits.data();
      auto slot = static_cast<int32_t>(random() % slots);
      if (random() % 3 == 0) {
        gpu::expectOk((*session)->release(slot));
        std::vector<int32_t> prompt(1 + random() % 40);
        std::ranges::generate(prompt, anyToken);
        gpu::expectOk((*session)->prefill(slot, prompt, outputs));
        EXPECT_EQ(next[0], chooseToken(logitsOf(0), how[0])) << path;
        continue;
      }
      for (size_t i = 0; i < slots; ++i)
        tokens[i] =
            random() % 3 && (*session)->length(static_cast<int32_t>(i)) <
                                (*session)->capacity()
                ? anyToken()
                : -1;
      std::ranges::fill(next, -7);
      gpu::expectOk((*session)->decode(tokens, outputs));
      for (size_t i = 0; i < slots; ++i)
        if (tokens[i] >= 0) {
          EXPECT_EQ(next[i], chooseToken(logitsOf(i), how[i])) << path;
        }
    }
  }
}
