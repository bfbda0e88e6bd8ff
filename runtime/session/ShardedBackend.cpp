//===- ShardedBackend.cpp - Several backends that are one -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/ShardedBackend.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

using namespace kvrm;

static std::atomic<bool> leftRanks = false;

//===----------------------------------------------------------------------===//
// What ranks are told, and what they answer
//===----------------------------------------------------------------------===//

/// A call as all ranks make it. What it names is copied: a rank that never
/// comes back may look at it when the caller is gone.
struct ShardedBackend::Job {
  enum class Kind { Create, CopyPage, MovePages, CollapsePage, Step, Await };

  Kind kind = Kind::Create;
  PageCopy copy;
  std::vector<PageRun> runs;
  MoveDirection direction = MoveDirection::ToParking;
  // Of a page that collapses.
  int32_t source = -1;
  std::vector<SummaryWrite> writes;
  std::vector<int32_t> summaries;
  bool isFirst = false;
  // Of a step. Its ranks' descriptors have the plan.
  StepEntry entry = StepEntry::Decode;
  std::array<bool, plannedEntries> hasDescriptor{};
  int32_t schedule = 0;
  bool wantsLogits = false;
  bool wantsTokens = false;
  bool isLater = false;

  /// Whether the ranks of it wait for one another.
  bool isTogether() const { return kind == Kind::Create || isStep(); }
  bool isStep() const { return kind == Kind::Step || kind == Kind::Await; }
};

/// Where the job is, shared by the ranks' threads and whoever calls.
struct ShardedBackend::Board {
  std::shared_ptr<RankGroup> group;
  MakeRank makeRank;
  Job job; ///< not written while ranks are at it

  std::mutex mutex;
  std::condition_variable started, ended;
  uint64_t jobs = 0; ///< that were given
  int32_t pending = 0;
  bool isOver = false;
  Status first; ///< the failure that came first
};

//===----------------------------------------------------------------------===//
// Ranks
//===----------------------------------------------------------------------===//

class ShardedBackend::Rank {
public:
  Rank(int32_t index, std::shared_ptr<Board> board)
      : index(index), board(std::move(board)) {}

  /// What the rank's thread does: each job once, until there are no more.
  void work();

  int32_t index;
  std::shared_ptr<Board> board;
  std::unique_ptr<Backend> backend;
  /// Those that its backend commits, which follow the session's.
  std::vector<StepDescriptor> descriptors;
  std::vector<float> logits;
  std::vector<int32_t> tokens;
  BackendStats stats;

private:
  Status perform(const Job &job);
  Status runStep(const Job &job);
};

void ShardedBackend::Rank::work() {
  Board &shared = *board;
  std::unique_lock lock(shared.mutex);
  for (uint64_t done = 0;; ++done) {
    shared.started.wait(lock,
                        [&] { return shared.jobs > done || shared.isOver; });
    if (shared.isOver)
      break;
    lock.unlock();
    Status status = perform(shared.job);
    lock.lock();
    if (!status.isOk() && shared.first.isOk())
      shared.first =
          makeError(status.code(), "rank ", index, ": ", status.message());
    // Nobody is to wait for a rank that has failed.
    if (!status.isOk() && shared.job.isTogether()) {
      lock.unlock();
      shared.group->abort();
      lock.lock();
    }
    if (--shared.pending == 0)
      shared.ended.notify_all();
  }
  lock.unlock();
  backend.reset();
}

Status ShardedBackend::Rank::perform(const Job &job) {
  switch (job.kind) {
  case Job::Kind::Create: {
    Expected<std::unique_ptr<Backend>> made = board->makeRank(index);
    KVRM_TRY(made.status());
    backend = made.take();
    return Status::ok();
  }
  case Job::Kind::CopyPage:
    return backend->copyPage(job.copy);
  case Job::Kind::MovePages:
    return backend->movePages(job.runs, job.direction);
  case Job::Kind::CollapsePage:
    return backend->collapsePage({.source = job.source,
                                  .writes = job.writes,
                                  .summaries = job.summaries,
                                  .isFirst = job.isFirst});
  case Job::Kind::Step:
    return runStep(job);
  case Job::Kind::Await:
    return backend->awaitStep(tokens);
  }
  KVRM_CHECK(false, "a kind of job");
  return Status::ok();
}

Status ShardedBackend::Rank::runStep(const Job &job) {
  std::array<StepDescriptor *, plannedEntries> batches{};
  size_t count = 0;
  for (size_t i = 0; i < plannedEntries; ++i)
    if (job.hasDescriptor[i])
      batches[count++] = &descriptors[i];
  // Compiled code of a CPU writes logits whether they are wanted or not.
  bool isMain = index == 0;
  bool hasLogits = !logits.empty() && (job.wantsLogits || !isMain);
  BackendStep step;
  step.entry = job.entry;
  step.descriptors = std::span(batches).first(count);
  step.schedule = job.schedule;
  step.logits = hasLogits ? logits.data() : nullptr;
  step.next = isMain && job.wantsTokens ? tokens.data() : nullptr;
  step.isLater = job.isLater;
  return backend->runStep(step, stats);
}

//===----------------------------------------------------------------------===//
// Jobs
//===----------------------------------------------------------------------===//

/// To be filled in while the ranks can go on; those that cannot may read it.
ShardedBackend::Job &ShardedBackend::newJob() { return board->job; }

/// Has all ranks do the board's job, and waits for them.
Status ShardedBackend::run(bool isBounded) {
  bool isTogether = board->job.isTogether();
  std::unique_lock lock(board->mutex);
  board->first = Status::ok();
  board->pending = ranks();
  ++board->jobs;
  board->started.notify_all();
  auto areDone = [&] { return board->pending == 0; };
  if (!isBounded) {
    board->ended.wait(lock, areDone);
  } else if (!board->ended.wait_for(lock, bounds.timeout, areDone)) {
    if (board->first.isOk())
      board->first = makeError(StatusCode::IoError, board->pending, " of ",
                               ranks(), " ranks did not answer within ",
                               bounds.timeout.count(), " ms");
    lost = board->first;
    lock.unlock();
    board->group->abort();
    lock.lock();
    board->ended.wait_for(lock, bounds.timeout, areDone);
  }
  if (isTogether && !board->first.isOk())
    lost = board->first;
  return board->first;
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

ShardedBackend::ShardedBackend(const RankShape &shape)
    : bounds(shape), board(std::make_shared<Board>()) {}

/// What the ranks have in common, once they are there.
Status ShardedBackend::join() {
  const BackendInfo &first = members.front()->backend->info();
  facts = first;
  facts.pageBytes = 0;
  for (const std::shared_ptr<Rank> &member : members) {
    const BackendInfo &other = member->backend->info();
    for (size_t i = 0; i < plannedEntries; ++i)
      if (other.entries[i].shares != first.entries[i].shares ||
          other.entries[i].schedules != first.entries[i].schedules ||
          other.device != first.device)
        return makeError(StatusCode::Incompatible, "rank ", member->index,
                         " runs on another kind of device than rank 0: ",
                         other.device, ", not ", first.device);
    facts.pageBytes += other.pageBytes;
  }
  for (const std::shared_ptr<Rank> &member : members)
    for (size_t i = 0; i < plannedEntries; ++i) {
      PlanShape plan = bounds.plans[i];
      plan.shares = first.entries[i].shares;
      Expected<PlanCapacity> room = Planner::capacityOf(plan);
      KVRM_TRY(room.status());
      Expected<StepDescriptor> descriptor =
          StepDescriptor::create(room->limits);
      KVRM_TRY(descriptor.status());
      member->descriptors.push_back(descriptor.take());
    }
  return takeOutputs();
}

/// Room for the logits and tokens of every row that a step can have.
Status ShardedBackend::takeOutputs() {
  size_t rows = 0;
  for (const PlanShape &plan : bounds.plans)
    rows += static_cast<size_t>(plan.rows);
  for (const std::shared_ptr<Rank> &member : members) {
    member->tokens.resize(rows);
    if (member->index == 0 || !facts.choosesTokens)
      member->logits.resize(rows * static_cast<size_t>(bounds.vocabulary));
  }
  return Status::ok();
}

Expected<std::unique_ptr<ShardedBackend>>
ShardedBackend::create(const RankShape &shape, std::shared_ptr<RankGroup> group,
                       MakeRank makeRank) {
  KVRM_TRY(checkRange("ranks", shape.ranks, 1, KVRM_MAX_RANKS));
  KVRM_CHECK(group && makeRank, "ranks have a group and are made");
  std::unique_ptr<ShardedBackend> backend(new ShardedBackend(shape));
  backend->board->group = std::move(group);
  backend->board->makeRank = std::move(makeRank);
  for (int32_t rank = 0; rank < shape.ranks; ++rank) {
    backend->members.push_back(std::make_shared<Rank>(rank, backend->board));
    backend->threads.emplace_back(
        [member = backend->members.back()] { member->work(); });
  }
  backend->newJob().kind = Job::Kind::Create;
  Status made = backend->run(/*isBounded=*/false);
  backend->board->makeRank = nullptr;
  KVRM_TRY(made);
  KVRM_TRY(backend->join());
  return backend;
}

ShardedBackend::~ShardedBackend() {
  bool areDone = false;
  {
    std::lock_guard lock(board->mutex);
    board->isOver = true;
    areDone = board->pending == 0;
    board->started.notify_all();
  }
  // A rank that has not come back has its thread, and all it owns, for good.
  if (!areDone)
    leftRanks = true;
  for (std::thread &thread : threads)
    areDone ? thread.join() : thread.detach();
}

bool ShardedBackend::hasLeftRanks() { return leftRanks; }

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

Status ShardedBackend::copyPage(const PageCopy &copy) {
  KVRM_TRY(lost);
  Job &job = newJob();
  job.kind = Job::Kind::CopyPage;
  job.copy = copy;
  return run();
}

Status ShardedBackend::movePages(std::span<const PageRun> runs,
                                 MoveDirection direction) {
  KVRM_TRY(lost);
  Job &job = newJob();
  job.kind = Job::Kind::MovePages;
  job.runs.assign(runs.begin(), runs.end());
  job.direction = direction;
  return run();
}

Status ShardedBackend::collapsePage(const PageCollapse &collapse) {
  KVRM_TRY(lost);
  Job &job = newJob();
  job.kind = Job::Kind::CollapsePage;
  job.source = collapse.source;
  job.writes.assign(collapse.writes.begin(), collapse.writes.end());
  job.summaries.assign(collapse.summaries.begin(), collapse.summaries.end());
  job.isFirst = collapse.isFirst;
  return run();
}

Status ShardedBackend::runStep(const BackendStep &step, BackendStats &stats) {
  KVRM_TRY(lost);
  Job &job = newJob();
  job.kind = Job::Kind::Step;
  job.entry = step.entry;
  job.schedule = step.schedule;
  job.wantsLogits = step.logits != nullptr;
  job.wantsTokens = step.next != nullptr;
  job.isLater = step.isLater;
  job.hasDescriptor.fill(false);
  bool isMixed = step.entry == StepEntry::Mixed;
  size_t rows = 0;
  for (size_t i = 0; i < step.descriptors.size(); ++i) {
    size_t index = isMixed ? i : static_cast<size_t>(step.entry);
    job.hasDescriptor[index] = true;
    // Not by the ranks themselves: one that does not come back would read what
    // the session plans later.
    for (const std::shared_ptr<Rank> &member : members)
      member->descriptors[index].follow(*step.descriptors[i]);
    rows += static_cast<size_t>(step.descriptors[i]->limits().rows);
  }
  Status status = run();
  // Whatever became of it, each rank has the plan.
  for (StepDescriptor *descriptor : step.descriptors)
    descriptor->commitFollowed();
  KVRM_TRY(status);
  Rank &main = *members.front();
  if (step.logits)
    std::copy_n(main.logits.data(),
                rows * static_cast<size_t>(bounds.vocabulary), step.logits);
  if (step.next)
    std::copy_n(main.tokens.data(), rows, step.next);
  stats = main.stats;
  return Status::ok();
}

Status ShardedBackend::awaitStep(std::span<int32_t> next) {
  KVRM_TRY(lost);
  newJob().kind = Job::Kind::Await;
  KVRM_TRY(run());
  KVRM_CHECK(next.size() <= members.front()->tokens.size(), "rows of a step");
  std::copy_n(members.front()->tokens.data(), next.size(), next.begin());
  return Status::ok();
}
