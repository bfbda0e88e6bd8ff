//===- ReplaceFileTest.cpp - Tests of files that are whole or none --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/ReplaceFile.h"
#include "kvrm/runtime/support/StandardStreams.h"

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

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
            folder + "/d: cannot create: Is a directory");
  EXPECT_EQ(files(), 2u);
}

TEST_F(ReplaceFileTest, AFailedWriteIsFoundAtTheEnd) {
  for (size_t length : {4u, 1u << 20}) { // within the buffer, and over it
    Expected<UnfinishedFile> file = UnfinishedFile::create("/dev/full");
    ASSERT_TRUE(file) << file.status().message();
    std::fputs(std::string(length, 'x').c_str(), file->stream());
    EXPECT_EQ(file->commit().message(),
              "/dev/full: cannot write: No space left on device");
  }
}

TEST_F(ReplaceFileTest, LinksAreFollowed) {
  std::filesystem::create_directory(folder + "/d");
  std::filesystem::create_symlink("../file", folder + "/d/link");
  std::filesystem::create_symlink("d/link", folder + "/link");
  ASSERT_TRUE(replaceFile(folder + "/link", "new").isOk());
  EXPECT_EQ(text(), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder + "/link"));
  // To what is not there yet, and to itself.
  std::filesystem::create_symlink("made", folder + "/dangling");
  ASSERT_TRUE(replaceFile(folder + "/dangling", "x").isOk());
  EXPECT_TRUE(std::filesystem::is_regular_file(folder + "/made"));
  std::filesystem::create_symlink("loop", folder + "/loop");
  EXPECT_EQ(replaceFile(folder + "/loop", "x").message(),
            folder + "/loop: cannot create: Too many levels of symbolic links");
}

TEST_F(ReplaceFileTest, TheModeStays) {
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  ASSERT_TRUE(replaceFile(path, "new").isOk());
  struct stat info = {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
}

TEST_F(ReplaceFileTest, WhatIsNoRegularFileIsWrittenTo) {
  std::string pipe = folder + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  ASSERT_TRUE(replaceFile(pipe, "text").isOk());
  char read[8] = {};
  EXPECT_EQ(::read(reader, read, sizeof(read)), 4);
  EXPECT_STREQ(read, "text");
  ::close(reader);
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  EXPECT_EQ(files(), 2u);
  ASSERT_TRUE(replaceFile("/dev/null", "text").isOk());
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST_F(ReplaceFileTest, StandardOutputIsWrittenToByAnyName) {
  // A new file would have the name, and what is printed later the old one.
  int saved = ::dup(STDOUT_FILENO);
  int own = ::open(path.c_str(), O_WRONLY | O_TRUNC);
  ::dup2(own, STDOUT_FILENO);
  std::vector<Status> written;
  for (const std::string &name : {std::string("-"), std::string("/dev/stdout"),
                                  path, "/proc/self/fd/" + std::to_string(own)})
    written.push_back(replaceFile(name, "x"));
  ::dup2(saved, STDOUT_FILENO);
  ::close(saved);
  ::close(own);
  for (const Status &status : written)
    EXPECT_TRUE(status.isOk()) << status.message();
  EXPECT_EQ(text(), "xxxx");
  EXPECT_EQ(files(), 1u);
}

/// Runs `body` in a child, and returns how that ended.
template <typename Body> static int inChild(Body body) {
  pid_t child = ::fork();
  if (child == 0) {
    removeUnfinishedAtEnd();
    body();
    ::_exit(99);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(ReplaceFileTest, AnOutputIsNoInput) {
  auto check = [&](const std::string &output, const std::string &input) {
    std::vector<std::string> inputs = {"", input};
    return checkOutput(output, inputs).message();
  };
  std::string refused = ": is '" + path +
                        "', which this run needs: write to "
                        "another file";
  EXPECT_EQ(check(path, path), path + refused);
  std::string link = folder + "/link", hard = folder + "/hard";
  std::filesystem::create_symlink("file", link);
  std::filesystem::create_hard_link(path, hard);
  EXPECT_EQ(check(link, path), link + refused);
  EXPECT_EQ(check(hard, path), hard + refused);
  EXPECT_EQ(check(folder + "/./file", path), folder + "/./file" + refused);
  // Two outputs, of which neither is there.
  EXPECT_NE(check(folder + "/new", folder + "/./new"), "");
  EXPECT_EQ(check(folder + "/new", folder + "/newer"), "");
  EXPECT_EQ(check(folder + "/new", folder), folder + "/new: lies in '" +
                                                folder +
                                                "', which this run reads: "
                                                "write elsewhere");
  EXPECT_EQ(check("/dev/null", "/dev/null"), "");
  EXPECT_EQ(check("", ""), "");
  int status = inChild([&] { // standard output may be an input, too
    ::dup2(::open(path.c_str(), O_WRONLY | O_APPEND), STDOUT_FILENO);
    ::_exit(check("-", path) == "-" + refused ? 0 : 1);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(ReplaceFileTest, NothingUnfinishedIsLeftBySignals) {
  std::vector<int> signals = {SIGINT, SIGTERM, SIGHUP, SIGABRT, SIGXFSZ};
#ifndef KVRM_SANITIZED // which report a crash and end the process themselves
  signals.push_back(SIGSEGV);
#endif
  for (int signal : signals) {
    int status = inChild([&] {
      Expected<UnfinishedFile> file = UnfinishedFile::create(path);
      std::filesystem::create_directory(folder + "/d");
      UnfinishedPath listed(folder + "/d");
      for (int i = 0; i < 300; ++i) // more than one read of the folder
        std::ofstream(folder + "/d/file-of-a-long-name-" + std::to_string(i));
      ::raise(signal);
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << signal;
    EXPECT_EQ(text(), "old");
    EXPECT_EQ(files(), 1u) << signal;
  }
}

TEST_F(ReplaceFileTest, NothingUnfinishedIsLeftByExit) {
  int status = inChild([&] {
    Expected<UnfinishedFile> file = UnfinishedFile::create(path);
    std::exit(3);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 3);
  EXPECT_EQ(files(), 1u);
}

TEST_F(ReplaceFileTest, AnIgnoredSignalStaysSo) {
  int status = inChild([&] {
    ::signal(SIGHUP, SIG_IGN);
    removeUnfinishedAtEnd();
    Expected<UnfinishedFile> file = UnfinishedFile::create(path);
    ::raise(SIGHUP);
    ::_exit(file->commit().isOk() ? 0 : 1);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(StandardStreams, ClosedOnesAreNoFiles) {
  int status = inChild([] {
    ::close(STDOUT_FILENO);
    ::close(STDERR_FILENO);
    openStandardStreams();
    int next = ::open("/dev/null", O_RDONLY);
    bool isLost = ::write(STDOUT_FILENO, "x", 1) < 0;
    ::_exit(next > STDERR_FILENO && isLost ? 0 : 1);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(StandardStreams, AReaderMayGo) {
  int status = inChild([] {
    int ends[2];
    bool isMade = ::pipe(ends) == 0;
    ::dup2(ends[1], STDOUT_FILENO);
    bool isThere = hasReader();
    ::close(ends[0]);
    ::_exit(isMade && isThere && !hasReader() ? 0 : 1);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
