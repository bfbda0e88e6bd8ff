//===- OneLineTest.cpp - Text of others on a terminal -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/OneLine.h"
#include "kvrm/runtime/support/Status.h"

#include <gtest/gtest.h>

using namespace kvrm;

TEST(OneLine, ShowsWhatWouldCommandATerminal) {
  EXPECT_EQ(oneLine("a\x1b[31mb\nc\td\x7f"), "a?[31mb?c?d?");
  EXPECT_EQ(oneLine("\xc2\x9b"
                    "31m\xc2\x85"),
            "?31m?"); // CSI, and a next line
  EXPECT_EQ(oneLine(std::string("a\0b", 3)), "a?b");
}

TEST(OneLine, LeavesTextAlone) {
  std::string text = "caf\xc3\xa9 \xc2\xa0\xe2\x82\xac \xf0\x9f\x98\x80";
  EXPECT_EQ(oneLine(text), text);
  EXPECT_EQ(oneLine("cut \xc2"), "cut \xc2");
  EXPECT_EQ(oneLine(""), "");
}

TEST(OneLine, IsWhatErrorsAre) {
  EXPECT_EQ(invalidArgument("f\n", "\xc2\x9b", 7).message(), "f??7");
}
