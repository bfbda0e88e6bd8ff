//===- CompletionRequestTest.cpp - Tests of request bodies ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "serve/CompletionRequest.h"

#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::serve;

static CompletionRequest parsed(Api api, std::string_view body) {
  CompletionRequest request;
  std::optional<ApiError> error = parseCompletionRequest(api, body, request);
  EXPECT_FALSE(error) << body << ": " << error->message;
  return request;
}

/// The message of the refusal.
static std::string refused(Api api, std::string_view body) {
  CompletionRequest request;
  std::optional<ApiError> error = parseCompletionRequest(api, body, request);
  EXPECT_TRUE(error) << body;
  if (!error)
    return "";
  EXPECT_EQ(error->status, 400);
  return error->message;
}

TEST(CompletionRequest, DefaultsAreThoseOfTheApi) {
  CompletionRequest request = parsed(Api::Completions, R"({"prompt": "a"})");
  EXPECT_EQ(request.prompt, "a");
  EXPECT_FALSE(request.promptIds);
  EXPECT_FALSE(request.maxTokens);
  EXPECT_FALSE(request.seed);
  EXPECT_FALSE(request.topLogprobs);
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_EQ(request.sampling.topP, 1);
  EXPECT_EQ(request.sampling.topK, 0);
  EXPECT_TRUE(request.stops.empty());
  EXPECT_FALSE(request.streams || request.includesUsage || request.ignoresEos ||
               request.returnsTokenIds);
}

TEST(CompletionRequest, EveryFieldIsRead) {
  CompletionRequest request = parsed(
      Api::Completions,
      R"({"prompt": [1, 2], "model": "m", "max_tokens": 7, "temperature": 0.5,
          "top_p": 0.25, "top_k": 3, "seed": 18446744073709551615,
          "stop": ["x", "yz"], "stream": true, "ignore_eos": true,
          "stream_options": {"include_usage": true},
          "return_token_ids": true})");
  EXPECT_EQ(*request.promptIds, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.maxTokens, 7);
  EXPECT_EQ(request.sampling.temperature, 0.5f);
  EXPECT_EQ(request.sampling.topP, 0.25f);
  EXPECT_EQ(request.sampling.topK, 3);
  EXPECT_EQ(request.seed, UINT64_MAX);
  EXPECT_EQ(request.stops, (std::vector<std::string>{"x", "yz"}));
  EXPECT_TRUE(request.streams && request.includesUsage && request.ignoresEos &&
              request.returnsTokenIds);
  EXPECT_EQ(parsed(Api::Completions, R"({"prompt": "a", "seed": -1})").seed,
            UINT64_MAX);
}

TEST(CompletionRequest, APromptComesInFourForms) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(parsed(Api::Completions, R"({"prompt": ["a"]})").prompt, "a");
  EXPECT_EQ(*parsed(Api::Completions, R"({"prompt": [[7]]})").promptIds,
            Ids{7});
  EXPECT_EQ(*parsed(Api::Completions, R"({"prompt": []})").promptIds, Ids{});
  for (const char *prompt :
       {"1", "{}", "[1.5]", "[-1]", "[1, \"a\"]", "[[\"a\"]]", "[2147483648]",
        "[18446744073709551615]"})
    EXPECT_EQ(
        refused(Api::Completions, std::string(R"({"prompt": )") + prompt + "}"),
        "prompt: is not a text or a list of token ids");
}

TEST(CompletionRequest, MessagesAreTextOfKnownRoles) {
  CompletionRequest request =
      parsed(Api::Chat,
             R"({"messages": [{"role": "developer", "content": "s"},
          {"role": "user", "content": [{"type": "text", "text": "a"},
                                       {"type": "text", "text": "b"}]},
          {"role": "assistant", "content": "", "refusal": null}],
          "max_tokens": 3, "max_completion_tokens": 3})");
  ASSERT_EQ(request.messages.size(), 3u);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[1].content, "ab");
  EXPECT_EQ(request.messages[2].role, "assistant");
  EXPECT_EQ(request.maxTokens, 3);

  auto message = [](const std::string &inner) {
    return refused(Api::Chat, R"({"messages": [)" + inner + "]}");
  };
  EXPECT_EQ(message(""), "messages: is not a list of 1 to 4096 messages");
  EXPECT_EQ(message("1"), "messages: messages[0] is not an object");
  EXPECT_EQ(message(R"({"role": "tool", "content": "a"})"),
            "messages: messages[0].role is not system, developer, user or "
            "assistant");
  const char *noText = "messages: messages[0].content is not text";
  EXPECT_EQ(message(R"({"role": "user"})"), noText);
  EXPECT_EQ(message(R"({"role": "user", "content": null})"), noText);
  EXPECT_EQ(message(R"({"role": "user", "content": [{"type": "image_url"}]})"),
            noText);
  EXPECT_EQ(message(R"({"role": "user", "content": "a", "name": "b"})"),
            "messages: messages[0].name is not supported");
  EXPECT_EQ(refused(Api::Chat, R"({"messages": [{"role": "user",
                    "content": "a"}], "max_tokens": 3,
                    "max_completion_tokens": 4})"),
            "max_completion_tokens: is not what max_tokens says");
}

TEST(CompletionRequest, LogprobsAreAskedForAsEachApiHasIt) {
  auto completion = [](const std::string &field) {
    return parsed(Api::Completions, R"({"prompt": "a", )" + field + "}")
        .topLogprobs;
  };
  EXPECT_EQ(completion(R"("logprobs": 0)"), 0);
  EXPECT_EQ(completion(R"("logprobs": 5, "top_logprobs": 0)"), 5);
  for (const char *none : {"null", "false"})
    EXPECT_EQ(completion(std::string(R"("logprobs": )") + none), std::nullopt);

  auto chat = [](const std::string &fields) {
    return R"({"messages": [{"role": "user", "content": "a"}], )" + fields +
           "}";
  };
  auto asked = [&](const std::string &fields) {
    return parsed(Api::Chat, chat(fields)).topLogprobs;
  };
  EXPECT_EQ(asked(R"("logprobs": true)"), 0);
  EXPECT_EQ(asked(R"("logprobs": true, "top_logprobs": null)"), 0);
  EXPECT_EQ(asked(R"("logprobs": true, "top_logprobs": 20)"), 20);
  EXPECT_EQ(asked(R"("logprobs": false, "top_logprobs": 0)"), std::nullopt);
  EXPECT_EQ(asked(R"("top_logprobs": 0)"), std::nullopt);
  for (const auto &[fields, why] :
       {std::pair{R"("logprobs": 1)", "logprobs: is not true or false"},
        {R"("logprobs": true, "top_logprobs": 21)",
         "top_logprobs: is not a whole number of 0 to 20"},
        {R"("logprobs": true, "top_logprobs": -1)",
         "top_logprobs: is not a whole number of 0 to 20"},
        {R"("logprobs": true, "top_logprobs": 1.5)",
         "top_logprobs: is not a whole number of 0 to 20"},
        {R"("top_logprobs": 1)", "top_logprobs: is there without logprobs"},
        {R"("logprobs": false, "top_logprobs": 1)",
         "top_logprobs: is there without logprobs"}})
    EXPECT_EQ(refused(Api::Chat, chat(fields)), why) << fields;
}

TEST(CompletionRequest, WhatWouldChangeTheAnswerIsRefusedByName) {
  auto with = [](const std::string &field) {
    return R"({"prompt": "a", )" + field + "}";
  };
  for (const char *harmless :
       {R"("n": 1)", R"("echo": false)", R"("logprobs": null)",
        R"("presence_penalty": 0.0)", R"("logit_bias": {})", R"("tools": [])",
        R"("response_format": {"type": "text"})", R"("user": "u")",
        R"("metadata": {"a": "b"})", R"("stop": null)", R"("stop": [])",
        R"("frequency_penalty": null)"})
    parsed(Api::Completions, with(harmless));
  for (const auto &[field, why] :
       {std::pair{R"("n": 2)", "n: is not supported, but for 1"},
        {R"("best_of": 3)", "best_of: is not supported, but for 1"},
        {R"("echo": true)", "echo: is not supported, but for false"},
        {R"("echo": true, "logprobs": 1)",
         "echo: is not supported, but for false"},
        {R"("logprobs": true)", "logprobs: is not a whole number of 0 to 5"},
        {R"("logprobs": 6)", "logprobs: is not a whole number of 0 to 5"},
        {R"("logprobs": -1)", "logprobs: is not a whole number of 0 to 5"},
        {R"("logprobs": 1, "top_logprobs": 2)",
         "top_logprobs: is not supported, but for 0"},
        {R"("logit_bias": {"5": 1})",
         "logit_bias: is not supported, but for {}"},
        {R"("presence_penalty": 0.5)",
         "presence_penalty: is not supported, but for 0"},
        {R"("min_p": 0.5)", "min_p: is no field that is known here"},
        {R"("max_completion_tokens": 5)",
         "max_completion_tokens: is no field that is known here"},
        {R"("temperature": -0.1)", "temperature: is not a number of 0 to 2"},
        {R"("temperature": "1")", "temperature: is not a number of 0 to 2"},
        {R"("top_p": 1.1)", "top_p: is not a number of 0 to 1"},
        {R"("top_k": -1)", "top_k: is not a whole number of 0 to 2147483647"},
        {R"("max_tokens": 1.5)",
         "max_tokens: is not a whole number of 1 to 2147483647"},
        {R"("seed": 0.5)", "seed: is not a whole number of 64 bits"},
        {R"("stream": 1)", "stream: is not true or false"},
        {R"("stream_options": {})", "stream_options: is there without stream"},
        {R"("stop": "")", "stop: is not of texts of 1 to 1024 bytes"},
        {R"("stop": [1])", "stop: is not of texts of 1 to 1024 bytes"},
        {R"("stop": {"a": "b"})", "stop: is not a text or a list of up to 4"},
        {R"("model": 1)", "model: is not a string"}})
    EXPECT_EQ(refused(Api::Completions, with(field)), why) << field;
  EXPECT_EQ(refused(Api::Completions,
                    with('"' + std::string(5000, 'x') + "\\n\": 1")),
            std::string(64, 'x') + ": is no field that is known here");
}

TEST(CompletionRequest, WhatIsNoJsonIsRefusedWithItsPlace) {
  auto refuse = [](std::string_view body) {
    return refused(Api::Completions, body);
  };
  EXPECT_EQ(refuse(""), "the body is not valid JSON, at byte 1");
  EXPECT_EQ(refuse(std::string("{\"prompt\": \"a\"}\0}", 17)),
            "the body is not valid JSON, at byte 16");
  EXPECT_EQ(refuse(R"({"prompt": "a")"),
            "the body is not valid JSON, at byte 15");
  EXPECT_EQ(refuse("{\"prompt\": \"\xc3(\"}"),
            "the body is not valid UTF-8, at byte 14");
  EXPECT_EQ(refuse(R"({"prompt": "\ud800"})").substr(0, 26),
            "the body is not valid JSON");
  EXPECT_EQ(refuse(R"({"temperature": 1e999})"), "the body is not valid JSON");
  EXPECT_EQ(refuse("[]"), "the body is not a JSON object");
  EXPECT_EQ(refuse(std::string(1000000, '[')),
            "the body is nested deeper than 32");
  // Brackets in a text are none.
  parsed(Api::Completions, R"({"prompt": "\")" + std::string(100, '[') + "\"}");
}
