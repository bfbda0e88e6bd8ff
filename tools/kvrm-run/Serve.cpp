//===- Serve.cpp - kvrm-run serve -----------------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "PackageText.h"

#include "kvrm/text/Tokenizer.h"
#include "serve/Service.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <sys/resource.h>

using namespace kvrm;
using namespace kvrm::run;
using namespace kvrm::serve;
using namespace std::chrono;

static constexpr int32_t mostSeconds = 86400;
static constexpr int64_t mostBytes = 1 << 30;

namespace {

struct Arguments {
  CommonOptions common;
  HttpServerConfig http;
  EngineConfig engine;
  std::string model; ///< its name; empty = that of the package
  int32_t maxTokens = 0;
  double requestSeconds = 10;
  double writeSeconds = 30;
  double drainSeconds = 30;
};

/// Signals that end a server. Blocked before any thread is made, they come to
/// nobody but who waits here.
class EndingSignals {
public:
  EndingSignals() {
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGINT);
    ::sigaddset(&set, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  }

  void wait() const {
    int signal = 0;
    while (::sigwait(&set, &signal) != 0) {
    }
  }
  /// Whether one comes within `time`.
  bool waitFor(milliseconds time) const {
    timespec limit = {time.count() / 1000, time.count() % 1000 * 1000000};
    return ::sigtimedwait(&set, nullptr, &limit) > 0;
  }

private:
  sigset_t set;
};

} // namespace

//===----------------------------------------------------------------------===//
// Options
//===----------------------------------------------------------------------===//

static Status checkSeconds(const char *name, double seconds) {
  if (!(seconds >= 0 && seconds <= mostSeconds))
    return invalidArgument(name, ": ", std::to_string(seconds),
                           " is outside 0..", mostSeconds);
  return Status::ok();
}

static milliseconds toMilliseconds(double seconds) {
  return milliseconds(std::max<int64_t>(std::llround(seconds * 1000), 1));
}

/// Checks what no one else does, and puts times where they are used.
static Status checkArguments(Arguments &arguments) {
  KVRM_TRY(checkPackage(arguments.common));
  KVRM_TRY(checkRange("--max-tokens", arguments.maxTokens, 0, INT32_MAX));
  ConnectionLimits &limits = arguments.http.limits;
  KVRM_TRY(checkRange("--max-header", limits.http.headerBytes, 256, 1 << 20));
  KVRM_TRY(checkRange("--max-body", limits.http.bodyBytes, 1, mostBytes));
  KVRM_TRY(checkSeconds("--request-timeout", arguments.requestSeconds));
  KVRM_TRY(checkSeconds("--write-timeout", arguments.writeSeconds));
  KVRM_TRY(checkSeconds("--drain-timeout", arguments.drainSeconds));
  KVRM_TRY(checkRange("--connections", arguments.http.connections, 1,
                      maxConnections));
  limits.request = toMilliseconds(arguments.requestSeconds);
  limits.write = toMilliseconds(arguments.writeSeconds);
  return Status::ok();
}

/// Connections take two descriptors each, and the rest a few.
static Status raiseDescriptorLimit(int32_t connections) {
  rlim_t wanted = 2 * static_cast<rlim_t>(connections) + 64;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
    return Status::ok();
  limit.rlim_cur = wanted;
  if (wanted > limit.rlim_max || ::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    return makeError(StatusCode::ResourceExhausted,
                     "--connections: ", connections, " need ", wanted,
                     " open files, the system allows ", limit.rlim_max);
  return Status::ok();
}

/// "models/SmolLM2.kvrm/" is SmolLM2.
static std::string nameOf(std::filesystem::path package) {
  if (!package.has_filename())
    package = package.parent_path();
  return package.stem().string();
}

//===----------------------------------------------------------------------===//
// The command
//===----------------------------------------------------------------------===//

/// Lets running requests end, for a while or until another signal.
static void drain(Service &service, HttpServer &server, EngineThread &engine,
                  const EndingSignals &signals, milliseconds time) {
  service.drain();
  server.drain();
  auto deadline = steady_clock::now() + time;
  while (!server.waitUntilQuiet(milliseconds(0)) &&
         steady_clock::now() < deadline)
    if (signals.waitFor(milliseconds(10)))
      break;
  if (server.waitUntilQuiet(milliseconds(0)))
    return;
  std::fprintf(stderr, "kvrm-run: requests are cut off\n");
  engine.stop();
  (void)server.waitUntilQuiet(seconds(1));
}

/// Says before somebody asks that chats cannot be answered, and why.
static void tellOfChats(const Tokenizer *tokenizer) {
  if (!tokenizer || tokenizer->chatTemplate().empty())
    return;
  Status status = tokenizer->chatForm().status();
  if (!status.isOk())
    std::fprintf(stderr, "kvrm-run: chats are refused: %s\n",
                 status.message().c_str());
}

static Status serveUntilSignal(Arguments arguments) {
  KVRM_TRY(checkArguments(arguments));
  KVRM_TRY(raiseDescriptorLimit(arguments.http.connections));
  Expected<std::shared_ptr<const Package>> package =
      Package::load(arguments.common.package);
  KVRM_TRY(package.status());
  Expected<std::optional<Tokenizer>> tokenizer = loadTokenizer(**package);
  KVRM_TRY(tokenizer.status());

  Served served;
  served.model = arguments.model.empty() ? nameOf(arguments.common.package)
                                         : arguments.model;
  served.tokenizer = *tokenizer ? &**tokenizer : nullptr;
  tellOfChats(served.tokenizer);
  served.stopTokens = endsOfText((*package)->manifest(), *tokenizer);
  served.maxTokens = arguments.maxTokens;

  EndingSignals signals;
  Metrics metrics;
  Expected<std::unique_ptr<EngineThread>> engine = EngineThread::start(
      [&] { return createDecoder(*package, arguments.common.session); },
      arguments.engine, metrics);
  KVRM_TRY(engine.status());
  Service service(served, **engine, metrics);
  Expected<std::unique_ptr<HttpServer>> server =
      HttpServer::start(arguments.http, service);
  KVRM_TRY(server.status());
  std::printf("%s is served at %s\n", oneLine(served.model).c_str(),
              (*server)->address().c_str());
  std::fflush(stdout);
  signals.wait();
  drain(service, **server, **engine, signals,
        toMilliseconds(arguments.drainSeconds));
  return Status::ok();
}

static void addLimitOptions(CLI::App &command, Arguments &arguments) {
  ConnectionLimits &limits = arguments.http.limits;
  command.add_option("--max-tokens", arguments.maxTokens,
                     "Most tokens of an answer, 0 = what a slot has room for");
  command.add_option("--connections", arguments.http.connections,
                     "Connections at a time (256)");
  command.add_option("--max-header", limits.http.headerBytes,
                     "Bytes of a request's line and headers (16384)");
  command.add_option("--max-body", limits.http.bodyBytes,
                     "Bytes of a request's body (1048576)");
  command.add_option("--request-timeout", arguments.requestSeconds,
                     "Seconds for a request to come (10)");
  command.add_option("--write-timeout", arguments.writeSeconds,
                     "Seconds for a client to take a piece of its answer (30)");
  command.add_option("--drain-timeout", arguments.drainSeconds,
                     "Seconds for running requests to end after SIGTERM or "
                     "SIGINT (30)");
}

Command run::addServe(CLI::App &app) {
  CLI::App *command = app.add_subcommand(
      "serve", "Serve OpenAI's API over HTTP, and a page to chat on");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("package", arguments->common.package, "Package folder");
  command->add_option("--host", arguments->http.host,
                      "Address to listen at (127.0.0.1)");
  command->add_option("--port", arguments->http.port,
                      "Port (8080), 0 = any that is free");
  command->add_option("--model-name", arguments->model,
                      "What clients call the model (the package's name)");
  addSessionOptions(*command, arguments->common);
  addEngineOptions(*command, arguments->engine, arguments->common.session);
  addLimitOptions(*command, *arguments);
  return {command, [arguments] { return serveUntilSignal(*arguments); }};
}
