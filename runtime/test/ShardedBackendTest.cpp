//===- ShardedBackendTest.cpp - Several backends that are one -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeBackend.h"

#include "kvrm/runtime/host/HostGroup.h"
#include "kvrm/runtime/session/Session.h"
#include "kvrm/runtime/session/ShardedBackend.h"

#include <atomic>
#include <gtest/gtest.h>
#include <thread>

using namespace kvrm;
using namespace kvrm::test;
using std::chrono::milliseconds;

//===----------------------------------------------------------------------===//
// HostGroup
//===----------------------------------------------------------------------===//

/// Runs `call` for each rank, all at once.
template <typename Call> static std::vector<Status> onRanks(int n, Call call) {
  std::vector<Status> results(static_cast<size_t>(n));
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < n; ++rank)
    threads.emplace_back(
        [&, rank] { results[static_cast<size_t>(rank)] = call(rank); });
  threads.clear();
  return results;
}

TEST(HostGroup, AddsUpAndGathersAgainAndAgain) {
  constexpr int ranks = 3, count = 1000, rounds = 50;
  HostGroup group(ranks);
  auto valueOf = [](int rank, int round, int i) {
    return static_cast<float>(rank * 7 + round * 3 + i % 13);
  };
  std::vector<Status> results = onRanks(ranks, [&](int rank) -> Status {
    std::vector<float> in(count), sum(count), all(count * ranks);
    for (int round = 0; round < rounds; ++round) {
      for (int i = 0; i < count; ++i)
        in[size_t(i)] = valueOf(rank, round, i);
      KVRM_TRY(group.allReduce(rank, in.data(), sum.data(), count));
      KVRM_TRY(group.allGather(rank, in.data(), all.data(), count));
      for (int i = 0; i < count; ++i) {
        float want = 0;
        for (int other = 0; other < ranks; ++other) {
          want += valueOf(other, round, i);
          if (all[size_t(other) * count + size_t(i)] !=
              valueOf(other, round, i))
            return invalidArgument("gathered ", i, " of rank ", other);
        }
        if (sum[size_t(i)] != want)
          return invalidArgument("sum ", i, " on rank ", rank);
      }
    }
    return Status::ok();
  });
  for (const Status &status : results)
    EXPECT_TRUE(status.isOk()) << status.message();
}

TEST(HostGroup, RefusesRanksThatDisagree) {
  HostGroup group(2);
  std::vector<float> in(8), out(16);
  for (const Status &status : onRanks(2, [&](int rank) {
         return group.allReduce(rank, in.data(), out.data() + 8 * rank,
                                4 + rank);
       }))
    EXPECT_EQ(status.message(), "ranks meet with different collectives");
}

TEST(HostGroup, AbortLetsGoWhoWaits) {
  HostGroup group(2);
  std::vector<float> in(4), out(4);
  Status status;
  std::jthread waits(
      [&] { status = group.allReduce(0, in.data(), out.data(), 4); });
  std::this_thread::sleep_for(milliseconds(20));
  group.abort();
  waits.join();
  EXPECT_EQ(status.message(), "another rank failed");
  EXPECT_FALSE(group.allGather(1, in.data(), out.data(), 4).isOk());
}

//===----------------------------------------------------------------------===//
// ShardedBackend
//===----------------------------------------------------------------------===//

static constexpr int32_t slots = 4;
static constexpr int32_t pageTokens = 4;

static PlanShape planShape(int32_t rows, int32_t queries) {
  return {.rows = rows,
          .queries = queries,
          .kvHeads = 1,
          .qTile = queries,
          .kvTile = 8,
          .pageTokens = pageTokens,
          .pagesPerSlot = 10,
          .schedule = KVRM_SCHEDULE_WORKQUEUE};
}

static SessionShape sessionShape() {
  SessionShape shape;
  shape.slots = slots;
  shape.capacity = 40;
  shape.vocabulary = FakeBackend::vocabulary;
  shape.keptHistories = 2;
  shape.parkingPlaces = 2;
  shape.entries = {planShape(slots, 1), planShape(1, 5)};
  return shape;
}

namespace {

/// A rank that meets the others in each step, and may be stuck in one.
class MeetingBackend final : public Backend {
public:
  MeetingBackend(int32_t rank, std::shared_ptr<HostGroup> group)
      : rank(rank), group(std::move(group)) {}

  const BackendInfo &info() const override { return fake.info(); }
  Status copyPage(const PageCopy &copy) override { return fake.copyPage(copy); }
  Status movePages(std::span<const PageRun> runs,
                   MoveDirection direction) override {
    return fake.movePages(runs, direction);
  }
  Status collapsePage(const PageCollapse &collapse) override {
    return fake.collapsePage(collapse);
  }
  Status runStep(const BackendStep &step, BackendStats &stats) override {
    while (isStuck)
      std::this_thread::sleep_for(milliseconds(1));
    KVRM_TRY(fake.runStep(step, stats));
    float in = 1, out = 0;
    KVRM_TRY(group->allReduce(rank, &in, &out, 1));
    return out == float(group->ranks()) ? Status::ok()
                                        : invalidArgument("met too few");
  }

  int32_t rank;
  std::shared_ptr<HostGroup> group;
  FakeBackend fake{40, 16, pageTokens};
  std::atomic<bool> isStuck = false;
};

/// A session over ranks, and what they are.
struct Ranks {
  explicit Ranks(int32_t count, milliseconds timeout = milliseconds(20000)) {
    auto group = std::make_shared<HostGroup>(count);
    members.resize(static_cast<size_t>(count));
    RankShape shape;
    shape.ranks = count;
    shape.plans = sessionShape().entries;
    shape.vocabulary = FakeBackend::vocabulary;
    shape.timeout = timeout;
    Expected<std::unique_ptr<ShardedBackend>> backend = ShardedBackend::create(
        shape, group,
        [&, group](int32_t rank) -> Expected<std::unique_ptr<Backend>> {
          auto made = std::make_unique<MeetingBackend>(rank, group);
          members[static_cast<size_t>(rank)] = made.get();
          return std::unique_ptr<Backend>(std::move(made));
        });
    EXPECT_TRUE(backend) << backend.status().message();
    pageBytes = (*backend)->info().pageBytes;
    Expected<std::unique_ptr<Session>> made =
        Session::create(sessionShape(), backend.take());
    EXPECT_TRUE(made) << made.status().message();
    session = made.take();
  }

  std::vector<MeetingBackend *> members;
  std::unique_ptr<Session> session;
  int64_t pageBytes = 0;
};

} // namespace

static std::vector<float> roomForLogits() {
  return std::vector<float>(size_t(slots) * FakeBackend::vocabulary);
}

/// What a session answers to some calls of every kind.
static std::vector<float> answersOf(Session &session) {
  std::vector<float> all, logits = roomForLogits();
  auto keep = [&](const Status &status) {
    EXPECT_TRUE(status.isOk()) << status.message();
    all.insert(all.end(), logits.begin(), logits.end());
  };
  std::vector<int32_t> prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
  keep(session.prefill(0, prompt, logits.data()));
  EXPECT_TRUE(session.alias(1, 0, 11).isOk());
  for (int32_t i = 0; i < 6; ++i)
    keep(session.decode(std::vector<int32_t>{i, i + 7, -1, -1}, logits.data()));
  EXPECT_TRUE(session.park(0, 0).isOk());
  EXPECT_TRUE(session.unpark(0, 2).isOk());
  keep(session.decode(std::vector<int32_t>{-1, 8, 9, -1}, logits.data()));
  return all;
}

TEST(ShardedBackend, AnswersAsOneBackend) {
  Expected<std::unique_ptr<Session>> alone = Session::create(
      sessionShape(), std::make_unique<FakeBackend>(40, 16, pageTokens));
  ASSERT_TRUE(alone) << alone.status().message();
  std::vector<float> want = answersOf(**alone);
  for (int32_t count : {1, 2, 5}) {
    Ranks ranks(count);
    EXPECT_EQ(answersOf(*ranks.session), want) << count << " ranks";
    EXPECT_EQ(ranks.pageBytes, count * ranks.members[0]->info().pageBytes);
    for (MeetingBackend *member : ranks.members)
      EXPECT_EQ(member->fake.calls(), ranks.members[0]->fake.calls());
  }
}

/// Nobody else waits for a call that only one rank fails, and that moves pages.
TEST(ShardedBackend, PagesThatOneRankCannotMoveStay) {
  Ranks ranks(3);
  std::vector<float> logits = roomForLogits();
  std::vector<int32_t> prompt = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(ranks.session->prefill(0, prompt, logits.data()).isOk());
  FakeBackend &fake = ranks.members[2]->fake;
  fake.failAt(fake.calls() + 1, /*worksFirst=*/true);
  Status status = ranks.session->park(0, 0);
  EXPECT_EQ(status.message().find("rank 2: "), 0u) << status.message();
  EXPECT_EQ(ranks.session->length(0), 6);
  EXPECT_TRUE(ranks.session->park(0, 0).isOk());
}

TEST(ShardedBackend, StepThatOneRankFailsEndsOnAll) {
  Ranks ranks(3);
  std::vector<float> logits = roomForLogits();
  std::vector<int32_t> tokens = {1, 2, -1, -1};
  ASSERT_TRUE(ranks.session->decode(tokens, logits.data()).isOk());
  FakeBackend &fake = ranks.members[1]->fake;
  fake.failAt(fake.calls() + 1, /*worksFirst=*/false);
  Status status = ranks.session->decode(tokens, logits.data());
  EXPECT_EQ(status.message().find("rank 1: "), 0u) << status.message();
  EXPECT_EQ(ranks.session->length(0), 1);
  EXPECT_EQ(ranks.session->decode(tokens, logits.data()).message(),
            status.message());
}

TEST(ShardedBackend, RankThatNeverComesBackIsLeftBehind) {
  auto ranks = std::make_unique<Ranks>(2, milliseconds(50));
  std::vector<float> logits = roomForLogits();
  std::vector<int32_t> tokens = {1, 2, -1, -1};
  ASSERT_TRUE(ranks->session->decode(tokens, logits.data()).isOk());
  MeetingBackend *stuck = ranks->members[1];
  stuck->isStuck = true;
  Status status = ranks->session->decode(tokens, logits.data());
  EXPECT_EQ(status.message(), "2 of 2 ranks did not answer within 50 ms");
  EXPECT_EQ(ranks->session->length(0), 1);
  // It runs a step of its own copy of the plan, whoever has gone.
  EXPECT_FALSE(ShardedBackend::hasLeftRanks());
  ranks.reset();
  EXPECT_TRUE(ShardedBackend::hasLeftRanks());
  stuck->isStuck = false;
  std::this_thread::sleep_for(milliseconds(20));
}
