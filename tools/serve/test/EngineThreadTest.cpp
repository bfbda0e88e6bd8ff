//===- EngineThreadTest.cpp - Tests of the engine's thread ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PacedDecoder.h"

#include <gtest/gtest.h>
#include <poll.h>

using namespace kvrm;
using namespace kvrm::serve;

namespace {

class EngineThreadTest : public testing::Test {
protected:
  void start(const EngineConfig &config = {}) {
    Expected<std::unique_ptr<EngineThread>> started =
        EngineThread::start(pace.maker(), config, metrics);
    ASSERT_TRUE(started) << started.status().message();
    engine = started.take();
  }

  static RequestSpec spec(std::vector<int32_t> prompt, int32_t most) {
    RequestSpec made;
    made.prompt = std::move(prompt);
    made.maxTokens = most;
    return made;
  }

  std::shared_ptr<TokenStream> submit(RequestSpec made) {
    Expected<std::shared_ptr<TokenStream>> stream =
        engine->submit(std::move(made));
    EXPECT_TRUE(stream) << stream.status().message();
    return stream.take();
  }

  /// All that a stream gives until it ends.
  static TokenStream::Batch readAll(TokenStream &stream) {
    TokenStream::Batch all;
    while (!all.end) {
      pollfd wait = {stream.event(), POLLIN, 0};
      EXPECT_EQ(::poll(&wait, 1, 10000), 1);
      TokenStream::Batch batch = stream.take();
      all.isAccepted |= batch.isAccepted;
      all.tokens.insert(all.tokens.end(), batch.tokens.begin(),
                        batch.tokens.end());
      all.end = std::move(batch.end);
    }
    return all;
  }

  bool comesToRest() {
    return comes([&] {
      EngineState state = engine->state();
      return state.waiting == 0 && state.stats.running == 0 &&
             state.freePages == state.pages;
    });
  }

  Pace pace;
  Metrics metrics;
  std::unique_ptr<EngineThread> engine;
};

} // namespace

TEST_F(EngineThreadTest, ManyThreadsGetTheTokensThatTheyWouldAlone) {
  start();
  std::vector<std::thread> clients;
  for (int32_t client = 0; client < 12; ++client)
    clients.emplace_back([&, client] {
      for (int32_t i = 0; i < 20; ++i) {
        const std::vector<int32_t> prompt = {client, i, client * i % 50};
        int32_t most = 1 + (client + i) % 7;
        TokenStream::Batch all = readAll(*submit(spec(prompt, most)));
        EXPECT_TRUE(all.isAccepted);
        EXPECT_EQ(all.tokens, Pace::follow(prompt, most));
        EXPECT_EQ(all.end->reason, FinishReason::MaxTokens);
      }
    });
  for (std::thread &client : clients)
    client.join();
  EXPECT_TRUE(comesToRest());
}

TEST_F(EngineThreadTest, AFullQueueRefusesAtOnce) {
  EngineConfig config;
  config.queueLimit = 2;
  start(config);
  pace.stepMicroseconds = 50000;
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int32_t i = 0; i < 4; ++i) { // one by one, so that each starts
    streams.push_back(submit(spec({1}, 3000)));
    ASSERT_TRUE(comes([&] { return engine->state().waiting == 0; }));
  }
  streams.push_back(submit(spec({1}, 3000)));
  streams.push_back(submit(spec({1}, 3000)));
  Status refused = engine->submit(spec({1}, 1)).status();
  EXPECT_EQ(refused.code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(refused.message(), "queue full: 2 requests wait, the limit is 2");
  for (const auto &stream : streams)
    engine->cancel(stream);
  for (const auto &stream : streams)
    EXPECT_EQ(readAll(*stream).end->kind, StreamEnd::Stopped);
  EXPECT_TRUE(comesToRest());
}

TEST_F(EngineThreadTest, WhatCanNeverRunIsRefusedWithTheReason) {
  start();
  TokenStream::Batch all = readAll(*submit(spec({50}, 1)));
  EXPECT_FALSE(all.isAccepted);
  EXPECT_EQ(all.end->kind, StreamEnd::Refused);
  EXPECT_EQ(all.end->message, "token 50 is outside 0..49");
}

TEST_F(EngineThreadTest, ACancelledRequestFreesItsPages) {
  start();
  pace.stepMicroseconds = 1000;
  std::shared_ptr<TokenStream> stream = submit(spec({1, 2}, 3000));
  ASSERT_TRUE(comes([&] { return engine->state().stats.running == 1; }));
  engine->cancel(stream);
  engine->cancel(stream); // a second time is none
  EXPECT_TRUE(comesToRest());
  EXPECT_EQ(readAll(*stream).end->kind, StreamEnd::Stopped);
}

TEST_F(EngineThreadTest, AStepMayFailForAWhile) {
  start();
  pace.fails = true;
  std::shared_ptr<TokenStream> stream = submit(spec({1, 2}, 4));
  ASSERT_TRUE(comes([&] { return engine->state().isFailing; }));
  pace.fails = false;
  TokenStream::Batch all = readAll(*stream);
  EXPECT_EQ(all.end->kind, StreamEnd::Finished);
  EXPECT_EQ(all.tokens, Pace::follow({1, 2}, 4));
  EXPECT_TRUE(comes([&] { return !engine->state().isFailing; }));
}

TEST_F(EngineThreadTest, AStepThatGoesOnFailingFailsTheRequests) {
  start();
  pace.fails = true;
  TokenStream::Batch all = readAll(*submit(spec({1, 2}, 4)));
  EXPECT_EQ(all.end->kind, StreamEnd::Failed);
  EXPECT_EQ(all.end->message, "the step failed");
  EXPECT_TRUE(engine->state().isFailing);
  pace.fails = false;
  EXPECT_EQ(readAll(*submit(spec({1, 2}, 4))).tokens, Pace::follow({1, 2}, 4));
}

TEST_F(EngineThreadTest, StoppingEndsAll) {
  start();
  pace.stepMicroseconds = 1000;
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int32_t i = 0; i < 8; ++i)
    streams.push_back(submit(spec({1, 2}, 3000)));
  engine->stop();
  for (const auto &stream : streams)
    EXPECT_EQ(readAll(*stream).end->kind, StreamEnd::Stopped);
  EXPECT_EQ(readAll(*submit(spec({1}, 1))).end->kind, StreamEnd::Stopped);
  engine.reset();
}

TEST_F(EngineThreadTest, AnEngineThatCannotBeIsAnError) {
  EngineConfig config;
  config.queueLimit = 0;
  Status status = EngineThread::start(pace.maker(), config, metrics).status();
  EXPECT_EQ(status.message(), "queue limit: 0 is outside 1..65536");
  auto fails = []() -> Expected<std::unique_ptr<Decoder>> {
    return makeError(StatusCode::NotFound, "no such device");
  };
  status = EngineThread::start(fails, {}, metrics).status();
  EXPECT_EQ(status.message(), "no such device");
}
