//===- HttpParser.h - Requests of HTTP --------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// HTTP/1.1 and 1.0 from bytes that come in any pieces, by Boost.Beast's parser,
// within limits.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_HTTPPARSER_H
#define KVRM_TOOLS_SERVE_HTTPPARSER_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace kvrm::serve {

struct HttpRequest {
  std::string method;
  std::string path;        ///< of the target, without query, as it came
  std::string contentType; ///< in lower case, without parameters
  bool isEncoded = false;  ///< the body is compressed
  bool isHttp10 = false;
  bool keepsAlive = false; ///< the client will ask again
  std::string body;
};

struct HttpLimits {
  int32_t headerBytes = 16384; ///< of the request line and all headers
  int64_t bodyBytes = 1 << 20;
};

class HttpParser {
public:
  explicit HttpParser(const HttpLimits &limits);
  ~HttpParser();

  enum class State { NeedsMore, Done, Refused };
  /// Takes what it can off the front of `bytes`. Once it is Done or Refused it
  /// is not fed again.
  State feed(std::string &bytes);

  /// Whether there was any byte of a request.
  bool hasBegun() const;
  /// Whether the client waits to be told to send its body.
  bool wantsContinue() const;
  /// When Done.
  HttpRequest take();
  /// When Refused: the status of HTTP, and why in a line.
  int refusalStatus() const { return status; }
  const std::string &refusal() const { return why; }

private:
  State refuse(int code, std::string message);
  bool checkHeader();

  struct Beast;
  std::unique_ptr<Beast> beast;
  HttpLimits limits;
  size_t headerBytes = 0; ///< taken
  bool hasBytes = false;
  int status = 0;
  std::string why;
};

/// "Not Found" of 404; empty for one that the server does not use.
const char *httpReason(int status);

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_HTTPPARSER_H
