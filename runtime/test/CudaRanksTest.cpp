//===- CudaRanksTest.cpp - Decoders on several GPUs -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Ranks of the toy decoder, whose logits have to be added up, over the fake
// driver and the fake library of collectives.
//
//===----------------------------------------------------------------------===//

#include "AheadTwins.h"
#include "FakeMachine.h"
#include "ToyDevicePackage.h"
#include "ToyModel.h"

#include "kvrm/runtime/session/CreateDecoder.h"

#include <chrono>
#include <filesystem>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::test;

namespace {

class CudaRanks : public testing::Test {
protected:
  void SetUp() override {
    control().reset();
    control().devices = 4;
  }
  void TearDown() override {
    EXPECT_EQ(control().live, 0) << "something was not given back";
    for (const std::string &violation : control().violations)
      ADD_FAILURE() << violation;
  }

  static std::shared_ptr<const Package> packageOf(int ranks,
                                                  bool mixes = false) {
    std::string path = toy::makeDevicePackage("paged", mixes, ranks);
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    EXPECT_TRUE(package) << package.status().message();
    std::filesystem::remove_all(path);
    return package.take();
  }

  static SessionConfig configOf(SessionConfig config = {}) {
    Expected<std::shared_ptr<const CudaDevice>> device = openDevice();
    EXPECT_TRUE(device) << device.status().message();
    config.gpu = device.take();
    config.products = "none";
    if (config.collectives.empty())
      config.collectives = KVRM_FAKE_CUDA;
    return config;
  }

  static std::unique_ptr<Decoder>
  makeRanks(int ranks, const SessionConfig &config = {}, bool mixes = false) {
    Expected<std::unique_ptr<Decoder>> decoder =
        createDecoder(packageOf(ranks, mixes), configOf(config));
    EXPECT_TRUE(decoder) << decoder.status().message();
    return decoder.take();
  }

  static std::string errorOf(int ranks, const SessionConfig &config = {}) {
    return createDecoder(packageOf(ranks), configOf(config)).status().message();
  }

  /// Milliseconds that `call` takes.
  template <typename Call> static int64_t timeOf(Call call) {
    auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now() - start)
        .count();
  }

  std::vector<float> logits =
      std::vector<float>(size_t(toy::slots) * toy::vocabulary);
};

} // namespace

TEST_F(CudaRanks, LogitsAreTheSumOfAllRanks) {
  std::unique_ptr<Decoder> one = makeRanks(1);
  for (int ranks : {2, 3, 4}) {
    std::unique_ptr<Decoder> several = makeRanks(ranks);
    EXPECT_TRUE(one->release(2).isOk());
    std::vector<float> want(static_cast<size_t>(toy::vocabulary));
    std::vector<float> got(want.size());
    Tokens prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7};
    expectOk(one->prefill(2, prompt, want.data()));
    expectOk(several->prefill(2, prompt, got.data()));
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 1e-4) << ranks << " ranks, logit " << i;
  }
}

/// Slots come and go, prompts share pages and are parked: all of it reaches
/// every rank, also from a step ahead.
TEST_F(CudaRanks, TokensAreThoseOfOneRank) {
  const SessionConfig config{
      .keptHistories = 1, .parkingPlaces = 2, .parkingPages = 6};
  for (bool mixes : {false, true}) {
    Twins twins(makeRanks(1, config, mixes), makeRanks(2, config, mixes));
    twins.wander({.steps = 150, .longestPrompt = 7, .seed = 3});
    EXPECT_GT(control().collectives, 100);
  }
}

TEST_F(CudaRanks, OneLineForWhatIsNotThere) {
  EXPECT_EQ(errorOf(2, {.collectives = "/nowhere/libnccl.so.2"}),
            "several ranks need NCCL: /nowhere/libnccl.so.2: cannot open "
            "shared object file: No such file or directory");
  control().collectiveVersion = 21001;
  EXPECT_NE(errorOf(2).find("several ranks need NCCL 2.18.0 or later"),
            std::string::npos);
  control().collectiveVersion = 22703;
  control().devices = 1;
  EXPECT_EQ(errorOf(2), "the package is for 2 GPUs, and there are 1, of which "
                        "the first for it is 0");
  control().devices = 2;
  control().failCall = "ncclCommInitAll";
  EXPECT_EQ(errorOf(2), "ncclCommInitAll: unhandled system error (2)");
}

TEST_F(CudaRanks, RankThatCannotBeMadeLetsGoTheOthers) {
  for (const char *call : {"ncclAllReduce", "cuGraphInstantiateWithFlags"}) {
    control().failCall = call;
    EXPECT_NE(errorOf(3).find("rank "), std::string::npos) << call;
  }
}

TEST_F(CudaRanks, StepOfFailedRankEndsForAll) {
  std::unique_ptr<Decoder> decoder = makeRanks(2);
  expectOk(decoder->decode(Tokens{1, 2, -1, -1}, logits.data()));
  control().failCall = "cuGraphLaunch";
  Status status = decoder->decode(Tokens{3, 4, -1, -1}, logits.data());
  EXPECT_NE(status.message().find("cuGraphLaunch"), std::string::npos)
      << status.message();
  EXPECT_EQ(status.message().find("rank "), 0u) << status.message();
  // Histories are as they were; what the ranks have is lost.
  EXPECT_EQ(decoder->length(0), 1);
  EXPECT_EQ(decoder->decode(Tokens{3, -1, -1, -1}, logits.data()).message(),
            status.message());
  decoder.reset(); // waits for what gives the library back
  control().failCall = "";
  EXPECT_EQ(control().aborts, 2);
}

TEST_F(CudaRanks, StuckRankIsGivenUpInTime) {
  std::unique_ptr<Decoder> decoder =
      makeRanks(3, {.rankTimeout = std::chrono::milliseconds(200)});
  expectOk(decoder->decode(Tokens{1, 2, -1, -1}, logits.data()));
  control().stuckRank = 1;
  Status status;
  int64_t spent = timeOf(
      [&] { status = decoder->decode(Tokens{3, 4, -1, -1}, logits.data()); });
  EXPECT_EQ(status.message(), "3 of 3 ranks did not answer within 200 ms");
  EXPECT_GE(spent, 200);
  EXPECT_LT(spent, 10000);
  EXPECT_EQ(decoder->length(0), 1);
  EXPECT_LT(
      timeOf([&] {
        EXPECT_EQ(
            decoder->decode(Tokens{3, 4, -1, -1}, logits.data()).message(),
            status.message());
      }),
      200);
}
