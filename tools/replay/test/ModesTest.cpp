//===- ModesTest.cpp - Tests of modes that are compared -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "replay/Modes.h"
#include "ToyModel.h"
#include "ToyPackage.h"
#include "replay/ModeDecoder.h"

#include <filesystem>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::replay;

namespace {

/// A paged and a static package of the toy model.
class ModesTest : public testing::Test {
protected:
  void SetUp() override {
    options.package = toy::makePackage({});
    toy::PackageOptions other;
    other.mode = "static";
    staticPackage = toy::makePackage(other);
  }
  void TearDown() override {
    std::filesystem::remove_all(options.package);
    std::filesystem::remove_all(staticPackage);
  }
  ModeSet prepare() {
    Expected<ModeSet> set = prepareModes(options);
    EXPECT_TRUE(set) << set.status().message();
    return set.take();
  }
  std::string error() { return prepareModes(options).status().message(); }

  static constexpr int64_t tokenBytes =
      int64_t(toy::layers) * toy::kvHeads * toy::headDim * 2 * 2;
  static constexpr int64_t pageBytes = tokenBytes * toy::pageTokens;
  Options options;
  std::string staticPackage;
};

} // namespace

TEST_F(ModesTest, BudgetsAreEqualToWithinAPage) {
  options.staticPackage = staticPackage;
  options.buckets = {staticPackage};
  ModeSet set = prepare();
  ASSERT_EQ(set.modes.size(), 3u);
  EXPECT_EQ(set.modes[0].name, "kvrm");
  EXPECT_EQ(set.modes[1].name, "max");
  EXPECT_EQ(set.modes[2].name, "bucketed");
  EXPECT_EQ(set.budgetBytes, tokenBytes * toy::slots * toy::capacity);
  EXPECT_EQ(set.modes[1].budgetBytes, set.budgetBytes);
  EXPECT_LE(set.modes[0].budgetBytes, set.budgetBytes);
  EXPECT_GT(set.modes[0].budgetBytes + pageBytes, set.budgetBytes);
  EXPECT_EQ(set.capacity, toy::capacity);
  EXPECT_EQ(set.find("max"), &set.modes[1]);
  EXPECT_EQ(set.find("min"), nullptr);
}

TEST_F(ModesTest, AFewPagesBoundARequest) {
  options.session.poolPages = 3;
  options.session.parkingPlaces = 2;
  ModeSet set = prepare();
  ASSERT_EQ(set.modes.size(), 1u);
  EXPECT_EQ(set.modes[0].poolPages, 3);
  EXPECT_EQ(set.capacity, 3 * toy::pageTokens);
  EXPECT_EQ(set.budgetBytes, 3 * pageBytes);
  EXPECT_EQ(set.modes[0].config.parkingPages, 2 * toy::pagesPerSlot);
}

TEST_F(ModesTest, RefusesWhatCannotBeCompared) {
  options.modes = {"max"};
  EXPECT_EQ(error(), "--modes: max needs --static");
  options.modes = {"kvrm", "kvrm"};
  EXPECT_EQ(error(), "--modes: 'kvrm' is there twice");
  options.modes.clear();
  options.staticPackage = options.package;
  EXPECT_EQ(error(), "--static: " + options.package +
                         ": is a paged package, not a static one");
  options.staticPackage = staticPackage;
  options.buckets = {staticPackage, staticPackage};
  EXPECT_EQ(error(), "--bucket: " + staticPackage +
                         ": capacity 50 is that of " + staticPackage);
  options.buckets.clear();
  options.kvBudgetMebibytes = 1;
  EXPECT_EQ(error(), staticPackage +
                         ": its 4 slots of 50 tokens take 0.05 MiB; in the KV "
                         "budget of 1.00 MiB are 81: compile it with "
                         "--slots=81");
}

TEST_F(ModesTest, AnOpenedModeIsWarmAndEmpty) {
  options.staticPackage = staticPackage;
  options.buckets = {staticPackage};
  for (const ModeSpec &mode : prepare().modes) {
    Expected<std::unique_ptr<ModeDecoder>> opened = openMode(mode, 0.01);
    ASSERT_TRUE(opened) << opened.status().message();
    Decoder &decoder = (*opened)->decoder();
    EXPECT_EQ(decoder.isPaged(), mode.isPaged());
    EXPECT_EQ((*opened)->buckets() != nullptr, mode.name == "bucketed");
    for (int32_t slot = 0; slot < decoder.shape().slots; ++slot)
      EXPECT_EQ(decoder.length(slot), 0);
    EXPECT_EQ((*opened)->use(0).held, 0);
    const std::vector<int32_t> prompt(5, 1);
    ASSERT_TRUE(decoder.prefill(0, prompt, nullptr).isOk());
    KvUse use = (*opened)->use(1);
    EXPECT_EQ(use.live, 5 * tokenBytes);
    EXPECT_EQ(use.held,
              mode.isPaged() ? 2 * pageBytes : toy::capacity * tokenBytes);
  }
}
