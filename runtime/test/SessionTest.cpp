//===- SessionTest.cpp - Sessions end to end against float64 ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ToyModel.h"
#include "ToyPackage.h"
#include "kvrm/runtime/host/HostBackend.h"
#include "kvrm/runtime/kvrm.h"
#include "kvrm/runtime/session/CreateDecoder.h"

#include <atomic>
#include <filesystem>
#include <gtest/gtest.h>
#include <map>
#include <random>

using namespace kvrm;

/// Calls of operator new so far; see CountingAllocator.cpp.
extern std::atomic<int64_t> allocations;

//===----------------------------------------------------------------------===//
// Helpers
//===----------------------------------------------------------------------===//

/// One package of each kind, made once and removed at exit.
static const std::string &packageOf(const toy::PackageOptions &options) {
  struct Packages {
    std::map<std::string, std::string> paths;
    ~Packages() {
      for (auto &[key, path] : paths)
        std::filesystem::remove_all(path);
    }
  };
  static Packages made;
  std::string &path =
      made.paths[options.mode + options.schedule + options.transport];
  if (path.empty())
    path = toy::makePackage(options);
  return path;
}

static std::unique_ptr<Decoder> makeDecoder(const toy::PackageOptions &options,
                                            const SessionConfig &config = {}) {
  Expected<std::shared_ptr<const Package>> package =
      Package::load(packageOf(options));
  EXPECT_TRUE(package) << package.status().message();
  Expected<std::unique_ptr<Decoder>> decoder =
      createDecoder(package.take(), config);
  EXPECT_TRUE(decoder) << decoder.status().message();
  return decoder.take();
}

namespace {

/// A session and, beside it, every history in float64.
class Pair {
public:
  Pair(const toy::PackageOptions &options, const SessionConfig &config)
      : session(makeDecoder(options, config)),
        paged(dynamic_cast<Session *>(session.get())),
        out(size_t(toy::slots) * toy::vocabulary) {
    EXPECT_EQ(paged != nullptr, options.mode == "paged");
    // NaN in every place that a step should not read.
    if (paged)
      std::ranges::fill(dynamic_cast<HostBackend &>(paged->backend()).kvPool(),
                        0xff);
  }

  void expectNear(const std::vector<double> &want, const float *got) {
    for (int i = 0; i < toy::vocabulary; ++i)
      ASSERT_NEAR(got[i], want[size_t(i)], 5e-3) << "logit " << i;
  }
  void poison() { std::ranges::fill(out, NAN); }

  void prefill(int slot, const std::vector<int32_t> &tokens) {
    poison();
    Status status = session->prefill(slot, tokens, out.data());
    ASSERT_TRUE(status.isOk()) << status.message();
    std::vector<double> want;
    for (int32_t token : tokens)
      want = references[slot].append(token);
    expectNear(want, out.data());
  }

  void decode(const std::vector<int32_t> &tokens) {
    poison();
    Status status = session->decode(tokens, out.data());
    ASSERT_TRUE(status.isOk()) << status.message();
    for (int slot = 0; slot < toy::slots; ++slot)
      if (tokens[size_t(slot)] >= 0)
        expectNear(references[slot].append(tokens[size_t(slot)]),
                   out.data() + slot * toy::vocabulary);
  }

  void release(int slot) {
    ASSERT_TRUE(session->release(slot).isOk());
    references[slot] = toy::Reference();
  }
  void alias(int target, int source, int tokens) {
    Status status = session->alias(target, source, tokens);
    ASSERT_TRUE(status.isOk()) << status.message();
    references[target] = references[source];
    references[target].trim(tokens);
  }
  void trim(int slot, int length) {
    ASSERT_TRUE(session->trim(slot, length).isOk());
    references[slot].trim(length);
  }
  void checkLengths() {
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_EQ(session->length(slot), references[slot].length);
    if (paged) {
      Status status = paged->blockPager().checkInvariants();
      ASSERT_TRUE(status.isOk()) << status.message();
    }
  }

  std::unique_ptr<Decoder> session;
  Session *paged; ///< null for a static package
  std::vector<float> out;
  toy::Reference references[toy::slots];
};

struct Case {
  toy::PackageOptions options;
  int threads;
  int shares;
};

class Sessions : public testing::TestWithParam<Case> {};

} // namespace

static std::vector<Case> allCases() {
  std::vector<Case> cases;
  for (const char *schedule : {"rows", "split", "workqueue"})
    for (const char *transport : {"native", "staged"})
      for (int threads : {1, 2, 3})
        cases.push_back(
            {{"paged", schedule, transport, 3}, threads, threads == 3 ? 7 : 0});
  cases.push_back({{"static", "rows", "native", 1}, 1, 0});
  cases.push_back({{"static", "rows", "native", 1}, 2, 0});
  return cases;
}

static std::string caseName(const testing::TestParamInfo<Case> &info) {
  return info.param.options.mode + "_" + info.param.options.schedule + "_" +
         info.param.options.transport + "_" +
         std::to_string(info.param.threads);
}

INSTANTIATE_TEST_SUITE_P(All, Sessions, testing::ValuesIn(allCases()),
                         caseName);

TEST_P(Sessions, RandomUseMatchesFloat64) {
  Pair pair(GetParam().options, {0, GetParam().threads, GetParam().shares});
  std::mt19937 random(11);
  auto below = [&](int bound) {
    return static_cast<int>(random() % static_cast<uint32_t>(bound));
  };
  for (int step = 0; step < 250; ++step) {
    int slot = below(toy::slots);
    int length = pair.session->length(slot);
    switch (below(8)) {
    case 0:
      pair.release(slot);
      break;
    case 1:
      pair.trim(slot, below(length + 1));
      break;
    case 2: {
      int source = below(toy::slots);
      if (source == slot)
        break;
      pair.release(slot);
      pair.alias(slot, source, below(pair.session->length(source) + 1));
      break;
    }
    case 3: {
      int count = 1 + below(25);
      if (length + count > toy::capacity)
        break;
      std::vector<int32_t> tokens(static_cast<size_t>(count));
      for (int32_t &token : tokens)
        token = below(50);
      pair.prefill(slot, tokens);
      break;
    }
    default: {
      std::vector<int32_t> tokens(toy::slots, -1);
      for (int i = 0; i < toy::slots; ++i)
        if (below(4) != 0 && pair.session->length(i) < toy::capacity)
          tokens[size_t(i)] = below(50);
      pair.decode(tokens);
      break;
    }
    }
    pair.checkLengths();
    if (HasFatalFailure())
      FAIL() << "step " << step;
  }
}

TEST_P(Sessions, SharedHistoriesPartWhenWritten) {
  Pair pair(GetParam().options, {0, GetParam().threads, GetParam().shares});
  // Ends in the middle of a page, so that whoever writes first needs a copy.
  pair.prefill(0, {1, 2, 3, 4, 5, 6, 7});
  pair.alias(1, 0, 7);
  pair.alias(2, 0, 5);
  bool isPaged = pair.paged;
  pair.decode({8, -1, -1, -1});
  EXPECT_EQ(pair.session->lastStep().pageCopies, isPaged ? 1 : 0);
  pair.decode({9, 10, 11, -1});
  EXPECT_EQ(pair.session->lastStep().pageCopies, isPaged ? 1 : 0)
      << "1 and 2 share the page; the second to write has it alone";
  pair.alias(3, 1, 6);
  pair.prefill(3, {12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22});
  EXPECT_EQ(pair.session->lastStep().pageCopies, isPaged ? 1 : 0);
  pair.decode({23, 24, 25, 26});
  pair.release(0);
  pair.decode({27, 28, 29, 30});
  pair.checkLengths();
}

TEST_P(Sessions, AFullSlotSurvivesTheOthersSteps) {
  Pair pair(GetParam().options, {0, GetParam().threads, GetParam().shares});
  std::vector<int32_t> tokens(toy::capacity, 3);
  pair.prefill(1, tokens);
  pair.prefill(0, {4, 5});
  for (int i = 0; i < 5; ++i)
    pair.decode({6, -1, 9, -1});
  pair.trim(1, toy::capacity - 1);
  pair.decode({-1, 8, -1, -1});
  Status status = pair.session->decode(std::vector<int32_t>{-1, 8, -1, -1},
                                       pair.out.data());
  EXPECT_EQ(status.message(),
            "slot 1: its history of 50 tokens fills the capacity 50");
  pair.checkLengths();
}

TEST_P(Sessions, BadArgumentsAreAnswersAndChangeNothing) {
  Pair pair(GetParam().options, {0, GetParam().threads, GetParam().shares});
  pair.prefill(0, {1, 2, 3});
  Decoder &session = *pair.session;
  float *out = pair.out.data();
  auto prefill = [&](int slot, std::vector<int32_t> tokens) {
    return session.prefill(slot, tokens, out).message();
  };
  EXPECT_EQ(prefill(4, {1}), "slot 4 is outside 0..3");
  EXPECT_EQ(prefill(-1, {1}), "slot -1 is outside 0..3");
  EXPECT_EQ(prefill(0, {}), "slot 0: a prompt has at least one token");
  EXPECT_EQ(prefill(0, {1, 61}), "slot 0: token 61 is outside 0..60");
  EXPECT_EQ(prefill(0, {-1}), "slot 0: token -1 is outside 0..60");
  EXPECT_EQ(prefill(1, std::vector<int32_t>(51, 1)),
            "prompt of 51 tokens exceeds the capacity 50");
  EXPECT_EQ(prefill(0, std::vector<int32_t>(48, 1)),
            "slot 0: 48 tokens after 3 exceed the capacity 50");
  auto decode = [&](std::vector<int32_t> tokens, float *logits) {
    return session.decode(tokens, logits).message();
  };
  EXPECT_EQ(decode({1}, out), "decode: 1 tokens for 4 slots");
  EXPECT_EQ(decode({1, -2, -1, -1}, out), "slot 1: token -2 is outside 0..60");
  EXPECT_EQ(decode({1, -1, -1, -1}, nullptr), "decode: logits are null");
  EXPECT_EQ(decode({-1, -1, -1, -1}, out), "");
  EXPECT_FALSE(session.release(9).isOk());
  EXPECT_FALSE(session.trim(0, 4).isOk());
  EXPECT_FALSE(session.trim(0, -1).isOk());
  EXPECT_FALSE(session.alias(0, 0, 1).isOk());
  EXPECT_FALSE(session.alias(0, 1, 0).isOk());
  EXPECT_FALSE(session.alias(1, 0, 4).isOk());
  pair.checkLengths();
  pair.decode({5, 6, -1, -1});
}

TEST_P(Sessions, StepsDoNotAllocate) {
  std::unique_ptr<Decoder> session = makeDecoder(
      GetParam().options, {0, GetParam().threads, GetParam().shares});
  std::vector<float> out(size_t(toy::slots) * toy::vocabulary);
  std::vector<int32_t> prompt(23, 5);
  std::vector<int32_t> tokens = {1, -1, 2, 3};
  int64_t before = allocations.load();
  for (int round = 0; round < 3; ++round) {
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_TRUE(session->prefill(slot, prompt, nullptr).isOk());
    for (int i = 0; i < 20; ++i)
      ASSERT_TRUE(session->decode(tokens, out.data()).isOk());
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_TRUE(session->release(slot).isOk());
  }
  EXPECT_EQ(allocations.load(), before);
}

TEST(Session, ExhaustionLeavesItAsItWas) {
  // Seven pages of four tokens for four slots.
  Pair pair({}, {7, 2, 0});
  pair.prefill(0, std::vector<int32_t>(12, 1));
  pair.prefill(1, std::vector<int32_t>(8, 2));
  pair.prefill(2, {3, 4, 5, 6});
  Decoder &session = *pair.session;
  EXPECT_EQ(session.freePages(), 1);
  Status status =
      session.decode(std::vector<int32_t>{1, 2, 3, -1}, pair.out.data());
  EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
  EXPECT_EQ(status.message(), "the step needs 3 KV pages, 1 of 7 are free");
  status = session.prefill(3, std::vector<int32_t>(5, 1), pair.out.data());
  EXPECT_EQ(status.code(), StatusCode::ResourceExhausted);
  pair.checkLengths();
  EXPECT_EQ(session.freePages(), 1);
  pair.decode({7, -1, -1, -1});
  pair.release(1);
  pair.decode({7, -1, 8, 9});
  pair.checkLengths();
}

TEST(Session, CodeThatBreaksTheProtocolFailsTheStep) {
  Pair pair({}, {0, 2, 0});
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

TEST(Session, StatsFollowTheStep) {
  Pair pair({"paged", "workqueue", "staged", 1}, {0, 2, 0});
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

TEST(Session, RefusesConfigurationsOutOfRange) {
  Expected<std::shared_ptr<const Package>> package =
      Package::load(packageOf({}));
  ASSERT_TRUE(package) << package.status().message();
  auto message = [&](SessionConfig config) {
    return createDecoder(*package, config).status().message();
  };
  EXPECT_EQ(message({-1, 0, 0}), "pool_pages: -1 is outside 1..16777216");
  EXPECT_EQ(message({0, 257, 0}), "threads: 257 is outside 0..256");
  EXPECT_EQ(message({0, -1, 0}), "threads: -1 is outside 0..256");
  EXPECT_EQ(message({0, 0, -1}), "shares: -1 is outside 0..4096");
  EXPECT_EQ(message({0, 0, 0, -1}), "kept histories: -1 is outside 0..1020");
  EXPECT_EQ(message({0, 0, 0, 0, 1025}),
            "parking places: 1025 is outside 0..1024");
  EXPECT_EQ(message({0, 0, 0, 0, 1, 0}),
            "parking pages: 0 is outside 1..16777216");
}

/// A parked history comes back to any slot, also when it was shared, and when
/// its pages are elsewhere then.
TEST(Session, ParkedHistoriesComeBack) {
  SessionConfig config;
  config.poolPages = 20;
  config.threads = 1;
  config.keptHistories = 1;
  config.parkingPlaces = 2;
  config.parkingPages = 9;
  Expected<std::shared_ptr<const Package>> package =
      Package::load(packageOf({}));
  ASSERT_TRUE(package) << package.status().message();
  std::unique_ptr<Decoder> session = createDecoder(*package, config).take();
  auto vocabulary = static_cast<size_t>(session->vocabulary());
  std::vector<float> expected(vocabulary);
  std::vector<float> logits(vocabulary);
  for (int32_t length : {1, 4, 5, 17, 33}) {
    std::vector<int32_t> prompt(static_cast<size_t>(length));
    for (int32_t i = 0; i < length; ++i)
      prompt[static_cast<size_t>(i)] = (7 * i + length) % 50;
    std::vector<int32_t> next = {9};
    ASSERT_TRUE(session->prefill(0, prompt, nullptr).isOk());
    ASSERT_TRUE(session->alias(4, 0, length).isOk()); // a kept history
    ASSERT_TRUE(session->alias(3, 0, length).isOk());
    ASSERT_TRUE(session->prefill(3, next, expected.data()).isOk());
    ASSERT_TRUE(session->release(3).isOk());
    Status status = session->park(0, 1);
    ASSERT_TRUE(status.isOk()) << status.message();
    EXPECT_EQ(session->length(0), 0);
    ASSERT_TRUE(session->release(4).isOk());
    EXPECT_EQ(session->freePages(), 20);
    // Others take the pages that it had.
    ASSERT_TRUE(session->prefill(1, prompt, nullptr).isOk());
    ASSERT_TRUE(session->unpark(1, 2).isOk());
    EXPECT_EQ(session->length(2), length);
    ASSERT_TRUE(session->prefill(2, next, logits.data()).isOk());
    EXPECT_EQ(logits, expected) << length << " tokens";
    ASSERT_TRUE(session->release(1).isOk());
    ASSERT_TRUE(session->release(2).isOk());
  }

  auto message = [](const Status &status) { return status.message(); };
  std::vector<int32_t> prompt(40, 3);
  EXPECT_EQ(message(session->park(0, 0)), "slot 0 is empty");
  ASSERT_TRUE(session->prefill(0, prompt, nullptr).isOk());
  EXPECT_EQ(message(session->park(4, 0)), "slot 4 is outside 0..3");
  EXPECT_EQ(message(session->park(0, 2)), "parking place 2 is outside 0..1");
  EXPECT_EQ(message(session->park(0, 0)),
            "slot 0: its 10 pages cannot be parked, 9 of 9 are free");
  EXPECT_EQ(session->length(0), 40);
  EXPECT_EQ(message(session->unpark(0, 1)), "parking place 0 is empty");
  EXPECT_EQ(message(session->discard(0)), "parking place 0 is empty");
  ASSERT_TRUE(session->trim(0, 36).isOk());
  ASSERT_TRUE(session->park(0, 0).isOk());
  for (int32_t slot : {1, 2})
    ASSERT_TRUE(session->prefill(slot, prompt, nullptr).isOk());
  EXPECT_EQ(message(session->park(1, 0)), "parking place 0 is taken");
  EXPECT_EQ(message(session->unpark(0, 1)), "slot 1 is not empty");
  EXPECT_EQ(message(session->unpark(0, 0)),
            "the step needs 9 KV pages, 0 of 20 are free");
  ASSERT_TRUE(session->discard(0).isOk());
}

//===----------------------------------------------------------------------===//
// C API
//===----------------------------------------------------------------------===//

TEST(CApi, RunsAPackage) {
  kvrm_package *package = nullptr;
  ASSERT_EQ(kvrm_package_open(packageOf({}).c_str(), &package), KVRM_OK)
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
  ASSERT_EQ(kvrm_package_open(packageOf({}).c_str(), &package), KVRM_OK);
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
  ASSERT_EQ(kvrm_package_open(packageOf({}).c_str(), &package), KVRM_OK);
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
