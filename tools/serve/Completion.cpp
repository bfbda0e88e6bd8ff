//===- Completion.cpp - A request while it is answered --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Completion.h"

#include <utility>

using namespace kvrm;
using namespace kvrm::serve;

Completion::Completion(const CompletionRequest &request, CompletionReply reply,
                       const Tokenizer *tokenizer, int32_t promptTokens,
                       std::shared_ptr<TokenStream> stream,
                       EngineThread &engine, HttpConnection &connection)
    : request(request), reply(std::move(reply)), text(tokenizer, request.stops),
      usage{promptTokens, 0}, stream(std::move(stream)), engine(engine),
      connection(connection) {}

Completion::~Completion() {
  if (!hasEnded)
    engine.cancel(std::move(stream));
}

std::variant<Outcome, ApiError> Completion::run() {
  ReplyPart part;
  std::optional<Outcome> outcome;
  while (!outcome) {
    HttpConnection::Wait wait = connection.waitFor(stream->event());
    if (wait == HttpConnection::Wait::HalfClosed && isThere())
      continue;
    if (wait != HttpConnection::Wait::Ready)
      return Outcome::ClientGone;
    outcome = add(stream->take(), part);
    if (error && !isWriting)
      return *error;
    if (!request.streams)
      continue;
    if (!writePart(std::exchange(part, {})))
      return lost();
  }
  bool isWritten =
      request.streams
          ? writeEnd()
          : connection.send(
                {200, "application/json", reply.whole(part, usage), {}});
  return isWritten ? *outcome : lost();
}

/// Of a client that will say no more. One that has gone takes this and tells
/// with a reset: the next wait ends by that.
bool Completion::isThere() {
  return isWriting ? connection.write(CompletionReply::comment())
                   : connection.sendInterim();
}

/// Of a client that does not take its answer.
Outcome Completion::lost() const {
  return connection.wasTooSlow() ? Outcome::SlowReader : Outcome::ClientGone;
}

/// Adds what has come from the engine to `part`. Returns how the request has
/// ended, once it has.
std::optional<Outcome> Completion::add(TokenStream::Batch batch,
                                       ReplyPart &part) {
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    int32_t token = batch.tokens[i];
    ++usage.completion;
    part.tokens.push_back(token);
    if (request.topLogprobs)
      heldLogprobs.push_back(
          {token, std::move(batch.logprobs[i]), text.placeOf(token)});
    part.text += text.push(token);
    showLogprobs(part);
    if (text.isStopped()) {
      part.finish = "stop";
      return Outcome::Stop;
    }
  }
  if (!batch.end)
    return std::nullopt;
  hasEnded = true;
  return endOf(*batch.end, part);
}

/// Moves to `part` what is held of tokens whose text is a part of the answer.
void Completion::showLogprobs(ReplyPart &part) {
  while (!heldLogprobs.empty() && text.isShown(heldLogprobs.front().place)) {
    part.logprobs.push_back(std::move(heldLogprobs.front()));
    heldLogprobs.pop_front();
  }
}

Outcome Completion::endOf(const StreamEnd &end, ReplyPart &part) {
  switch (end.kind) {
  case StreamEnd::Finished:
    part.text += text.finish();
    showLogprobs(part);
    part.finish = end.reason == FinishReason::Stop ? "stop" : "length";
    return end.reason == FinishReason::Stop ? Outcome::Stop : Outcome::Length;
  case StreamEnd::Refused:
    error = ApiError{400, end.message, "", "invalid_value"};
    return Outcome::Invalid;
  case StreamEnd::Failed:
    error = ApiError{500, end.message, "", nullptr};
    return Outcome::Failed;
  case StreamEnd::Stopped:
    break;
  }
  error = ApiError{503, "the server is stopping", "", "stopping"};
  return Outcome::Draining;
}

bool Completion::writePart(const ReplyPart &part) {
  std::string out;
  if (!isWriting) {
    isWriting = true;
    if (!connection.startStream("text/event-stream"))
      return false;
    out = reply.first();
  }
  if (!part.text.empty() || !part.tokens.empty() || part.finish)
    out += reply.next(part);
  return out.empty() || connection.write(out);
}

bool Completion::writeEnd() {
  if (error) {
    connection.closeAfterAnswer();
    return connection.write(reply.error(*error)) && connection.endStream();
  }
  std::string out = request.includesUsage ? reply.usage(usage) : "";
  return connection.write(out + CompletionReply::done()) &&
         connection.endStream();
}
