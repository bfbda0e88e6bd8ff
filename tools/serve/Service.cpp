//===- Service.cpp - The endpoints ----------------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Service.h"

#include "Completion.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>
#include <variant>

using namespace kvrm;
using namespace kvrm::serve;
using nlohmann::json;

static constexpr const char *page =
#include "Page.inc"
    ;

/// OpenAI's, of an answer that is no chat.
static constexpr int32_t defaultMaxTokens = 16;

static HttpResponse jsonResponse(int status, const json &body) {
  return {status,
          "application/json",
          body.dump(-1, ' ', false, json::error_handler_t::replace) + "\n",
          {}};
}

static HttpResponse errorResponse(const ApiError &error) {
  HttpResponse response{error.status, "application/json", errorBody(error), {}};
  if (error.status == 429 || error.status == 503)
    response.headers.emplace_back("Retry-After", "1");
  return response;
}

Service::Service(const Served &served, EngineThread &engine, Metrics &metrics)
    : served(served), engine(engine), metrics(metrics) {
  if (!served.tokenizer)
    return;
  size_t longest = 0;
  for (int32_t id = 0; id < served.tokenizer->size(); ++id)
    longest = std::max(longest, served.tokenizer->bytesOf(id).size());
  mostTextBytes = longest * static_cast<size_t>(engine.shape().capacity);
}

//===----------------------------------------------------------------------===//
// Endpoints
//===----------------------------------------------------------------------===//

HttpResponse Service::refuse(int status, const std::string &why) {
  metrics.countResponse(status);
  return errorResponse({status, why, "", nullptr});
}

void Service::handle(const HttpRequest &request, HttpConnection &connection) {
  bool isPost = request.method == "POST";
  if (isPost && request.path == "/v1/completions")
    complete(Api::Completions, request, connection);
  else if (isPost && request.path == "/v1/chat/completions")
    complete(Api::Chat, request, connection);
  else
    connection.send(answer(request));
  if (connection.lastStatus() != 0)
    metrics.countResponse(connection.lastStatus());
}

/// "%2F" in a path is the slash of a name.
static std::string decoded(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    uint8_t byte = 0;
    const char *digits = path.data() + i + 1;
    if (path[i] == '%' && path.size() - i > 2 &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(path[i]);
    }
  }
  return out;
}

HttpResponse Service::answer(const HttpRequest &request) {
  std::string path = decoded(request.path);
  bool isCompletion =
      path == "/v1/completions" || path == "/v1/chat/completions";
  if (!isCompletion && path != "/" && path != "/health" && path != "/metrics" &&
      path != "/v1/models" && path != "/v1/models/" + served.model)
    return errorResponse({404, "there is no such page", "", nullptr});
  if (isCompletion || (request.method != "GET" && request.method != "HEAD")) {
    HttpResponse response =
        errorResponse({405, "the method is not one of this page", "", nullptr});
    response.headers.emplace_back("Allow", isCompletion ? "POST" : "GET, HEAD");
    return response;
  }
  if (path == "/health")
    return health();
  if (path == "/metrics")
    return {200,
            "text/plain; version=0.0.4",
            metrics.text(engine.state(), connections),
            {}};
  if (path == "/")
    return {200,
            "text/html; charset=utf-8",
            page,
            {{"Content-Security-Policy",
              "default-src 'none'; script-src 'unsafe-inline'; "
              "style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
              "frame-ancestors 'none'"}}};
  json model = {{"id", served.model},
                {"object", "model"},
                {"created", 0},
                {"owned_by", "kvrm"}};
  if (path != "/v1/models")
    return jsonResponse(200, model);
  return jsonResponse(200,
                      {{"object", "list"}, {"data", json::array({model})}});
}

HttpResponse Service::health() const {
  if (isDraining)
    return jsonResponse(503, {{"status", "draining"}});
  if (engine.state().isFailing)
    return jsonResponse(503, {{"status", "failing"}});
  return jsonResponse(200, {{"status", "ok"}});
}

//===----------------------------------------------------------------------===//
// Completions
//===----------------------------------------------------------------------===//

static Outcome outcomeOf(const ApiError &error) {
  return error.status == 429   ? Outcome::QueueFull
         : error.status == 503 ? Outcome::Draining
         : error.status >= 500 ? Outcome::Failed
                               : Outcome::Invalid;
}

void Service::refuseCompletion(const ApiError &error,
                               HttpConnection &connection) {
  metrics.countOutcome(outcomeOf(error));
  connection.send(errorResponse(error));
}

void Service::complete(Api api, const HttpRequest &http,
                       HttpConnection &connection) {
  CompletionRequest request;
  RequestSpec spec;
  std::optional<ApiError> error = accepts(http);
  if (!error)
    error = parseCompletionRequest(api, http.body, request);
  if (!error)
    error = makeSpec(request, spec);
  if (error)
    return refuseCompletion(*error, connection);

  auto promptTokens = static_cast<int32_t>(spec.prompt.size());
  Expected<std::shared_ptr<TokenStream>> stream =
      engine.submit(std::move(spec));
  if (!stream)
    return refuseCompletion({429, stream.status().message(), "", "queue_full"},
                            connection);
  std::string id =
      (api == Api::Chat ? "chatcmpl-" : "cmpl-") + std::to_string(nextId++);
  CompletionReply reply(request, {std::move(id), served.model, served.tokenizer,
                                  promptCharacters(request)});
  Completion completion(request, std::move(reply), served.tokenizer,
                        promptTokens, stream.take(), engine, connection);
  std::variant<Outcome, ApiError> result = completion.run();
  if (const auto *failed = std::get_if<ApiError>(&result))
    return refuseCompletion(*failed, connection);
  metrics.countOutcome(std::get<Outcome>(result));
}

/// What is looked at before the body is.
std::optional<ApiError> Service::accepts(const HttpRequest &request) const {
  if (isDraining)
    return ApiError{503, "the server is draining", "", "draining"};
  // Nor may another site's page send it without asking.
  if (request.contentType != "application/json")
    return ApiError{415, "Content-Type is not application/json", "", nullptr};
  if (request.isEncoded)
    return ApiError{415, "Content-Encoding is not supported", "", nullptr};
  return std::nullopt;
}

std::optional<ApiError> Service::makeSpec(const CompletionRequest &request,
                                          RequestSpec &spec) const {
  if (!request.model.empty() && request.model != served.model)
    return ApiError{404, "model: this server has " + served.model + " alone",
                    "model", "model_not_found"};
  if (std::optional<ApiError> error = setPrompt(request, spec))
    return error;
  if (std::optional<ApiError> error = setMaxTokens(request, spec))
    return error;
  spec.topLogprobs = request.topLogprobs;
  spec.sampling = request.sampling;
  spec.sampling.seed = request.seed ? *request.seed
                                    : uint64_t(std::random_device()()) << 32 |
                                          std::random_device()();
  if (!request.ignoresEos)
    spec.stopTokens = served.stopTokens;
  return std::nullopt;
}

/// The tokens of a text. A text that can never fit is not looked at: it takes
/// memory and time by its length.
Expected<std::vector<int32_t>>
Service::encode(const CompletionRequest &request) const {
  if (!served.tokenizer)
    return invalidArgument("the package has no tokenizer; it takes token ids "
                           "as prompt of /v1/completions");
  size_t bytes = request.prompt.size();
  for (const ChatMessage &message : request.messages)
    bytes += message.content.size();
  if (bytes > mostTextBytes)
    return makeError(StatusCode::ResourceExhausted, bytes,
                     " bytes exceed the capacity ", engine.shape().capacity);
  return request.api == Api::Chat
             ? encodeChat(*served.tokenizer, request.messages)
             : encodePrompt(*served.tokenizer, request.prompt);
}

/// Of the prompt of a completion: offsets of its tokens count from there.
size_t Service::promptCharacters(const CompletionRequest &request) const {
  if (!request.topLogprobs || request.api == Api::Chat)
    return 0;
  if (!request.promptIds)
    return countCharacters(request.prompt);
  return served.tokenizer
             ? countCharacters(served.tokenizer->decode(*request.promptIds))
             : 0;
}

std::optional<ApiError> Service::setPrompt(const CompletionRequest &request,
                                           RequestSpec &spec) const {
  int32_t capacity = engine.shape().capacity;
  Expected<std::vector<int32_t>> ids =
      request.promptIds ? *request.promptIds : encode(request);
  if (ids && ids->size() > static_cast<size_t>(capacity))
    ids = makeError(StatusCode::ResourceExhausted, ids->size(),
                    " tokens exceed the capacity ", capacity);
  if (ids) {
    spec.prompt = ids.take();
    return std::nullopt;
  }
  Status status = ids.status();
  const char *param = request.api == Api::Chat ? "messages" : "prompt";
  bool isTooLong = status.code() == StatusCode::ResourceExhausted;
  return ApiError{400, std::string(param) + ": " + status.message(), param,
                  isTooLong ? "context_length_exceeded" : "unsupported_value"};
}

/// Tokens that a slot and the pool have room for behind a prompt.
int64_t Service::roomFor(size_t promptTokens) const {
  const DecoderShape &shape = engine.shape();
  int64_t room = shape.capacity;
  bool isBounded = shape.window > 0 && shape.historyPages <= shape.poolPages;
  if (shape.pageTokens > 0 && !isBounded)
    room = std::min(room, int64_t(shape.poolPages) * shape.pageTokens);
  // The last one is not appended.
  return std::max<int64_t>(room - static_cast<int64_t>(promptTokens) + 1, 1);
}

std::optional<ApiError> Service::setMaxTokens(const CompletionRequest &request,
                                              RequestSpec &spec) const {
  int64_t room = roomFor(spec.prompt.size());
  int64_t most = served.maxTokens > 0 ? served.maxTokens : INT32_MAX;
  if (request.maxTokens && *request.maxTokens > most)
    return ApiError{400,
                    "max_tokens: " + std::to_string(*request.maxTokens) +
                        " is more than this server's " + std::to_string(most),
                    "max_tokens", "invalid_value"};
  int64_t wanted = request.maxTokens          ? *request.maxTokens
                   : request.api == Api::Chat ? room
                                              : defaultMaxTokens;
  spec.maxTokens = static_cast<int32_t>(std::min({wanted, room, most}));
  return std::nullopt;
}
