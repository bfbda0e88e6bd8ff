//===- CompletionRequest.h - What a client asks for -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The body of POST /v1/completions and /v1/chat/completions. Every field is
// read, known to change nothing, or refused by its name: a client never gets
// another answer than the one it asked for. See docs/serving.md.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_COMPLETIONREQUEST_H
#define KVRM_TOOLS_SERVE_COMPLETIONREQUEST_H

#include "ApiError.h"

#include "kvrm/runtime/serving/Sampler.h"
#include "kvrm/text/Chat.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::serve {

enum class Api { Completions, Chat };

// Limits of a body, besides its length.
constexpr int32_t maxJsonDepth = 32;
constexpr size_t maxMessages = 4096;
constexpr size_t maxStops = 4;
constexpr size_t maxStopBytes = 1024;
constexpr int32_t maxCompletionLogprobs = 5; ///< a chat's: mostTopLogprobs

struct CompletionRequest {
  Api api = Api::Completions;
  std::string model;  ///< empty = whichever is served
  std::string prompt; ///< of Api::Completions, unless `promptIds` has it
  std::optional<std::vector<int32_t>> promptIds;
  std::vector<ChatMessage> messages; ///< of Api::Chat
  std::optional<int32_t> maxTokens;
  SamplingSettings sampling; ///< the seed is `seed` or anything
  std::optional<uint64_t> seed;
  std::vector<std::string> stops;
  /// Set: log probabilities are wanted, and those of so many of the likeliest.
  std::optional<int32_t> topLogprobs;
  bool streams = false;
  bool includesUsage = false; ///< as the last part of a stream
  bool ignoresEos = false;
  bool returnsTokenIds = false;
};

/// Reads a body. Returns why it is refused, or nothing and the request in
/// `out`.
std::optional<ApiError> parseCompletionRequest(Api api, std::string_view body,
                                               CompletionRequest &out);

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_COMPLETIONREQUEST_H
