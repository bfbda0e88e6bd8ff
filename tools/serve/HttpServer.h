//===- HttpServer.h - Connections and their threads -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Accepts connections, each served by a thread of its own, as many as there may
// be. Knows nothing of what is served.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_HTTPSERVER_H
#define KVRM_TOOLS_SERVE_HTTPSERVER_H

#include "Event.h"
#include "HttpConnection.h"

#include "kvrm/runtime/support/Status.h"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace kvrm::serve {

/// What answers requests. Called by many threads at once.
class HttpHandler {
public:
  virtual ~HttpHandler() = default;
  virtual void handle(const HttpRequest &request,
                      HttpConnection &connection) = 0;
  /// The answer to what is no request, or one connection too many.
  virtual HttpResponse refuse(int status, const std::string &why) = 0;
  /// So many connections are open now.
  virtual void onConnections(int32_t /*count*/) {}
};

struct HttpServerConfig {
  std::string host = "127.0.0.1"; ///< an address, or a name that has one
  int32_t port = 8080;            ///< 0 = any that is free
  int32_t connections = 256;      ///< at a time, 1..maxConnections
  ConnectionLimits limits;
};
constexpr int32_t maxConnections = 4096;

class HttpServer {
public:
  /// Starts to listen, and to answer. `handler` outlives it. Errors:
  /// InvalidArgument; IoError when the address is not to be had.
  static Expected<std::unique_ptr<HttpServer>>
  start(const HttpServerConfig &config, HttpHandler &handler);
  /// Cuts off who is left.
  ~HttpServer();
  HttpServer(const HttpServer &) = delete;
  HttpServer &operator=(const HttpServer &) = delete;

  /// "http://127.0.0.1:8080"
  const std::string &address() const { return url; }
  int32_t port() const { return boundPort; }

  /// Closes connections that wait for a request, and others once they are
  /// answered. New ones are still accepted, so that the handler can tell them.
  void drain();
  /// Whether no request is being answered; waits for it as long as `time`.
  bool waitUntilQuiet(std::chrono::milliseconds time);

private:
  struct Client {
    std::thread thread;
    int socket = -1; ///< while it is served, to cut it off
    bool isDone = false;
  };

  HttpServer(const HttpServerConfig &config, HttpHandler &handler,
             Descriptor listener, Event closing, Event stopping)
      : config(config), handler(handler), listener(std::move(listener)),
        closing(std::move(closing)), stopping(std::move(stopping)) {}

  Status nameAddress();
  void acceptAll();
  void tellConnections();
  void joinDone();
  void take(Descriptor socket);
  void serve(Client *client, Descriptor socket);
  void answerAll(HttpConnection &connection);
  void turnAway(Descriptor socket);

  const HttpServerConfig config;
  HttpHandler &handler;
  Descriptor listener;
  Event closing;  ///< set by drain()
  Event stopping; ///< set by the destructor
  std::string url;
  int32_t boundPort = 0;

  std::mutex mutex; ///< of what follows
  std::condition_variable quiet;
  std::list<Client> clients;
  int32_t answering = 0;
  bool isDraining = false;

  std::thread acceptor;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_HTTPSERVER_H
