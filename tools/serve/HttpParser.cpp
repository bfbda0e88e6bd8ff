//===- HttpParser.cpp - Requests of HTTP ----------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HttpParser.h"

#include <algorithm>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cctype>
#include <utility>

using namespace kvrm;
using namespace kvrm::serve;
namespace http = boost::beast::http;

struct HttpParser::Beast {
  http::request_parser<http::string_body> parser;
};

HttpParser::HttpParser(const HttpLimits &limits)
    : beast(std::make_unique<Beast>()), limits(limits) {
  beast->parser.header_limit(static_cast<uint32_t>(limits.headerBytes) + 1);
  beast->parser.body_limit(static_cast<uint64_t>(limits.bodyBytes));
}

HttpParser::~HttpParser() = default;

bool HttpParser::hasBegun() const { return hasBytes; }

HttpParser::State HttpParser::refuse(int code, std::string message) {
  status = code;
  why = std::move(message);
  return State::Refused;
}

/// What Beast lets pass: fields by which somebody else, a proxy for one, could
/// see another end of the request or another server in it. Also, trailers in
/// two pieces break a promise in Beast 1.74 and end the process.
bool HttpParser::checkHeader() {
  const auto &header = beast->parser.get();
  size_t hosts = header.count(http::field::host);
  if (header.count(http::field::transfer_encoding) > 0)
    refuse(411, "a body in chunks is not supported; say its length");
  else if (hosts > 1 || (hosts == 0 && header.version() == 11))
    refuse(400, "not HTTP/1.1: a request has one Host");
  return why.empty();
}

HttpParser::State HttpParser::feed(std::string &bytes) {
  auto &parser = beast->parser;
  hasBytes |= !bytes.empty();
  boost::system::error_code error;
  while (!bytes.empty() && !parser.is_done()) {
    bool isInHeader = !parser.is_header_done();
    parser.eager(!isInHeader); // the header alone, and then what there is
    size_t taken = parser.put({bytes.data(), bytes.size()}, error);
    bytes.erase(0, taken);
    if (isInHeader)
      headerBytes += taken;
    if (isInHeader && parser.is_header_done() && !checkHeader())
      return State::Refused;
    if (error || taken == 0)
      break;
  }
  if (error == http::error::body_limit)
    return refuse(413, "the body is longer than " +
                           std::to_string(limits.bodyBytes) + " bytes");
  if (error && error != http::error::need_more &&
      error != http::error::header_limit)
    return refuse(400, "not HTTP/1.1: " + error.message());
  // Beast's own limit depends on the pieces that a header comes in.
  size_t held = parser.is_header_done() ? 0 : bytes.size();
  if (headerBytes + held > static_cast<size_t>(limits.headerBytes))
    return refuse(431, "the headers are longer than " +
                           std::to_string(limits.headerBytes) + " bytes");
  return parser.is_done() ? State::Done : State::NeedsMore;
}

bool HttpParser::wantsContinue() const {
  const auto &parser = beast->parser;
  return parser.is_header_done() && !parser.is_done() &&
         parser.get().version() == 11 &&
         boost::beast::iequals(parser.get()[http::field::expect],
                               "100-continue");
}

static std::string textOf(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

/// Without scheme, server and query.
static std::string pathOf(std::string target) {
  constexpr std::string_view scheme = "http://";
  if (boost::beast::iequals(target.substr(0, scheme.size()),
                            {scheme.data(), scheme.size()})) {
    size_t path = target.find_first_of("/?", scheme.size());
    target.erase(0, std::min(path, target.size()));
  }
  target.resize(std::min(target.find('?'), target.size()));
  return target.empty() ? "/" : target;
}

HttpRequest HttpParser::take() {
  bool keepsAlive = beast->parser.keep_alive();
  http::request<http::string_body> message = beast->parser.release();
  HttpRequest request;
  request.method = textOf(message.method_string());
  request.path = pathOf(textOf(message.target()));
  request.contentType = textOf(message[http::field::content_type]);
  std::string &type = request.contentType;
  type.resize(std::min(type.find_first_of("; \t"), type.size()));
  std::ranges::transform(type, type.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  boost::beast::string_view encoding = message[http::field::content_encoding];
  request.isEncoded =
      !encoding.empty() && !boost::beast::iequals(encoding, "identity");
  request.isHttp10 = message.version() < 11;
  request.keepsAlive = keepsAlive;
  request.body = std::move(message.body());
  return request;
}

const char *serve::httpReason(int status) {
  switch (status) {
  case 200:
  case 400:
  case 404:
  case 405:
  case 408:
  case 411:
  case 413:
  case 415:
  case 429:
  case 431:
  case 500:
  case 503:
    return http::obsolete_reason(static_cast<http::status>(status)).data();
  default:
    return "";
  }
}
