//===- TokenStream.h - A request's tokens between threads -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The engine's thread writes, one other thread reads, each at its own pace. A
// stream holds the tokens of one request at most, which a slot has room for:
// the writer never waits, and a reader that is slow holds no slot and no page.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_TOKENSTREAM_H
#define KVRM_TOOLS_SERVE_TOKENSTREAM_H

#include "Event.h"

#include "kvrm/runtime/serving/Engine.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace kvrm::serve {

/// How a request ended.
struct StreamEnd {
  enum Kind {
    Finished, ///< by the engine, for `reason`
    Refused,  ///< it can never run
    Failed,   ///< the engine could not
    Stopped,  ///< the server is going, or the reader said cancel()
  };
  Kind kind = Finished;
  FinishReason reason = FinishReason::Stop;
  std::string message; ///< of Refused and Failed, one line
};

class TokenStream {
public:
  /// Errors: those of Event::create().
  static Expected<std::shared_ptr<TokenStream>> create();

  /// Says that the request will run. Readers see it before the first token.
  void accept();
  /// `logprobs` is null unless the request asked for them.
  void push(int32_t token, const TokenLogprobs *logprobs = nullptr);
  /// The last thing that a reader sees. A second end is not taken.
  void end(StreamEnd end);

  struct Batch {
    bool isAccepted = false; ///< by now
    std::vector<int32_t> tokens;
    std::vector<TokenLogprobs> logprobs; ///< of each, if asked for
    std::optional<StreamEnd> end;        ///< after these tokens
  };
  /// What has come since the last call.
  Batch take();
  /// Readable when take() has something new.
  int event() const { return ready.get(); }

private:
  explicit TokenStream(Event ready) : ready(std::move(ready)) {}

  std::mutex mutex;
  Batch waiting;
  bool hasEnded = false;
  Event ready;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_TOKENSTREAM_H
