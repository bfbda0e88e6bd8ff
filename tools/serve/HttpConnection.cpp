//===- HttpConnection.cpp - A client of HTTP ------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HttpConnection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <poll.h>
#include <sys/socket.h>

using namespace kvrm;
using namespace kvrm::serve;
using namespace std::chrono;

/// Of what a client still sends when its answer is there.
static constexpr size_t mostUnreadBytes = 1 << 20;

/// For poll(): rounded up, so that it does not spin.
static int millisecondsUntil(steady_clock::time_point deadline) {
  auto left = ceil<milliseconds>(deadline - steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, INT32_MAX));
}

HttpConnection::HttpConnection(Descriptor socket,
                               const ConnectionLimits &limits,
                               const Event &closing)
    : socket(std::move(socket)), limits(limits), closing(closing) {}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

HttpConnection::Read HttpConnection::readSome(Time deadline,
                                              bool endsWithServer) {
  std::array<pollfd, 2> waits = {
      {{socket.get(), POLLIN, 0}, {closing.get(), POLLIN, 0}}};
  while (true) {
    int count = ::poll(waits.data(), endsWithServer ? 2 : 1,
                       millisecondsUntil(deadline));
    if (count == 0)
      return Read::TimedOut;
    if (count < 0 && errno != EINTR)
      return Read::Closed;
    if (waits[0].revents != 0)
      break;
    if (endsWithServer && waits[1].revents != 0)
      return Read::Closed;
  }
  std::array<char, 16384> bytes;
  ssize_t got = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
  isGood &= got >= 0;
  if (got <= 0)
    return Read::Closed;
  buffer.append(bytes.data(), static_cast<size_t>(got));
  return Read::Some;
}

std::pair<std::optional<HttpRequest>, std::optional<HttpConnection::Refusal>>
HttpConnection::read() {
  HttpParser parser(limits.http);
  Time deadline = steady_clock::now() + limits.request;
  bool wasToldToContinue = false;
  isKept = isHead = isHttp10 = false;
  status = 0;
  while (true) {
    switch (parser.feed(buffer)) {
    case HttpParser::State::Refused:
      return {{}, Refusal(parser.refusalStatus(), parser.refusal())};
    case HttpParser::State::Done: {
      HttpRequest request = parser.take();
      isHttp10 = request.isHttp10;
      isKept = request.keepsAlive;
      isHead = request.method == "HEAD";
      return {std::move(request), {}};
    }
    case HttpParser::State::NeedsMore:
      break;
    }
    if (parser.wantsContinue() && !std::exchange(wasToldToContinue, true) &&
        !sendInterim())
      return {};
    Read read = readSome(deadline, hasAnswered && !parser.hasBegun());
    if (read == Read::TimedOut && parser.hasBegun())
      return {{},
              Refusal(408, "the request took longer than " +
                               std::to_string(limits.request.count()) +
                               " ms to come")};
    if (read == Read::Closed && isGood && parser.hasBegun())
      return {{}, Refusal(400, "the connection ends before the request")};
    if (read != Read::Some)
      return {};
  }
}

HttpConnection::Wait HttpConnection::waitFor(int event) {
  std::array<pollfd, 2> waits = {
      {{event, POLLIN, 0}, {socket.get(), POLLRDHUP, 0}}};
  if (isHalfClosed)
    waits[1].events = 0;
  int count = 0;
  do
    count = ::poll(waits.data(), waits.size(), -1);
  while (count < 0 && errno == EINTR);
  if (count >= 0 && waits[1].revents == 0)
    return Wait::Ready;
  if (count < 0 || waits[1].revents != POLLRDHUP)
    return Wait::Gone;
  isHalfClosed = true;
  return Wait::HalfClosed;
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

bool HttpConnection::sendAll(std::string_view bytes) {
  Time deadline = steady_clock::now() + limits.write;
  while (isGood && !bytes.empty()) {
    ssize_t sent = ::send(socket.get(), bytes.data(), bytes.size(),
                          MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    if (errno == EINTR)
      continue;
    pollfd wait = {socket.get(), POLLOUT, 0};
    isGood = errno == EAGAIN || errno == EWOULDBLOCK;
    if (isGood && ::poll(&wait, 1, millisecondsUntil(deadline)) == 0) {
      isSlow = true;
      isGood = false;
    }
  }
  return isGood;
}

bool HttpConnection::sendInterim() {
  return !isHttp10 && sendAll("HTTP/1.1 100 Continue\r\n\r\n");
}

/// As HTTP wants it: "Sun, 06 Nov 1994 08:49:37 GMT".
static std::string dateNow() {
  std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 64> text{};
  (void)std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT",
                      &parts);
  return text.data();
}

std::string HttpConnection::head(int code, std::string_view type) const {
  std::string out = "HTTP/1.1 " + std::to_string(code) + " ";
  out.append(httpReason(code)).append("\r\nDate: ").append(dateNow());
  out.append("\r\nContent-Type: ").append(type);
  out.append("\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store");
  out.append(isKept ? "\r\nConnection: keep-alive\r\n"
                    : "\r\nConnection: close\r\n");
  return out;
}

bool HttpConnection::send(const HttpResponse &response) {
  hasAnswered = true;
  status = response.status;
  isKept &= response.status < 500; // whoever is refused is better off elsewhere
  std::string out = head(response.status, response.type);
  for (const auto &[name, value] : response.headers)
    out.append(name).append(": ").append(value).append("\r\n");
  out.append("Content-Length: ").append(std::to_string(response.body.size()));
  out.append("\r\n\r\n");
  if (!isHead)
    out.append(response.body);
  return sendAll(out);
}

bool HttpConnection::startStream(std::string_view type) {
  hasAnswered = true;
  status = 200;
  isKept &= !isHttp10; // the end of the connection is that of the answer
  std::string out = head(200, type);
  out.append(isHttp10 ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
  return sendAll(out);
}

bool HttpConnection::write(std::string_view piece) {
  if (isHttp10 || piece.empty())
    return sendAll(piece);
  std::array<char, 20> length{};
  char *end = std::to_chars(length.data(), length.data() + length.size(),
                            piece.size(), 16)
                  .ptr;
  std::string chunk(length.data(), end);
  chunk.append("\r\n").append(piece).append("\r\n");
  return sendAll(chunk);
}

bool HttpConnection::endStream() {
  return isHttp10 ? isGood : sendAll("0\r\n\r\n");
}

void HttpConnection::finish(milliseconds time) {
  if (!isGood || ::shutdown(socket.get(), SHUT_WR) != 0)
    return;
  // Closing now would take from the client what it has not read of the answer.
  Time deadline = steady_clock::now() + time;
  for (size_t unread = 0; unread < mostUnreadBytes; unread += buffer.size()) {
    buffer.clear();
    if (readSome(deadline, /*endsWithServer=*/false) != Read::Some)
      return;
  }
}
