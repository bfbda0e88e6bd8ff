//===- TraceTest.cpp - Tests of traces
//----------------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/trace/Trace.h"

#include "gtest/gtest.h"

#include <cstdio>

using namespace kvrm;

namespace {

const std::string header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

std::string azureError(const std::string &lines) {
  return parseAzureTrace(header + lines, "t.csv").status().message();
}

std::string mooncakeError(const std::string &line) {
  return parseMooncakeTrace(line, "t.jsonl").status().message();
}

std::string syntheticError(const std::string &spec) {
  return makeSyntheticTrace("synthetic:" + spec).status().message();
}

//===----------------------------------------------------------------------===//
// Azure
//===----------------------------------------------------------------------===//

TEST(AzureTrace, Reads) {
  Expected<Trace> trace =
      parseAzureTrace("\xef\xbb\xbf" + header +
                          "2023-11-16 23:59:59.6805900,374,44\r\n"
                          "2023-11-17 00:00:00.6805901,1,1048576\n"
                          "2023-11-17T00:00:01,2,3",
                      "t.csv");
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  ASSERT_EQ(trace->requests.size(), 3u);
  EXPECT_EQ(trace->format, "azure");
  EXPECT_EQ(trace->requests[0].arrival, 0);
  EXPECT_EQ(trace->requests[0].promptTokens, 374);
  EXPECT_EQ(trace->requests[0].outputTokens, 44);
  EXPECT_EQ(trace->requests[1].arrival, 1'000'000'100);
  EXPECT_EQ(trace->requests[1].outputTokens, 1048576);
  EXPECT_EQ(trace->requests[2].arrival, 1'319'410'000);
  EXPECT_TRUE(trace->hashesOf(trace->requests[0]).empty());
}

TEST(AzureTrace, ReadsZones) {
  Expected<Trace> trace =
      parseAzureTrace(header + "2024-05-10 00:00:00.009930+00:00,1,1\n"
                               "2024-05-10 00:00:00.009931Z,1,1\n",
                      "t.csv");
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  EXPECT_EQ(trace->requests[1].arrival, 1000);
}

TEST(AzureTrace, KnowsTheCalendar) {
  Expected<Trace> trace = parseAzureTrace(header + "2024-02-29 00:00:00,1,1\n"
                                                   "2024-03-01 00:00:00,1,1\n",
                                          "t.csv");
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  EXPECT_EQ(trace->requests[1].arrival, int64_t(86400) * 1'000'000'000);
}

TEST(AzureTrace, RefusesOtherHeaders) {
  EXPECT_EQ(parseAzureTrace("", "t.csv").status().message(),
            "t.csv: line 1: '' is not 'TIMESTAMP,ContextTokens,"
            "GeneratedTokens'");
  EXPECT_EQ(parseAzureTrace("a,b\x01\n", "t.csv").status().message(),
            "t.csv: line 1: 'a,b?' is not 'TIMESTAMP,ContextTokens,"
            "GeneratedTokens'");
  EXPECT_EQ(azureError(""), "t.csv: has no requests");
}

TEST(AzureTrace, RefusesLines) {
  EXPECT_EQ(azureError("\n"), "t.csv: line 2: is empty");
  EXPECT_EQ(azureError("2023-11-16 18:15:46,1\n"),
            "t.csv: line 2: '2023-11-16 18:15:46,1' does not have 3 fields");
  EXPECT_EQ(azureError("2023-11-16 18:15:46,1,2,3\n"),
            "t.csv: line 2: '2023-11-16 18:15:46,1,2,3' does not have 3 "
            "fields");
}

TEST(AzureTrace, RefusesTokens) {
  for (const char *value : {"x", "", "0", "-1", "1048577", "1.5", " 1", "1 ",
                            "99999999999999999999"}) {
    std::string stamp = "2023-11-16 18:15:46,";
    EXPECT_EQ(azureError(stamp + value + ",1\n"),
              std::string("t.csv: line 2: ContextTokens: '") + value +
                  "' is not a number in 1..1048576");
    EXPECT_EQ(azureError(stamp + "1," + value + "\n"),
              std::string("t.csv: line 2: GeneratedTokens: '") + value +
                  "' is not a number in 1..1048576");
  }
}

TEST(AzureTrace, RefusesTimes) {
  for (const char *value :
       {"", "2023-11-16", "2023-11-16 18:15", "2023-13-16 18:15:46",
        "2023-00-16 18:15:46", "2023-11-31 18:15:46", "2023-02-29 18:15:46",
        "2023-11-16 24:15:46", "2023-11-16 18:60:46", "2023-11-16 18:15:60",
        "2023-11-16 18:15:46.", "2023-11-16 18:15:46.1234567890",
        "2023-11-16 18:15:46.1x", "2023-11-16 18:15:46+01:00",
        "1969-11-16 18:15:46", "2201-11-16 18:15:46", "20x3-11-16 18:15:46",
        "2023-11-16  8:15:46"})
    EXPECT_EQ(azureError(std::string(value) + ",1,1\n"),
              std::string("t.csv: line 2: TIMESTAMP: '") + value +
                  "' is not a time such as 2023-11-16 18:15:46.6805900");
}

TEST(AzureTrace, RefusesToGoBack) {
  EXPECT_EQ(azureError("2023-11-16 18:15:46.2,1,1\n"
                       "2023-11-16 18:15:46.1,1,1\n"),
            "t.csv: line 3: arrives before the request of the line before it");
  EXPECT_EQ(azureError("2023-11-16 18:15:46,1,1\n"
                       "2033-11-16 18:15:46,1,1\n"),
            "t.csv: line 3: arrives more than 33554432 s after the first "
            "request");
}

//===----------------------------------------------------------------------===//
// Mooncake
//===----------------------------------------------------------------------===//

TEST(MooncakeTrace, Reads) {
  Expected<Trace> trace = parseMooncakeTrace(
      R"({"timestamp": 1000, "input_length": 513, "output_length": 5, )"
      R"("hash_ids": [7, 18446744073709551615]})"
      "\n"
      R"({"hash_ids":[7],"output_length":1,"input_length":512,)"
      R"("timestamp":1003})"
      "\r\n",
      "t.jsonl");
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  ASSERT_EQ(trace->requests.size(), 2u);
  EXPECT_EQ(trace->blockTokens, 512);
  EXPECT_EQ(trace->requests[1].arrival, 3'000'000);
  EXPECT_EQ(trace->requests[1].promptTokens, 512);
  std::span<const uint64_t> ids = trace->hashesOf(trace->requests[0]);
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[1], UINT64_MAX);
  EXPECT_EQ(trace->hashesOf(trace->requests[1]).size(), 1u);
}

TEST(MooncakeTrace, Refuses) {
  const std::pair<const char *, const char *> cases[] = {
      {"\n", "is empty"},
      {"{", "is not valid JSON"},
      {"{} {}", "is not valid JSON"},
      {"[]", "is not a JSON object"},
      {"1", "is not a JSON object"},
      {"null", "is not a JSON object"},
      {"{}", "timestamp: is missing"},
      {R"({"a": 1})", "'a' is not a known field"},
      {R"({"timestamp": 1, "timestamp": 2})", "timestamp: is there twice"},
      {R"({"timestamp": -1})", "timestamp: is not a number from 0 on"},
      {R"({"timestamp": 1.5})", "timestamp: is not a number from 0 on"},
      {R"({"timestamp": "1"})", "timestamp: is not a number from 0 on"},
      {R"({"timestamp": [1]})", "timestamp: is not a number from 0 on"},
      {R"({"timestamp": {}})", "timestamp: is not a number from 0 on"},
      {R"({"hash_ids": 1})", "hash_ids: is not a list of numbers from 0 on"},
      {R"({"hash_ids": [[1]]})",
       "hash_ids: is not a list of numbers from 0 on"},
      {R"({"hash_ids": [true]})",
       "hash_ids: is not a list of numbers from 0 on"},
      {R"({"timestamp":0,"input_length":1,"output_length":1})",
       "hash_ids: is missing"},
      {R"({"timestamp":0,"input_length":0,"output_length":1,"hash_ids":[]})",
       "input_length: 0 is outside 1..1048576"},
      {R"({"timestamp":0,"input_length":1,"output_length":1048577,)"
       R"("hash_ids":[]})",
       "output_length: 1048577 is outside 1..1048576"},
      {R"({"timestamp":0,"input_length":513,"output_length":1,"hash_ids":[1]})",
       "hash_ids: 1 ids for 2 blocks of 512 tokens"},
  };
  for (const auto &[line, message] : cases)
    EXPECT_EQ(mooncakeError(line), std::string("t.jsonl: line 1: ") + message)
        << line;
  EXPECT_EQ(mooncakeError(""), "t.jsonl: has no requests");
}

TEST(MooncakeTrace, RefusesDeepNesting) {
  std::string deep = R"({"hash_ids": )" + std::string(1 << 20, '[');
  EXPECT_EQ(mooncakeError(deep), "t.jsonl: line 1: hash_ids: is not a list of "
                                 "numbers from 0 on");
}

TEST(MooncakeTrace, RefusesLongLists) {
  std::string ids = "0";
  for (int i = 0; i < 2048; ++i)
    ids += ",0";
  EXPECT_EQ(mooncakeError("{\"hash_ids\":[" + ids + "]}"),
            "t.jsonl: line 1: hash_ids: more than the limit 2048");
}

TEST(MooncakeTrace, RefusesToGoBack) {
  auto line = [](const char *time) {
    return std::string("{\"timestamp\":") + time +
           ",\"input_length\":1,\"output_length\":1,\"hash_ids\":[0]}\n";
  };
  EXPECT_EQ(mooncakeError(line("5") + line("7") + line("6")),
            "t.jsonl: line 3: arrives before the request of the line before "
            "it");
  EXPECT_EQ(mooncakeError(line("5") + line("4")),
            "t.jsonl: line 2: arrives before the request of the line before "
            "it");
  EXPECT_EQ(mooncakeError(line("0") + line("18446744073709551615")),
            "t.jsonl: line 2: arrives more than 33554432 s after the first "
            "request");
}

//===----------------------------------------------------------------------===//
// Synthetic
//===----------------------------------------------------------------------===//

TEST(SyntheticTrace, IsTheSameEverywhere) {
  Expected<Trace> trace =
      makeSyntheticTrace("synthetic:family=chat,seed=7,requests=3,rate=2");
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  ASSERT_EQ(trace->requests.size(), 3u);
  EXPECT_EQ(trace->requests[1].arrival, 286422729);
  EXPECT_EQ(trace->requests[2].arrival, 458450316);
  EXPECT_EQ(trace->requests[0].promptTokens, 57);
  EXPECT_EQ(trace->requests[2].outputTokens, 500);
}

TEST(SyntheticTrace, HasTheMeansItIsAskedFor) {
  for (const char *family : {"chat", "uniform", "zipf", "bimodal", "bursty"}) {
    Expected<Trace> trace = makeSyntheticTrace(
        std::string("synthetic:requests=20000,rate=10,prompt=1000,output=200,"
                    "family=") +
        family);
    ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
    double prompts = 0;
    double outputs = 0;
    int64_t before = 0;
    for (const TraceRequest &request : trace->requests) {
      prompts += request.promptTokens;
      outputs += request.outputTokens;
      EXPECT_GE(request.arrival, before);
      before = request.arrival;
    }
    auto count = static_cast<double>(trace->requests.size());
    EXPECT_NEAR(prompts / count, 1000, 250) << family;
    EXPECT_NEAR(outputs / count, 200, 50) << family;
    EXPECT_NEAR(static_cast<double>(before) / 1e9, count / 10, count / 50)
        << family;
  }
}

TEST(SyntheticTrace, SharesPrefixes) {
  Expected<Trace> trace = makeSyntheticTrace(
      "synthetic:family=shared-prefix,requests=500,prefixes=2");
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  int64_t first = 0;
  for (const TraceRequest &request : trace->requests) {
    std::span<const uint64_t> ids = trace->hashesOf(request);
    ASSERT_EQ(static_cast<int32_t>(ids.size()),
              (request.promptTokens + 511) / 512);
    EXPECT_TRUE(ids[0] == 0 || ids[0] == 4);
    first += ids[0] == 0;
  }
  EXPECT_NEAR(static_cast<double>(first), 250, 50);
}

TEST(SyntheticTrace, Refuses) {
  EXPECT_EQ(syntheticError("family=x"),
            "synthetic: family: 'x' is not one of chat, uniform, zipf, "
            "bimodal, bursty, shared-prefix");
  EXPECT_EQ(syntheticError("what"), "synthetic: 'what' is not key=value");
  EXPECT_EQ(syntheticError("what=1"),
            "synthetic: 'what' is not one of family, seed, requests, rate, "
            "prompt, output, burst, prefixes");
  EXPECT_EQ(syntheticError("requests=0"),
            "synthetic: requests: '0' is not a number in 1..4194304");
  EXPECT_EQ(syntheticError("prompt=32769"),
            "synthetic: prompt: '32769' is not a number in 1..32768");
  for (const char *rate : {"", "x", "0", "-1", "nan", "inf", "2000000"})
    EXPECT_EQ(syntheticError(std::string("rate=") + rate),
              std::string("synthetic: rate: '") + rate +
                  "' is not a number in 0.01..1000000");
  EXPECT_EQ(syntheticError("requests=4194304,rate=0.01"),
            "synthetic: 4194304 requests at this rate take more than 33554432 "
            "s");
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

TEST(LoadTrace, AByteOrderMarkIsNoneOfIt) {
  std::string path = testing::TempDir() + "trace-bom.csv";
  FILE *file = std::fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  std::fputs("\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\r\n"
             "2023-11-16 18:15:46,9,7\r\n",
             file);
  std::fclose(file);
  Expected<Trace> trace = loadTrace(path, TraceFormat::Auto);
  std::remove(path.c_str());
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  EXPECT_EQ(trace->format, "azure");
  EXPECT_EQ(trace->requests.size(), 1u);
}

TEST(LoadTrace, FindsTheFormat) {
  EXPECT_EQ(loadTrace("nowhere.csv", TraceFormat::Auto).status().code(),
            StatusCode::NotFound);
  EXPECT_EQ(loadTrace(".", TraceFormat::Auto).status().message(),
            ".: is a folder");
  std::string path = testing::TempDir() + "trace-test.jsonl";
  FILE *file = std::fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  std::fputs("{\"timestamp\":0,\"input_length\":1,\"output_length\":1,"
             "\"hash_ids\":[0]}\n",
             file);
  std::fclose(file);
  Expected<Trace> trace = loadTrace(path, TraceFormat::Auto);
  ASSERT_TRUE(trace.status().isOk()) << trace.status().message();
  EXPECT_EQ(trace->format, "mooncake");
  EXPECT_FALSE(loadTrace(path, TraceFormat::Azure).status().isOk());
  std::remove(path.c_str());
  EXPECT_EQ(
      loadTrace("synthetic:requests=2", TraceFormat::Azure)->requests.size(),
      2u);
}

} // namespace
