//===- CalibrationTest.cpp - Tests of files of constants -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/paging/Calibration.h"
#include "PolicyConstants.h"

#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::test;

static Calibration testCalibration() {
  Calibration calibration;
  calibration.device = "Some GPU";
  calibration.shape = testShape();
  calibration.settings = {testCosts(), testCosts()};
  calibration.settings[1].usesPdl = false;
  calibration.settings[1].workqueue.baseUs = 5.25;
  return calibration;
}

TEST(Calibration, GoesThroughAFile) {
  std::string path =
      (std::filesystem::temp_directory_path() / "kvrm-calibration-XXXXXX")
          .string();
  ASSERT_TRUE(mkdtemp(path.data()));
  std::string file = path + "/gpu.json";
  Calibration written = testCalibration();
  Status status = saveCalibration(file, written);
  ASSERT_TRUE(status.isOk()) << status.message();
  Expected<Calibration> read = loadCalibration(file);
  ASSERT_TRUE(read) << read.status().message();
  EXPECT_EQ(read->device, written.device);
  EXPECT_TRUE(read->shape == written.shape);
  ASSERT_EQ(read->settings.size(), 2u);
  EXPECT_EQ(read->costs(false)->workqueue.baseUs, 5.25);
  EXPECT_EQ(read->costs(true)->clusters[3].clusterGbPerS, 260);
  EXPECT_EQ(read->costs(true)->clusters[3].atOnce, 16);
  EXPECT_EQ(formatCalibration(*read), formatCalibration(written));
  EXPECT_FALSE(std::filesystem::exists(file + ".part"));

  EXPECT_EQ(loadCalibration(path + "/none").status().message(),
            path + "/none: there is no such file");
  EXPECT_EQ(loadCalibration(path).status().message(),
            path + ": is not a regular file");
  EXPECT_TRUE(saveCalibration(path + "/no/x", written)
                  .message()
                  .starts_with(path + "/no/x: cannot create: "));
  EXPECT_TRUE(saveCalibration(path, written)
                  .message()
                  .starts_with(path + ": cannot create: "));
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));
  std::filesystem::remove_all(path);
}

TEST(Calibration, RefusesWhatIsWrongInOneLine) {
  std::string text = formatCalibration(testCalibration());
  auto message = [&](const std::string &from, const std::string &to) {
    std::string changed = text;
    size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    changed.replace(at, from.size(), to);
    return parseCalibration(changed, "c.json").status().message();
  };
  EXPECT_EQ(message("{", "["), "c.json: is not valid JSON");
  EXPECT_EQ(parseCalibration("[]", "c.json").status().message(),
            "c.json: is not a JSON object");
  EXPECT_EQ(message("kvrm-calibration", "x"),
            "c.json: format: 'x' is not one of kvrm-calibration");
  EXPECT_EQ(message("\"version\": 2", "\"version\": 1"),
            "c.json: version: 1 is not this runtime's 2; calibrate again");
  EXPECT_EQ(message("\"kv_heads\": 8", "\"kv_heads\": 0"),
            "c.json: attention.kv_heads: 0 is outside 1..256");
  EXPECT_EQ(
      message("\"f16\"", "\"f8\""),
      "c.json: attention.element: 'f8' is not one of f16, bf16, f8e4m3, int8");
  EXPECT_EQ(message("\"pdl\": true", "\"pdl\": 1"),
            "c.json: settings[0].pdl: is not true or false");
  EXPECT_EQ(message("\"pdl\": true", "\"pdl\": false"),
            "c.json: settings[1].pdl: is there already");
  EXPECT_EQ(message("\"base_us\": 2.5", "\"base_us\": -1"),
            "c.json: settings[0].workqueue.base_us: -1 is outside "
            "0.0..1000000.0");
  EXPECT_EQ(message("\"base_us\": 2.5", "\"base_us\": \"2\""),
            "c.json: settings[0].workqueue.base_us: is not a number");
  EXPECT_EQ(message("\"blocks\": 2", "\"blocks\": 3"),
            "c.json: settings[0].clusters[1].blocks: 3 is not the next of 1, "
            "2, 4, 8");
  EXPECT_EQ(message("\"at_once\": 66", "\"at_once\": 1.5"),
            "c.json: settings[0].clusters[1].at_once: is not an integer");
  EXPECT_EQ(message("\"partial_us\"", "\"other\""),
            "c.json: settings[0].workqueue.partial_us: is missing");
}

TEST(Calibration, IsForOneDeviceAndShape) {
  Calibration calibration = testCalibration();
  EXPECT_TRUE(calibration.check("c", "Some GPU", testShape()).isOk());
  EXPECT_EQ(calibration.check("c", "Other GPU", testShape()).message(),
            "c: device: 'Some GPU' is not 'Other GPU'; calibrate again");
  PolicyShape shape = testShape();
  shape.pageTokens = 64;
  EXPECT_EQ(calibration.check("c", "Some GPU", shape).message(),
            "c: attention.page_tokens: was measured for another; calibrate "
            "again");
}
