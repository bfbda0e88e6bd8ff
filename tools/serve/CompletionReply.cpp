//===- CompletionReply.cpp - What a client is answered --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompletionReply.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

using namespace kvrm;
using namespace kvrm::serve;
using json = nlohmann::ordered_json;

static std::string dump(const json &value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

static std::string event(const std::string &data) {
  return "data: " + data + "\n\n";
}

static json usageJson(const Usage &usage) {
  return {{"prompt_tokens", usage.prompt},
          {"completion_tokens", usage.completion},
          {"total_tokens", usage.prompt + usage.completion}};
}

CompletionReply::CompletionReply(const CompletionRequest &request,
                                 std::string id, std::string model)
    : request(request), id(std::move(id)), model(std::move(model)),
      created(std::time(nullptr)) {}

/// What all parts of an answer start with.
static json startOf(const std::string &id, const char *object, int64_t created,
                    const std::string &model) {
  return {
      {"id", id}, {"object", object}, {"created", created}, {"model", model}};
}

/// With `content` in the form of the API: {"text": ...} and the like.
static json choicesOf(const CompletionRequest &request, const json &content,
                      const ReplyPart &part) {
  json choice = {{"index", 0}};
  choice.update(content);
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = part.finish ? json(part.finish) : json();
  if (request.returnsTokenIds)
    choice["token_ids"] = part.tokens;
  return json::array({std::move(choice)});
}

std::string CompletionReply::whole(const ReplyPart &part,
                                   const Usage &usage) const {
  bool isChat = request.api == Api::Chat;
  json out = startOf(id, isChat ? "chat.completion" : "text_completion",
                     created, model);
  json content =
      isChat
          ? json{{"message", {{"role", "assistant"}, {"content", part.text}}}}
          : json{{"text", part.text}};
  out["choices"] = choicesOf(request, content, part);
  out["usage"] = usageJson(usage);
  return dump(out) + "\n";
}

static const char *streamObject(Api api) {
  return api == Api::Chat ? "chat.completion.chunk" : "text_completion";
}

std::string CompletionReply::first() const {
  if (request.api != Api::Chat)
    return {};
  json out = startOf(id, streamObject(request.api), created, model);
  out["choices"] = choicesOf(
      request, {{"delta", {{"role", "assistant"}, {"content", ""}}}}, {});
  return event(dump(out));
}

std::string CompletionReply::next(const ReplyPart &part) const {
  json out = startOf(id, streamObject(request.api), created, model);
  json delta = json::object();
  if (!part.text.empty())
    delta["content"] = part.text;
  json content = request.api == Api::Chat ? json{{"delta", delta}}
                                          : json{{"text", part.text}};
  out["choices"] = choicesOf(request, content, part);
  return event(dump(out));
}

std::string CompletionReply::usage(const Usage &usage) const {
  json out = startOf(id, streamObject(request.api), created, model);
  out["choices"] = json::array();
  out["usage"] = usageJson(usage);
  return event(dump(out));
}

std::string CompletionReply::error(const ApiError &error) {
  std::string body = errorBody(error);
  body.pop_back(); // the newline
  return event(body);
}
