//===- GpuDecoderTest.cpp - A session on a GPU, if there is one -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What CudaSessionTest.cpp sees on a fake driver, on a real one: a package of
// the toy decoder's shape whose kernels are written by hand. They commit, carry
// each token to the arena, and make logits of the last one and of the weights;
// nothing is appended or attended to. Built with TOY_DEVICE.
//
//===----------------------------------------------------------------------===//

#include "CommitPtx.h"
#include "ToyDevice.h"
#include "ToyDevicePackage.h"
#include "ToyPackage.h"
#include "kvrm/runtime/cuda/CudaBackend.h"
#include "kvrm/runtime/session/CreateDecoder.h"

#include <cstring>
#include <filesystem>
#include <gtest/gtest.h>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

static std::string entry(const toy::DeviceKernelInfo &kernel,
                         const std::string &body) {
  std::string text = std::string(".visible .entry ") + kernel.symbol + "(";
  for (int32_t i = 0; i < kernel.args; ++i)
    text += (i ? ", .param .u64 p" : ".param .u64 p") + std::to_string(i);
  return text +
         ")\n{\n  .reg .pred %p<3>;\n  .reg .b32 %r<16>;\n"
         "  .reg .b64 %d<16>;\n  .reg .f32 %f<4>;\n" +
         body + "}\n";
}

/// x[i][0] = tokens[i] for block i of rows x queries.
static std::string embedBody() {
  return R"X(
  griddepcontrol.launch_dependents;
  griddepcontrol.wait;
  ld.param.u64 %d1, [p0];
  ld.param.u64 %d2, [p2];
  cvta.to.global.u64 %d1, %d1;
  cvta.to.global.u64 %d2, %d2;
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %ctaid.y;
  mov.u32 %r3, %nctaid.y;
  mad.lo.u32 %r4, %r1, %r3, %r2;
  mad.wide.u32 %d3, %r4, 4, %d1;
  ld.global.u32 %r5, [%d3];
  cvt.rn.f32.s32 %f1, %r5;
  mad.wide.u32 %d4, %r4, )X" +
         std::to_string(toy::hidden * 4) + R"X(, %d2;
  st.global.f32 [%d4], %f1;
  ret;
)X";
}

/// logits[row][v] = x[last token of row][0] * weights[v][0].
static std::string logitsBody() {
  return R"X(
  griddepcontrol.launch_dependents;
  griddepcontrol.wait;
  ld.param.u64 %d1, [p0];
  ld.param.u64 %d2, [p1];
  ld.param.u64 %d3, [p2];
  ld.param.u64 %d4, [p3];
  ld.param.u64 %d5, [p4];
  cvta.to.global.u64 %d1, %d1;
  cvta.to.global.u64 %d2, %d2;
  cvta.to.global.u64 %d3, %d3;
  cvta.to.global.u64 %d4, %d4;
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %ctaid.y;
  setp.ne.u32 %p1, %r2, 0;
  @%p1 ret;
  mad.wide.u32 %d6, %r1, 32, %d1;
  ld.global.u32 %r3, [%d6+8];
  setp.eq.u32 %p1, %r3, 0;
  @%p1 ret;
  cvt.u32.u64 %r4, %d5;
  mad.lo.u32 %r5, %r1, %r4, %r3;
  sub.u32 %r5, %r5, 1;
  mad.wide.u32 %d7, %r5, )X" +
         std::to_string(toy::hidden * 4) + R"X(, %d2;
  ld.global.f32 %f1, [%d7];
  mov.u32 %r6, %tid.x;
  mov.u32 %r7, %ntid.x;
next:
  setp.ge.u32 %p2, %r6, )X" +
         std::to_string(toy::vocabulary) + R"X(;
  @%p2 ret;
  mad.wide.u32 %d8, %r6, )X" +
         std::to_string(toy::hidden * 4) + R"X(, %d3;
  ld.global.f32 %f2, [%d8];
  mul.f32 %f3, %f1, %f2;
  mad.lo.u32 %r8, %r1, )X" +
         std::to_string(toy::vocabulary) + R"X(, %r6;
  mad.wide.u32 %d9, %r8, 4, %d4;
  st.global.f32 [%d9], %f3;
  add.u32 %r6, %r6, %r7;
  bra next;
)X";
}

static std::string writeDecoder() {
  std::string path = toy::makeDevicePackage();
  std::string text = ".version 8.0\n.target sm_90\n.address_size 64\n";
  for (uint32_t i = 0; i < toy::DeviceKernels; ++i) {
    std::string body = "  griddepcontrol.launch_dependents;\n"
                       "  griddepcontrol.wait;\n  ret;\n";
    if (i == toy::Commit)
      body = toy::commitPtx;
    else if (i == toy::Embed)
      body = embedBody();
    else if (i == toy::Logits)
      body = logitsBody();
    text += entry(toy::deviceKernels[i], body);
  }
  toy::write(path + "/kernels.ptx", text);
  toy::writeManifest(path, toy::deviceManifestOf(path));
  return path;
}

//===----------------------------------------------------------------------===//
// Tests
//===----------------------------------------------------------------------===//

namespace {

class GpuDecoder : public testing::Test {
protected:
  void SetUp() override {
    Expected<std::shared_ptr<const CudaDriver>> driver = CudaDriver::load();
    if (!driver)
      GTEST_SKIP() << driver.status().message();
    path = writeDecoder();
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    ASSERT_TRUE(package) << package.status().message();
    SessionConfig config{.parkingPlaces = 2, .parkingPages = 7};
    Expected<std::unique_ptr<Session>> created =
        createSession(*package, config);
    if (created.status().code() == StatusCode::Incompatible)
      GTEST_SKIP() << created.status().message();
    ASSERT_TRUE(created) << created.status().message();
    session = created.take();
  }
  void TearDown() override {
    if (!path.empty())
      std::filesystem::remove_all(path);
  }
  CudaBackend &backend() const {
    return dynamic_cast<CudaBackend &>(session->backend());
  }
  static void expectLogits(const float *logits, int32_t token) {
    for (int v = 0; v < toy::vocabulary; ++v)
      ASSERT_EQ(logits[v], float(token) * toy::hashed(v, 0, 5)) << v;
  }

  std::string path;
  std::unique_ptr<Session> session;
};

} // namespace

TEST_F(GpuDecoder, LogitsFollowTheTokens) {
  std::vector<float> logits(size_t(toy::slots) * toy::vocabulary);
  for (int32_t round = 0; round < 30; ++round) {
    int32_t slot = round % toy::slots;
    ASSERT_TRUE(session->release(slot).isOk());
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i <= (round * 7) % 25; ++i)
      prompt.push_back((round + i) % toy::vocabulary);
    Status status = session->prefill(slot, prompt, logits.data());
    ASSERT_TRUE(status.isOk()) << status.message();
    expectLogits(logits.data(), prompt.back());
    std::vector<int32_t> tokens(toy::slots, -1);
    for (int32_t i = 0; i < toy::slots; ++i)
      if (session->length(i) > 0 && (round + i) % 3 != 0)
        tokens[size_t(i)] = (round * 11 + i) % toy::vocabulary;
    status = session->decode(tokens, logits.data());
    ASSERT_TRUE(status.isOk()) << status.message();
    for (int32_t i = 0; i < toy::slots; ++i)
      if (tokens[size_t(i)] >= 0)
        expectLogits(logits.data() + i * toy::vocabulary, tokens[size_t(i)]);
  }
}

/// Runs of pages come back as they went, to other pages, and copies are equal.
TEST_F(GpuDecoder, PagesMove) {
  const CudaStream &stream = backend().stream();
  const CudaPool &pool = backend().kvPool();
  const PoolShape &shape = pool.shape();
  std::vector<uint8_t> bytes(static_cast<size_t>(pool.span().bytes));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  auto write = [&] {
    ASSERT_TRUE(stream.copyIn(pool.span(), bytes.data()).isOk());
    ASSERT_TRUE(stream.synchronize().isOk());
  };
  auto pagesEqual = [&](int32_t now, int32_t before, int32_t pages) {
    std::vector<uint8_t> read(bytes.size());
    EXPECT_TRUE(stream.copyOut(read.data(), pool.span()).isOk());
    EXPECT_TRUE(stream.synchronize().isOk());
    for (int64_t run = 0; run < shape.pageRuns(); ++run)
      if (std::memcmp(read.data() + run * shape.headStride() +
                          now * shape.pageBytes(),
                      bytes.data() + run * shape.headStride() +
                          before * shape.pageBytes(),
                      static_cast<size_t>(pages * shape.pageBytes())) != 0)
        return false;
    return true;
  };
  write();
  auto move = [&](const PageRun &run, MoveDirection direction) {
    Status status = backend().movePages({&run, 1}, direction);
    EXPECT_TRUE(status.isOk()) << status.message();
  };
  move({3, 0, 4}, MoveDirection::ToParking);
  move({12, 4, 3}, MoveDirection::ToParking);
  ASSERT_TRUE(stream.fill(pool.span(), 0).isOk());
  move({1, 0, 4}, MoveDirection::FromParking);
  move({5, 4, 3}, MoveDirection::FromParking);
  EXPECT_TRUE(pagesEqual(1, 3, 4));
  EXPECT_TRUE(pagesEqual(5, 12, 3));
  EXPECT_FALSE(pagesEqual(0, 0, 1)) << "the rest is zeros";
  write();
  ASSERT_TRUE(backend().copyPage({2, 9}).isOk());
  EXPECT_TRUE(pagesEqual(9, 2, 1));
  EXPECT_TRUE(pagesEqual(2, 2, 7)) << "and nothing else";
}
