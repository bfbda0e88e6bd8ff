//===- Replay.cpp - Run a fuzz target on files ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The main function of a target where there is no libFuzzer: runs the target on
// every file named, and on those of every folder named, in order of their
// names.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

namespace fs = std::filesystem;

static std::string current; ///< what the target is running on

/// Names the file that is to blame. Only what a signal handler may call.
static void onCrash(int signal) {
  constexpr std::string_view before = "kvrm-fuzz: crashed on ";
  (void)!write(STDERR_FILENO, before.data(), before.size());
  (void)!write(STDERR_FILENO, current.data(), current.size());
  (void)!write(STDERR_FILENO, "\n", 1);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

int main(int argc, char **argv) {
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    if (fs::is_directory(argv[i])) {
      for (const auto &entry : fs::recursive_directory_iterator(argv[i]))
        if (entry.is_regular_file())
          files.push_back(entry.path());
    } else if (fs::is_regular_file(argv[i])) {
      files.emplace_back(argv[i]);
    } else {
      std::fprintf(stderr, "kvrm-fuzz: error: %s: there is no such file\n",
                   argv[i]);
      return 1;
    }
  }
  std::ranges::sort(files);
  if (files.empty()) {
    std::fprintf(stderr, "usage: %s FILE-OR-FOLDER...\n", argv[0]);
    return 1;
  }
  for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
    std::signal(signal, onCrash);
  for (const std::string &file : files) {
    current = file;
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    // A copy of just this size, so that sanitizers see reads past its end.
    std::string bytes = std::move(text).str();
    std::vector<uint8_t> input(bytes.begin(), bytes.end());
    (void)LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%zu inputs ran\n", files.size());
  return 0;
}
