//===- ReplaceFileTest.cpp - Tests of files that are whole or none --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/ReplaceFile.h"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <unistd.h>

using namespace kvrm;

namespace {

class ReplaceFileTest : public testing::Test {
protected:
  void SetUp() override {
    folder = testing::TempDir() + "replace" + std::to_string(::getpid());
    std::filesystem::create_directory(folder);
    path = folder + "/file";
    std::ofstream(path) << "old";
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::string text() const {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t files() const {
    auto all = std::filesystem::directory_iterator(folder);
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  std::string folder;
  std::string path;
};

} // namespace

TEST_F(ReplaceFileTest, TheNewTextIsThereAtOnce) {
  ASSERT_TRUE(replaceFile(path, "new text").isOk());
  EXPECT_EQ(text(), "new text");
  EXPECT_EQ(files(), 1u);
}

TEST_F(ReplaceFileTest, TheOldTextIsThereUntilItIsCommitted) {
  {
    Expected<UnfinishedFile> file = UnfinishedFile::create(path);
    ASSERT_TRUE(file) << file.status().message();
    ASSERT_TRUE(file->write("123456").isOk());
    ASSERT_TRUE(file->seek(2).isOk());
    ASSERT_TRUE(file->write("xx").isOk());
    EXPECT_EQ(text(), "old");
    EXPECT_EQ(files(), 2u);
    ASSERT_TRUE(file->commit().isOk());
    EXPECT_EQ(text(), "12xx56");
  }
  EXPECT_EQ(files(), 1u);
}

TEST_F(ReplaceFileTest, WhatIsNotCommittedIsGone) {
  {
    ASSERT_TRUE(UnfinishedFile::create(path));
  }
  EXPECT_EQ(text(), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(ReplaceFileTest, ErrorsNameTheFile) {
  EXPECT_EQ(replaceFile(folder + "/no/file", "").message(),
            folder + "/no/file: cannot create: No such file or directory");
  std::filesystem::create_directory(folder + "/d");
  EXPECT_EQ(replaceFile(folder + "/d", "").message(),
            folder + "/d: cannot move into place: Is a directory");
  EXPECT_EQ(files(), 2u);
}

TEST_F(ReplaceFileTest, AFailedWriteIsFoundAtTheEnd) {
  // Opened to be read, a stream takes nothing.
  Expected<UnfinishedFile> file = UnfinishedFile::create(path);
  ASSERT_TRUE(file) << file.status().message();
  ASSERT_NE(std::freopen("/dev/null", "r", file->stream()), nullptr);
  std::fputs("text", file->stream());
  EXPECT_EQ(file->commit().message(),
            path + ": cannot write: Input/output error");
  EXPECT_EQ(text(), "old");
  EXPECT_EQ(files(), 1u);
}
