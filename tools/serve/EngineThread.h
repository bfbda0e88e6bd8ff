//===- EngineThread.h - The thread that owns the engine ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One thread makes the decoder, owns it and the engine, and does nothing but
// rounds. Other threads hand it requests and cancellations, which it takes
// between two rounds, and get a TokenStream each.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_ENGINETHREAD_H
#define KVRM_TOOLS_SERVE_ENGINETHREAD_H

#include "Metrics.h"
#include "TokenStream.h"

#include "kvrm/runtime/serving/Engine.h"

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace kvrm::serve {

class EngineThread final : private EngineObserver {
public:
  /// Called on the engine's thread: a GPU's context is a thread's.
  using MakeDecoder = std::function<Expected<std::unique_ptr<Decoder>>()>;

  /// Starts the thread, and waits until it has its decoder and engine.
  /// `metrics` outlives it. Errors: those of both.
  static Expected<std::unique_ptr<EngineThread>>
  start(MakeDecoder makeDecoder, const EngineConfig &config, Metrics &metrics);
  /// As stop(), and waits for it.
  ~EngineThread() override;
  EngineThread(const EngineThread &) = delete;
  EngineThread &operator=(const EngineThread &) = delete;

  /// Hands over a request. Its stream says whether it is accepted, or that the
  /// engine has stopped. Errors: ResourceExhausted when the queue is full, at
  /// once.
  Expected<std::shared_ptr<TokenStream>> submit(RequestSpec spec);

  /// Ends the request of a stream, if it has not ended, before the next round:
  /// its slot and pages are free then.
  void cancel(std::shared_ptr<TokenStream> stream);

  /// Ends every request, and takes no more.
  void stop();

  const DecoderShape &shape() const { return decoderShape; }
  EngineState state() const;

private:
  struct Submission {
    RequestSpec spec;
    std::shared_ptr<TokenStream> stream;
    int64_t arrival = 0;
  };
  /// What other threads have left; bounded by the queue's limit and by the
  /// streams that there are.
  struct Inbox {
    std::vector<Submission> submissions;
    std::vector<std::shared_ptr<TokenStream>> cancellations;
    bool isEmpty() const {
      return submissions.empty() && cancellations.empty();
    }
  };
  /// A request in the engine.
  struct Live {
    std::shared_ptr<TokenStream> stream;
    int64_t arrival = 0;
    int64_t lastToken = -1; ///< when
  };

  EngineThread(const EngineConfig &config, Metrics &metrics)
      : config(config), metrics(metrics) {}

  void run(const MakeDecoder &makeDecoder, std::promise<Status> started);
  bool takeInbox(const Engine &engine, Inbox &taken);
  void submitTo(Engine &engine, Submission &submission);
  void endStream(Engine &engine, RequestId id, StreamEnd end);
  void cancelIn(Engine &engine, const TokenStream *stream);
  void round(Engine &engine);
  void publish(const Decoder &decoder, const Engine &engine);
  void onToken(RequestId id, int32_t token,
               const TokenLogprobs *logprobs) override;
  void onFinish(RequestResult &result) override;

  const EngineConfig config;
  Metrics &metrics;
  SteadyClock clock;
  DecoderShape decoderShape; ///< since start()

  mutable std::mutex mutex; ///< of what follows
  std::condition_variable wake;
  Inbox inbox;
  bool isStopping = false;
  EngineState published;

  // The engine thread's own.
  std::unordered_map<RequestId, Live> live;
  int32_t failuresInRow = 0;
  int64_t stepFailures = 0;

  std::thread thread;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_ENGINETHREAD_H
