//===- GpuTest.cpp - The CUDA backend on a GPU, if there is one -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every test is skipped without a GPU. Those of compiled kernels need
// KVRM_KERNELS too, a folder that `kvrmc attention` wrote.
//
//===----------------------------------------------------------------------===//

#include "CommitPtx.h"
#include "ToyKernels.h"
#include "gpu/GpuSupport.h"
#include "kvrm/runtime/attention/AttentionStep.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <random>

using namespace kvrm;

namespace {

class Gpu : public testing::Test {
protected:
  void SetUp() override {
    Expected<std::shared_ptr<const CudaDriver>> driver = CudaDriver::load();
    if (!driver)
      GTEST_SKIP() << driver.status().message();
    Expected<std::shared_ptr<const CudaDevice>> opened =
        CudaDevice::create(driver.take());
    ASSERT_TRUE(opened) << opened.status().message();
    device = opened.take();
  }

  std::shared_ptr<const CudaDevice> device;
};

void expectOk(const Status &status) {
  EXPECT_TRUE(status.isOk()) << status.message();
}

template <typename T> std::span<const uint8_t> bytesOf(const T &values) {
  return {reinterpret_cast<const uint8_t *>(values.data()),
          values.size() * sizeof(values[0])};
}
template <typename T> std::span<uint8_t> bytesOf(T &values) {
  return {reinterpret_cast<uint8_t *>(values.data()),
          values.size() * sizeof(values[0])};
}

/// The schedules that a set has and the device holds, captured.
std::vector<CudaSchedule> captureAll(AttentionStep &backend) {
  std::vector<CudaSchedule> captured;
  std::vector<CudaSchedule> all = {CudaSchedule::workqueue()};
  for (int32_t blocks : {1, 2, 4, 8})
    if (blocks <= backend.info().maxCluster)
      all.push_back(CudaSchedule::clusters(blocks));
  if (backend.shape().usesStaging)
    all.push_back(CudaSchedule::staged());
  for (CudaSchedule schedule : all) {
    Status status = backend.capture(schedule);
    if (status.isOk())
      captured.push_back(schedule);
    else
      EXPECT_EQ(status.code(), StatusCode::Incompatible) << status.message();
  }
  return captured;
}

} // namespace

//===----------------------------------------------------------------------===//
// The driver, with kernels written by hand
//===----------------------------------------------------------------------===//

/// A set whose commit kernel does what it should; the others only wait for the
/// kernel before.
static std::string writePtx() {
  std::string path = toy::makeKernels({});
  std::string parameters;
  for (size_t i = 0; i < sizeof(kvrm_device_args) / 8; ++i)
    parameters += (i ? ", .param .u64 p" : ".param .u64 p") + std::to_string(i);
  std::string text = ".version 8.0\n.target sm_90\n.address_size 64\n"
                     ".visible .entry kvrm_commit(" +
                     parameters +
                     R"X()
{
  .reg .pred %p<3>;
  .reg .b32 %r<12>;
  .reg .b64 %d<7>;
)X" + toy::commitPtx +
                     "}\n";
  for (const char *name : {"append", "attend_workqueue", "attend_cluster"})
    text += std::string(".visible .entry kvrm_") + name + "(" + parameters +
            ")\n{\n  griddepcontrol.launch_dependents;\n"
            "  griddepcontrol.wait;\n  ret;\n}\n";
  toy::write(path + "/kernels.ptx", text);
  toy::writeManifest(path, toy::kernelManifestOf({}, path));
  return path;
}

TEST_F(Gpu, StepsReachTheDevice) {
  std::string path = writePtx();
  Expected<std::shared_ptr<const Package>> set = Package::load(path);
  ASSERT_TRUE(set) << set.status().message();
  if (Status fits = checkDevice(**set, device->info()); !fits.isOk())
    GTEST_SKIP() << fits.message();
  AttentionShape shape;
  shape.layers = 3;
  shape.slots = 16;
  shape.capacityTokens = 500;
  Expected<std::unique_ptr<AttentionStep>> created =
      AttentionStep::create(device, **set, shape);
  ASSERT_TRUE(created) << created.status().message();
  AttentionStep &gpu = **created;
  std::vector<CudaSchedule> schedules = captureAll(gpu);
  EXPECT_EQ(schedules.size(), 5u);
  std::mt19937 random(1);
  std::vector<PlanRow> rows(16);
  std::vector<uint8_t> bytes(static_cast<size_t>(gpu.deviceDescriptor().bytes));
  for (int step = 0; step < 400; ++step) {
    for (int32_t slot = 0; slot < 16; ++slot) {
      auto index = static_cast<size_t>(slot);
      rows[index] = {};
      if (gpu.pager().length(slot) == 500 || random() % 64 == 0)
        expectOk(gpu.pager().release(slot));
      if (random() % 5 == 0)
        continue;
      PageCopy copy;
      rows[index] = {slot, gpu.pager().length(slot), 1};
      expectOk(gpu.pager().append(slot, 1, copy));
    }
    gpu.plan(rows);
    expectOk(gpu.commit());
    EXPECT_FALSE(gpu.commitStats().isWhole);
    CudaSchedule schedule = schedules[random() % schedules.size()];
    expectOk(step % 7 == 0 ? gpu.launch(schedule) : gpu.replay(schedule));
    if (step % 20 != 19)
      continue;
    expectOk(gpu.read(bytes, gpu.deviceDescriptor()));
    const kvrm_descriptor_layout &layout = gpu.descriptor().layout();
    auto same = [&](int64_t begin, int64_t end) {
      return std::memcmp(bytes.data() + begin,
                         gpu.descriptor().committed() + begin,
                         static_cast<size_t>(end - begin)) == 0;
    };
    EXPECT_TRUE(same(0, layout.groups)) << "step " << step;
    EXPECT_TRUE(same(layout.items, layout.bytes)) << "step " << step;
    if (HasFailure())
      break;
  }
  std::vector<uint16_t> page(16 * 64);
  for (size_t i = 0; i < page.size(); ++i)
    page[i] = static_cast<uint16_t>(i);
  std::vector<uint16_t> back(page.size());
  expectOk(gpu.importPage({2, true, 1, 3}, page));
  expectOk(gpu.copyPage({3, 7}));
  expectOk(gpu.exportPage({2, true, 1, 7}, back));
  EXPECT_EQ(back, page);
  std::filesystem::remove_all(path);
}

TEST_F(Gpu, EventsTime) {
  CudaStream stream = CudaStream::create(device).take();
  CudaEvent begin = CudaEvent::create(device, true).take();
  CudaEvent end = CudaEvent::create(device, true).take();
  DeviceBuffer buffer = DeviceBuffer::create(device, 1 << 20, "test").take();
  expectOk(begin.record(stream));
  expectOk(stream.fill(buffer.span(), 1));
  expectOk(end.record(stream));
  expectOk(end.synchronize());
  Expected<double> time = end.microsecondsSince(begin);
  ASSERT_TRUE(time) << time.status().message();
  EXPECT_GT(*time, 0.0);
  EXPECT_LT(*time, 1e6);
}

TEST_F(Gpu, ErrorsAreOneLine) {
  Status status =
      DeviceBuffer::create(device, int64_t(1) << 45, "KV pool").status();
  EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
  EXPECT_TRUE(status.message().starts_with("KV pool: cannot take "
                                           "35184372088832 bytes on device 0, "
                                           "which has "))
      << status.message();
  status =
      CudaModule::load(device, ".version 8.0\nnonsense\n", "x.ptx").status();
  EXPECT_TRUE(status.message().starts_with(
      "x.ptx: cannot load on device 0: cuModuleLoadDataEx: "
      "CUDA_ERROR_INVALID_PTX ("))
      << status.message();
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
}

//===----------------------------------------------------------------------===//
// Compiled kernels against float64
//===----------------------------------------------------------------------===//

namespace {

/// 16-bit elements and what they stand for.
class Element {
public:
  explicit Element(kvrm_element element) : isBf16(element == KVRM_BF16) {}

  uint16_t round(double value) const {
    if (!isBf16)
      return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
    auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    bits += 0x7fff + ((bits >> 16) & 1);
    return static_cast<uint16_t>(bits >> 16);
  }
  double value(uint16_t bits) const {
    if (!isBf16)
      return static_cast<double>(std::bit_cast<_Float16>(bits));
    return static_cast<double>(std::bit_cast<float>(uint32_t(bits) << 16));
  }
  /// Of an output in -1..1 whose weights were rounded to this type too.
  double tolerance() const { return isBf16 ? 3e-2 : 4e-3; }

private:
  bool isBf16;
};

/// Histories on the device and, to compare with, here.
class Batch {
public:
  Batch(AttentionStep &backend, uint32_t seed)
      : gpu(backend), m(backend.info()), element(m.io), elements(m),
        random(seed), rows(static_cast<size_t>(gpu.shape().slots)) {
    size_t perLayer =
        static_cast<size_t>(gpu.shape().slots) * static_cast<size_t>(m.kvHeads);
    for (auto *side : {&keys, &values})
      side->resize(static_cast<size_t>(gpu.shape().layers) * perLayer);
  }

  std::vector<uint16_t> randomRows(int64_t count) {
    std::uniform_real_distribution<double> uniform(-1, 1);
    std::vector<uint16_t> result(static_cast<size_t>(count * m.headDim));
    for (uint16_t &bits : result)
      bits = element.round(uniform(random));
    return result;
  }
  /// What the cache has of it.
  std::vector<float> &history(bool isValue, int32_t layer, int32_t slot,
                              int32_t head) {
    auto &side = isValue ? values : keys;
    return side[static_cast<size_t>(
        (int64_t(layer) * gpu.shape().slots + slot) * m.kvHeads + head)];
  }

  /// A history of `tokens` tokens, imported.
  void fill(int32_t slot, int32_t tokens) {
    PageCopy copy;
    expectOk(gpu.pager().append(slot, tokens, copy));
    auto perPage =
        static_cast<size_t>(m.pageTokens) * static_cast<size_t>(m.headDim);
    for (int32_t layer = 0; layer < gpu.shape().layers; ++layer)
      for (bool isValue : {false, true})
        for (int32_t head = 0; head < m.kvHeads; ++head) {
          std::vector<uint16_t> drawn = randomRows(tokens);
          auto &kept = history(isValue, layer, slot, head);
          kept.resize(drawn.size());
          elements.keep(drawn, kept);
          std::span<const int32_t> pages = gpu.pager().pages(slot);
          for (size_t p = 0; p * perPage < drawn.size(); ++p) {
            // What is past the end of a history is NaN.
            size_t size = std::min(perPage, drawn.size() - p * perPage);
            expectOk(gpu.importPage(
                {layer, isValue, head, pages[p]},
                elements.rowsOf(std::span(drawn).subspan(p * perPage, size))));
          }
        }
  }

  /// A step of random rows, and its queries, keys and values.
  void step() {
    for (size_t r = 0; r < rows.size(); ++r) {
      auto slot = static_cast<int32_t>(r);
      rows[r] = {};
      auto count =
          static_cast<int32_t>(1 + random() % static_cast<uint32_t>(m.queries));
      if (random() % 4 == 0 ||
          gpu.pager().length(slot) + count > gpu.shape().capacityTokens)
        continue;
      PageCopy copy;
      rows[r] = {slot, gpu.pager().length(slot), count};
      expectOk(gpu.pager().append(slot, count, copy));
    }
    gpu.plan(rows);
    expectOk(gpu.commit());
    for (int32_t layer = 0; layer < gpu.shape().layers; ++layer) {
      int64_t tokens = int64_t(gpu.shape().slots) * m.queries;
      queries.resize(static_cast<size_t>(gpu.shape().layers));
      auto &q = queries[static_cast<size_t>(layer)];
      q = randomRows(tokens * m.heads);
      expectOk(gpu.write(gpu.tensor(AttentionTensor::Q, layer), bytesOf(q)));
      for (bool isValue : {false, true}) {
        std::vector<uint16_t> fresh = randomRows(tokens * m.kvHeads);
        expectOk(gpu.write(
            gpu.tensor(isValue ? AttentionTensor::V : AttentionTensor::K,
                       layer),
            bytesOf(fresh)));
        for (size_t r = 0; r < rows.size(); ++r)
          for (int32_t t = 0; t < rows[r].count; ++t)
            for (int32_t head = 0; head < m.kvHeads; ++head) {
              auto dim = static_cast<size_t>(m.headDim);
              auto from = static_cast<size_t>(
                  (static_cast<int64_t>(r) * m.queries + t) * m.kvHeads + head);
              auto &to = history(isValue, layer, rows[r].slot, head);
              to.resize(to.size() + dim);
              elements.keep(std::span(fresh).subspan(from * dim, dim),
                            std::span(to).last(dim));
            }
      }
    }
  }

  void poisonOutputs() {
    for (int32_t layer = 0; layer < gpu.shape().layers; ++layer)
      expectOk(
          gpu.stream().fill(gpu.tensor(AttentionTensor::Out, layer), 0xff));
  }

  /// The largest error of any output; outputs of no token are left alone.
  double check(int32_t layer) {
    DeviceSpan span = gpu.tensor(AttentionTensor::Out, layer);
    std::vector<uint16_t> out(static_cast<size_t>(span.bytes / 2));
    expectOk(gpu.read(bytesOf(out), span));
    double worst = 0;
    int32_t group = m.groupHeads();
    for (size_t r = 0; r < rows.size(); ++r)
      for (int32_t t = 0; t < m.queries; ++t)
        for (int32_t h = 0; h < m.heads; ++h) {
          auto at = static_cast<size_t>(
              ((static_cast<int64_t>(r) * m.queries + t) * m.heads + h) *
              m.headDim);
          std::span<const uint16_t> got(&out[at],
                                        static_cast<size_t>(m.headDim));
          if (t >= rows[r].count) {
            for (uint16_t bits : got)
              EXPECT_EQ(bits, 0xffff) << "row " << r << " token " << t;
            continue;
          }
          std::vector<double> want =
              attend(layer, rows[r].slot, h / group, rows[r].position + t + 1,
                     &queries[static_cast<size_t>(layer)][at]);
          for (size_t d = 0; d < want.size(); ++d) {
            double error = std::abs(element.value(got[d]) - want[d]);
            // A NaN is the worst.
            worst = error <= worst ? worst : error;
          }
        }
    return worst;
  }

  std::vector<double> attend(int32_t layer, int32_t slot, int32_t head,
                             int32_t tokens, const uint16_t *q) {
    const auto &k = history(false, layer, slot, head);
    const auto &v = history(true, layer, slot, head);
    auto dim = static_cast<size_t>(m.headDim);
    std::vector<double> scores(static_cast<size_t>(tokens));
    double most = -1e300;
    for (size_t t = 0; t < scores.size(); ++t) {
      double dot = 0;
      for (size_t d = 0; d < dim; ++d)
        dot += element.value(q[d]) * double(k[t * dim + d]);
      scores[t] = dot / std::sqrt(double(m.headDim));
      most = std::max(most, scores[t]);
    }
    std::vector<double> result(dim);
    double sum = 0;
    for (size_t t = 0; t < scores.size(); ++t) {
      double weight = std::exp(scores[t] - most);
      sum += weight;
      for (size_t d = 0; d < dim; ++d)
        result[d] += weight * double(v[t * dim + d]);
    }
    for (double &value : result)
      value /= sum;
    return result;
  }

  AttentionStep &gpu;
  const AttentionInfo &m;
  Element element;
  gpu::Elements elements;
  std::mt19937 random;
  std::vector<PlanRow> rows;
  std::vector<std::vector<float>> keys, values; ///< [layer][slot][head]
  std::vector<std::vector<uint16_t>> queries;   ///< [layer]
};

} // namespace

TEST_F(Gpu, KernelsAgreeWithFloat64) {
  const char *path = std::getenv("KVRM_KERNELS");
  if (!path)
    GTEST_SKIP() << "KVRM_KERNELS is not set";
  // A list with colons between, for gpu/; the first is enough here.
  std::string folders = path;
  Expected<std::shared_ptr<const Package>> set =
      Package::load(folders.substr(0, folders.find(':')));
  ASSERT_TRUE(set) << set.status().message();
  AttentionShape shape;
  shape.layers = 2;
  shape.slots = 6;
  shape.capacityTokens = 1200;
  shape.hasLayerTensors = true;
  shape.usesStaging = (*set)->manifest().kernel(KVRM_ROLE_STAGE) != nullptr;
  Expected<std::unique_ptr<AttentionStep>> created =
      AttentionStep::create(device, **set, shape);
  ASSERT_TRUE(created) << created.status().message();
  AttentionStep &gpu = **created;
  // What was not written is NaN.
  expectOk(gpu.stream().fill(gpu.pool(), 0xff));
  expectOk(gpu.stream().fill(gpu.partials(), 0xff));
  Batch batch(gpu, 3);
  const int32_t lengths[] = {0, 1, 63, 64, 500, 1100};
  for (int32_t slot = 0; slot < shape.slots; ++slot)
    if (lengths[slot] > 0)
      batch.fill(slot, lengths[slot]);
  std::vector<CudaSchedule> schedules = captureAll(gpu);
  for (int step = 0; step < 6; ++step) {
    batch.step();
    for (CudaSchedule schedule : schedules)
      for (bool isReplay : {true, false}) {
        batch.poisonOutputs();
        expectOk(isReplay ? gpu.replay(schedule) : gpu.launch(schedule));
        expectOk(gpu.synchronize());
        for (int32_t layer = 0; layer < shape.layers; ++layer)
          EXPECT_LE(batch.check(layer), batch.element.tolerance())
              << "step " << step << " layer " << layer << " cluster "
              << schedule.cluster << (schedule.isStaged ? " staged" : "")
              << (isReplay ? " graph" : "");
        if (HasFailure())
          return;
      }
  }
}
