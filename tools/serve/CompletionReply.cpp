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
                                 ReplyContext context)
    : request(request), context(std::move(context)),
      created(std::time(nullptr)) {}

//===----------------------------------------------------------------------===//
// Log probabilities
//===----------------------------------------------------------------------===//

namespace {

/// What a token is to a client. Its bytes may be a part of a character, which
/// no JSON string has: they are spelt out then, as OpenAI does.
class TokenText {
public:
  TokenText(const Tokenizer *tokenizer, int32_t token);

  /// `mark` goes before bytes that are spelt out.
  std::string text(const char *mark) const {
    return (isSpelt ? mark : "") + shown;
  }
  /// Null for a token without a text.
  const json &bytes() const { return values; }

private:
  std::string shown;
  bool isSpelt = false;
  json values;
};

} // namespace

TokenText::TokenText(const Tokenizer *tokenizer, int32_t token) {
  std::string_view bytes = tokenizer ? tokenizer->bytesOf(token) : "";
  if (bytes.empty()) {
    shown = "token_id:" + std::to_string(token);
    return;
  }
  values = json::array();
  for (char byte : bytes)
    values.push_back(static_cast<unsigned char>(byte));
  shown = tokenizer->decode({&token, 1});
  isSpelt = shown != bytes; // U+FFFD is in it
  if (!isSpelt)
    return;
  constexpr std::string_view digits = "0123456789abcdef";
  shown.clear();
  for (char byte : bytes) {
    auto value = static_cast<unsigned char>(byte);
    shown += {'\\', 'x', digits[value / 16], digits[value % 16]};
  }
}

static json chatLogprob(const Tokenizer *tokenizer, const TokenLogprob &of) {
  TokenText token(tokenizer, of.token);
  return {{"token", token.text("")},
          {"logprob", of.logprob},
          {"bytes", token.bytes()}};
}

static json chatLogprobs(const ReplyContext &context,
                         const std::vector<LikelyToken> &tokens) {
  json content = json::array();
  for (const LikelyToken &each : tokens) {
    json top = json::array();
    for (const TokenLogprob &likely : each.logprobs.likeliest)
      top.push_back(chatLogprob(context.tokenizer, likely));
    content.push_back(
        chatLogprob(context.tokenizer, {each.token, each.logprobs.logprob}));
    content.back()["top_logprobs"] = std::move(top);
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

/// The likeliest, and the token that was chosen if it is none of them. Of
/// tokens with one text the likeliest is there.
static json completionTop(const ReplyContext &context,
                          const LikelyToken &chosen) {
  json top = json::object();
  auto add = [&](const TokenLogprob &each) {
    top.emplace(TokenText(context.tokenizer, each.token).text("bytes:"),
                each.logprob);
  };
  for (const TokenLogprob &likely : chosen.logprobs.likeliest)
    add(likely);
  add({chosen.token, chosen.logprobs.logprob});
  return top;
}

/// Lists with an entry a token each. Offsets count from the start of the
/// prompt.
static json completionLogprobs(const ReplyContext &context,
                               const std::vector<LikelyToken> &tokens) {
  json out = {{"tokens", json::array()},
              {"token_logprobs", json::array()},
              {"top_logprobs", json::array()},
              {"text_offset", json::array()}};
  for (const LikelyToken &each : tokens) {
    out["tokens"].push_back(
        TokenText(context.tokenizer, each.token).text("bytes:"));
    out["token_logprobs"].push_back(each.logprobs.logprob);
    out["top_logprobs"].push_back(completionTop(context, each));
    out["text_offset"].push_back(context.promptCharacters +
                                 each.place.characters);
  }
  return out;
}

//===----------------------------------------------------------------------===//
// Answers
//===----------------------------------------------------------------------===//

/// Null if they were not asked for, or a part of a stream has none.
static json logprobsOf(const CompletionRequest &request,
                       const ReplyContext &context, const ReplyPart &part) {
  bool isMissing = request.streams && part.logprobs.empty();
  if (!request.topLogprobs || isMissing)
    return nullptr;
  return request.api == Api::Chat ? chatLogprobs(context, part.logprobs)
                                  : completionLogprobs(context, part.logprobs);
}

/// What all parts of an answer start with.
static json startOf(const ReplyContext &context, const char *object,
                    int64_t created) {
  return {{"id", context.id},
          {"object", object},
          {"created", created},
          {"model", context.model}};
}

/// With `content` in the form of the API: {"text": ...} and the like.
static json choicesOf(const CompletionRequest &request,
                      const ReplyContext &context, const json &content,
                      const ReplyPart &part) {
  json choice = {{"index", 0}};
  choice.update(content);
  choice["logprobs"] = logprobsOf(request, context, part);
  choice["finish_reason"] = part.finish ? json(part.finish) : json();
  if (request.returnsTokenIds)
    choice["token_ids"] = part.tokens;
  return json::array({std::move(choice)});
}

std::string CompletionReply::whole(const ReplyPart &part,
                                   const Usage &usage) const {
  bool isChat = request.api == Api::Chat;
  json out =
      startOf(context, isChat ? "chat.completion" : "text_completion", created);
  json content =
      isChat
          ? json{{"message", {{"role", "assistant"}, {"content", part.text}}}}
          : json{{"text", part.text}};
  out["choices"] = choicesOf(request, context, content, part);
  out["usage"] = usageJson(usage);
  return dump(out) + "\n";
}

static const char *streamObject(Api api) {
  return api == Api::Chat ? "chat.completion.chunk" : "text_completion";
}

std::string CompletionReply::first() const {
  if (request.api != Api::Chat)
    return {};
  json out = startOf(context, streamObject(request.api), created);
  out["choices"] =
      choicesOf(request, context,
                {{"delta", {{"role", "assistant"}, {"content", ""}}}}, {});
  return event(dump(out));
}

std::string CompletionReply::next(const ReplyPart &part) const {
  json out = startOf(context, streamObject(request.api), created);
  json delta = json::object();
  if (!part.text.empty())
    delta["content"] = part.text;
  json content = request.api == Api::Chat ? json{{"delta", delta}}
                                          : json{{"text", part.text}};
  out["choices"] = choicesOf(request, context, content, part);
  return event(dump(out));
}

std::string CompletionReply::usage(const Usage &usage) const {
  json out = startOf(context, streamObject(request.api), created);
  out["choices"] = json::array();
  out["usage"] = usageJson(usage);
  return event(dump(out));
}

std::string CompletionReply::error(const ApiError &error) {
  std::string body = errorBody(error);
  body.pop_back(); // the newline
  return event(body);
}
