//===- ReportTest.cpp - Tests of what a replay reports --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "replay/Report.h"
#include "Simulated.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

using namespace kvrm;
using namespace kvrm::replay;
using nlohmann::json;

/// A report of two modes with everything that may be in one.
static Report makeReport() {
  Report report;
  report.work = makeWork("requests=60,rate=2000,prompt=20,output=12");
  report.work.schedule(1, 4, 0.01);
  Simulated mode;
  for (const char *name : {"kvrm", "bucketed"}) {
    mode.spec.name = name;
    Expected<ModeResult> result = mode.run(report.work);
    EXPECT_TRUE(result) << result.status().message();
    report.results.push_back(result.take());
  }
  report.saturation = report.results.front();
  report.verification = Verification{3, 0, {}};
  return report;
}

//===----------------------------------------------------------------------===//
// What docs/replay.md says
//===----------------------------------------------------------------------===//

/// The names between backticks. Others, such as `"kvrm-replay"`, are values.
static std::vector<std::string> namesIn(const std::string &cell) {
  static const std::regex name("`([a-z0-9_.]+)`");
  std::vector<std::string> names;
  for (std::sregex_iterator at(cell.begin(), cell.end(), name), end; at != end;
       ++at)
    names.push_back((*at)[1]);
  return names;
}

namespace {

/// A row of a table: fields, and what is in each.
struct Documented {
  std::vector<std::string> fields;
  std::vector<std::string> members;
};

} // namespace

/// The rows of the section on JSON, of a report and of a mode.
static std::pair<std::vector<Documented>, std::vector<Documented>>
readDocumentation() {
  std::ifstream file(KVRM_REPLAY_DOCS);
  std::pair<std::vector<Documented>, std::vector<Documented>> out;
  bool isJson = false;
  bool isMode = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## "))
      isJson = line == "## JSON";
    isMode |= line == "Of each mode:";
    if (!isJson || !line.starts_with("| `"))
      continue;
    size_t middle = line.find(" | ", 1);
    Documented row{namesIn(line.substr(0, middle)),
                   namesIn(line.substr(middle))};
    (isMode ? out.second : out.first).push_back(row);
  }
  return out;
}

/// `a.b` is member b of a, and `.c` after it member c of a.
static void expectDocumented(const json &object,
                             const std::vector<Documented> &rows) {
  std::string parent;
  for (const Documented &row : rows)
    for (const std::string &field : row.fields) {
      const json *at = &object;
      std::string name = field;
      if (size_t dot = field.find('.'); dot != std::string::npos) {
        if (dot > 0)
          parent = field.substr(0, dot);
        at = &object.at(parent);
        name = field.substr(dot + 1);
      }
      ASSERT_TRUE(at->contains(name)) << field;
      for (const std::string &member : row.members)
        EXPECT_TRUE(at->at(name).contains(member)) << field << ", " << member;
    }
}

TEST(Report, HasTheDocumentedFields) {
  const json report = json::parse(toJson(makeReport()));
  auto [ofReport, ofMode] = readDocumentation();
  ASSERT_GT(ofReport.size(), 5u);
  ASSERT_GT(ofMode.size(), 10u);
  expectDocumented(report, ofReport);
  // Each has what the other has not.
  json mode = report["modes"][0];
  EXPECT_FALSE(mode.contains("buckets"));
  mode["buckets"] = report["modes"][1]["buckets"];
  expectDocumented(mode, ofMode);
}

TEST(Report, AgreesWithWhatWasMeasured) {
  const Report report = makeReport();
  const ModeResult &result = report.results.front();
  const json out = json::parse(toJson(report));
  EXPECT_EQ(out["format"], "kvrm-replay");
  EXPECT_EQ(out["version"], 1);
  EXPECT_EQ(out["trace"]["requests"], 60);
  EXPECT_EQ(out["overload"]["factor"], report.options.overload);
  const json &mode = out["modes"][0];
  EXPECT_EQ(mode["requests"]["done"], 60);
  EXPECT_EQ(mode["tokens"]["generated"], report.work.outputTokens);
  EXPECT_EQ(mode["itl_ms"]["count"], result.itl.size());
  const json &latency = mode["latency"];
  int64_t binned = 0;
  for (int64_t count : latency["itl_histogram"]["counts"])
    binned += count;
  EXPECT_EQ(binned, static_cast<int64_t>(result.itl.size()));
  int64_t windowed = 0;
  for (int64_t count : latency["itl_windows"]["count"])
    windowed += count;
  EXPECT_EQ(windowed, static_cast<int64_t>(result.itl.size()));
  EXPECT_EQ(latency["itl_tail"].back()[1], 0);
  EXPECT_EQ(latency["ttft"]["t_s"].size(), 60u);
  EXPECT_EQ(mode["series"]["t_s"].size(), result.series.points().size());
}

TEST(Report, OfAModeThatWasCutAtOnce) {
  Report report = makeReport();
  report.results.assign(1, ModeResult());
  const json out = json::parse(toJson(report));
  const json &mode = out["modes"][0];
  EXPECT_EQ(mode["ttft_ms"]["count"], 0);
  EXPECT_EQ(mode["ttft_ms"]["p99"], 0);
  EXPECT_EQ(mode["latency"]["ttft_tail"].size(), 0u);
  EXPECT_EQ(mode["latency"]["itl_windows"]["t_s"].size(), 0u);
}

TEST(Report, FailsForRequestsThatFailedOrDiffer) {
  Report report = makeReport();
  EXPECT_TRUE(verdict(report).isOk());
  report.verification = Verification{9, 2, "request 4 differs"};
  EXPECT_EQ(verdict(report).message(),
            "--verify: 2 of 9 requests differ from a run alone: request 4 "
            "differs");
  report.results[1].failed = 3;
  report.results[1].firstError = "not finite";
  EXPECT_EQ(verdict(report).message(),
            "bucketed: 3 requests failed: not finite");
}
