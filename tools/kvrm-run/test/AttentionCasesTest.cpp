//===- AttentionCasesTest.cpp - Tests of --rows ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../AttentionCases.h"

#include <algorithm>
#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::run;

static std::vector<AttentionCase> parse(const std::vector<std::string> &texts,
                                        uint64_t seed = 2) {
  Expected<std::vector<AttentionCase>> rows = parseRows(texts, seed, "--rows");
  EXPECT_TRUE(rows) << rows.status().message();
  return rows ? rows.take() : std::vector<AttentionCase>();
}

static std::string refusal(const std::string &text) {
  return parseRows({text}, 2, "--rows").status().message();
}

TEST(Rows, NamesAreBenchCases) {
  EXPECT_EQ(parse({"all"}).size(), benchCases(2).size());
  EXPECT_TRUE(parse({"none"}).empty());
  std::vector<AttentionCase> rows = parse({"zipf-B8,B4x2048"}, 3);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].lengths, zipfCase(8, 3).lengths);
  EXPECT_EQ(rows[1].lengths, std::vector<int32_t>(4, 2048));
}

TEST(Rows, LengthsAreGivenInOrder) {
  std::vector<AttentionCase> rows = parse({"long first=70001,17*3;b=5", "c=6"});
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].name, "long first");
  EXPECT_EQ(rows[0].family, "given");
  EXPECT_EQ(rows[0].lengths, (std::vector<int32_t>{70001, 17, 17, 17}));
  EXPECT_EQ(rows[1].lengths, std::vector<int32_t>{5});
  EXPECT_EQ(rows[2].name, "c");
}

TEST(Rows, RangesAreDrawnBySeed) {
  std::vector<AttentionCase> rows =
      parse({"a=1..4000*128@3;b=1..4000*128;c=1..4000*128@4,9"}, 3);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].lengths.size(), 128u);
  EXPECT_EQ(rows[0].lengths, rows[1].lengths) << "without @, by the seed given";
  EXPECT_EQ(rows[2].lengths.size(), 129u);
  EXPECT_EQ(rows[2].lengths.back(), 9);
  EXPECT_NE(rows[0].lengths[0], rows[2].lengths[0]);
  auto [least, most] = std::ranges::minmax(rows[0].lengths);
  EXPECT_GE(least, 1);
  EXPECT_LT(least, 400);
  EXPECT_GT(most, 3600);
  EXPECT_LE(most, 4000);
}

TEST(Rows, RefusesInOneLine) {
  EXPECT_TRUE(refusal("B1x1").starts_with(
      "--rows: 'B1x1' is not one of all, none, B1x2048, "));
  EXPECT_TRUE(refusal("B1x1").ends_with(", nor NAME=LENGTHS"));
  EXPECT_EQ(refusal("=17"), "--rows: '=17' has no name before its =");
  EXPECT_EQ(refusal("a="), "--rows: a: has no lengths");
  EXPECT_EQ(refusal("a=17*1024,1"), "--rows: a: has more than 1024 rows");
  for (const char *bad : {"0", "1048577", "-1", "x", "17x", "17*", "17*0", "*8",
                          "17*1025", "17@3", "9..8", "1..", "..5", "1..5@",
                          "1..5@-1", "1..5@3*4", "1...5", " 17"})
    EXPECT_EQ(refusal("a=17," + std::string(bad)),
              "--rows: a: '" + std::string(bad) +
                  "' is not LENGTH, LENGTH*COUNT or LOW..HIGH*COUNT@SEED, of 1 "
                  "to 1048576 tokens and 1024 rows");
}
