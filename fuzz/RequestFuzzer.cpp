//===- RequestFuzzer.cpp - What comes over HTTP ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The first byte chooses: a body of one of the two APIs, or bytes of HTTP,
// which come in pieces of a size that the second byte says.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/runtime/serving/LogSoftmax.h"
#include "serve/CompletionRequest.h"
#include "serve/HttpParser.h"

#include <memory>
#include <string>
#include <vector>

using namespace kvrm;
using namespace kvrm::serve;

//===----------------------------------------------------------------------===//
// Bodies
//===----------------------------------------------------------------------===//

static void checkRequest(const CompletionRequest &request) {
  const SamplingSettings &sampling = request.sampling;
  fuzz::check(bool(Sampler::create(sampling)), "settings are in their limits");
  fuzz::check(!request.maxTokens || *request.maxTokens >= 1,
              "there are tokens to generate");
  fuzz::check((request.api == Api::Chat) == !request.messages.empty() &&
                  request.messages.size() <= maxMessages,
              "a chat has messages, and nothing else has");
  for (const ChatMessage &message : request.messages)
    fuzz::check(message.role == "system" || message.role == "user" ||
                    message.role == "assistant",
                "a role is one of three", message.role);
  fuzz::check(request.stops.size() <= maxStops, "stop texts are few");
  for (const std::string &stop : request.stops)
    fuzz::check(!stop.empty() && stop.size() <= maxStopBytes,
                "a stop text has bytes");
  int32_t mostLogprobs =
      request.api == Api::Chat ? mostTopLogprobs : maxCompletionLogprobs;
  fuzz::check(request.topLogprobs.value_or(0) >= 0 &&
                  request.topLogprobs.value_or(0) <= mostLogprobs,
              "log probabilities are of few tokens");
  fuzz::check(request.streams || !request.includesUsage,
              "usage is a part of streams alone");
  for (int32_t id : request.promptIds.value_or(std::vector<int32_t>()))
    fuzz::check(id >= 0, "an id is none below 0");
}

static void checkBody(Api api, std::string_view body) {
  CompletionRequest request;
  std::optional<ApiError> error = parseCompletionRequest(api, body, request);
  if (!error) {
    checkRequest(request);
    return;
  }
  fuzz::checkMessage(error->message);
  fuzz::check(error->status == 400, "a bad body is the client's");
  fuzz::check(error->message.size() < 200, "a message is short",
              error->message);
  fuzz::check(errorBody(*error).ends_with("}}\n"), "an error is JSON");
}

//===----------------------------------------------------------------------===//
// HTTP
//===----------------------------------------------------------------------===//

/// What the requests in `bytes` are, one after the other, up to what is none:
/// in small pieces, that is known later.
static std::vector<std::string> requestsIn(std::string_view bytes,
                                           size_t step) {
  constexpr HttpLimits limits = {/*headerBytes=*/512, /*bodyBytes=*/256};
  std::vector<std::string> found;
  auto parser = std::make_unique<HttpParser>(limits);
  std::string buffer;
  for (size_t at = 0; at < bytes.size(); at += step) {
    buffer += bytes.substr(at, step);
    HttpParser::State state;
    while ((state = parser->feed(buffer)) == HttpParser::State::Done) {
      HttpRequest request = parser->take();
      fuzz::check(request.body.size() <= size_t(limits.bodyBytes),
                  "a body is within its limit");
      fuzz::check(request.path.find('?') == std::string::npos,
                  "a path has no query");
      found.push_back(request.method + " " + request.path + " " +
                      request.contentType + " " + request.body);
      parser = std::make_unique<HttpParser>(limits);
    }
    if (state == HttpParser::State::Refused) {
      fuzz::checkMessage(parser->refusal());
      fuzz::check(*httpReason(parser->refusalStatus()) != '\0',
                  "a status has a reason");
      break;
    }
    fuzz::check(buffer.size() <= size_t(limits.headerBytes),
                "what is kept is within the limit");
  }
  return found;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  std::string_view text = fuzz::textOf(data + 2, size - 2);
  if (data[0] % 3 < 2) {
    checkBody(data[0] % 3 == 0 ? Api::Completions : Api::Chat, text);
    return 0;
  }
  // Pieces do not change what is asked for.
  std::vector<std::string> one = requestsIn(text, 1);
  std::vector<std::string> other = requestsIn(text, 1 + data[1] % 64);
  fuzz::check(one == other, "requests are the same in any pieces");
  return 0;
}
