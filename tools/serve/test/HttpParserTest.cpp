//===- HttpParserTest.cpp - Tests of requests of HTTP ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "serve/HttpParser.h"

#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

using namespace kvrm;
using namespace kvrm::serve;
using State = HttpParser::State;

static const HttpLimits limits = {/*headerBytes=*/200, /*bodyBytes=*/100};

static const std::string post = "POST /v1/completions?a=b HTTP/1.1\r\n"
                                "Host: h\r\n"
                                "Content-Type: Application/JSON; charset=x\r\n"
                                "Content-Length: 5\r\n\r\nhello";

static void expectPost(const HttpRequest &request) {
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/v1/completions");
  EXPECT_EQ(request.contentType, "application/json");
  EXPECT_EQ(request.body, "hello");
  EXPECT_TRUE(request.keepsAlive);
  EXPECT_FALSE(request.isHttp10);
  EXPECT_FALSE(request.isEncoded);
}

TEST(HttpParser, BytesMayComeInAnyPieces) {
  for (size_t step = 1; step <= post.size(); ++step) {
    HttpParser parser(limits);
    EXPECT_FALSE(parser.hasBegun());
    std::string bytes;
    State state = State::NeedsMore;
    for (size_t at = 0; at < post.size(); at += step) {
      ASSERT_EQ(state, State::NeedsMore);
      bytes += post.substr(at, step);
      state = parser.feed(bytes);
      EXPECT_TRUE(parser.hasBegun());
    }
    ASSERT_EQ(state, State::Done) << parser.refusal();
    expectPost(parser.take());
  }
}

TEST(HttpParser, TheNextRequestIsLeft) {
  std::string bytes = post + post + "GET";
  for (int i = 0; i < 2; ++i) {
    HttpParser parser(limits);
    ASSERT_EQ(parser.feed(bytes), State::Done);
    expectPost(parser.take());
  }
  EXPECT_EQ(bytes, "GET");
}

TEST(HttpParser, OtherForms) {
  std::string bytes = "POST / HTTP/1.1\r\nHost:\r\nContent-Encoding: gzip\r\n"
                      "Connection: close\r\nContent-Length: 5\r\n\r\nhello";
  HttpParser parser(limits);
  ASSERT_EQ(parser.feed(bytes), State::Done) << parser.refusal();
  HttpRequest request = parser.take();
  EXPECT_EQ(request.body, "hello");
  EXPECT_TRUE(request.isEncoded);
  EXPECT_FALSE(request.keepsAlive);

  std::string old = "GET /health HTTP/1.0\r\n\r\n";
  HttpParser another(limits);
  ASSERT_EQ(another.feed(old), State::Done);
  request = another.take();
  EXPECT_TRUE(request.isHttp10);
  EXPECT_FALSE(request.keepsAlive);
}

TEST(HttpParser, ThePathIsWithoutServerAndQuery) {
  for (const auto &[target, path] : {std::pair("/a%20b?c=/d", "/a%20b"),
                                     {"http://h:1/a?b", "/a"},
                                     {"HTTP://h/a/b", "/a/b"},
                                     {"http://h", "/"},
                                     {"http://h?a/b", "/"},
                                     {"http:/a", "http:/a"},
                                     {"*", "*"}}) {
    std::string bytes =
        "GET " + std::string(target) + " HTTP/1.1\r\nHost: h\r\n\r\n";
    HttpParser parser(limits);
    ASSERT_EQ(parser.feed(bytes), State::Done) << target;
    EXPECT_EQ(parser.take().path, path) << target;
  }
}

TEST(HttpParser, SaysWhenTheClientWaits) {
  std::string bytes = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n"
                      "Content-Length: 1\r\n";
  HttpParser parser(limits);
  EXPECT_EQ(parser.feed(bytes), State::NeedsMore);
  EXPECT_FALSE(parser.wantsContinue());
  bytes += "\r\n";
  EXPECT_EQ(parser.feed(bytes), State::NeedsMore);
  EXPECT_TRUE(parser.wantsContinue());
  bytes += "a";
  EXPECT_EQ(parser.feed(bytes), State::Done);
  EXPECT_FALSE(parser.wantsContinue());
}

TEST(HttpParser, TheLimitOfHeadersIsExact) {
  for (size_t length : {200, 201}) {
    std::string bytes = "GET / HTTP/1.1\r\nHost: \r\n\r\n";
    bytes.insert(22, length - bytes.size(), 'a');
    for (size_t step = 1; step <= length; ++step) {
      HttpParser parser(limits);
      std::string buffer;
      State state = State::NeedsMore;
      for (size_t at = 0; at < length && state == State::NeedsMore; at += step)
        state = parser.feed(buffer += bytes.substr(at, step));
      EXPECT_EQ(state, length == 200 ? State::Done : State::Refused) << step;
    }
  }
}

TEST(HttpParser, LimitsHoldWhateverThePieces) {
  const std::string large(300, 'a');
  const std::string half = large.substr(0, 120);
  const std::string start = "POST / HTTP/1.1\r\nHost: h\r\n";
  const std::string chunked = start + "Transfer-Encoding: chunked\r\n\r\n";
  const std::vector<std::pair<std::string, int>> cases = {
      {start + large, 431},
      {start + "A:" + half + "\r\nB:" + half + "\r\n\r\n", 431},
      {large, 431},
      {"GET /" + large, 431},
      {start + "Content-Length: 101\r\n\r\n", 413},
      {chunked, 411},
      {chunked + "0\r\nA: \xc0\r\nmodalities\r\n", 411},
      {start + "Transfer-Encoding: gzip\r\n\r\n", 411},
      {start + "Transfer-Encoding: chunked, identity\r\n\r\n", 411},
      {start + "Host: h\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {start + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {start + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {start + "Content-Length: -1\r\n\r\n", 400},
      {start + "Content-Length: 99999999999999999999\r\n\r\n", 400},
      {std::string("GET / HTTP/2.0\r\n\r\n"), 400},
      {std::string("\x16\x03\x01\x02\x00\x01", 6), 400}};
  for (const auto &[bytes, status] : cases)
    for (size_t step : {size_t(1), size_t(7), bytes.size()}) {
      HttpParser parser(limits);
      std::string buffer;
      State state = State::NeedsMore;
      for (size_t at = 0; at < bytes.size() && state == State::NeedsMore;
           at += step) {
        buffer += bytes.substr(at, step);
        state = parser.feed(buffer);
        EXPECT_LE(buffer.size(), 200 + step);
      }
      EXPECT_EQ(state, State::Refused) << bytes;
      EXPECT_EQ(parser.refusalStatus(), status) << bytes << parser.refusal();
    }
}
