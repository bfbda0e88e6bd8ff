//===- Completion.h - A request while it is answered ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One request for a completion from the engine to the client: tokens become
// text, text becomes an answer, whole or in pieces.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_COMPLETION_H
#define KVRM_TOOLS_SERVE_COMPLETION_H

#include "CompletionReply.h"
#include "CompletionRequest.h"
#include "EngineThread.h"
#include "HttpConnection.h"
#include "TextStream.h"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <variant>

namespace kvrm::serve {

class Completion {
public:
  /// All but `reply` outlive it. `stream` is that of the request in `engine`.
  Completion(const CompletionRequest &request, CompletionReply reply,
             const Tokenizer *tokenizer, int32_t promptTokens,
             std::shared_ptr<TokenStream> stream, EngineThread &engine,
             HttpConnection &connection);
  /// Cancels what still runs.
  ~Completion();
  Completion(const Completion &) = delete;
  Completion &operator=(const Completion &) = delete;

  /// Answers, and says how the request ended; an error is for the caller to
  /// send: nothing has been written then.
  std::variant<Outcome, ApiError> run();

private:
  std::optional<Outcome> add(TokenStream::Batch batch, ReplyPart &part);
  void showLogprobs(ReplyPart &part);
  Outcome endOf(const StreamEnd &end, ReplyPart &part);
  bool isThere();
  Outcome lost() const;
  bool writePart(const ReplyPart &part);
  bool writeEnd();

  const CompletionRequest &request;
  CompletionReply reply;
  TextStream text;
  std::deque<LikelyToken> heldLogprobs; ///< whose text may yet be cut away
  Usage usage;
  std::shared_ptr<TokenStream> stream;
  EngineThread &engine;
  HttpConnection &connection;
  bool hasEnded = false;  ///< in the engine
  bool isWriting = false; ///< a stream to the client has started
  std::optional<ApiError> error;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_COMPLETION_H
