//===- kvrm-run.cpp - Run a package -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include "kvrm/runtime/kvrm.h"
#include "kvrm/runtime/session/ShardedBackend.h"
#include "kvrm/runtime/support/OneLine.h"
#include "kvrm/runtime/support/StandardStreams.h"
#include "kvrm/runtime/support/Unfinished.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>

using namespace kvrm;

/// Every failure is one line on standard error.
static int fail(const std::string &message) {
  pauseIfEnding();
  std::string line = message;
  std::ranges::replace(line, '\n', ' ');
  std::fprintf(stderr, "kvrm-run: error: %s\n", oneLine(line).c_str());
  return 1;
}

/// The status of a run that printed what it had to say; else a failure.
static int afterOutput(int status) {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return fail("cannot write to standard output");
  return status;
}

static int runMain(int argc, char **argv) {
  CLI::App app("Runs a kvrm package: text, a server, likelihoods, timings, or "
               "what it is.",
               "kvrm-run");
  app.set_version_flag("--version", std::string("kvrm-run ") + kvrm_version());
  app.require_subcommand(1);
  const std::vector<run::Command> commands{
      run::addGenerate(app),  run::addInspect(app), run::addBench(app),
      run::addCalibrate(app), run::addScore(app),   run::addReplay(app),
#ifdef KVRM_SERVE
      run::addServe(app),
#endif
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp &request) {
    return afterOutput(app.exit(request));
  } catch (const CLI::CallForAllHelp &request) {
    return afterOutput(app.exit(request));
  } catch (const CLI::CallForVersion &request) {
    return afterOutput(app.exit(request));
  } catch (const CLI::Error &error) {
    return fail(std::string(error.what()) + " (see kvrm-run --help)");
  }
  for (const run::Command &command : commands)
    if (command.app->parsed())
      if (Status status = command.run(); !status.isOk())
        return fail(status.message());
  return afterOutput(0);
}

int main(int argc, char **argv) {
  openStandardStreams();
  removeUnfinishedAtEnd();
  int status = 1;
  try {
    status = runMain(argc, argv);
  } catch (const std::exception &error) {
    status = fail(error.what());
  }
  if (ShardedBackend::hasLeftRanks())
    std::_Exit(status);
  return status;
}
