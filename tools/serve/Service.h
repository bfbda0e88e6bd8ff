//===- Service.h - The endpoints --------------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_SERVICE_H
#define KVRM_TOOLS_SERVE_SERVICE_H

#include "CompletionReply.h"
#include "CompletionRequest.h"
#include "EngineThread.h"
#include "HttpServer.h"
#include "Metrics.h"

#include "kvrm/text/Tokenizer.h"

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvrm::serve {

/// What is served.
struct Served {
  std::string model;                    ///< the name that clients know
  const Tokenizer *tokenizer = nullptr; ///< null = prompts are token ids
  std::vector<int32_t> stopTokens;
  int32_t maxTokens = 0; ///< most of an answer; 0 = what a slot has room for
};

/// Answers the requests that docs/serving.md lists.
class Service final : public HttpHandler {
public:
  /// All outlive it.
  Service(const Served &served, EngineThread &engine, Metrics &metrics);

  void handle(const HttpRequest &request, HttpConnection &connection) override;
  HttpResponse refuse(int status, const std::string &why) override;
  void onConnections(int32_t count) override { connections = count; }

  /// From now on requests for completions are refused.
  void drain() { isDraining = true; }

private:
  HttpResponse answer(const HttpRequest &request);
  HttpResponse health() const;
  HttpResponse models() const;
  void complete(Api api, const HttpRequest &request,
                HttpConnection &connection);
  std::optional<ApiError> accepts(const HttpRequest &request) const;
  std::optional<ApiError> makeSpec(const CompletionRequest &request,
                                   RequestSpec &spec) const;
  size_t promptCharacters(const CompletionRequest &request) const;
  std::optional<ApiError> setPrompt(const CompletionRequest &request,
                                    RequestSpec &spec) const;
  std::optional<ApiError> setMaxTokens(const CompletionRequest &request,
                                       RequestSpec &spec) const;
  Expected<std::vector<int32_t>> encode(const CompletionRequest &request) const;
  int64_t roomFor(size_t promptTokens) const;
  void refuseCompletion(const ApiError &error, HttpConnection &connection);

  const Served &served;
  size_t mostTextBytes = 0; ///< more are more tokens than a slot has room for
  EngineThread &engine;
  Metrics &metrics;
  std::atomic<int32_t> connections = 0;
  std::atomic<bool> isDraining = false;
  std::atomic<int64_t> nextId = 0;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_SERVICE_H
