//===- TimelineTest.cpp - Tests of Chrome traces --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Simulated.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

using namespace kvrm;
using namespace kvrm::replay;
using nlohmann::json;

namespace {

class TimelineTest : public testing::Test {
protected:
  std::unique_ptr<Timeline> create() {
    Expected<std::unique_ptr<Timeline>> timeline = Timeline::create(path());
    EXPECT_TRUE(timeline) << timeline.status().message();
    return timeline.take();
  }
  std::string path() const { return folder + "/t.json"; }
  size_t files() const {
    auto all = std::filesystem::directory_iterator(folder);
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  void SetUp() override {
    folder = testing::TempDir() + "timeline" + std::to_string(::getpid());
    std::filesystem::create_directory(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::string folder;
};

} // namespace

TEST_F(TimelineTest, HasEachRequestOnceWithItsParts) {
  const Workload work = makeWork("requests=15,rate=1000,prompt=20,output=12");
  std::unique_ptr<Timeline> timeline = create();
  Simulated mode;
  mode.settings.timeline = timeline.get();
  timeline->beginMode("kvrm");
  Expected<ModeResult> result = mode.run(work);
  ASSERT_TRUE(result) << result.status().message();
  ASSERT_TRUE(timeline->close().isOk());

  std::ifstream file(path());
  const json trace = json::parse(file);
  EXPECT_EQ(trace["otherData"]["complete"], "yes");
  std::map<std::string, int> spans; // by phase and id
  int rounds = 0;
  for (const json &event : trace["traceEvents"]) {
    std::string phase = event["ph"];
    if (phase == "b" || phase == "e")
      ++spans[phase + event["id"].get<std::string>()];
    rounds += phase == "X";
  }
  // Itself, waiting, prefill and decode.
  EXPECT_EQ(spans.size(), 2 * work.items.size());
  for (const auto &[id, count] : spans)
    EXPECT_EQ(count, 4) << id;
  EXPECT_GE(rounds, static_cast<int>(result->steps.size()));
  EXPECT_EQ(files(), 1u);
}

TEST_F(TimelineTest, DrawsWhatTheLimitCut) {
  const Workload work = makeWork("requests=30,rate=1000,prompt=20,output=40");
  std::unique_ptr<Timeline> timeline = create();
  Simulated mode;
  mode.settings.timeline = timeline.get();
  mode.settings.isSaturated = true;
  mode.settings.limitSeconds = 0.0005;
  Expected<ModeResult> result = mode.run(work);
  ASSERT_TRUE(result) << result.status().message();
  ASSERT_TRUE(result->isCut);
  ASSERT_TRUE(timeline->close().isOk());
  std::ifstream file(path());
  const json trace = json::parse(file);
  int64_t unfinished = 0;
  for (const json &event : trace["traceEvents"]) {
    std::string name = event["name"];
    unfinished += event["ph"] == "b" && name.ends_with("not finished");
  }
  EXPECT_EQ(unfinished, result->unfinished);
}

TEST_F(TimelineTest, LeavesNothingUnlessItIsClosed) {
  {
    std::unique_ptr<Timeline> timeline = create();
    timeline->beginMode("kvrm");
    EXPECT_EQ(files(), 1u);
  }
  EXPECT_EQ(files(), 0u);
}
