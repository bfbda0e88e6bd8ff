//===- HttpConnection.h - A client of HTTP ----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A connection is one thread's. Every wait has a limit: for a request to be
// complete, for a client to take what is written to it, and for what an event
// says, which ends when the client goes.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_HTTPCONNECTION_H
#define KVRM_TOOLS_SERVE_HTTPCONNECTION_H

#include "Event.h"
#include "HttpParser.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvrm::serve {

struct ConnectionLimits {
  HttpLimits http;
  /// For a whole request, since the connection or the last answer.
  std::chrono::milliseconds request = std::chrono::seconds(10);
  /// For a client to take a piece of an answer.
  std::chrono::milliseconds write = std::chrono::seconds(30);
};

/// A whole answer.
struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

class HttpConnection {
public:
  /// `closing` is set when the server goes: a connection that waits for another
  /// request is closed then.
  HttpConnection(Descriptor socket, const ConnectionLimits &limits,
                 const Event &closing);

  /// The next request; nothing when there will be none. A request that breaks
  /// a limit or HTTP has been answered with `refuse(status, why)`.
  template <typename Refuse>
  std::optional<HttpRequest> next(const Refuse &refuse) {
    auto [request, refusal] = read();
    if (refusal)
      send(refuse(refusal->first, refusal->second));
    return std::move(request);
  }

  // An answer is send(), or startStream(), write() as often as wanted, and
  // endStream(). All return false when the client is gone or too slow, and do
  // nothing from then on.
  bool send(const HttpResponse &response);
  bool startStream(std::string_view type);
  bool write(std::string_view piece);
  bool endStream();

  enum class Wait { Ready, HalfClosed, Gone };
  /// Waits until `event` is set or the client is gone. HalfClosed comes once,
  /// when the client has closed its sending side: it has gone, or waits for the
  /// rest of its answer. Sending something tells, for who has gone resets the
  /// connection, and the next wait ends with Gone.
  Wait waitFor(int event);
  /// Sends, before the answer, what a client that waits for it reads over.
  /// False also when HTTP/1.0 has nothing of that kind.
  bool sendInterim();

  /// Whether the client may ask again: it wants to, and all went well.
  bool keepsAlive() const { return isKept && isGood; }
  /// Whether it was too slow for `limits.write`.
  bool wasTooSlow() const { return isSlow; }
  /// The status of the answer to the last request; 0 = none.
  int lastStatus() const { return status; }
  void closeAfterAnswer() { isKept = false; }

  /// Ends the connection so that the client gets all of the answer, even if it
  /// still sends, for as long as `time`, what nobody will read.
  void finish(std::chrono::milliseconds time);

private:
  using Time = std::chrono::steady_clock::time_point;
  using Refusal = std::pair<int, std::string>;

  std::pair<std::optional<HttpRequest>, std::optional<Refusal>> read();
  /// Appends what comes to `buffer`. Closed also when there is an error.
  enum class Read { Some, Closed, TimedOut };
  Read readSome(Time deadline, bool endsWithServer);
  bool sendAll(std::string_view bytes);
  std::string head(int code, std::string_view type) const;

  Descriptor socket;
  const ConnectionLimits &limits;
  const Event &closing;
  std::string buffer; ///< read, and of no request yet
  bool isHttp10 = false;
  bool isHead = false; ///< the answer has no body
  bool isHalfClosed = false;
  bool isKept = false;
  bool isGood = true;
  bool isSlow = false;
  bool hasAnswered = false;
  int status = 0;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_HTTPCONNECTION_H
