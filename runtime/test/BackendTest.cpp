//===- BackendTest.cpp - Sessions over backends that fail -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeBackend.h"
#include "PolicyConstants.h"
#include "kvrm/runtime/session/Session.h"

#include <array>
#include <functional>
#include <gtest/gtest.h>
#include <numeric>
#include <utility>

using namespace kvrm;
using namespace kvrm::test;

static constexpr int32_t slots = 4;
static constexpr int32_t pageTokens = 4;

static PlanShape planShape(int32_t rows, int32_t queries, int32_t summaries) {
  return {.rows = rows,
          .queries = queries,
          .kvHeads = 1,
          .qTile = queries,
          .kvTile = 8,
          .pageTokens = pageTokens,
          .pagesPerSlot = 10,
          .schedule = KVRM_SCHEDULE_WORKQUEUE,
          .summaries = summaries};
}

static SessionShape sessionShape(bool isFar) {
  SessionShape shape;
  shape.slots = slots;
  shape.capacity = 40;
  shape.vocabulary = FakeBackend::vocabulary;
  if (isFar) {
    shape.window = 8;
    shape.sinks = 2;
  } else {
    shape.keptHistories = 2;
    shape.parkingPlaces = 2;
  }
  int32_t summaries = isFar ? 8 : 0;
  shape.entries = {planShape(slots, 1, summaries), planShape(1, 5, summaries)};
  return shape;
}

namespace {

/// What a call that fails may not change.
struct State {
  std::vector<int32_t> lengths;
  std::vector<std::vector<int32_t>> pages;
  int32_t freePages = 0;
  int32_t collapsed = 0; ///< tokens of all slots
  StepStats last;
};

/// A session over a backend that may fail once, and the tokens of each history.
class Failing {
public:
  Failing(bool isFar, int64_t call, bool worksFirst) : isFar(isFar) {
    auto backend = std::make_unique<FakeBackend>(40, 16, pageTokens);
    fake = backend.get();
    fake->failAt(call, worksFirst);
    Expected<std::unique_ptr<Session>> created =
        Session::create(sessionShape(isFar), std::move(backend));
    EXPECT_TRUE(created) << created.status().message();
    session = created.take();
    histories.resize(size_t(session->shape().histories));
  }

  State state() const {
    State now;
    for (int32_t i = 0; i < session->shape().histories; ++i) {
      now.lengths.push_back(session->length(i));
      std::span<const int32_t> pages = session->blockPager().pages(i);
      now.pages.emplace_back(pages.begin(), pages.end());
      if (isFar)
        now.collapsed += session->farHistory()->collapsed(i);
    }
    now.freePages = session->freePages();
    now.last = session->lastStep();
    return now;
  }

  /// Calls, and once more if the backend failed.
  void run(const char *what, const std::function<Status()> &call) {
    SCOPED_TRACE(what);
    State before = state();
    Status status = call();
    if (status.isOk())
      return;
    ++failures;
    EXPECT_EQ(status.message(), "injected");
    State after = state();
    EXPECT_EQ(after.lengths, before.lengths);
    // What had to collapse stays so, in other pages.
    if (after.collapsed == before.collapsed) {
      EXPECT_EQ(after.pages, before.pages);
      EXPECT_EQ(after.freePages, before.freePages);
    }
    EXPECT_EQ(after.last.steps, before.last.steps);
    EXPECT_EQ(after.last.stepNanoseconds, before.last.stepNanoseconds);
    checkInvariants();
    status = call();
    EXPECT_TRUE(status.isOk()) << status.message();
  }

  void prefill(int32_t slot, int32_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    std::iota(tokens.begin(), tokens.end(), nextToken);
    nextToken += count;
    std::vector<float> logits(FakeBackend::vocabulary);
    run("prefill",
        [&] { return session->prefill(slot, tokens, logits.data()); });
    std::vector<int32_t> &history = histories[size_t(slot)];
    history.insert(history.end(), tokens.begin(), tokens.end());
    expectLogits(slot, logits.data());
  }

  void decode(const std::vector<int32_t> &active) {
    std::vector<int32_t> tokens(slots, -1);
    for (int32_t slot : active)
      tokens[size_t(slot)] = nextToken++;
    std::vector<float> logits(size_t(slots) * FakeBackend::vocabulary);
    run("decode", [&] { return session->decode(tokens, logits.data()); });
    for (int32_t slot : active) {
      histories[size_t(slot)].push_back(tokens[size_t(slot)]);
      expectLogits(slot, logits.data() + slot * FakeBackend::vocabulary);
    }
  }

  void mixedStep(const std::vector<int32_t> &active, int32_t slot,
                 int32_t count) {
    std::vector<int32_t> tokens(slots, -1);
    for (int32_t each : active)
      tokens[size_t(each)] = nextToken++;
    std::vector<int32_t> prompt(static_cast<size_t>(count));
    std::iota(prompt.begin(), prompt.end(), nextToken);
    nextToken += count;
    std::vector<float> logits(size_t(slots + 1) * FakeBackend::vocabulary);
    run("mixed step", [&] {
      return session->mixedStep(tokens, slot, prompt, logits.data());
    });
    for (int32_t each : active) {
      histories[size_t(each)].push_back(tokens[size_t(each)]);
      expectLogits(each, logits.data() + each * FakeBackend::vocabulary);
    }
    std::vector<int32_t> &history = histories[size_t(slot)];
    history.insert(history.end(), prompt.begin(), prompt.end());
    expectLogits(slot, logits.data() + slots * FakeBackend::vocabulary);
  }

  void alias(int32_t target, int32_t source, int32_t tokens) {
    ASSERT_TRUE(session->alias(target, source, tokens).isOk());
    const std::vector<int32_t> &from = histories[size_t(source)];
    histories[size_t(target)].assign(from.begin(), from.begin() + tokens);
  }
  void park(int32_t slot, int32_t place) {
    run("park", [&] { return session->park(slot, place); });
    parked[size_t(place)] = std::exchange(histories[size_t(slot)], {});
  }
  void unpark(int32_t place, int32_t slot) {
    run("unpark", [&] { return session->unpark(place, slot); });
    histories[size_t(slot)] = std::exchange(parked[size_t(place)], {});
  }
  void release(int32_t history) {
    ASSERT_TRUE(session->release(history).isOk());
    histories[size_t(history)].clear();
  }

  void checkInvariants() {
    Status status = session->blockPager().checkInvariants();
    EXPECT_TRUE(status.isOk()) << status.message();
    if (isFar) {
      status = session->farHistory()->checkInvariants();
      EXPECT_TRUE(status.isOk()) << status.message();
    }
  }

  void expectLogits(int32_t slot, const float *logits) {
    std::span<const int32_t> history = histories[size_t(slot)];
    auto gone = size_t(isFar ? session->farHistory()->collapsed(slot) : 0);
    EXPECT_EQ(logits[0], float(FakeBackend::hash(history.subspan(gone))))
        << "slot " << slot;
    EXPECT_NEAR(logits[1], std::accumulate(history.begin(), history.end(), 0.0),
                0.1)
        << "slot " << slot;
  }

  bool isFar;
  FakeBackend *fake;
  std::unique_ptr<Session> session;
  std::vector<std::vector<int32_t>> histories;
  std::array<std::vector<int32_t>, 2> parked;
  int32_t nextToken = 1;
  int32_t failures = 0;
};

} // namespace

/// Shared pages that part, prompts of several chunks, parking in pieces.
static void sharedHistories(Failing &f) {
  f.prefill(0, 7);
  f.alias(1, 0, 7);
  f.alias(2, 0, 5);
  f.alias(4, 0, 7);
  f.decode({0});
  f.decode({0, 1, 2});
  f.alias(3, 1, 6);
  f.prefill(3, 13);
  f.mixedStep({0, 2}, 3, 5);
  f.park(0, 1);
  f.prefill(0, 6);
  f.release(4);
  f.decode({0, 1, 2, 3});
  f.park(3, 0);
  f.release(0);
  f.unpark(1, 0);
  f.unpark(0, 3);
  f.decode({0, 1, 2, 3});
}

/// Histories that collapse, alone and shared, at once and page by page.
static void farHistories(Failing &f) {
  f.prefill(0, 7);
  f.alias(1, 0, 7);
  f.prefill(2, 23);
  for (int step = 0; step < 12; ++step)
    f.decode({0, 1, 2});
  f.mixedStep({0, 2}, 3, 4);
  f.mixedStep({1, 2}, 3, 5);
  f.mixedStep({1, 2, 0}, 3, 5);
  f.prefill(0, 3);
  f.decode({0, 1, 2, 3});
}

static void failEachCallOnce(bool isFar, void (*scenario)(Failing &),
                             const std::vector<std::string> &names) {
  Failing whole(isFar, /*call=*/0, /*worksFirst=*/false);
  scenario(whole);
  EXPECT_EQ(whole.failures, 0);
  for (const std::string &name : names)
    EXPECT_GT(whole.fake->callsByName().count(name), 0u) << name;
  for (int64_t call = 1; call <= whole.fake->calls(); ++call)
    for (bool worksFirst : {false, true}) {
      SCOPED_TRACE("call " + std::to_string(call));
      Failing f(isFar, call, worksFirst);
      scenario(f);
      EXPECT_EQ(f.failures, 1);
      f.checkInvariants();
      if (testing::Test::HasFailure())
        return;
    }
}

TEST(Backend, AnyCallMayFailOnce) {
  failEachCallOnce(false, sharedHistories,
                   {"copyPage", "movePages", "prefill", "decode", "mixed"});
}

TEST(Backend, AnyCallMayFailOnceWithFarHistory) {
  failEachCallOnce(true, farHistories,
                   {"copyPage", "collapsePage", "prefill", "decode", "mixed"});
}

TEST(Backend, ThePolicyChoosesInTheSession) {
  auto makePolicy = [] {
    return SchedulePolicy::create(testShape(), testCosts(), slots).take();
  };
  auto backend = std::make_unique<FakeBackend>(
      40, 0, pageTokens, std::vector<int32_t>{0, 1, 2, 4, 8});
  FakeBackend &fake = *backend;
  SessionShape shape = sessionShape(false);
  shape.parkingPlaces = 0;
  Session::Policies policies;
  policies[static_cast<size_t>(StepEntry::Decode)] = makePolicy();
  std::unique_ptr<Session> session =
      Session::create(shape, std::move(backend), std::move(policies)).take();
  std::vector<float> logits(size_t(slots) * FakeBackend::vocabulary);
  std::vector<int32_t> prompt(17, 3);
  ASSERT_TRUE(session->prefill(1, prompt, nullptr).isOk());
  EXPECT_EQ(fake.lastSchedule(), SchedulePolicy::workqueue)
      << "there are no constants for prefill";
  ASSERT_TRUE(
      session->decode(std::vector<int32_t>{-1, 3, -1, -1}, logits.data())
          .isOk());
  SchedulePolicy same = makePolicy();
  std::vector<int32_t> lengths = {0, 18, 0, 0};
  int32_t choice = same.choose(lengths);
  EXPECT_NE(choice, SchedulePolicy::workqueue);
  EXPECT_EQ(fake.lastSchedule(), choice);
  EXPECT_EQ(session->lastStep().schedule, choice);
}
