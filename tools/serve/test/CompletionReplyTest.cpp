//===- CompletionReplyTest.cpp - Tests of answers -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The forms of log probabilities, written out as OpenAI's API has them.
//
//===----------------------------------------------------------------------===//

#include "serve/CompletionReply.h"

#include "SmallTokenizer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

using namespace kvrm;
using namespace kvrm::serve;
using nlohmann::json;

namespace {

/// Tokens are the bytes of "é", "a", " a", a special one, and one without a
/// text.
class CompletionReplyTest : public testing::Test {
protected:
  CompletionReplyTest() : tokenizer(makeSmallTokenizer("\u0120a")) {}

  /// Logprobs of the only choice of an answer.
  json whole(const ReplyPart &part) {
    CompletionReply reply(
        request, {"id", "m", hasText ? &tokenizer : nullptr, promptCharacters});
    return json::parse(reply.whole(part, {}))["choices"][0]["logprobs"];
  }
  json streamed(const ReplyPart &part) {
    request.streams = true;
    CompletionReply reply(request, {"id", "m", &tokenizer, promptCharacters});
    std::string event = reply.next(part);
    return json::parse(event.substr(6))["choices"][0]["logprobs"];
  }

  Tokenizer tokenizer;
  CompletionRequest request;
  bool hasText = true;
  size_t promptCharacters = 0;
};

} // namespace

TEST_F(CompletionReplyTest, ThoseOfAChat) {
  request.api = Api::Chat;
  request.topLogprobs = 2;
  ReplyPart part;
  part.logprobs = {{3, {-0.25, {{3, -0.25}, {4, -1.5}}}, {}},
                   {0, {-3, {{2, -0.5}, {5, -2}}}, {2, 2}}};
  const json want = json::parse(R"({"refusal": null, "content": [
    {"token": " a", "logprob": -0.25, "bytes": [32, 97], "top_logprobs": [
      {"token": " a", "logprob": -0.25, "bytes": [32, 97]},
      {"token": "<s>", "logprob": -1.5, "bytes": [60, 115, 62]}]},
    {"token": "\\xc3", "logprob": -3.0, "bytes": [195], "top_logprobs": [
      {"token": "a", "logprob": -0.5, "bytes": [97]},
      {"token": "token_id:5", "logprob": -2.0, "bytes": null}]}]})");
  EXPECT_EQ(whole(part), want);
  EXPECT_EQ(streamed(part), want);
}

TEST_F(CompletionReplyTest, ThoseOfACompletion) {
  request.topLogprobs = 1;
  promptCharacters = 7;
  ReplyPart part;
  part.logprobs = {{2, {-0.25, {{2, -0.25}}}, {}},
                   {0, {-3, {{1, -0.5}}}, {1, 1}},
                   {1, {-0.125, {{1, -0.125}}}, {1, 1}},
                   {4, {-2, {{2, -1}}}, {3, 2}}};
  const json want = json::parse(R"({
    "tokens": ["a", "bytes:\\xc3", "bytes:\\xa9", "<s>"],
    "token_logprobs": [-0.25, -3.0, -0.125, -2.0],
    "top_logprobs": [{"a": -0.25},
                     {"bytes:\\xa9": -0.5, "bytes:\\xc3": -3.0},
                     {"bytes:\\xa9": -0.125},
                     {"a": -1.0, "<s>": -2.0}],
    "text_offset": [7, 8, 8, 9]})");
  EXPECT_EQ(whole(part), want);
  EXPECT_EQ(streamed(part), want);
}

TEST_F(CompletionReplyTest, ThereAreNoneWithoutTokens) {
  EXPECT_EQ(whole({}), nullptr) << "not asked for";
  request.topLogprobs = 0;
  EXPECT_EQ(whole({}), json::parse(R"({"tokens": [], "token_logprobs": [],
                                       "top_logprobs": [],
                                       "text_offset": []})"));
  EXPECT_EQ(streamed({}), nullptr);
  request = {};
  request.api = Api::Chat;
  request.topLogprobs = 0;
  EXPECT_EQ(whole({}), json::parse(R"({"content": [], "refusal": null})"));
  EXPECT_EQ(streamed({}), nullptr);
}

TEST_F(CompletionReplyTest, ATokenIsItsIdWithoutATokenizer) {
  hasText = false;
  request.topLogprobs = 0;
  ReplyPart part;
  part.logprobs = {{2, {-0.25, {}}, {}}};
  EXPECT_EQ(whole(part), json::parse(R"({"tokens": ["token_id:2"],
                                         "token_logprobs": [-0.25],
                                         "top_logprobs": [{"token_id:2": -0.25}],
                                         "text_offset": [0]})"));
  request.api = Api::Chat;
  EXPECT_EQ(whole(part)["content"][0]["bytes"], nullptr);
}
