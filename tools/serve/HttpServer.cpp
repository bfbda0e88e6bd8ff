//===- HttpServer.cpp - Connections and their threads ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HttpServer.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <system_error>

using namespace kvrm;
using namespace kvrm::serve;

static constexpr int listenBacklog = 128;
/// Of what a client has not taken. The system's default would hide for
/// megabytes that it does not.
static constexpr int sendBufferBytes = 65536;
/// To let a client read its answer before the connection is closed.
static constexpr std::chrono::milliseconds mostFinishTime(1000);
/// The same for one too many, by the thread that accepts them all.
static constexpr std::chrono::milliseconds mostTurnAwayTime(20);
/// When there is no descriptor or no thread for a connection.
static constexpr std::chrono::milliseconds pauseAfterAccept(10);

//===----------------------------------------------------------------------===//
// Listening
//===----------------------------------------------------------------------===//

static Expected<Descriptor> listenAt(const std::string &host, int32_t port) {
  auto fail = [&](const char *why) {
    return makeError(StatusCode::IoError, "cannot listen at ", host, ":", port,
                     ": ", why);
  };
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo *found = nullptr;
  if (int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(),
                                &hints, &found);
      error != 0)
    return fail(::gai_strerror(error));
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(
      found, ::freeaddrinfo);
  int error = 0;
  for (const addrinfo *at = found; at; at = at->ai_next) {
    Descriptor made(
        ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int on = 1;
    if (made &&
        ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ==
            0 &&
        ::bind(made.get(), at->ai_addr, at->ai_addrlen) == 0 &&
        ::listen(made.get(), listenBacklog) == 0)
      return made;
    error = errno;
  }
  return fail(std::strerror(error));
}

/// Asks the system what it has bound.
Status HttpServer::nameAddress() {
  sockaddr_storage address{};
  socklen_t bytes = sizeof(address);
  std::array<char, 64> host{};
  std::array<char, 16> port{};
  if (::getsockname(listener.get(), reinterpret_cast<sockaddr *>(&address),
                    &bytes) != 0 ||
      ::getnameinfo(reinterpret_cast<sockaddr *>(&address), bytes, host.data(),
                    host.size(), port.data(), port.size(),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return makeError(StatusCode::IoError, "cannot tell where it listens");
  bool isV6 = address.ss_family == AF_INET6;
  std::from_chars(port.data(), port.data() + std::strlen(port.data()),
                  boundPort);
  url = std::string("http://") + (isV6 ? "[" : "") + host.data() +
        (isV6 ? "]:" : ":") + port.data();
  return Status::ok();
}

Expected<std::unique_ptr<HttpServer>>
HttpServer::start(const HttpServerConfig &config, HttpHandler &handler) {
  KVRM_TRY(checkRange("--port", config.port, 0, 65535));
  KVRM_TRY(checkRange("--connections", config.connections, 1, maxConnections));
  Expected<Descriptor> listener = listenAt(config.host, config.port);
  KVRM_TRY(listener.status());
  Expected<Event> closing = Event::create();
  KVRM_TRY(closing.status());
  Expected<Event> stopping = Event::create();
  KVRM_TRY(stopping.status());
  std::unique_ptr<HttpServer> made(new HttpServer(
      config, handler, listener.take(), closing.take(), stopping.take()));
  KVRM_TRY(made->nameAddress());
  made->acceptor = std::thread(&HttpServer::acceptAll, made.get());
  return made;
}

HttpServer::~HttpServer() {
  if (!acceptor.joinable())
    return;
  drain();
  stopping.set();
  acceptor.join();
  {
    std::lock_guard lock(mutex);
    for (const Client &client : clients)
      if (client.socket >= 0)
        ::shutdown(client.socket, SHUT_RDWR);
  }
  for (Client &client : clients) // nobody adds to them now
    client.thread.join();
}

/// With the mutex held.
void HttpServer::tellConnections() {
  handler.onConnections(static_cast<int32_t>(std::ranges::count_if(
      clients, [](const Client &client) { return !client.isDone; })));
}

void HttpServer::drain() {
  std::lock_guard lock(mutex);
  isDraining = true;
  closing.set();
}

bool HttpServer::waitUntilQuiet(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex);
  return quiet.wait_for(lock, time, [&] { return answering == 0; });
}

//===----------------------------------------------------------------------===//
// Accepting
//===----------------------------------------------------------------------===//

void HttpServer::acceptAll() {
  std::array<pollfd, 2> waits = {
      {{listener.get(), POLLIN, 0}, {stopping.get(), POLLIN, 0}}};
  while (true) {
    (void)::poll(waits.data(), waits.size(), -1);
    if (waits[1].revents != 0)
      return;
    joinDone();
    Descriptor socket(
        ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) {
      // Whatever it was, the next client need not have it.
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        std::this_thread::sleep_for(pauseAfterAccept);
      continue;
    }
    take(std::move(socket));
  }
}

void HttpServer::take(Descriptor socket) {
  int on = 1;
  (void)::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &sendBufferBytes,
                     sizeof(sendBufferBytes));
  std::unique_lock lock(mutex);
  if (clients.size() >= static_cast<size_t>(config.connections)) {
    lock.unlock();
    return turnAway(std::move(socket));
  }
  Client &client = clients.emplace_back();
  client.socket = socket.get();
  try {
    client.thread =
        std::thread(&HttpServer::serve, this, &client, std::move(socket));
    tellConnections();
  } catch (const std::system_error &) { // no thread for it: it is closed
    clients.pop_back();
    lock.unlock();
    std::this_thread::sleep_for(pauseAfterAccept);
  }
}

/// Threads of connections that have ended.
void HttpServer::joinDone() {
  std::list<Client> done;
  {
    std::lock_guard lock(mutex);
    for (auto at = clients.begin(); at != clients.end();) {
      auto next = std::next(at);
      if (at->isDone)
        done.splice(done.end(), clients, at);
      at = next;
    }
  }
  for (Client &client : done)
    client.thread.join();
}

/// Tells the client and does not wait for it.
void HttpServer::turnAway(Descriptor socket) {
  HttpConnection connection(std::move(socket), config.limits, closing);
  connection.send(handler.refuse(503, "all " +
                                          std::to_string(config.connections) +
                                          " connections are taken"));
  connection.finish(mostTurnAwayTime);
}

//===----------------------------------------------------------------------===//
// Serving
//===----------------------------------------------------------------------===//

void HttpServer::serve(Client *client, Descriptor socket) {
  {
    HttpConnection connection(std::move(socket), config.limits, closing);
    try {
      answerAll(connection);
    } catch (const std::exception &error) { // no memory, for one
      std::fprintf(stderr, "kvrm-run: a connection has ended: %s\n",
                   error.what());
    }
    connection.finish(mostFinishTime);
    // Its number may be another's as soon as it is closed.
    std::lock_guard lock(mutex);
    client->socket = -1;
  }
  std::lock_guard lock(mutex);
  client->isDone = true;
  tellConnections();
}

void HttpServer::answerAll(HttpConnection &connection) {
  auto refuse = [&](int status, const std::string &why) {
    return handler.refuse(status, why);
  };
  do {
    std::optional<HttpRequest> request = connection.next(refuse);
    if (!request)
      return;
    {
      std::lock_guard lock(mutex);
      ++answering;
      if (isDraining)
        connection.closeAfterAnswer();
    }
    struct Answered {
      HttpServer &server;
      ~Answered() {
        std::lock_guard lock(server.mutex);
        if (--server.answering == 0)
          server.quiet.notify_all();
      }
    } answered{*this};
    handler.handle(*request, connection);
  } while (connection.keepsAlive());
}
