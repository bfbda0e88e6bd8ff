//===- CompletionReply.h - What a client is answered ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_COMPLETIONREPLY_H
#define KVRM_TOOLS_SERVE_COMPLETIONREPLY_H

#include "CompletionRequest.h"
#include "TextStream.h"

#include "kvrm/runtime/serving/LogSoftmax.h"
#include "kvrm/text/Tokenizer.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::serve {

/// Tokens of a request.
struct Usage {
  int32_t prompt = 0;
  int32_t completion = 0;
};

/// A token of an answer, and how likely it was.
struct LikelyToken {
  int32_t token = -1;
  TokenLogprobs logprobs;
  TextPosition place; ///< of its text in the answer
};

/// A piece of an answer, or all of it.
struct ReplyPart {
  std::string text;
  std::vector<int32_t> tokens;       ///< said only if they were asked for
  std::vector<LikelyToken> logprobs; ///< if they were asked for
  const char *finish = nullptr; ///< "stop" or "length" in the last; else null
};

/// Who answers, and to what.
struct ReplyContext {
  std::string id;
  std::string model;
  const Tokenizer *tokenizer = nullptr; ///< null: tokens have no text
  size_t promptCharacters = 0;
};

/// Writes JSON in the forms of OpenAI's API.
class CompletionReply {
public:
  /// `request` and the tokenizer outlive it.
  CompletionReply(const CompletionRequest &request, ReplyContext context);

  /// The body of an answer that is not streamed.
  std::string whole(const ReplyPart &part, const Usage &usage) const;

  // Of one that is, events of text/event-stream:
  std::string first() const; ///< empty where the form has none
  std::string next(const ReplyPart &part) const;
  std::string usage(const Usage &usage) const;
  static std::string error(const ApiError &error);
  /// Says nothing.
  static std::string comment() { return ":\n\n"; }
  static std::string done() { return "data: [DONE]\n\n"; }

private:
  const CompletionRequest &request;
  ReplyContext context;
  int64_t created; ///< seconds since 1970
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_COMPLETIONREPLY_H
