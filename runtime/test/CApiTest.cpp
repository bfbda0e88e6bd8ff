//===- CApiTest.cpp - What the C API refuses of its handles -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ToyPackage.h"
#include "kvrm/runtime/kvrm.h"

#include <array>
#include <filesystem>
#include <functional>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

/// A session over the toy decoder, and an engine that calls back `hook`.
class CApi : public testing::Test {
protected:
  void SetUp() override {
    folder = toy::makePackage({});
    ASSERT_EQ(kvrm_package_open(folder.c_str(), &package), KVRM_OK)
        << kvrm_last_error();
    kvrm_session_config config{};
    config.threads = 2;
    ASSERT_EQ(kvrm_session_create(package, &config, &session), KVRM_OK)
        << kvrm_last_error();
  }
  void TearDown() override {
    kvrm_engine_destroy(engine);
    kvrm_session_destroy(session);
    kvrm_package_close(package);
    std::filesystem::remove_all(folder);
  }

  void makeEngine() {
    kvrm_engine_config config{};
    config.context = this;
    config.on_token = [](void *context, int64_t, int32_t token) {
      auto *own = static_cast<CApi *>(context);
      own->tokens.push_back(token);
      if (own->hook)
        own->hook();
    };
    config.on_finish = [](void *context, const kvrm_result *) {
      auto *own = static_cast<CApi *>(context);
      ++own->ends;
      if (own->hook)
        own->hook();
    };
    config.on_logprobs = [](void *context, int64_t, const kvrm_logprob *some,
                            size_t count) {
      auto *own = static_cast<CApi *>(context);
      EXPECT_EQ(own->logprobs.size(), own->tokens.size()) << "they come before";
      own->logprobs.emplace_back(some, some + count);
    };
    config.now = [](void *context) {
      auto *own = static_cast<CApi *>(context);
      if (own->clockHook)
        own->clockHook();
      return ++own->time;
    };
    ASSERT_EQ(kvrm_engine_create(session, &config, &engine), KVRM_OK)
        << kvrm_last_error();
  }
  kvrm_status submit(kvrm_request request = {}) {
    request.prompt = prompt.data();
    request.prompt_count = prompt.size();
    request.max_tokens = 3;
    int64_t id = -1;
    return kvrm_engine_submit(engine, &request, &id);
  }
  /// Serves one request, with a bound on the rounds.
  void serve() {
    ASSERT_EQ(submit(), KVRM_OK) << kvrm_last_error();
    for (int round = 0; round < 100 && !kvrm_engine_is_idle(engine); ++round)
      ASSERT_EQ(kvrm_engine_step(engine), KVRM_OK) << kvrm_last_error();
  }
  /// Every call that would change a history of the session.
  std::vector<kvrm_status> changeSession() {
    std::array<int32_t, 4> next = {4, -1, -1, -1};
    std::vector<float> logits(4096);
    kvrm_engine *second = nullptr;
    return {kvrm_prefill(session, 1, prompt.data(), 3, nullptr),
            kvrm_decode(session, next.data(), logits.data()),
            kvrm_release(session, 0),
            kvrm_alias(session, 1, 0, 1),
            kvrm_trim(session, 0, 1),
            kvrm_engine_create(session, nullptr, &second)};
  }

  std::string folder;
  kvrm_package *package = nullptr;
  kvrm_session *session = nullptr;
  kvrm_engine *engine = nullptr;
  const std::array<int32_t, 5> prompt = {1, 2, 3, 4, 5};
  std::function<void()> hook;
  std::function<void()> clockHook;
  std::vector<int32_t> tokens;
  std::vector<std::vector<kvrm_logprob>> logprobs;
  int ends = 0;
  int64_t time = 0;
};

const std::vector<kvrm_status> allRefused(6, KVRM_INVALID_ARGUMENT);

} // namespace

TEST_F(CApi, ASessionIsItsEnginesAsLongAsThereIsOne) {
  makeEngine();
  serve();
  const std::vector<int32_t> alone = tokens;
  ASSERT_EQ(alone.size(), 3u);

  tokens.clear();
  ASSERT_EQ(submit(), KVRM_OK);
  while (!kvrm_engine_is_idle(engine)) {
    EXPECT_EQ(changeSession(), allRefused);
    EXPECT_STREQ(kvrm_last_error(),
                 "the session is its engine's, which keeps its histories until "
                 "kvrm_engine_destroy");
    ASSERT_EQ(kvrm_engine_step(engine), KVRM_OK) << kvrm_last_error();
  }
  EXPECT_EQ(tokens, alone);

  kvrm_engine_destroy(engine);
  engine = nullptr;
  EXPECT_EQ(kvrm_prefill(session, 0, prompt.data(), 3, nullptr), KVRM_OK);
}

TEST_F(CApi, ACallbackChangesNothing) {
  makeEngine();
  serve();
  const std::vector<int32_t> alone = tokens;
  tokens.clear();
  int calls = 0;
  hook = [&] {
    ++calls;
    EXPECT_EQ(changeSession(), allRefused);
    EXPECT_EQ(submit(), KVRM_INVALID_ARGUMENT);
    EXPECT_EQ(kvrm_engine_cancel(engine, 1), KVRM_INVALID_ARGUMENT);
    EXPECT_EQ(kvrm_engine_step(engine), KVRM_INVALID_ARGUMENT);
    EXPECT_STREQ(kvrm_last_error(), "the engine is in the middle of a call: a "
                                    "callback cannot change it");
    kvrm_engine_stats stats;
    EXPECT_EQ(kvrm_engine_get_stats(engine, &stats), KVRM_OK);
  };
  serve();
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(tokens, alone);
  // The clock is a callback, and submit() and cancel() call back too.
  clockHook = [&] {
    EXPECT_EQ(kvrm_engine_step(engine), KVRM_INVALID_ARGUMENT);
  };
  ASSERT_EQ(submit(), KVRM_OK);
  EXPECT_EQ(kvrm_engine_cancel(engine, 2), KVRM_OK);
  EXPECT_EQ(ends, 3);
}

TEST_F(CApi, AnEngineMayBeDestroyedByACallback) {
  makeEngine();
  hook = [this] { kvrm_engine_destroy(engine); };
  ASSERT_EQ(submit(), KVRM_OK);
  ASSERT_EQ(submit(), KVRM_OK);
  while (tokens.empty())
    ASSERT_EQ(kvrm_engine_step(engine), KVRM_OK);
  engine = nullptr;
  EXPECT_EQ(tokens.size(), 1u) << "it calls back no more";
  EXPECT_EQ(ends, 0);
  int32_t length = -1;
  EXPECT_EQ(kvrm_length(session, 0, &length), KVRM_OK);
  EXPECT_EQ(length, 0);
  EXPECT_EQ(kvrm_prefill(session, 0, prompt.data(), 3, nullptr), KVRM_OK);
}

TEST_F(CApi, AnEngineOutlivesTheHandleOfItsSession) {
  makeEngine();
  kvrm_session_destroy(session);
  session = nullptr;
  serve();
  EXPECT_EQ(tokens.size(), 3u);
}

// The threads of a session are not in a child: waiting for them never ends.
TEST_F(CApi, AChildOfForkIsRefused) {
  makeEngine();
  ASSERT_EQ(submit(), KVRM_OK);
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(20);
    bool isRefused = kvrm_engine_step(engine) == KVRM_INVALID_ARGUMENT &&
                     submit() == KVRM_INVALID_ARGUMENT &&
                     changeSession() == allRefused;
    kvrm_engine_destroy(engine);
    kvrm_session_destroy(session);
    kvrm_package_close(package);
    _exit(isRefused ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  while (!kvrm_engine_is_idle(engine))
    ASSERT_EQ(kvrm_engine_step(engine), KVRM_OK);
  EXPECT_EQ(tokens.size(), 3u);
}

TEST_F(CApi, LogprobsComeBeforeTheirToken) {
  makeEngine();
  kvrm_request asking{};
  asking.logprobs = 1;
  asking.top_logprobs = 4;
  ASSERT_EQ(submit(asking), KVRM_OK) << kvrm_last_error();
  while (!kvrm_engine_is_idle(engine))
    ASSERT_EQ(kvrm_engine_step(engine), KVRM_OK);
  ASSERT_EQ(tokens.size(), 3u);
  ASSERT_EQ(logprobs.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(logprobs[i].size(), 5u);
    EXPECT_EQ(logprobs[i][0].token, tokens[i]);
    EXPECT_EQ(logprobs[i][1].token, tokens[i]) << "greedy takes the likeliest";
    EXPECT_EQ(logprobs[i][0].logprob, logprobs[i][1].logprob);
    for (size_t next = 1; next < 5; ++next)
      EXPECT_LE(logprobs[i][next].logprob, logprobs[i][next - 1].logprob);
  }
}

TEST_F(CApi, LogprobsHaveALimit) {
  makeEngine();
  kvrm_request asking{};
  asking.top_logprobs = 4;
  EXPECT_EQ(submit(asking), KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "top_logprobs: 4 is there without logprobs");
  asking.logprobs = 1;
  asking.top_logprobs = 21;
  EXPECT_EQ(submit(asking), KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "top logprobs: 21 is outside 0..20");
}
