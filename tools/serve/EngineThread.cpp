//===- EngineThread.cpp - The thread that owns the engine -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "EngineThread.h"

#include <algorithm>
#include <chrono>
#include <utility>

using namespace kvrm;
using namespace kvrm::serve;

/// A step that failed is tried again, for an error may pass; after as many in a
/// row all requests fail.
static constexpr int32_t mostFailuresInRow = 3;
static constexpr std::chrono::milliseconds pauseAfterFailure(20);

//===----------------------------------------------------------------------===//
// For other threads
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<EngineThread>>
EngineThread::start(MakeDecoder makeDecoder, const EngineConfig &config,
                    Metrics &metrics) {
  std::unique_ptr<EngineThread> made(new EngineThread(config, metrics));
  std::promise<Status> started;
  std::future<Status> outcome = started.get_future();
  made->thread = std::thread(&EngineThread::run, made.get(),
                             std::move(makeDecoder), std::move(started));
  KVRM_TRY(outcome.get());
  return made;
}

void EngineThread::stop() {
  std::lock_guard lock(mutex);
  isStopping = true;
  wake.notify_one();
}

EngineThread::~EngineThread() {
  stop();
  thread.join();
}

Expected<std::shared_ptr<TokenStream>> EngineThread::submit(RequestSpec spec) {
  Expected<std::shared_ptr<TokenStream>> stream = TokenStream::create();
  KVRM_TRY(stream.status());
  std::lock_guard lock(mutex);
  if (isStopping) {
    (*stream)->end({StreamEnd::Stopped, {}, {}});
    return stream;
  }
  if (published.waiting >= config.queueLimit)
    return makeError(StatusCode::ResourceExhausted,
                     "queue full: ", published.waiting,
                     " requests wait, the limit is ", config.queueLimit);
  inbox.submissions.push_back({std::move(spec), *stream, clock.now()});
  ++published.waiting;
  wake.notify_one();
  return stream;
}

void EngineThread::cancel(std::shared_ptr<TokenStream> stream) {
  std::lock_guard lock(mutex);
  inbox.cancellations.push_back(std::move(stream));
  wake.notify_one();
}

EngineState EngineThread::state() const {
  std::lock_guard lock(mutex);
  return published;
}

//===----------------------------------------------------------------------===//
// The thread
//===----------------------------------------------------------------------===//

void EngineThread::run(const MakeDecoder &makeDecoder,
                       std::promise<Status> started) {
  Expected<std::unique_ptr<Decoder>> decoder = makeDecoder();
  if (!decoder)
    return started.set_value(decoder.status());
  Expected<std::unique_ptr<Engine>> made =
      Engine::create(**decoder, clock, config, this);
  if (!made)
    return started.set_value(made.status());
  Engine &engine = **made;
  decoderShape = (*decoder)->shape();
  publish(**decoder, engine);
  started.set_value(Status::ok());

  Inbox taken;
  while (takeInbox(engine, taken)) {
    for (Submission &submission : taken.submissions)
      submitTo(engine, submission);
    for (const std::shared_ptr<TokenStream> &stream : taken.cancellations)
      cancelIn(engine, stream.get());
    if (!engine.isIdle())
      round(engine);
    publish(**decoder, engine);
  }
  for (const Submission &submission : taken.submissions)
    submission.stream->end({StreamEnd::Stopped, {}, {}});
  while (!live.empty())
    endStream(engine, live.begin()->first, {StreamEnd::Stopped, {}, {}});
}

/// Waits for something to do. False when the thread is to end.
bool EngineThread::takeInbox(const Engine &engine, Inbox &taken) {
  taken = Inbox();
  std::unique_lock lock(mutex);
  wake.wait(lock,
            [&] { return isStopping || !inbox.isEmpty() || !engine.isIdle(); });
  std::swap(taken, inbox);
  return !isStopping;
}

void EngineThread::submitTo(Engine &engine, Submission &submission) {
  Expected<RequestId> id = engine.submit(std::move(submission.spec));
  if (!id)
    return submission.stream->end(
        {StreamEnd::Refused, {}, id.status().message()});
  submission.stream->accept();
  live[*id] = {std::move(submission.stream), submission.arrival, -1};
}

/// Ends a request in the engine and its stream.
void EngineThread::endStream(Engine &engine, RequestId id, StreamEnd end) {
  live.at(id).stream->end(std::move(end));
  Status cancelled = engine.cancel(id);
  KVRM_CHECK(cancelled.isOk(), "a live request can be cancelled");
}

void EngineThread::cancelIn(Engine &engine, const TokenStream *stream) {
  auto at = std::ranges::find_if(live, [&](const auto &entry) {
    return entry.second.stream.get() == stream;
  });
  if (at != live.end())
    endStream(engine, at->first, {StreamEnd::Stopped, {}, {}});
}

void EngineThread::round(Engine &engine) {
  Status status = engine.step();
  if (status.isOk()) {
    failuresInRow = 0;
    return;
  }
  ++stepFailures;
  if (++failuresInRow % mostFailuresInRow != 0)
    return std::this_thread::sleep_for(pauseAfterFailure);
  while (!live.empty())
    endStream(engine, live.begin()->first,
              {StreamEnd::Failed, {}, status.message()});
}

void EngineThread::publish(const Decoder &decoder, const Engine &engine) {
  std::lock_guard lock(mutex);
  published.stats = engine.stats();
  published.waiting =
      engine.stats().waiting + static_cast<int32_t>(inbox.submissions.size());
  published.slots = decoder.slots();
  published.pages = decoder.poolPages();
  published.freePages = decoder.freePages();
  published.stepFailures = stepFailures;
  published.isFailing = failuresInRow > 0;
}

void EngineThread::onToken(RequestId id, int32_t token,
                           const TokenLogprobs *logprobs) {
  Live &request = live.at(id);
  int64_t now = clock.now();
  if (request.lastToken < 0)
    metrics.observeFirstToken(now - request.arrival);
  else
    metrics.observeNextToken(now - request.lastToken);
  request.lastToken = now;
  request.stream->push(token, logprobs);
}

void EngineThread::onFinish(RequestResult &result) {
  auto at = live.find(result.id);
  StreamEnd end{StreamEnd::Finished, result.finish, {}};
  if (result.finish == FinishReason::Failed)
    end = {StreamEnd::Failed, {}, result.error};
  // One that was cancelled has its end already.
  at->second.stream->end(std::move(end));
  live.erase(at);
}
