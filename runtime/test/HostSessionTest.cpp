//===- HostSessionTest.cpp - Sessions on a CPU, and the C API -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "SessionPair.h"
#include "ToyPackage.h"
#include "kvrm/runtime/host/HostBackend.h"
#include "kvrm/runtime/kvrm.h"

#include <filesystem>
#include <map>

using namespace kvrm;
using namespace kvrm::test;

//===----------------------------------------------------------------------===//
// SessionPair.h
//===----------------------------------------------------------------------===//

const double test::tolerance = 5e-3;

std::vector<Case> test::allCases() {
  std::vector<Case> cases;
  for (const char *schedule : {"rows", "split", "workqueue"})
    for (const char *transport : {"native", "staged"})
      for (int threads : {1, 2, 3})
        cases.push_back(
            {"paged", schedule, transport, threads, threads == 3 ? 7 : 0});
  for (const char *transport : {"native", "staged"})
    for (int threads : {1, 3})
      cases.push_back({"paged", "workqueue", transport, threads, 0, true});
  cases.push_back({"static", "rows", "native", 1, 0});
  cases.push_back({"static", "rows", "native", 2, 0});
  return cases;
}

std::shared_ptr<const Package> test::packageOf(const Case &on) {
  struct Packages {
    std::map<std::string, std::string> paths;
    ~Packages() {
      for (auto &[key, path] : paths)
        std::filesystem::remove_all(path);
    }
  };
  static Packages made;
  std::string &path = made.paths[on.mode + on.schedule + on.transport +
                                 (on.mixes ? "mixed" : "")];
  if (path.empty())
    path = toy::makePackage({.mode = on.mode,
                             .schedule = on.schedule,
                             .transport = on.transport,
                             .splits = on.isPaged() ? 3 : 1,
                             .mixes = on.mixes});
  Expected<std::shared_ptr<const Package>> package = Package::load(path);
  EXPECT_TRUE(package) << package.status().message();
  return package.take();
}

SessionConfig test::configOf(const Case &on, SessionConfig config) {
  if (config.threads == 0)
    config.threads = on.threads;
  if (config.shares == 0)
    config.shares = on.shares;
  return config;
}

void test::poisonPool(Decoder &decoder) {
  auto *paged = dynamic_cast<Session *>(&decoder);
  if (!paged)
    return; // steps of the static baseline get its caches as they are
  auto &own = dynamic_cast<HostBackend &>(paged->backend());
  std::ranges::fill(own.kvPool(), 0xff);
}

void Machine::SetUp() {}
void Machine::TearDown() {}
void Machine::stopAllocating() {}

//===----------------------------------------------------------------------===//
// Sessions
//===----------------------------------------------------------------------===//

namespace {

class HostSession : public Machine {};

} // namespace

TEST_F(HostSession, CodeThatBreaksTheProtocolFailsTheStep) {
  Pair pair({.threads = 2});
  pair.prefill(0, {1, 2, 3});
  Decoder &session = *pair.session;
  auto decode = [&](int32_t token) {
    std::vector<int32_t> tokens = {token, 4, -1, -1};
    Status status = session.decode(tokens, pair.out.data());
    EXPECT_EQ(status.code(), StatusCode::Internal);
    return status.message();
  };
  EXPECT_EQ(decode(toy::tokenCommitsTwice),
            "compiled step: commit() twice in a step");
  EXPECT_EQ(decode(toy::tokenSkipsStage),
            "compiled step: attend() before stage()");
  EXPECT_EQ(decode(toy::tokenSkipsLayer),
            "compiled step: not one append() and one attend() a layer");
  std::vector<int32_t> prompt = {toy::tokenSkipsLayer, 1};
  EXPECT_EQ(session.prefill(0, prompt, nullptr).code(), StatusCode::Internal);
  pair.checkLengths();
  pair.decode({5, 6, -1, -1});
}

TEST_F(HostSession, StatsFollowTheStep) {
  Pair pair({.transport = "staged", .threads = 2});
  pair.prefill(0, std::vector<int32_t>(21, 1));
  EXPECT_EQ(pair.session->lastStep().steps, 3);
  pair.decode({1, -1, -1, -1});
  const StepStats &stats = pair.session->lastStep();
  EXPECT_EQ(stats.activeRows, 1);
  EXPECT_EQ(stats.pages, 6);
  EXPECT_EQ(stats.groups, 1) << "one prompt, one run of pages";
  EXPECT_EQ(stats.tiles, 3 * toy::kvHeads);
  // 3 tiles a head, K and V one run each, in two layers.
  EXPECT_EQ(stats.stageCopies, 3 * toy::kvHeads * 2 * toy::layers);
  EXPECT_EQ(stats.stageBytes, 6 * 128 * toy::kvHeads * 2 * toy::layers);
  EXPECT_EQ(stats.steps, 1);
  EXPECT_GT(stats.committedBytes, 0);
  int64_t page = 4 * 16 * 2 * 2 * toy::kvHeads * toy::layers;
  EXPECT_EQ(pair.session->liveKvBytes(), 6 * page);
  EXPECT_EQ(pair.session->reservedKvBytes(), 4 * 13 * page);
}

//===----------------------------------------------------------------------===//
// C API
//===----------------------------------------------------------------------===//

TEST(CApi, RunsAPackage) {
  kvrm_package *package = nullptr;
  ASSERT_EQ(kvrm_package_open(packageOf({})->path().c_str(), &package), KVRM_OK)
      << kvrm_last_error();
  kvrm_package_info info;
  ASSERT_EQ(kvrm_package_get_info(package, &info), KVRM_OK);
  EXPECT_STREQ(info.name, "toy");
  EXPECT_EQ(info.slots, 4);
  kvrm_session_config config{};
  config.threads = 1;
  kvrm_session *session = nullptr;
  ASSERT_EQ(kvrm_session_create(package, &config, &session), KVRM_OK);
  kvrm_package_close(package); // the session keeps it
  std::vector<float> logits(size_t(info.slots) * size_t(info.vocabulary));
  int32_t prompt[] = {1, 2, 3};
  ASSERT_EQ(kvrm_prefill(session, 0, prompt, 3, logits.data()), KVRM_OK);
  int32_t tokens[] = {4, -1, -1, -1};
  ASSERT_EQ(kvrm_decode(session, tokens, logits.data()), KVRM_OK);
  ASSERT_EQ(kvrm_alias(session, 1, 0, 2), KVRM_OK);
  ASSERT_EQ(kvrm_trim(session, 0, 1), KVRM_OK);
  int32_t length = 0;
  ASSERT_EQ(kvrm_length(session, 0, &length), KVRM_OK);
  EXPECT_EQ(length, 1);
  kvrm_session_stats stats;
  ASSERT_EQ(kvrm_session_get_stats(session, &stats), KVRM_OK);
  EXPECT_EQ(stats.active_rows, 1);
  ASSERT_EQ(kvrm_release(session, 0), KVRM_OK);
  kvrm_session_destroy(session);
}

namespace {

struct Told {
  std::vector<int32_t> tokens;
  std::vector<kvrm_finish_reason> ends;
  int64_t time = 0;
};

} // namespace

TEST(CApi, ServesRequests) {
  kvrm_package *package = nullptr;
  ASSERT_EQ(kvrm_package_open(packageOf({})->path().c_str(), &package),
            KVRM_OK);
  kvrm_session_config sessionConfig{};
  sessionConfig.threads = 1;
  sessionConfig.kept_histories = 1;
  kvrm_session *session = nullptr;
  ASSERT_EQ(kvrm_session_create(package, &sessionConfig, &session), KVRM_OK);
  kvrm_package_close(package);

  Told told;
  kvrm_engine_config config{};
  config.queue_limit = 2;
  config.shares_prefixes = 1;
  config.context = &told;
  config.on_token = [](void *context, int64_t, int32_t token) {
    static_cast<Told *>(context)->tokens.push_back(token);
  };
  config.on_finish = [](void *context, const kvrm_result *result) {
    auto *own = static_cast<Told *>(context);
    own->ends.push_back(result->finish);
    EXPECT_GE(result->end, result->arrival);
    if (result->finish == KVRM_FINISH_MAX_TOKENS) {
      EXPECT_EQ(result->token_count, 3u);
    }
  };
  config.now = [](void *context) {
    return ++static_cast<Told *>(context)->time;
  };
  kvrm_engine *engine = nullptr;
  ASSERT_EQ(kvrm_engine_create(session, &config, &engine), KVRM_OK)
      << kvrm_last_error();
  int32_t prompt[] = {1, 2, 3, 4, 5};
  kvrm_request request{};
  request.prompt = prompt;
  request.prompt_count = 5;
  request.max_tokens = 3;
  int64_t id = -1;
  ASSERT_EQ(kvrm_engine_submit(engine, &request, &id), KVRM_OK);
  EXPECT_EQ(id, 0);
  ASSERT_EQ(kvrm_engine_submit(engine, &request, &id), KVRM_OK);
  EXPECT_EQ(kvrm_engine_submit(engine, &request, &id), KVRM_RESOURCE_EXHAUSTED);
  EXPECT_STREQ(kvrm_last_error(),
               "queue full: 2 requests wait, the limit is 2");
  request.max_tokens = 0;
  EXPECT_EQ(kvrm_engine_submit(engine, &request, &id), KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "cannot generate 0 tokens");
  EXPECT_EQ(kvrm_engine_cancel(engine, 1), KVRM_OK);
  EXPECT_EQ(kvrm_engine_cancel(engine, 1), KVRM_NOT_FOUND);
  EXPECT_STREQ(kvrm_last_error(), "request 1 is not here");
  while (!kvrm_engine_is_idle(engine))
    ASSERT_EQ(kvrm_engine_step(engine), KVRM_OK) << kvrm_last_error();
  EXPECT_EQ(told.tokens.size(), 3u);
  EXPECT_EQ(told.ends, (std::vector<kvrm_finish_reason>{
                           KVRM_FINISH_CANCELLED, KVRM_FINISH_MAX_TOKENS}));
  kvrm_engine_stats stats;
  ASSERT_EQ(kvrm_engine_get_stats(engine, &stats), KVRM_OK);
  EXPECT_EQ(stats.submitted, 2);
  EXPECT_EQ(stats.refused, 1);
  EXPECT_EQ(stats.kept, 1);
  kvrm_engine_destroy(engine);

  config.preemption = static_cast<kvrm_preemption>(3);
  EXPECT_EQ(kvrm_engine_create(session, &config, &engine),
            KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "preemption: 3 is outside 0..2");
  EXPECT_EQ(engine, nullptr);
  EXPECT_EQ(kvrm_engine_create(nullptr, &config, &engine),
            KVRM_INVALID_ARGUMENT);
  EXPECT_EQ(kvrm_engine_step(nullptr), KVRM_INVALID_ARGUMENT);
  EXPECT_EQ(kvrm_engine_is_idle(nullptr), 1);
  kvrm_engine_destroy(nullptr);
  kvrm_session_destroy(session);
}

TEST(CApi, AnswersBadInput) {
  kvrm_package *package = nullptr;
  EXPECT_EQ(kvrm_package_open("/nowhere", &package), KVRM_NOT_FOUND);
  EXPECT_STREQ(kvrm_last_error(), "/nowhere: there is no such package");
  EXPECT_EQ(package, nullptr);
  EXPECT_EQ(kvrm_package_open(nullptr, &package), KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "path is null");
  EXPECT_EQ(kvrm_package_open("x", nullptr), KVRM_INVALID_ARGUMENT);
  kvrm_session *session = nullptr;
  EXPECT_EQ(kvrm_session_create(nullptr, nullptr, &session),
            KVRM_INVALID_ARGUMENT);
  EXPECT_EQ(kvrm_decode(nullptr, nullptr, nullptr), KVRM_INVALID_ARGUMENT);
  EXPECT_EQ(kvrm_prefill(nullptr, 0, nullptr, 0, nullptr),
            KVRM_INVALID_ARGUMENT);
  ASSERT_EQ(kvrm_package_open(packageOf({})->path().c_str(), &package),
            KVRM_OK);
  ASSERT_EQ(kvrm_session_create(package, nullptr, &session), KVRM_OK);
  EXPECT_EQ(kvrm_prefill(session, 0, nullptr, 3, nullptr),
            KVRM_INVALID_ARGUMENT);
  int32_t length;
  EXPECT_EQ(kvrm_length(session, 4, &length), KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "slot 4 is outside 0..3");
  EXPECT_STREQ(kvrm_status_name(KVRM_CORRUPT), "corrupt");
  kvrm_session_destroy(session);
  kvrm_session_destroy(nullptr);
  kvrm_package_close(package);
  kvrm_package_close(nullptr);
}
